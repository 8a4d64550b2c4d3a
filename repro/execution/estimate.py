"""How long a sweep takes: a likely time and an upper bound, by earlier runs on this machine and by those in training.

An epoch's seconds come from the first of: the run's own epochs, runs of the same model, runs of the same family of networks
in proportion to their multiply-adds, runs of other networks in the same proportion, and the median of the family. The upper
bound is the limit of epochs. The likely number of epochs is the median of finished runs with the same limit and patience, and
at least what patience leaves a run in training.
"""

from __future__ import annotations

import heapq
import json
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from repro import built, journal
from repro.recipe import TrainingSpec
from repro.records import EpochRecord
from repro.spec import RunSpec, flatten
from repro.studies import PlannedRun


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds of wall time that are left."""

    likely: float
    most: float


@dataclass
class _Running:
    done: int = 0
    best_epoch: int = 0
    best: float = -1.0
    since: float = 0.0
    """When the epoch in work began, on the clock."""
    seconds: list[float] = field(default_factory=list)


def of_run(limits: TrainingSpec, done: int, best_epoch: int, seconds: float, usual: float | None = None) -> Left:
    """The time left of one run, by the seconds of an epoch.

    Args:
        limits: its limit of epochs and its patience.
        done: epochs that are complete.
        best_epoch: the one with the best validation accuracy, 0 before the first.
        seconds: of an epoch.
        usual: epochs that such runs took to their end; None where none is known.
    """
    likely = min(limits.epochs, max(limits.epochs if usual is None else usual, best_epoch + limits.patience))
    return Left(max(0.0, likely - done) * seconds, (limits.epochs - done) * seconds)


class Estimate:
    """The time left of a sweep: told of every start, epoch and end, it can be asked at any time."""

    def __init__(self, planned: Sequence[PlannedRun], runs: Path, workers: int, device: str, threads: int) -> None:
        """Reads the journals below `runs` once; those of other machines, devices and numbers of threads do not count."""
        self._todo = {run.key: run for run in planned}
        self._workers = workers
        self._running: dict[str, _Running] = {}
        self._work: dict[str, int] = {}  # model -> multiply-adds of an image
        # family -> model and seconds of an epoch, of each run
        self._seconds: dict[tuple[str, str], list[tuple[str, float]]] = {}
        self._epochs: dict[tuple[int, int], list[int]] = {}
        declared = built.known() or {}
        for run in planned:
            if row := declared.get((run.study, run.variant)):
                self._work[_model(run.spec)] = row.multiply_adds
        for known in journal.readable(runs):
            here = known.attempts[-1].environment
            if (here.host, here.device, here.threads) == (platform.node(), device, threads):
                self._learn(known.spec, [one.epoch_seconds for one in known.epochs], known.folder)
                if known.result is not None:
                    self._ended(known.spec, known.result.epochs_run)

    def _learn(self, spec: RunSpec, seconds: Sequence[float], folder: Path) -> None:
        if not seconds:
            return
        if work := self._work.get(_model(spec)) or _described(folder):
            self._work[_model(spec)] = work
        self._seconds.setdefault(_family(spec), []).append((_model(spec), median(seconds)))

    def _ended(self, spec: RunSpec, epochs: int) -> None:
        self._epochs.setdefault((spec.training.epochs, spec.training.patience), []).append(epochs)

    def started(self, run: PlannedRun, resumed: int) -> None:
        """A run begins, or goes on after `resumed` epochs."""
        self._running[run.key] = _Running(done=resumed, best_epoch=resumed, since=time.monotonic())

    def epoch(self, run: PlannedRun, record: EpochRecord) -> None:
        """A run has finished an epoch."""
        at = self._running.setdefault(run.key, _Running())
        at.done, at.since = record.epoch, time.monotonic()
        at.seconds.append(record.epoch_seconds)
        if record.val_accuracy > at.best:
            at.best, at.best_epoch = record.val_accuracy, record.epoch

    def ended(self, run: PlannedRun, folder: Path) -> None:
        """A run has come to its end, or has failed."""
        self._todo.pop(run.key, None)
        if at := self._running.pop(run.key, None):
            self._learn(run.spec, at.seconds, folder)
            self._ended(run.spec, at.done)

    def left(self) -> Left | None:
        """The time left now; None where nothing tells how long an epoch of some run takes."""
        plans = [self._run(run) for run in sorted(self._todo.values(), key=lambda run: run.key not in self._running)]
        times = [plan for plan in plans if plan is not None]
        if len(times) < len(plans):
            return None
        return Left(self._shared(one.likely for one in times), self._shared(one.most for one in times))

    def _run(self, run: PlannedRun) -> Left | None:
        """What one run still takes."""
        limits = run.spec.training
        at = self._running.get(run.key)
        seconds = median(at.seconds) if at and at.seconds else self._epoch_seconds(run.spec)
        if seconds is None:
            return None
        ended = self._epochs.get((limits.epochs, limits.patience))
        usual = median(ended) if ended else None
        if at is None:
            return Left((limits.epochs if usual is None else usual) * seconds, limits.epochs * seconds)
        left, spent = of_run(limits, at.done, at.best_epoch, seconds, usual), min(seconds, time.monotonic() - at.since)
        return Left(max(0.0, left.likely - spent), max(0.0, left.most - spent))

    def _epoch_seconds(self, spec: RunSpec) -> float | None:
        model, (network, setting) = _model(spec), _family(spec)
        if same := [seconds for other, seconds in self._seconds.get((network, setting), []) if other == model]:
            return median(same)
        measured = [(family, *one) for family, several in self._seconds.items() for one in several]
        for key, at in self._running.items():
            if at.seconds and key in self._todo:
                other = self._todo[key].spec
                measured.append((_family(other), _model(other), median(at.seconds)))
        known = [one for one in measured if one[0] == (network, setting)]
        alike = known or [one for one in measured if one[0][1] == setting]
        rates = [seconds / self._work[other] for _, other, seconds in alike if other in self._work]
        if rates and model in self._work:
            return median(rates) * self._work[model]
        return median(seconds for *_, seconds in known) if known else None

    def _shared(self, lengths: Iterable[float]) -> float:
        """Wall time of runs of these lengths: each goes to the worker that is free first, as in a sweep."""
        free_at = [0.0] * self._workers
        for length in lengths:
            heapq.heapreplace(free_at, free_at[0] + length)
        return max(free_at)


def _described(folder: Path) -> int | None:
    """The multiply-adds in a run's `architecture.json`; None where it has none."""
    try:
        return int(json.loads((folder / "architecture.json").read_bytes())["multiply_adds"]) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _model(spec: RunSpec) -> str:
    return repr([(name, value) for name, value in flatten(spec).items() if name.startswith("model.")])


def _family(spec: RunSpec) -> tuple[str, str]:
    """The network, and what else decides how long a multiply-add of it takes."""
    data = [(name, value) for name, value in flatten(spec).items() if name.startswith("data.")]
    return spec.model.network, f"{data} {spec.training.batch_size} {spec.training.precision}"
