"""Journals to store. Every call may be repeated: what the store has already is neither lost nor doubled.

A journal is published into the one run that carries its id, as it grows: a batch a call, and the status last, so that a
FINISHED run is a complete one. A failure is a `TrackingError`; the same call made later goes on where the store stands.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from repro import journal, locks
from repro.journal import Journal
from repro.records import EPOCH_METRICS, RESULT_METRICS, EpochRecord
from repro.rows import Curve
from repro.tracking import api, entries, sqlite
from repro.tracking.names import RUN_ARTIFACTS, Tag
from repro.tracking.runs import cut
from repro.tracking.store import Store, connect
from repro.tracking.sweeps import Sweeps

if TYPE_CHECKING:
    from mlflow.entities import Run

State: TypeAlias = Literal["running", "killed", "failed"]
"""What the publisher knows of a run that is not at its end."""

MESSAGE_LENGTH = 2000
_PICTURE = "curves.png"
FORKED = "is a copy that went on apart from the journal that the store has; it is a run of its own: "
_STATUS = {"running": "RUNNING", "killed": "KILLED", "failed": "FAILED"}
_FEW = 20
"""Keys that are looked up one by one on a server."""


@dataclass(frozen=True, slots=True)
class Published:
    """What one call of `publish` did; the run id is empty while the journal has no complete record."""

    run_id: str
    points: int
    files: int = 0
    """Files that the store had lost."""
    forked: bool = False
    """Whether it made a run of its own for a copy of a journal that has gone on apart from the other."""
    created: bool = False
    """Whether the store had no run of it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """How far the store has a journal."""

    run_id: str
    status: str
    epochs: int
    """The last epoch that it has."""
    attempts: int
    """The attempts whose environment it has."""
    result: bool
    described: bool
    """Whether it has the params and the data set."""
    parent: bool
    fork: Mapping[str, str]
    """The tags that a fork's run has otherwise than its journal says; none for any other run."""


