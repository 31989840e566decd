"""The sections of a study file: their keys, defaults and limits. `distilbench.study.study` puts them together.

They must not know what is done with their values.
"""
