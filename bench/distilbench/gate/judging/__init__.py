"""How the gate judges: differences of both sides' runs, one family of them, and how often the judge is wrong."""
