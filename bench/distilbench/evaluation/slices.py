"""Slices: named sets of a task's examples, told from their texts alone.

A model can keep its average and lose what it knew of negation. The names that an example has are kept beside its score.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from distilbench.evaluation.tasks.by_name import Task
from distilbench.evaluation.tasks.content import WORD, example_texts
from distilbench.records.record import SLICES

NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot)\b|n ?['\u2019]t\b", re.IGNORECASE
)
"""Also as treebanks write it: `does n't`, `can 't`."""
NUMBER = re.compile(r"\d")
LONG_SHARE = 0.75
"""Share of a task's examples that a long one is longer than."""


def with_slices(examples: pd.DataFrame, task: Task) -> pd.DataFrame:
    """A task's examples with the names of the slices that each is in, separated by spaces, in a column of their own.

    `negation` and `numbers`: in a text of the pair, or in the query; `long`: with more words than three quarters of the
    task's examples.
    """
    texts = example_texts(task)
    words = {place: len(WORD.findall(text)) for place, text in texts.items()}
    many = np.quantile(list(words.values()), LONG_SHARE) if words else 0.0
    names = {
        place: " ".join(
            name
            for name, is_in in (
                ("long", words[place] > many),
                ("negation", NEGATION.search(text)),
                ("numbers", NUMBER.search(text)),
            )
            if is_in
        )
        for place, text in texts.items()
    }
    places = zip(examples["split"], examples["example"], strict=True)
    return examples.assign(**{SLICES: pd.Series([names.get(place, "") for place in places], index=examples.index)})
