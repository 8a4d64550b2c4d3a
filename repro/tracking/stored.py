"""A run as a store has it, whichever way it was read, and what the reader makes of it: rows and curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.records import EPOCH_METRICS, RESULT_METRICS
from repro.rows import Curve, RunRow
from repro.spec import Value
from repro.tracking.names import SCHEMA, Tag

Points: TypeAlias = NDArray[np.float64]
"""The history of one metric of one run, (n, 3): step, timestamp in ms since 1970, value."""
Histories: TypeAlias = Mapping[str, Mapping[str, Points]]
"""Run id -> metric -> its points."""

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run of a store: a run of ours, a sweep, or any other."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    started_ms: int
    ended_ms: int
    """0 while it has no end."""
    artifact_uri: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The latest value of every metric."""
    data: tuple[str, ...] = ()
    """Its data sets, `name digest` each."""


def param(value: Value) -> str:
    """A spec's value as the store keeps it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def value(param: str) -> Value:
    """The spec's value that `param` has written, as far as it tells: of the text "5" the number."""
    try:
        read: Value = json.loads(param)
    except ValueError:
        return param
    return read


def number(value: float) -> float:
    """A metric's value as it was logged: SQL stores keep the largest finite number for an infinite one."""
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else value


def row(run: StoredRun) -> RunRow:
    """A finished run as a row, without its curve.

    Raises:
        ValueError: a tag is missing or not what the writer writes; the message names it.
    """
    return RunRow(
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        key=_tag(run, Tag.KEY),
        study=_tag(run, Tag.STUDY),
        variant=_tag(run, Tag.VARIANT),
        seed=_whole(run, Tag.SEED),
        outcome=_tag(run, Tag.OUTCOME),
        commit=_tag(run, Tag.COMMIT),
        dirty=_tag(run, Tag.DIRTY) == "true",
        hardware=_tag(run, Tag.HARDWARE),
        side_by_side=_whole(run, Tag.SIDE_BY_SIDE),
        started_ms=run.started_ms,
        ended_ms=run.ended_ms,
        artifact_uri=run.artifact_uri,
        params=run.params,
        metrics={name: run.metrics[name] for name in RESULT_METRICS if math.isfinite(run.metrics.get(name, math.nan))},
        curve=None,
        fold=_whole(run, Tag.FOLD) if Tag.FOLD in run.tags else None,
        mixed=run.tags.get(Tag.MIXED, ""),
    )


def check_schema(run: StoredRun) -> None:
    """Raises ValueError for a run or sweep written under another version of the names."""
    if (found := run.tags.get(Tag.SCHEMA)) != SCHEMA:
        raise ValueError(f"tag {Tag.SCHEMA} is {found!r} (known: {SCHEMA})")


def curve(points: Mapping[str, Points]) -> tuple[Curve, int]:
    """The curve of one run, and how many of its points were superseded by a later one of the same step.

    Epochs are the steps of any metric, in order; a metric without a point at one is nan there.
    """
    chosen: dict[str, Points] = {}
    doubled = 0
    for name in EPOCH_METRICS:
        given = points.get(name, np.empty((0, 3)))
        ordered = given[np.lexsort((given[:, 2], given[:, 1], given[:, 0]))]
        last = np.append(ordered[1:, 0] != ordered[:-1, 0], True)[: len(ordered)]
        chosen[name] = ordered[last]
        doubled += len(ordered) - len(chosen[name])
    epoch = np.unique(np.concatenate([kept[:, 0] for kept in chosen.values()]))
    columns = {}
    for name, kept in chosen.items():
        column = np.full(len(epoch), np.nan)
        column[np.searchsorted(epoch, kept[:, 0])] = kept[:, 2]
        columns[name] = column
    return Curve(epoch=epoch.astype(np.int64), **columns), doubled


def _tag(run: StoredRun, tag: Tag) -> str:
    if tag not in run.tags:
        raise ValueError(f"tag {tag} is missing")
    return run.tags[tag]


def _whole(run: StoredRun, tag: Tag) -> int:
    try:
        return int(_tag(run, tag))
    except ValueError:
        raise ValueError(f"tag {tag} is {run.tags.get(tag)!r}, not a whole number") from None
