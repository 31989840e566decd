"""Listing methods: what one of them has wrong stays its own."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from distilbench.core.errors import UserError
from distilbench.study.method_catalogue import describe_method, describe_methods


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points of other packages, to be filled in; their modules lie in `tmp_path`."""
    points: list[EntryPoint] = []
    monkeypatch.setattr("distilbench_methods.plug_ins", lambda: points)
    monkeypatch.syspath_prepend(tmp_path)
    return points


@pytest.mark.parametrize(
    "module",
    [
        "no_such_module_here",
        "no_such_package_here.module",
        "bad_syntax",
        "bad_bytes",
        "bad_package.module",
        "odd_source",
    ],
)
def test_a_broken_method_has_a_note_and_the_others_are_listed(
    others: list[EntryPoint], tmp_path: Path, module: str
) -> None:
    (tmp_path / "bad_syntax.py").write_text("class (:\n")
    (tmp_path / "bad_bytes.py").write_bytes(b"\xff")
    (tmp_path / "bad_package").mkdir()
    (tmp_path / "bad_package" / "__init__.py").write_text("raise RuntimeError('planted\\nhere')\n")
    (tmp_path / "odd_source.py").write_text("class Broken:\n    source: str = str(1)\n")
    others.append(EntryPoint("broken", f"{module}:Broken", "distilbench.methods"))
    entries = {entry.name: entry for entry in describe_methods()}
    assert entries["mse"] == describe_method("mse")
    assert entries["broken"].summary.startswith(f"not usable: the method broken, registered as {module}:Broken")
    assert "\n" not in entries["broken"].summary
    with pytest.raises(UserError, match="the method broken"):
        describe_method("broken")


def test_a_clash_of_names_is_one_sentence(others: list[EntryPoint]) -> None:
    others.append(EntryPoint("mse", "elsewhere:MSE", "distilbench.methods"))
    for ask in (describe_methods, lambda: describe_method("ibkd")):
        with pytest.raises(UserError, match="'mse' is registered twice"):
            ask()
