"""The gate: is a candidate as good as the blessed baseline? On the command line and in pytest.

It must not know how the candidate was trained."""
