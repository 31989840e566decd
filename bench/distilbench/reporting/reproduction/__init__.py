"""A study's order of methods beside those of published tables."""
