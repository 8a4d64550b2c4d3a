"""Closes what processes that are gone have left RUNNING. A run whose owner may be alive is never touched."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro import journal, owner
from repro.errors import ReproError
from repro.journal import Journal
from repro.tracking import api
from repro.tracking.failures import TrackingError
from repro.tracking.names import Tag
from repro.tracking.writer import MESSAGE_LENGTH, Writer

if TYPE_CHECKING:
    from mlflow.entities import Run


_SECONDS = 30.0  # after which runs that cannot be closed are no longer tried
_SILENT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Reaped:
    """A run that was closed."""

    run_id: str
    name: str
    status: str
    problem: str = ""
    """Why it could not be closed; it is tried again by the next sweep."""

    def __str__(self) -> str:
        if self.problem:
            return f"cannot close {self.name} ({self.run_id}), whose process is gone: {self.problem}"
        return f"closed {self.name} ({self.run_id}) as {self.status}: its process is gone"


def reap(writer: Writer, runs: Path) -> list[Reaped]:
    """Closes the runs and sweeps of this host whose process is gone, publishing first what the journals hold.

    A run: the process that published it is gone, and the lock of its folder can be taken. A sweep, also one that
    `mlflow run` has made: the process that drove it is gone.

    Args:
        writer: the store.
        runs: where a run's folder is looked for when it is not where it was trained.
    """
    with writer.store.errors():
        running = list(api.search(writer.store, f"attributes.status = 'RUNNING' AND tags.`{Tag.KIND}` LIKE '%'"))
    dead = [run for run in running if owner.alive(run.data.tags.get(Tag.OWNER)) is False]
    dead.sort(key=lambda run: run.data.tags[Tag.KIND])  # runs before their sweeps
    closed: list[Reaped] = []
    deadline = time.monotonic() + _SECONDS
    for run in dead:
        try:
            if run.data.tags[Tag.KIND] == "sweep":
                closed.append(_close(writer, run, run.data.tags.get(Tag.CLOSED, "KILLED")))
            elif (one := _run(writer, run, runs)) is not None:
                closed.append(one)
        except TrackingError as error:  # it may be this run alone; one that cannot be closed is in nobody's way
            closed.append(Reaped(run.info.run_id, run.info.run_name or "", "", str(error)))
            if time.monotonic() > deadline:
                break
    return closed


def gone(known: Journal) -> bool:
    """Whether the process of a run that is not at its end is taken to be gone, where its folder's lock is free here.

    The lock of another host may not be seen from here: its run is gone after an hour, or ten epochs, without a record.
    """
    if known.attempts[-1].environment.host == platform.node():
        return True
    longest = max((epoch.epoch_seconds for epoch in known.epochs), default=0.0)
    return time.time() - known.entries[-1].time_ms / 1000 > max(_SILENT_SECONDS, 10 * longest)


def _run(writer: Writer, run: Run, runs: Path) -> Reaped | None:
    tags = run.data.tags
    places = (Path(tags.get(Tag.FOLDER, "")), runs / tags.get(Tag.KEY, ""))
    try:
        folder = next((place for place in places if (place / journal.NAME).is_file()), None)
        if folder is None:
            return _close(writer, run, "KILLED", "its process and its journal are gone")
        lock = journal.claim(folder)
    except OSError:
        return None  # only its owner may touch it
    if lock is None:
        return None
    with lock:
        try:
            known = journal.read(folder)
            if known is None or known.id != tags.get(Tag.FORK_OF, tags.get(Tag.JOURNAL)):
                return _close(writer, run, "KILLED", "its process is gone, and its journal was replaced")
            if known.attempts[-1].environment.host != platform.node():
                return None  # trained on another machine, whose lock may not be seen from here
            published = writer.publish(folder, parent=None, state="killed", message="its process is gone")
        except TrackingError:
            raise
        except ReproError as error:  # a journal that was changed by hand
            return _close(writer, run, "FAILED", str(error))
    if published.run_id != run.info.run_id:
        return _close(writer, run, "FAILED", f"a double of run {published.run_id}")
    return Reaped(run.info.run_id, run.info.run_name or "", writer.status(known) or "")


def _close(writer: Writer, run: Run, status: str, message: str = "") -> Reaped:
    with writer.store.errors():
        if message:
            writer.store.client.set_tag(run.info.run_id, Tag.MESSAGE, message[-MESSAGE_LENGTH:], synchronous=True)
        writer.store.client.set_terminated(run.info.run_id, status)
    return Reaped(run.info.run_id, run.info.run_name or "", status)
