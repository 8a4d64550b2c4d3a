"""Tidy rows: what the tracking store holds, as plain values that need neither MLflow nor torch.

`tracking.reader` makes them and `reporting` draws from them; nothing else passes between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repro.records import EPOCH_METRICS, EpochRecord
from repro.spec import run_name
from repro.studies import Plan


@dataclass(frozen=True, slots=True)
class Curve:
    """The epochs of one run in order, each once; all arrays have the length of `epoch`. Accuracies in 0..1."""

    epoch: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    train_accuracy: NDArray[np.float64]
    val_loss: NDArray[np.float64]
    val_accuracy: NDArray[np.float64]
    epoch_seconds: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[EpochRecord]) -> Curve:
        """The curve of a journal's epochs."""
        values = np.array([[getattr(record, name) for name in EPOCH_METRICS] for record in records], dtype=np.float64)
        columns = values.reshape(len(records), len(EPOCH_METRICS)).T
        epoch = np.array([record.epoch for record in records], dtype=np.int64)
        return cls(epoch, **dict(zip(EPOCH_METRICS, columns, strict=True)))


@dataclass(frozen=True, slots=True)
class RunRow:
    """One finished run of the store."""

    run_id: str
    experiment_id: str
    key: str
    study: str
    variant: str
    """The study and variant it was first trained for; it may stand in other tables by its key."""
    seed: int
    outcome: str
    commit: str
    dirty: bool
    hardware: str
    side_by_side: int
    started_ms: int
    ended_ms: int
    artifact_uri: str
    """Where its files are, as the store records it."""
    params: Mapping[str, str]
    """Every field of the spec by dotted name, as the store keeps it."""
    metrics: Mapping[str, float]
    """The final metrics (`records.RESULT_METRICS`); one that is missing or not finite is left out."""
    curve: Curve | None
    """None where the histories were not asked for."""
    fold: int | None = None
    """The fold of a cross-validation; None for the fixed split."""
    mixed: str = ""
    """What changed between the attempts that trained it, as `code, torch`; "" for a run of one piece."""

    @property
    def name(self) -> str:
        """Variant, seed and fold."""
        return run_name(self.variant, self.seed, self.fold)


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One sweep of the store: the parent run, with the plan it was started for."""

    run_id: str
    experiment_id: str
    started_ms: int
    plan: Plan
    status: str = "FINISHED"
    """MLflow's."""
    finished: int = 0
    """How many of its runs were finished when it ended; 0 while it runs."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read from a store, newest first, and what had to be passed over, a line each."""

    uri: str
    sweeps: tuple[SweepRow, ...]
    runs: tuple[RunRow, ...]
    notes: tuple[str, ...]
