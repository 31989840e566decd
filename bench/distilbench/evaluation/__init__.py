"""Scores of one model through MTEB, and what is said of its vectors beside them. No other room imports mteb.

It must not know how a student was trained or which study asks."""
