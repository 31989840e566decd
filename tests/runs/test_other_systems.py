"""What systems other than Linux lack is done without."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from distilbench.runs.engines.worker_pool import _inherited
from distilbench.study.budget import peak_resident_bytes


def test_peak_memory_is_not_known_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_resident_bytes() > 0
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_resident_bytes() == 0


@pytest.mark.parametrize("has_masks", [True, False])
def test_workers_are_started_where_signals_cannot_be_masked(monkeypatch: pytest.MonkeyPatch, has_masks: bool) -> None:
    monkeypatch.setenv("KEPT", "before")
    if not has_masks:
        monkeypatch.delattr(signal, "pthread_sigmask")
    with _inherited({"KEPT": "within", "NEW": "1"}):
        assert (os.environ["KEPT"], os.environ["NEW"]) == ("within", "1")
        assert not has_masks or signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    assert os.environ["KEPT"] == "before" and "NEW" not in os.environ
    assert not has_masks or signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
