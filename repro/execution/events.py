"""What a sweep says of itself while it works: values for whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from repro.execution.beat import Beat
from repro.records import EpochRecord, RunResult
from repro.studies import PlannedRun


@dataclass(frozen=True, slots=True)
class Planned:
    """What the sweep is going to do, before it trains."""

    name: str
    trains: tuple[PlannedRun, ...]
    reused: tuple[PlannedRun, ...]
    rows: int
    """Variants of the plan, each with a run per seed; several may rest on the same runs."""
    workers: int


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins, or goes on after `resumed_epoch` complete epochs."""

    run: PlannedRun
    resumed_epoch: int


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run in training stands within its epoch."""

    run: PlannedRun
    beat: Beat


@dataclass(frozen=True, slots=True)
class Epoch:
    """A run has finished an epoch."""

    run: PlannedRun
    record: EpochRecord


@dataclass(frozen=True, slots=True)
class Ended:
    """A run has come to its end."""

    run: PlannedRun
    result: RunResult


@dataclass(frozen=True, slots=True)
class Failed:
    """A run's process ended before the run did."""

    run: PlannedRun
    message: str
    again: bool
    """Whether it is tried once more."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another process on this machine trains the run; its result is used when it is there."""

    run: PlannedRun


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know, in one line."""

    text: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """A signal came: the runs in training are being stopped, which takes seconds."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the sweep."""

    parent: str | None
    """MLflow's id of the sweep; None where it was not tracked."""
    failed: tuple[PlannedRun, ...]
    unpublished: int
    """Runs whose journals the store does not have in full: `repro sync` brings them in."""
    seconds: float
    table: str
    """The sweep's result table in Markdown; "" where it was not tracked."""


Event: TypeAlias = Planned | Started | Step | Epoch | Ended | Failed | Waiting | Notice | Stopping | Finished
