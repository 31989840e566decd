"""The pinned texts, of which the gate compares a model's vectors with those of the blessed one.

Short sentences, and what breaks quietly: upper case, numbers, other scripts, texts beyond any usual maximum length.
A baseline keeps its own copy, so that a later version of this list changes no baseline.
"""

from __future__ import annotations

import csv
from importlib.resources import files

import numpy as np

SHORT = 256
LONG_WORDS = (40, 80, 160, 320, 640)
"""A text for each; the longest goes beyond 512 tokens, so that a limit shows when it is raised, too."""
ODD = (
    "NASA",
    "THE RIVER FLOODED OVERNIGHT.",
    "the river flooded overnight.",
    "McDonald's, IBM and eBay raised their prices on Monday.",
    "US troops are not us, and Turkey is not a turkey.",
    "7",
    "The 3rd of 1,024 samples weighed 0.75 kg (±0.05) at 21 °C.",
    "Call +44 20 7946 0018 before 17:30, or pay 1.299,00 € by 2031-02-28.",
    "f(x) = 3x^2 - 2x + 1 for every x >= 0",
    "Der Zug nach Köln fährt um halb fünf ab.",
    "La niña comió piñas en el café a mediodía.",
    "Žluťoučký kůň příliš úpěl.",
    "Поезд прибыл на час позже.",
    "火车晚点了一个小时。",
    "القطار وصل متأخرا ساعة.",
    "The soup was great 😀 but the service was not 🙁",
    "naïve café, na\u0131ve cafe\u0301, ﬁne ½",
    "It's \u201cquoted\u201d \u2014 isn't it?",
    "user@example.org wrote: see https://example.org/a?b=c#d",
    "word word word word word word word word",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "No.",
    "  leading, double  and trailing spaces  ",
    "tabs\tand\nline breaks",
)


def pinned_texts() -> list[str]:
    """The pinned texts, all distinct: `SHORT` sentences of the embedded STS set, the odd ones, the long ones."""
    sentences = _sentences()
    step = len(sentences) / SHORT
    short = [sentences[int(place * step)] for place in range(SHORT)]
    words = " ".join(sentences).split()
    starts = np.cumsum([0, *LONG_WORDS])
    long = [" ".join(words[start : start + count]) for start, count in zip(starts, LONG_WORDS, strict=False)]
    return [*short, *ODD, *long]


def _sentences() -> list[str]:
    with (files("distilbench.data.embedded") / "sts.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return list(dict.fromkeys(row[key] for row in rows for key in ("sentence1", "sentence2")))
