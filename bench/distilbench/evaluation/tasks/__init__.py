"""Tasks: by name, from a mirror or the user's own files, and what of the training text they overlap with.

It must not know how a model is scored on them."""
