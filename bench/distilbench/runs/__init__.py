"""A study's runs: refused, planned, prepared, executed, tuned, exported.

It must not know what a report or a gate makes of their records."""
