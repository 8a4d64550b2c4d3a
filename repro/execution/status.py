"""How far runs are, from their journals alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

from repro import journal
from repro.errors import ReproError
from repro.execution import estimate, submission

State: TypeAlias = Literal["running", "waiting", "stopped", "failed", "ended", "broken"]
STATES: tuple[State, ...] = ("running", "waiting", "stopped", "failed", "ended", "broken")


@dataclass(frozen=True, slots=True)
class Status:
    """One run's folder."""

    key: str
    """The folder's name: the run's key, with a number behind it where it was set aside."""
    name: str
    """Study, variant and seed."""
    state: State
    """running: a process trains it; waiting: none does, and it was submitted as a job; stopped: none does, the same command
    goes on with it; failed: its last attempt said why; ended; broken: its journal cannot be read."""
    epoch: int
    epochs: int
    """The budget."""
    best_val_accuracy: float | None
    """A share of 0 to 1; None before the first epoch."""
    test_accuracy: float | None
    """A share of 0 to 1; None before the end."""
    seconds_left: float | None
    """At most, by the median epoch; None for a run that is at its end or has no epoch."""
    likely_seconds_left: float | None
    """By the epochs that runs with the same limit and patience took here."""
    attempts: int
    host: str
    pid: int
    """Of the last attempt, as `host`."""
    job: str
    """The number of the job that it was submitted as; "" where it was trained by its sweep."""
    message: str
    """Why it stopped, failed or cannot be read; whether the code has changed since it was submitted."""


def read(runs: Path) -> list[Status]:
    """The runs of a folder, by study, variant and seed."""
    submitted = {path.parent for path in runs.glob(f"*/{submission.NAME}")}
    folders = sorted({*journal.find(runs), *submitted})
    usual: dict[tuple[int, int], list[int]] = {}
    for folder in folders:
        with contextlib.suppress(ReproError):
            if (known := journal.read(folder)) is not None and known.result is not None:
                usual.setdefault(_limits(known), []).append(known.result.epochs_run)
    return sorted((_of(folder, usual) for folder in folders), key=lambda one: (one.name, one.key))


def _limits(known: journal.Journal) -> tuple[int, int]:
    return known.spec.training.epochs, known.spec.training.patience


def _of(folder: Path, usual: Mapping[tuple[int, int], Sequence[int]]) -> Status:
    sent = submission.read(folder)
    job = sent.job if sent is not None else ""
    empty = Status(folder.name, "", "stopped", 0, 0, None, None, None, None, 0, "", 0, job, "")
    try:
        held = journal.held(folder)
        known = journal.read(folder)
        if known is None:
            return replace(empty, state="waiting") if sent else replace(empty, message="its journal is empty")
        spec, last = known.spec, known.attempts[-1]
    except (ReproError, OSError) as error:
        return replace(empty, state="broken", message=str(error))
    state: State = "running" if held else "waiting" if sent is not None else "stopped"
    if known.result is not None:
        state = "ended"
    elif known.stop is not None and not held:
        state = "failed" if known.stop.reason == "failed" else state
    message = known.stop.message if known.stop and not held else ""
    if sent is not None and (sent.commit, sent.diff_digest) != (last.environment.commit, last.environment.diff_digest):
        here, there = last.environment.commit[:12], sent.commit[:12]
        message += (
            f"{'; ' if message else ''}the code has changed since it was submitted ({there}, trained with {here})"
        )
    left = None
    if known.epochs and state != "ended":
        best = max(known.epochs, key=lambda one: one.val_accuracy).epoch
        seconds, ends = median(one.epoch_seconds for one in known.epochs), usual.get(_limits(known))
        left = estimate.of_run(spec.training, len(known.epochs), best, seconds, median(ends) if ends else None)
    return Status(
        key=folder.name,
        name=f"{last.study}/{last.variant} seed {spec.seed}",
        state=state,
        epoch=len(known.epochs),
        epochs=spec.training.epochs,
        best_val_accuracy=max((one.val_accuracy for one in known.epochs), default=None),
        test_accuracy=known.result.test_accuracy if known.result else None,
        seconds_left=left.most if left else None,
        likely_seconds_left=left.likely if left else None,
        attempts=len(known.attempts),
        host=last.environment.host,
        pid=last.pid,
        job=job,
        message=message,
    )
