"""The gate as a pytest plug-in: a fixture that checks a candidate, and a marker that says against what.

@pytest.mark.distilbench(baseline="results/baselines/model.json", margin=0.5)
def test_the_export_is_the_model(distilbench_gate):
    distilbench_gate.check("build/model")
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from distilbench.gate.check import CheckResult

MARKER = "distilbench"
POINTS = 100


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    # A truth value is a number to Python.
    return not _is_truth(value) and isinstance(value, Real) and 0 <= float(value) < math.inf


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 < float(cast(float, value)) < 1


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


SETTINGS: dict[str, tuple[Callable[[object], bool], str]] = {
    "baseline": (_is_path, "a path"),
    "margin": (_is_number, "a number of points, 0 or more"),
    "alpha": (_is_share, "a number between 0 and 1"),
    "tasks": (_is_list_of_names, "a list of names"),
    "study": (_is_path, "a study's name, or a path"),
    "slices": (_is_path, "a path"),
    "row": (_is_text, "a row's label"),
    "changed": (_is_truth, "True or False"),
    "drift": (_is_truth, "True or False"),
    "confirm": (_is_path, "a path"),
    "mirror": (_is_path, "a path"),
    "device": (_is_text, "a device's name, as text"),
}
"""What the marker and the fixture take: whether a value is of the kind, and which kind that is, in words."""
PATHS = ("slices", "confirm")
"""Settings that are paths from the root, beside the baseline."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    options = ", ".join(f"{name} (points)" if name == "margin" else name for name in SETTINGS)
    config.addinivalue_line("markers", f"{MARKER}({options}): what the fixture distilbench_gate checks against")


@dataclass(frozen=True)
class Gate:
    """Fails the test, with the gate's lines, unless the candidate passes or has improved."""

    root: Path
    """Relative paths start here."""
    settings: dict[str, Any] = field(default_factory=dict)

    def check(self, candidate: str | Path, **settings: Any) -> CheckResult:
        """Check a model folder, a study's folder or a run's; `settings` go before the marker's."""
        from distilbench.gate.run import check_candidate

        return self._judged(
            lambda baseline, options: check_candidate(self.root / candidate, baseline, options), settings
        )

    def check_encoder(self, encode: Callable[[list[str]], Any], **settings: Any) -> CheckResult:
        """The drift stage alone, for anything that turns a list of texts into vectors [texts, width]."""
        from distilbench.gate.run import check_encoder

        return self._judged(lambda baseline, options: check_encoder(encode, baseline, options), settings)

    def _judged(self, check: Callable[[Path, Any], CheckResult], settings: dict[str, Any]) -> CheckResult:
        from distilbench.core.errors import UserError
        from distilbench.gate.output import to_text
        from distilbench.gate.run import CheckOptions
        from distilbench.gate.tasks import given_tasks

        chosen = {name: value for name, value in {**self.settings, **settings}.items() if value is not None}
        if (mistake := _mistake(chosen)) is not None:
            pytest.fail(f"distilbench: {mistake}", pytrace=False)
        if "baseline" not in chosen:
            pytest.fail(f"say what to check against: @pytest.mark.{MARKER}(baseline=FILE)", pytrace=False)
        baseline = self.root / chosen.pop("baseline")
        if "margin" in chosen:
            chosen["margin"] = float(chosen["margin"]) / POINTS
        chosen |= {name: self.root / chosen[name] for name in PATHS if name in chosen}
        chosen |= {name: str(chosen[name]) for name in ("mirror", "study") if name in chosen}
        try:
            chosen["tasks"] = given_tasks(chosen.get("tasks", ()), chosen.pop("study", None), self.root)
            outcome = check(baseline, CheckOptions(**chosen))
        except UserError as error:
            refusal = f"distilbench: {error}"
        else:
            if not outcome.exit_code:
                return outcome
            refusal = to_text(outcome)
        # Outside the handler, whose error would be shown too.
        pytest.fail(refusal, pytrace=False)


def _mistake(settings: dict[str, Any]) -> str | None:
    """What is wrong with the settings, in a sentence."""
    from distilbench.core.errors import one_of, shown

    for name, value in settings.items():
        if name not in SETTINGS:
            return one_of("setting of the gate", name, SETTINGS)
        is_right, kind = SETTINGS[name]
        if not is_right(value):
            return f"{name} is {shown(value)}; give {kind}"
    return None


@pytest.fixture
def distilbench_gate(request: pytest.FixtureRequest) -> Gate:
    """The gate, set up by the test's marker."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is not None and marker.args:
        pytest.fail(f"name what the marker is given: @pytest.mark.{MARKER}(baseline=FILE)", pytrace=False)
    return Gate(request.config.rootpath, dict(marker.kwargs) if marker else {})
