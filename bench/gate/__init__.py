"""The gate: is a candidate as good as the blessed baseline?"""
