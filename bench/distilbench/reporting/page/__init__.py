"""The page of a study: one file that needs nothing beside it, from one template, one style and one script.

`vendor` holds Observable Plot and d3 as npm has them, with their licences.
"""
