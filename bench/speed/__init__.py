"""How fast this is, beside what people use: measured side by side, in one run, on the user's machine."""
