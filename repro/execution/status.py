"""How far runs are: from their journals, and for those that were submitted as jobs from the jobs' ledgers and Slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

from repro import journal
from repro.errors import ReproError
from repro.execution import environment, estimate, submission
from repro.execution.executors.entries import Entry
from repro.execution.executors.slurm import Slurm
from repro.execution.following import why
from repro.execution.job import Exit
from repro.execution.submission import Submission

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
    """running: a process trains it; waiting: none does, and its job is not at its end, as far as can be told here; stopped:
    none does, the same command goes on with it; failed: its last attempt or its job said why; ended; broken: its journal
    cannot be read."""
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
    for known in journal.readable(runs):
        if known.result is not None:
            usual.setdefault(_limits(known), []).append(known.result.epochs_run)
    slurm = Slurm(Entry(), runs)
    return sorted((_of(folder, usual, slurm) for folder in folders), key=lambda one: (one.name, one.key))


def _unfinished(sent: Submission | None, known: journal.Journal | None, slurm: Slurm) -> tuple[State, str]:
    """The state of a run that nobody trains and that is not at its end, and why."""
    stop = known.stop if known is not None else None
    failed = stop is not None and stop.reason == "failed"
    if sent is not None:
        job = slurm.submitted(sent.id)
        if (code := job.exit()) is None:
            return "waiting", ""
        if not failed and code not in {Exit.DONE, Exit.STOPPED}:
            return "failed", why(job, code)[0]
    if stop is None:
        return "stopped", f"job {sent.job} has ended" if sent is not None else ""
    return "failed" if failed else "stopped", stop.message


def _limits(known: journal.Journal) -> tuple[int, int]:
    return known.spec.training.epochs, known.spec.training.patience


def _of(folder: Path, usual: Mapping[tuple[int, int], Sequence[int]], slurm: Slurm) -> Status:
    sent = submission.read(folder)
    job, name, epochs = (sent.job, sent.name, sent.epochs) if sent is not None else ("", "", 0)
    empty = Status(folder.name, name, "stopped", 0, epochs, None, None, None, None, 0, "", 0, job, "")
    try:
        held = journal.held(folder)
        known = journal.read(folder)
        over = known is not None and known.result is not None
        state: State = "ended" if over else "running"
        message = ""
        if not over and not held:
            state, message = _unfinished(sent, known, slurm)
        if known is None:
            return replace(
                empty, state=state, message=message or ("" if sent else "its journal has no complete record")
            )
        spec, last = known.spec, known.attempts[-1]
    except (ReproError, OSError) as error:
        return replace(empty, state="broken", message=str(error))
    trained = (last.environment.commit, last.environment.diff_digest)
    if sent is not None and len(known.entries) > sent.entries and trained != (sent.commit, sent.diff_digest):
        then, now = environment.state(sent.commit, sent.diff_digest), environment.state(*trained)
        message += f"{'; ' if message else ''}the code has changed since it was submitted ({then}; trained with {now})"
    left = None
    if known.epochs and state != "ended":
        best = max(known.epochs, key=lambda one: one.val_accuracy).epoch
        seconds, ends = median(one.epoch_seconds for one in known.epochs), usual.get(_limits(known))
        left = estimate.of_run(spec.training, len(known.epochs), best, seconds, median(ends) if ends else None)
    return Status(
        key=folder.name,
        name=f"{last.study}/{spec.run_name(last.variant)}",
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
