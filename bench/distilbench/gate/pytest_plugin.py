"""The gate as a pytest plug-in: a fixture that checks a candidate, and a marker that says against what.

@pytest.mark.distilbench(baseline="results/baselines/model.json", margin=0.5)
def test_the_export_is_the_model(distilbench_gate):
    distilbench_gate.check("build/model")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from distilbench.gate.check import CheckResult

MARKER = "distilbench"
POINTS = 100


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    options = "baseline, margin (points), alpha, tasks, study, slices, row, changed, drift, mirror, device"
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

        chosen = {**self.settings, **settings}
        if "baseline" not in chosen:
            pytest.fail(f"say what to check against: @pytest.mark.{MARKER}(baseline=FILE)", pytrace=False)
        baseline = self.root / chosen.pop("baseline")
        if "margin" in chosen:
            chosen["margin"] /= POINTS
        if "slices" in chosen:
            chosen["slices"] = self.root / chosen["slices"]
        try:
            chosen["tasks"] = given_tasks(chosen.get("tasks", ()), chosen.pop("study", None), self.root)
            outcome = check(baseline, CheckOptions(**chosen))
        except UserError as error:
            pytest.fail(f"distilbench: {error}", pytrace=False)
        if outcome.exit_code:
            pytest.fail(to_text(outcome), pytrace=False)
        return outcome


@pytest.fixture
def distilbench_gate(request: pytest.FixtureRequest) -> Gate:
    """The gate, set up by the test's marker."""
    marker = request.node.get_closest_marker(MARKER)
    return Gate(request.config.rootpath, dict(marker.kwargs) if marker else {})
