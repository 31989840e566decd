"""The garbage collector while libraries are imported."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distilbench.core.libraries import collector_at_rest


class Thing:
    """Something that the collector keeps count of."""


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def generation_of(thing: Thing) -> int:
    (found,) = (age for age in range(3) if any(other is thing for other in gc.get_objects(age)))
    return found


def test_it_rests_and_goes_on() -> None:
    with collector_at_rest():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), collector_at_rest():
        raise ImportError
    assert gc.isenabled()


def test_whoever_had_it_off_has_it_off() -> None:
    gc.disable()
    with collector_at_rest():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_what_was_made_meanwhile_is_old_and_not_frozen() -> None:
    with collector_at_rest():
        thing = Thing()
    assert generation_of(thing) == 2
    assert gc.get_freeze_count() == 0


def test_what_the_user_froze_stays_frozen() -> None:
    code = """
import gc
from distilbench.core.libraries import collector_at_rest
gc.freeze()
count = gc.get_freeze_count()
with collector_at_rest():
    made = [[] for _ in range(1000)]
print(count > 0, gc.get_freeze_count() == count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(("call", "frozen"), [("main()", "True"), ("main(['methods'])", "False")])
def test_a_process_of_ours_ends_without_a_last_collection(call: str, frozen: str) -> None:
    code = f"""
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 0))
from distilbench.cli.app import main
{call}
"""
    done = subprocess.run([sys.executable, "-c", code, "methods"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == frozen
