"""Trackers: where a run's curve, ledger and scores are shown while it goes on, beside its record. Off by default.

A tracker knows names and numbers, nothing of methods or models; whatever goes wrong with one costs no run.
"""
