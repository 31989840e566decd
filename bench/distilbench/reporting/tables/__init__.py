"""The tables of a report, each made from frames of records and from verdicts."""