class Writer(Sweeps):
    """The writing side of one store. Not for several threads at once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._journals: dict[str, _Known] = {}  # by the start of the last attempt
        self.unpacked = False
        """Whether the journals lie in a folder that is deleted afterwards, and which no tag is to name."""

    @classmethod
    def opened(cls, uri: str | None, say: Callable[[str], object], experiment: str | None = None) -> Writer:
        """The writing side of the store at `uri`; `say` is told, a line each, what was changed there for that."""
        store = connect(uri, experiment)
        for line in store.settle():
            say(line)
        return cls(store)

    def publish(
        self, folder: Path, *, parent: str | None, state: State = "running", message: str | None = None
    ) -> Published:
        """Brings a run of the store in step with its journal.

        Args:
            folder: the run's folder.
            parent: run id of the sweep; a run that has one keeps it.
            state: what became of the run where its journal has no end; a journal that says how it stopped is believed.
            message: why it was killed or failed, where the journal does not say.

        Raises:
            ReproError: the journal was changed by hand.
            TrackingError: the store is away; call again later.
        """
        if not (folder / journal.NAME).is_file():
            return Published("", 0)
        with self.store.errors(), _one_publisher(folder):
            known = journal.read(folder)
            if known is None:
                return Published("", 0)
            # forgotten until all went well: after a failure the store itself is asked how far it came
            remembered = self._journals.pop(known.starts[-1], None)
            before = remembered or self._find(known)
            forked = before is not None and not before.run_id
            created = before is None or forked
            if before is None or forked:
                before = self._create(known, parent, before.fork if before is not None else {})
            after, files = before, 0
            if before.status == "FINISHED":
                files = 0 if remembered else self._add_missing(known, before.run_id)
            elif before.attempts <= len(known.attempts):  # else this is a former copy
                after = self._publish(known, before, parent, state, message)
            self._journals[known.starts[-1]] = after
        points = len(EPOCH_METRICS) * (after.epochs - before.epochs)
        points += (len(RESULT_METRICS) + 1) * (after.result - before.result)
        return Published(after.run_id, points, files, forked, created)

    def status(self, journal: Journal) -> str | None:
        """The status of a journal's run as this writer left it; None for one that it has not published."""
        known = self._journals.get(journal.starts[-1])
        return known.status if known else None

    def finished(self, keys: Collection[str]) -> dict[str, str]:
        """Key -> run id of the finished runs among `keys`, in any experiment; the newest where there are several."""
        wanted = set(keys)
        with self.store.errors():
            found = None
            if self.store.database is not None:
                with contextlib.suppress(sqlite.UnknownSchemaError), sqlite.reading(self.store.database) as connection:
                    found = sqlite.finished(connection)
            if found is None:
                conditions = [api.FINISHED]
                if len(wanted) <= _FEW:  # a small sweep in a large store
                    conditions = [f"{api.FINISHED} AND tags.`{Tag.KEY}` = '{key}'" for key in wanted]
                ours = [run for condition in conditions for run in api.search(self.store, condition)]
                ours.sort(key=lambda run: (run.info.start_time, run.info.run_id))
                found = {run.data.tags.get(Tag.KEY, ""): run.info.run_id for run in ours}
        return {key: run for key, run in found.items() if key in wanted}

    def _find(self, known: Journal) -> _Known | None:
        """How far the store has a journal; None where it has no run for it, one without a run id where that is to fork."""
        fork: Mapping[str, str] = {}
        found = list(api.search(self.store, f"tags.`{Tag.JOURNAL}` = '{known.id}'"))
        if not found:
            return None
        if not (same := [run for run in found if self._same(known, run)]):
            forks = api.search(self.store, f"tags.`{Tag.FORK_OF}` = '{known.id}'")
            same = [run for run in forks if self._same(known, run)]
            own = same[0].data.tags[Tag.JOURNAL] if same else known.starts[-1] + known.id[:16]
            fork = {Tag.JOURNAL: own, Tag.FORK_OF: known.id}
        if not same:
            return _Known("", "", 0, 0, False, False, False, fork)
        found = same
        # a creation whose answer was lost may have left a second, empty one: `reap` closes it
        run = max(found, key=lambda one: (one.info.status == "FINISHED", len(one.data.metrics), one.info.run_id))
        epochs = 0
        if (last := EPOCH_METRICS[-1]) in run.data.metrics:
            epochs = max(point.step for point in self.store.client.get_metric_history(run.info.run_id, last))
        return _Known(
            run_id=run.info.run_id,
            status=run.info.status,
            epochs=epochs,
            attempts=int(run.data.tags.get(Tag.ATTEMPTS, "0")),
            result=RESULT_METRICS[-1] in run.data.metrics,
            described=set(entries.params(known)) <= set(run.data.params)
            and run.inputs is not None
            and bool(run.inputs.dataset_inputs),
            parent=Tag.PARENT in run.data.tags,
            fork=fork,
        )

    def _add_missing(self, known: Journal, run_id: str) -> int:
        """Stores again those files of a finished run that the store has lost; returns how many."""
        there = {file.path for file in self.store.client.list_artifacts(run_id)}
        files = _files(known, RUN_ARTIFACTS.keys() - there)
        self.log_files(run_id, files)
        return len(files)

    def _same(self, known: Journal, run: Run) -> bool:
        """Whether a run holds what this journal said, and not what a copy of it said that went on apart."""
        attempts, start = int(run.data.tags.get(Tag.ATTEMPTS, "0")), run.data.tags.get(Tag.START)
        if start is not None and 0 < attempts <= len(known.starts):
            return bool(start == known.starts[attempts - 1])
        times = {one.record.epoch: one.time_ms for one in known.entries if isinstance(one.record, EpochRecord)}
        points = self.store.client.get_metric_history(run.info.run_id, EPOCH_METRICS[-1])
        return all(times.get(point.step, point.timestamp) == point.timestamp for point in points)

    def _create(self, known: Journal, parent: str | None, fork: Mapping[str, str]) -> _Known:
        note = self._notes.get(known.spec.key)
        tags = self._tags(known, fork) | ({Tag.PARENT: parent} if parent else {}) | ({Tag.NOTE: note} if note else {})
        run_id = self._create_run(entries.name(known), tags, known.entries[0].time_ms)
        return _Known(run_id, "RUNNING", 0, len(known.attempts), False, False, parent is not None, fork)

    def _tags(self, known: Journal, fork: Mapping[str, str]) -> dict[str, str]:
        found = {**entries.tags(known), **fork}
        return {name: value for name, value in found.items() if not (self.unpacked and name == Tag.FOLDER)}

    def _publish(self, known: Journal, run: _Known, parent: str | None, state: State, message: str | None) -> _Known:
        status, message = _status(known, run, state, message)
        tags: dict[str, str] = {}
        if run.attempts != len(known.attempts) or status == "RUNNING" != run.status:
            tags |= self._tags(known, run.fork)
        if parent is not None and not run.parent:
            tags[Tag.PARENT] = parent
        if known.differences:
            tags[Tag.DIFFERENCES] = str(len(known.differences))
        if status != run.status and (message or run.status != "RUNNING"):
            tags[Tag.MESSAGE] = message[-MESSAGE_LENGTH:]
        if known.result is not None:
            tags[Tag.OUTCOME] = known.result.outcome
        points = entries.metrics(known, run.epochs, result=not run.result)
        self._log(run.run_id, points, {} if run.described else entries.params(known), tags)
        if not run.described:
            self.store.client.log_inputs(run.run_id, entries.datasets(known))
        if status == "FINISHED":
            self.log_files(run.run_id, _files(known, RUN_ARTIFACTS))
            if (diff := known.folder / "diff.patch").is_file():
                self._log(run.run_id, tags={Tag.SOURCE_DIFF: cut(diff.read_text(errors="replace"))})
        if status == "RUNNING" and (run.status != status or run.attempts != len(known.attempts)):
            self.store.client.update_run(run.run_id, status)  # also where another process has closed it since
        elif status != run.status:
            self.store.client.set_terminated(run.run_id, status, known.entries[-1].time_ms)
        return replace(
            run,
            status=status,
            epochs=max((record.epoch for record in known.epochs), default=0),
            attempts=len(known.attempts),
            result=known.result is not None,
            described=True,
            parent=run.parent or parent is not None,
        )


