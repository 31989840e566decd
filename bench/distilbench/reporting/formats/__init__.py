"""Tables and pages in the formats of files."""
