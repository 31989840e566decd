"""The figures of a report. Each is a function of what there is to draw from."""

from distilbench.core.libraries import load_matplotlib

load_matplotlib()
