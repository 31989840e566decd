"""What the designs of a study found: ablations, tuning by dev scores, dev scores along a run. Pure functions."""
