"""How far runs are, from their journals alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

from repro import journal
from repro.errors import ReproError

State: TypeAlias = Literal["running", "stopped", "failed", "ended", "broken"]
STATES: tuple[State, ...] = ("running", "stopped", "failed", "ended", "broken")


@dataclass(frozen=True, slots=True)
class Status:
    """One run's folder."""

    key: str
    """The folder's name: the run's key, with a number behind it where it was set aside."""
    name: str
    """Study, variant and seed."""
    state: State
    """running: a process of this machine trains it; stopped: none does, the same command goes on with it; failed: its
    last attempt said why; ended; broken: its journal cannot be read."""
    epoch: int
    epochs: int
    """The budget."""
    best_val_accuracy: float | None
    """A share of 0 to 1; None before the first epoch."""
    test_accuracy: float | None
    """A share of 0 to 1; None before the end."""
    seconds_left: float | None
    """At most, by the median epoch; None for a run that is at its end or has no epoch."""
    attempts: int
    host: str
    pid: int
    """Of the last attempt, as `host`."""
    message: str
    """Why it stopped, failed or cannot be read."""


def read(runs: Path) -> list[Status]:
    """The runs of a folder, by study, variant and seed."""
    return sorted((_of(folder) for folder in journal.find(runs)), key=lambda one: (one.name, one.key))


def _of(folder: Path) -> Status:
    try:
        held = journal.held(folder)
        known = journal.read(folder)
        if known is None:
            return Status(folder.name, "", "stopped", 0, 0, None, None, None, 0, "", 0, "its journal is empty")
        spec, last = known.spec, known.attempts[-1]
    except (ReproError, OSError) as error:
        return Status(folder.name, "", "broken", 0, 0, None, None, None, 0, "", 0, str(error))
    state: State = "running" if held else "stopped"
    if known.result is not None:
        state = "ended"
    elif known.stop is not None and not held:
        state = "failed" if known.stop.reason == "failed" else "stopped"
    left = spec.training.epochs - len(known.epochs)
    return Status(
        key=folder.name,
        name=f"{last.study}/{last.variant} seed {spec.seed}",
        state=state,
        epoch=len(known.epochs),
        epochs=spec.training.epochs,
        best_val_accuracy=max((one.val_accuracy for one in known.epochs), default=None),
        test_accuracy=known.result.test_accuracy if known.result else None,
        seconds_left=left * median(one.epoch_seconds for one in known.epochs)
        if known.epochs and state != "ended"
        else None,
        attempts=len(known.attempts),
        host=last.environment.host,
        pid=last.pid,
        message=known.stop.message if known.stop and not held else "",
    )
