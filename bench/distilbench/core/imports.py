"""Imports of large libraries without garbage collections, which take a quarter of their time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """For imports: what they make stays, and collections would go through all of it again and again.

    Afterwards everything counts as old, so that the next collection does not begin with it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Freezing and thawing moves objects to the oldest generation without a look at them. What somebody else has
        # frozen must stay so.
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()