def _files(known: Journal, names: Collection[str]) -> dict[str, bytes | Path]:
    """What is stored of a run at its end, of some names: the files that its folder has, and a picture of its curves."""
    files: dict[str, bytes | Path] = {name: file for name in names if (file := known.folder / name).is_file()}
    if _PICTURE in names:
        from repro.reporting import figures  # matplotlib takes half a second, which a sweep's start need not wait for

        title = known.spec.run_name(known.attempts[0].variant)
        files[_PICTURE] = figures.run_curves(Curve.of(known.epochs), title)
    return files


def _status(known: Journal, run: _Known, state: State, message: str | None) -> tuple[str, str]:
    """The status of a run and, for one that did not come to its end, why."""
    if known.result is not None:
        return "FINISHED", ""
    if known.stop is not None:
        return _STATUS["failed" if known.stop.reason == "failed" else "killed"], known.stop.message
    if state != "running" and run.status in {"KILLED", "FAILED"} and run.attempts == len(known.attempts):
        return run.status, ""  # nothing has happened since it was closed
    return _STATUS[state], message or ""


@contextlib.contextmanager
def _one_publisher(folder: Path) -> Iterator[None]:
    """Lets one process at a time publish a journal; a sweep, `sync` and `reap` may meet, and two would create two runs."""
    path = folder / journal.NAME
    with locks.alone(path, "r+b" if os.access(path, os.W_OK) else "rb"):  # NFS locks only what may be written
        yield
