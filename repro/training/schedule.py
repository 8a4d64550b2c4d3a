"""The factor of a schedule: what every rate of an optimizer is multiplied with in a step. It depends on the step alone."""

from __future__ import annotations

import math

from repro.recipe import OptimizerSpec

_RISE = 0.3
_START, _END = 1 / 25, 1 / 250_000
"""Share of a run over which `onecycle` rises, and its factors at both ends: those of torch's OneCycleLR."""


def is_constant(spec: OptimizerSpec) -> bool:
    """Whether the factor is 1 in every step."""
    return spec.schedule == "constant" and not spec.warmup_epochs


def factor(spec: OptimizerSpec, step: int, steps: int, epochs: int) -> float:
    """The factor, above 0, in step `step` (from 0) of a run of at most `epochs` epochs of `steps` steps each."""
    warm, whole = round(spec.warmup_epochs * steps), steps * epochs
    if step < warm:
        return (step + 1) / warm
    match spec.schedule:
        case "cosine":
            return _between(1.0, 0.0, (step - warm) / (whole - warm))
        case "onecycle":
            peak = _RISE * whole - 1
            if step <= peak:
                return _between(_START, 1.0, step / peak)
            return _between(1.0, _END, (step - peak) / max(whole - 1 - peak, 1))
        case "steps":
            return float(spec.step_factor ** sum(epoch * steps <= step for epoch in spec.step_epochs))
    return 1.0


def _between(start: float, end: float, share: float) -> float:
    """Along half a wave of the cosine, from `start` at share 0 to `end` at 1."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
