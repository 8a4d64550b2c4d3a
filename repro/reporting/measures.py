"""What is read off a run, by the names that statements use, and the differences of two rows in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from repro.reporting import stats
from repro.reporting.join import Row, metric
from repro.reporting.statements import Metric
from repro.rows import Curve, RunRow

Measure: TypeAlias = Metric | Literal["val_accuracy"]
"""accuracy is that of the test split, val_accuracy the best one on validation; see `statements.Metric` for the others."""

UNITS: Mapping[Measure, str] = MappingProxyType(
    {
        "accuracy": " points",
        "val_accuracy": " points",
        "gap": " points",
        "size": " MiB",
        "epoch_seconds": " s",
        "training_seconds": " s",
    }
)
"""The unit of a difference, to be put behind a number."""


def measured(run: RunRow, measure: Measure) -> float | None:
    """One number of a run: percent, MiB or seconds; None where the run does not have it."""
    match measure:
        case "accuracy":
            return _times(metric(run, "test_accuracy"), 100)
        case "val_accuracy":
            return _times(metric(run, "best_val_accuracy"), 100)
        case "size":
            return metric(run, "model_size_legacy_mib")
        case "epoch_seconds":
            return metric(run, "mean_epoch_seconds")
        case "training_seconds":
            return _times(metric(run, "mean_epoch_seconds"), metric(run, "best_epoch"))
        case "gap":
            return None if run.curve is None else _gap(run.curve, metric(run, "best_epoch"))


def difference(first: Row, second: Row, measure: Measure) -> tuple[stats.Estimate | None, tuple[RunRow, ...]]:
    """First minus second over the seeds that both have, and the runs it is made of; None where there is no such seed."""
    ours, theirs = (
        {run.seed: (run, value) for run in row.runs if (value := measured(run, measure)) is not None}
        for row in (first, second)
    )
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None, ()
    found = stats.paired([ours[seed][1] for seed in seeds], [theirs[seed][1] for seed in seeds])
    return found, tuple(run for seed in seeds for run in (ours[seed][0], theirs[seed][0]))


def _gap(curve: Curve, best: float | None) -> float | None:
    at = [place for place, epoch in enumerate(curve.epoch.tolist()) if epoch == best]
    gap = 100 * float(curve.train_accuracy[at[-1]] - curve.val_accuracy[at[-1]]) if at else math.nan
    return gap if math.isfinite(gap) else None


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor
