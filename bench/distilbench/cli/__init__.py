"""The command line: one file a verb, each with its options and what they do.

Nothing imports it."""
