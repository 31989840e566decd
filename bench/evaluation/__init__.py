"""Scoring through MTEB. Nothing outside this package imports mteb."""
