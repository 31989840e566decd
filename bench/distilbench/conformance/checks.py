"""What every method must do, one function per promise, by the name that the listing shows.

A check returns what is worth knowing (or None), and raises `NotConforming` or `NotApplicable` with a sentence. Its
docstring is the promise that the listing shows.
"""

from __future__ import annotations

from collections.abc import Callable

from distilbench.conformance.behaviour import (
    after_step_changes_buffers_only,
    diagnostics_are_finite_scalars,
    every_head_learns,
    gradients_reach_the_student,
    loss_is_pure,
    order_does_not_matter,
    padding_does_not_matter,
    signals_are_declared,
    terms_are_finite_scalars,
)
from distilbench.conformance.declared import (
    counts_are_whole,
    describes_itself,
    hyperparameters_survive,
    search_space_fits,
    starts_from_the_seed,
    suits_models,
)
from distilbench.conformance.extremes import batch_of_one_is_defined, degenerate_batches_stay_finite
from distilbench.conformance.kit import Kit
from distilbench.conformance.numbers import (
    accumulation_is_as_declared,
    gradients_are_slopes,
    half_precision_agrees,
    single_precision_agrees,
    state_survives_a_checkpoint,
    weight_zero_leaves_the_term_out,
    weights_are_factors,
)
from distilbench.conformance.products import (
    export_reproduces_the_vector,
    flops_are_those_measured,
    never_waits_for_the_device,
    parameters_are_charged,
)

Check = Callable[[Kit], "str | None"]

CHECKS: dict[str, Check] = {
    "describes-itself": describes_itself,
    "hyperparameters": hyperparameters_survive,
    "search-space": search_space_fits,
    "suits-models": suits_models,
    "counts": counts_are_whole,
    "seeded-start": starts_from_the_seed,
    "terms": terms_are_finite_scalars,
    "gradients": gradients_reach_the_student,
    "heads": every_head_learns,
    "signals": signals_are_declared,
    "pure-loss": loss_is_pure,
    "after-step": after_step_changes_buffers_only,
    "diagnostics": diagnostics_are_finite_scalars,
    "batch-order": order_does_not_matter,
    "padding": padding_does_not_matter,
    "finite-differences": gradients_are_slopes,
    "weight-zero": weight_zero_leaves_the_term_out,
    "weight-factor": weights_are_factors,
    "checkpoint": state_survives_a_checkpoint,
    "float32": single_precision_agrees,
    "bfloat16": half_precision_agrees,
    "accumulation": accumulation_is_as_declared,
    "export": export_reproduces_the_vector,
    "parameters": parameters_are_charged,
    "flops": flops_are_those_measured,
    "no-waiting": never_waits_for_the_device,
    "degenerate": degenerate_batches_stay_finite,
    "batch-of-one": batch_of_one_is_defined,
}
"""Every check under the name that the listing shows, in the order in which they run."""
