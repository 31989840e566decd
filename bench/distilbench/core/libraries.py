"""How large libraries are kept quiet, and imported without garbage collections, which take a quarter of their time."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOGGER = "distilbench"
BACKEND_VARIABLE = "MPLBACKEND"
LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def logging_at(level: int | None) -> Iterator[None]:
    """Log what is at least this level to stderr, for a while. None leaves logging as it is, which shows warnings."""
    logger = logging.getLogger(LOGGER)
    if level is None:
        yield
        return
    before, handler = logger.level, logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE))
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def log_level() -> int | None:
    """The level that distilbench's own logging was set to; None where it was not."""
    return logging.getLogger(LOGGER).level or None


def quiet_libraries() -> None:
    """Switch off progress bars and advice of the libraries that are used, for good; not where details are logged."""
    if (log_level() or logging.WARNING) <= logging.INFO:
        return
    # Read when they are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # mteb recommends newer versions of tasks that are named on purpose.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mteb")


def load_matplotlib() -> None:
    """Import matplotlib, whatever the environment says of how it is to show figures: here, they are files.

    Notebooks hand the name of their own backend on to what they start, where it may not be installed.
    """
    if "matplotlib" in sys.modules:
        return
    given = os.environ.pop(BACKEND_VARIABLE, None)
    try:
        import matplotlib
    finally:
        if given is not None:
            os.environ[BACKEND_VARIABLE] = given
    if given:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = given


@contextmanager
def quiet() -> Iterator[None]:
    """`quiet_libraries` for a while: from Python, the libraries are the user's as well."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    level = logging.getLogger("mteb").level
    try:
        with warnings.catch_warnings():
            quiet_libraries()
            yield
    finally:
        logging.getLogger("mteb").setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


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
