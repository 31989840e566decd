"""Students on the dev pairs while they train: their scores, and where they lie on the information plane."""
