"""Statistics of a matrix of scores: rows x seeds x tasks x examples. Pure functions; numpy, scipy, pandas.

It must not know how scores are made or how a report looks, nor import torch."""
