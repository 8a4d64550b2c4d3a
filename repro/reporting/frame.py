"""The values that a report is made of: runs in rows, rows in tables, tables in settings, and what is concluded of them.

    Contents ─► join ─► Setting, Table, Row, Run ─► verdicts, claims, audit ─► tables, figures, page

`join` fills the first four from a store. The statistics take arrays (`Row.values`) and return small values, which come back
as `Statistics` (one a row), `Judged` (one a claim), `Finding` (one an inconsistency) and `Answer` (the headline):

    verdicts.statistics(table)          -> {"study/variant": Statistics}, for every row of the table
    claims.judge(paper, tables)         -> tuple[Judged, ...], the claims that concern the tables
    claims.headline(paper, tables)      -> Answer
    audit.findings(paper, studies=None) -> tuple[Finding, ...], at most twenty

Accuracies and their differences are in percent, sizes in MiB (of the state dict in torch's format before 1.6), times in
seconds. Nothing here knows a file, a store or a format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro import studies as declared_studies
from repro.datasets import KnownData
from repro.networks import SqueezeNetSpec
from repro.published import Published
from repro.records import Architecture
from repro.rows import RunRow
from repro.spec import RunSpec, Value
from repro.study import Study

if TYPE_CHECKING:
    from repro.reporting.stats import Estimate

REFERENCE = "reproducibility/alexnet"
"""The row that sizes and the headline are compared with."""

Split: TypeAlias = Literal["val", "test"]
Measure: TypeAlias = Literal["val", "test", "gap", "size", "best_epoch", "epoch_seconds", "training_seconds"]
"""val: best validation accuracy; test: test accuracy of the same weights; gap: training minus validation accuracy at the
best epoch, in points; training_seconds: seconds an epoch times best epoch."""
Verdict: TypeAlias = Literal["consistent", "ours below", "ours above", "undecided", ""]
"""Where our runs lie, seen from the published number; empty where none was published."""
Decision: TypeAlias = Literal["supported", "not supported", "undecided"]


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

    seed: int
    fold: int | None
    """The fold of a k-fold split; None without one. Average over seeds within a fold first, then pair by fold."""
    record: RunRow
    """As the store has it: run_id, key, outcome, commit, hardware, curve, final metrics."""
    spec: RunSpec
    beside: Beside = field(repr=False)

    def value(self, measure: Measure) -> float | None:
        """One number of the run; None where it is missing or not finite."""
        match measure:
            case "val":
                return _times(self.metric("best_val_accuracy"), 100)
            case "test":
                return _times(self.metric("test_accuracy"), 100)
            case "size":
                return self.metric("model_size_legacy_mib")
            case "best_epoch":
                return self.metric("best_epoch")
            case "epoch_seconds":
                return self.metric("mean_epoch_seconds")
            case "training_seconds":
                return _times(self.metric("mean_epoch_seconds"), self.metric("best_epoch"))
            case "gap":
                return self._gap()

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
    def family(self) -> str:
        """The networks among which the variance over seeds is pooled."""
        model = self.spec.model
        normalised = isinstance(model, SqueezeNetSpec) and model.normalised
        return model.network + " with batch normalization" * normalised

    def values(self, measure: Measure, *, learned: bool = False) -> NDArray[np.float64]:
        """A measure over the runs that have it, by fold and seed; `learned` leaves out those at chance or diverged."""
        found = [run.value(measure) for run in self.runs if run.learned or not learned]
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def correct(self, split: Split) -> NDArray[np.bool_] | None:
        """(runs, images): which images each run classified correctly; None without predictions of at least one run.

        Runs without predictions, or with another number of images, are left out; runs of folds have other images each.
        """
        runs = [run for run in self.runs if run.fold is None]
        kept = [run.predictions.correct(split) for run in runs if run.predictions is not None]
        return np.stack([one for one in kept if one.shape == kept[0].shape]) if kept else None

    def images(self, split: Split) -> int:
        """How many images an accuracy of this split is measured on."""
        return self.known.images[1 if split == "val" else 2]

    @property
    def size(self) -> float | None:
        """Size of the saved model in MiB, the same for every run."""
        return next(iter(self.values("size")), None)

    def metric(self, name: str) -> float | None:
        """A final metric that is the same for every run: model_size_mib, parameters, multiply_adds."""
        return next((value for run in self.runs if (value := run.metric(name)) is not None), None)


@dataclass(frozen=True)
class Setting:
    """Data and protocol that all rows of a table share, with every row that a store has under them."""

    values: Mapping[str, Value]
    """Dotted name -> value."""
    id: str
    """Eight hexadecimal digits: what `--setting` takes."""
    words: str
    """The setting in one line."""
    changes: tuple[str, ...]
    """How it differs from the declared setting, as `name=value`; empty where published numbers may be held against it."""
    row: Callable[[str], Row | None] = field(repr=False)
    """The row `study/variant`, also of a study that was never swept here (its key is known from its declaration); None for
    a row that no plan and no declaration knows."""
    planned: tuple[str, ...]
    """`study/variant` of every planned row."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every planned row, each question once: rows of two studies that share their runs are one."""
        found: dict[tuple[str, ...], Row] = {}
        for name in self.planned:
            if (row := self.row(name)) is not None:
                found.setdefault(tuple(run.record.key for run in row.runs) or (name,), row)
        return tuple(found.values())


