"""Keeps libraries from writing between the lines of ours."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Switch off progress bars and advice of the libraries that are used."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # mteb recommends newer versions of tasks that are named on purpose.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mteb")
