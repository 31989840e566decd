"""How often ablations are wrong: simulated studies with a component that matters and others that do not.

    python -m tests.reliability.planted_effects --repetitions 200

Each repetition is a factorial ablation of three components (8 cells) judged as the report judges it: one component
matters by what the design should find with a probability of 80 %, two do nothing, and nothing interacts. Then the
same with an interaction planted and main effects left out. Prints one line of JSON for each number of seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping

import numpy as np

from distilbench.analysis.designs.effects import Effect, effects
from distilbench.analysis.frame import ALPHA, OVERALL
from tests.reporting.planted import Quality, factorial, simulate

ABLATION = factorial(matters=["on", "off"], idle=["on", "off"], third=["on", "off"])
QUALITY, RESAMPLES, PILOTS = 0.6, 200, 20
PLANTED = {"main": ("matters",), "interaction": ("matters", "third")}


def _quality(kind: str, size: float) -> Quality:
    """The planted effect as the only one: of one component, or as a difference of differences without main effects."""

    def quality(levels: Mapping[str, str]) -> float:
        signs = [1.0 if levels[factor] == "on" else -1.0 for factor in PLANTED[kind]]
        return QUALITY + size * math.prod(signs) / 2.0 ** len(signs)

    return quality


def _effects(kind: str, size: float, seeds: int, rng: np.random.Generator) -> list[Effect]:
    found = simulate(ABLATION, _quality(kind, size), seeds, rng)
    return effects(found.inference(RESAMPLES, rng), [ABLATION])


def _planted(kind: str, found: list[Effect]) -> Effect:
    return next(item for item in found if tuple(item.factor.split(" x ")) == PLANTED[kind])


def _truth(kind: str, size: float, seeds: int, rng: np.random.Generator) -> float:
    """The planted effect on the overall score, from many seeds without luck of their own."""
    studies = [simulate(ABLATION, _quality(kind, size), seeds, rng, spread=0.0) for _ in range(PILOTS)]
    found = [_planted(kind, effects(study.inference(2, rng), [ABLATION])) for study in studies]
    return float(np.mean([item.estimates[OVERALL].mean for item in found]))


def _detectable(effect: Effect) -> float:
    assert effect.judgement is not None
    return effect.estimates[OVERALL].detectable(effect.judgement.alpha)


def measured(kind: str, seeds: int, repetitions: int, rng: np.random.Generator) -> dict[str, float]:
    """Rates over repetitions of a study of which only the planted effect is not 0."""
    pilots = [_planted(kind, _effects(kind, 0.0, seeds, rng)) for _ in range(PILOTS)]
    wanted = float(np.median([_detectable(item) for item in pilots]))
    # The score is close to linear in the quality over so short a way.
    size = wanted / abs(_truth(kind, 0.04, seeds, rng)) * 0.04
    truth = _truth(kind, size, seeds, rng)
    studies = [_effects(kind, size, seeds, rng) for _ in range(repetitions)]
    planted = [_planted(kind, found) for found in studies]
    idle = [[item for item in found if item is not _planted(kind, found)] for found in studies]
    told = ("better", "worse")
    right = "worse" if truth < 0 else "better"
    estimates = [item.estimates[OVERALL] for one in idle for item in one]
    return {
        "true_points": round(100 * truth, 3),
        "found": float(np.mean([item.verdict == right for item in planted])),
        "wrong_direction": float(np.mean([item.verdict in told and item.verdict != right for item in planted])),
        "called_equivalent": float(np.mean([item.verdict == "equivalent" for item in planted])),
        "study_with_a_false_effect": float(np.mean([any(item.verdict in told for item in one) for one in idle])),
        "coverage_of_95_percent": float(np.mean([abs(item.mean) <= item.half_width() for item in estimates])),
        "idle_undecided": float(np.mean([item.verdict == "undecided" for one in idle for item in one])),
        "idle_equivalent": float(np.mean([item.verdict == "equivalent" for one in idle for item in one])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for seeds in arguments.seeds:
        rng = np.random.default_rng((arguments.seed, seeds))
        found = {kind: measured(kind, seeds, arguments.repetitions, rng) for kind in PLANTED}
        outcome = {"seeds": seeds, "repetitions": arguments.repetitions, "stated_error": ALPHA, "predicted_power": 0.8}
        sys.stdout.write(json.dumps({**outcome, **found}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