@dataclass(frozen=True)
class Table:
    """One study in one setting; its rows in the study's order."""

    study: Study
    setting: Setting
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What the reader must know beside the numbers, a line each."""

    def base(self, row: Row) -> Row | None:
        """The row that `row` is compared with."""
        return None if row.base is None else self.setting.row(row.base)

    @property
    def printed(self) -> bool:
        """Whether its rows are rows of the paper, whatever an own study or an older plan says of itself."""
        return self.study.study in paper_studies()

    @property
    def answered(self) -> bool:
        """Whether some row has a finished run."""
        return any(row.runs for row in self.rows)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is concluded of one row. Estimates are in percent or points."""

    val: Estimate | None
    """Mean, standard deviation and 95% interval of the mean over runs; None without runs."""
    test: Estimate | None
    predicted: Estimate | None
    """95% prediction interval of one new run's validation accuracy; None where nothing tells the spread."""
    verdict: Verdict
    """The published validation accuracy against it."""
    why: str
    """One line for the reader; empty where there is no published number."""
    predicted_test: Estimate | None
    test_verdict: Verdict
    test_why: str
    difference: Estimate | None
    """Test accuracy minus the base's with its simultaneous 95% interval and adjusted p; None without a base or runs."""
    image_noise: float | None
    """Half-width of the difference's 95% interval over other images; None where no predictions exist."""
    size_verdict: Literal["fits", "differs", ""]
    size_why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its verdict."""

    slug: str
    says: str
    section: str
    """Where the paper says it; empty for a question of one's own."""
    verdict: Decision
    why: str
    """One line: the differences with their intervals, n, and what n can tell."""
    statistic: float | None
    """The difference (or ratio) that decided, with its unit and interval."""
    low: float | None
    high: float | None
    unit: str
    margin: float | None
    n: int
    """Runs of the smaller of the two rows that decided."""
    needed: str
    """The smallest n that would decide ("5 runs a row"), "no number of seeds", or empty where it is decided."""
    rows: tuple[str, ...]
    run_ids: tuple[str, ...]
    setting: Setting


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency of the published numbers, in the paper's own numbers."""

    kind: str
    where: tuple[str, ...]
    """Rows (`study/variant`) and sections (`section 5.1`)."""
    sentence: str
    """All of it in one or two plain sentences."""
    printed: str
    computed: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a report comes to: a headline, and the lines that it rests on."""

    headline: str
    why: str
    decided: bool
    """Whether claims stand before tables; where nothing can be decided, the page leads with table and curves."""


@cache
def paper_studies() -> frozenset[str]:
    """The declared studies that the paper reports: those with a section."""
    return frozenset(study.study for study in declared_studies.declared() if study.section)


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor
