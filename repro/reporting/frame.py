"""Runs in rows: what a report knows of each finished run, and of the variant that it belongs to.

    Contents ─► join ─► Setting, Table, Row, Run ─► verdicts, claims, audit ─► tables, figures, page

Accuracies and their differences are in percent, sizes in MiB (of the state dict in torch's format before 1.6), times in
seconds. Nothing here knows a file, a store or a format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro.datasets import KnownData
from repro.networks import SqueezeNetSpec
from repro.published import Metric, Published
from repro.records import Architecture
from repro.reporting.stats import Estimate
from repro.rows import RunRow
from repro.spec import RunSpec

REFERENCE = "reproducibility/alexnet"
"""The row that sizes and the headline are compared with."""

Split: TypeAlias = Literal["val", "test"]
_FINAL: Mapping[Metric, tuple[str, float]] = {
    "val": ("best_val_accuracy", 100),
    "test": ("test_accuracy", 100),
    "size": ("model_size_legacy_mib", 1),
    "best_epoch": ("best_epoch", 1),
    "epoch_seconds": ("mean_epoch_seconds", 1),
}
"""Measure -> the stored metric that it is, and the factor between them."""


class Predictions(NamedTuple):
    """The class numbers of every image under a run's best weights (`predictions.npz`), in the order of the split."""

    val_predicted: NDArray[np.int64]
    val_true: NDArray[np.int64]
    test_predicted: NDArray[np.int64]
    test_true: NDArray[np.int64]

    def correct(self, split: Split) -> NDArray[np.bool_]:
        """Which images of a split were classified correctly."""
        if split == "val":
            return np.asarray(self.val_predicted == self.val_true)
        return np.asarray(self.test_predicted == self.test_true)


def _nothing(_: RunRow) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Beside:
    """What no row holds, fetched from the store run by run where it is needed; a function may answer None."""

    architecture: Callable[[RunRow], Architecture | None] = _nothing
    """The run's `architecture.json`."""
    confusion: Callable[[RunRow], Sequence[Sequence[int]] | None] = _nothing
    """The run's `confusion.csv`: counts on test, rows are the true classes."""
    predictions: Callable[[RunRow], Predictions | None] = _nothing
    """The run's `predictions.npz`; None for runs that were made before it was kept."""
    weights: Callable[[RunRow], str] = lambda _: ""
    """SHA-256 of the run's best weights, from its journal; empty where that is not known."""
    samples: tuple[NDArray[np.uint8], Sequence[str]] | None = None
    """Images (n, 32, 32, 3) of the data set with the names of their classes."""


@dataclass(frozen=True)
class Run:
    """One finished run of a row."""

    record: RunRow
    """As the store has it: run_id, key, outcome, commit, hardware, curve, final metrics."""
    spec: RunSpec
    beside: Beside = field(repr=False)

    @property
    def seed(self) -> int:
        """The seed of its spec."""
        return self.spec.seed

    @property
    def fold(self) -> int | None:
        """The fold of a k-fold split; None without one. Average over seeds within a fold first, then pair by fold."""
        return self.spec.data.fold

    def value(self, measure: Metric) -> float | None:
        """One number of the run; None where it is missing or not finite."""
        if measure == "gap":
            return self._gap()
        if measure == "training_seconds":
            seconds, epochs = self.metric("mean_epoch_seconds"), self.metric("best_epoch")
            return None if seconds is None or epochs is None else seconds * epochs
        name, factor = _FINAL[measure]
        found = self.metric(name)
        return None if found is None else found * factor

    def metric(self, name: str) -> float | None:
        """A final metric by its stored name (`records.RESULT_METRICS`), accuracies as shares."""
        found = self.record.metrics.get(name)
        return found if found is not None and math.isfinite(found) else None

    @property
    def learned(self) -> bool:
        """Whether the run ended as finished, neither diverged nor at chance."""
        return self.record.outcome == "finished"

    @property
    def improving(self) -> bool:
        """Whether the limit of epochs, not early stopping, ended the run."""
        ran, best = self.metric("epochs_run"), self.metric("best_epoch")
        limit, patience = self.spec.training.epochs, self.spec.training.patience
        return ran is not None and best is not None and ran >= limit and ran - best < patience

    @cached_property
    def predictions(self) -> Predictions | None:
        """The predicted and true class of every image; None where the run did not keep them."""
        return self.beside.predictions(self.record)

    def _gap(self) -> float | None:
        curve, best = self.record.curve, self.metric("best_epoch")
        if curve is None or best not in curve.epoch:
            return None
        at = np.flatnonzero(curve.epoch == best)
        gap = 100 * float(curve.train_accuracy[at[-1]] - curve.val_accuracy[at[-1]])
        return gap if math.isfinite(gap) else None


@dataclass(frozen=True)
class Row:
    """One variant of a study in one setting."""

    study: str
    variant: str
    title: str
    study_title: str
    base: str | None
    """`study/variant` that the row is compared with; None for a row that stands for itself."""
    note: str
    published: Published
    spec: RunSpec
    """Of one run; the others' specs differ in seed and fold alone."""
    known: KnownData
    """The data set of its runs."""
    runs: tuple[Run, ...]
    """The finished runs, by fold and seed; empty where none is finished."""
    missing: tuple[tuple[int | None, int], ...] = ()
    """(fold, seed) of the planned runs that are not finished."""

    @property
    def name(self) -> str:
        """`study/variant`."""
        return f"{self.study}/{self.variant}"

    @property
    def named(self) -> str:
        """Its title outside its own table: with that of the study where it has no word, as `0.1 (Learning rate)`."""
        return self.title if re.search(r"[^\W\d_]{3}", self.title) else f"{self.title} ({self.study_title})"

    @cached_property
    def question(self) -> str:
        """What its runs ask, whatever their seed and fold: the same for rows of two studies that share their runs."""
        return self.spec.of(0, None).key

    @property
    def family(self) -> str:
        """The networks among which the variance over seeds is pooled."""
        model = self.spec.model
        normalised = isinstance(model, SqueezeNetSpec) and model.normalised
        return model.network + " with batch normalization" * normalised

    def values(self, measure: Metric, *, learned: bool = False) -> NDArray[np.float64]:
        """A measure over the runs that have it, by fold and seed; `learned` leaves out those at chance or diverged."""
        found = [run.value(measure) for run in self.runs if run.learned or not learned]
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def correct(self, split: Split) -> NDArray[np.bool_] | None:
        """(runs, images): which images each run that learned classified correctly; None without predictions of any.

        Runs without predictions, or with another number of images, are left out; runs of folds have other images each.
        """
        runs = [run for run in self.runs if run.fold is None and run.learned]
        kept = [run.predictions.correct(split) for run in runs if run.predictions is not None]
        return np.stack([one for one in kept if one.shape == kept[0].shape]) if kept else None

    def images(self, split: Split) -> int:
        """How many images an accuracy of this split is measured on."""
        return self.known.images[1 if split == "val" else 2]

    @property
    def size(self) -> float | None:
        """Size of the saved model in MiB, the same for every run."""
        return self.metric("model_size_legacy_mib")

    def metric(self, name: str) -> float | None:
        """A final metric that is the same for every run: model_size_mib, parameters, multiply_adds."""
        return next((value for run in self.runs if (value := run.metric(name)) is not None), None)


class Compared(NamedTuple):
    """A row beside the one of a headline."""

    row: Row
    difference: Estimate
    """Its test accuracy minus that of the reference."""
    verdict: Literal["a match", "less accurate", "better", "worse", "undecided"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a report comes to: a headline, the lines that it rests on, and what was compared for it."""

    headline: str
    why: str
    compared: Sequence[Compared] = ()
    """With `reference`; the best on validation first."""
    reference: Row | None = None
    margin: float | None = None
    """Points that a match may be behind; None where the question is which one is better."""
