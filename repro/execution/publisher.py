"""Feeds the tracking store from the journals while a sweep trains, in a thread of its own.

The store may be slow or away: training neither waits nor stops. A journal is published again and again until the store
has all of it; the thread takes at most about a hundredth of a core for that, and backs off while the store is away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.errors import ReproError, one_line
from repro.records import Environment
from repro.rows import RunRow
from repro.studies import Plan
from repro.tracking import models, notes, reader, system
from repro.tracking.failures import TrackingError
from repro.tracking.store import DEFAULT_URI, resolve
from repro.tracking.sweeps import Status
from repro.tracking.views import LINK
from repro.tracking.writer import FORKED, State, Writer

_SHARE = 0.01
_LEAST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_POLL_SECONDS = 0.05
_LAST_TRY_SECONDS = 0.6


@dataclass(frozen=True, slots=True)
class _Note:
    """What is known of a run whose journal has grown."""

    state: State
    message: str | None


class Publisher:
    """The only writer of the store during a sweep. `note` may be called from another thread at any time."""

    def __init__(
        self,
        writer: Writer,
        plan: Plan,
        reused: Mapping[str, str],
        environment: Environment,
        say: Callable[[str], None],
        *,
        runs: Path = Path("runs"),
        models: models.Which = "none",
    ) -> None:
        self._writer = writer
        self._plan = plan
        self._reused = dict(reused)
        self.journals: Collection[str] = ()
        """Keys of the runs that are finished in their journals alone; to be named before `start`."""
        self._environment = environment
        self._say = say
        self._runs, self._models = runs, models
        self.parent: str | None = None
        """MLflow's id of the sweep, once it has one."""
        self.table = ""
        """The sweep's table in Markdown, once it is at its end in the store."""
        self.closed = False
        """Whether the store has all of the sweep, and its end."""
        self._notes: dict[Path, _Note] = {}  # what is still to be published
        self._broken: set[Path] = set()  # the folders whose journal could not be published, store or no store
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing: Status | None = None
        self._away = 0  # how often in a row the store has not answered
        self._progress = time.monotonic()
        self._trying = False
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    @property
    def link(self) -> str:
        """Where MLflow's UI shows the runs and their curves, each on a line, and how it is started for a store in a file."""
        store = self._writer.store
        flags = "" if store.uri == resolve(DEFAULT_URI) else f" --backend-store-uri {store.uri}"
        start = "" if store.database is None else f", once `mlflow ui{flags}` is running"
        return f"runs in MLflow{start}:\n{store.link}\nloss and accuracy over epochs:\n{store.link}{LINK}"

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def note(self, folder: Path, state: State = "running", message: str | None = None) -> None:
        """Says that the journal in `folder` has grown, in which state its run is, and why it failed."""
        with self._lock:
            self._notes[folder] = _Note(state, message)
        if state != "running":
            self._wake.set()

    def close(self, status: Status, patience: float, stopping: Callable[[], bool] = lambda: False) -> int:
        """Publishes what is left and ends the sweep in the store; returns how many journals remain unpublished.

        Args:
            status: the sweep's; one that is not KILLED gets its table, too.
            patience: seconds without progress after which it is given up, once the store has not answered; for one that
                is KILLED seconds in all.
            stopping: asked all the while whether to give up at once.
        """
        self._closing = status
        self._wake.set()
        began = self._progress = time.monotonic()
        while self._thread.is_alive() and not stopping():
            going_on = status != "KILLED" and self._trying  # slow is not away; MLflow itself ends a call that hangs
            since = began if status == "KILLED" else self._progress
            if status == "KILLED" and self._away:  # it was away before: one more try, not all of the time
                patience = min(patience, _LAST_TRY_SECONDS)
            if time.monotonic() > since + patience and not going_on:
                break
            self._thread.join(_POLL_SECONDS)
        with self._lock:
            return len(self._broken | self._notes.keys())

    def _work(self) -> None:
        while True:
            began = time.thread_time()  # waiting for a slow store costs training nothing
            self._trying = True
            try:
                self._round()
                if self._closing is not None and not self._notes:
                    self._conclude(self._closing)
                    self.closed = True
                    return
                if self._away:
                    self._say("the tracking store is back; the waiting data is published")
                self._away = 0
            except Exception as error:  # whatever the store does, training goes on
                self._away += 1
                if self._away == 1:
                    self._say(
                        f"{one_line(error)}; training continues, and the journals keep everything until the store is back"
                    )
            finally:
                self._trying = False
            spent = time.thread_time() - began
            pause = 2.0 ** min(self._away, 5) if self._away else max(_LEAST_PAUSE, spent / _SHARE)
            if self._closing is not None:
                pause = 0.5 if self._away else 0.0
            self._wake.wait(min(_LONGEST_PAUSE, pause))
            self._wake.clear()

    def _round(self) -> None:
        if self.parent is None:
            self.parent = self._writer.open_sweep(
                self._plan, reused=self._reused, journals=self.journals, environment=self._environment
            )
            try:
                system.measure(self._writer.store, self.parent)
            except ReproError as error:
                self._say(str(error))
        with self._lock:
            noted = list(self._notes.items())
        for folder, note in noted:
            try:
                done = self._writer.publish(folder, parent=self.parent, state=note.state, message=note.message)
                if done.forked:
                    self._say(f"{folder.name} {FORKED}{done.run_id}")
                self._broken.discard(folder)
                self._progress = time.monotonic()
            except TrackingError:
                with self._lock:  # the next round begins with the others: it may be this run alone that fails
                    self._notes[folder] = self._notes.pop(folder)
                raise
            except Exception as error:  # a journal that was changed by hand: the others are published
                self._broken.add(folder)
                self._say(f"{folder.name} cannot be published: {one_line(error)}")
            with self._lock:
                if self._notes[folder] is note:  # else it has grown meanwhile
                    del self._notes[folder]

    def _conclude(self, status: Status) -> None:
        """Ends the sweep in the store, with its table."""
        assert self.parent is not None
        if status == "KILLED":
            self._writer.close_sweep(self.parent, status, {})
            return
        rows = reader.read(self._writer.store.uri, plans=False).runs
        for line in models.ship(self._writer, rows, {run.key for run in self._plan.runs}, self._runs, self._models):
            self._say(line)
        self.table = conclude(self._writer, self._plan, self.parent, status, rows, self._reused)


def conclude(
    writer: Writer,
    plan: Plan,
    parent: str,
    status: Status,
    rows: Sequence[RunRow],
    reused: Collection[str] = (),
    ended_ms: int | None = None,
) -> str:
    """Ends a sweep in the store, whose finished runs are `rows`, with its table in Markdown, which it returns.

    Its description is the table and links to the runs with `reused` keys, which are children of other sweeps.
    """
    from repro.reporting.report import swept  # pandas takes a second, which a sweep's start need not wait for

    table, figures, metrics = swept(plan, rows)
    description = table + notes.of_reused(plan, [row for row in rows if row.key in reused])
    writer.close_sweep(parent, status, {"results.md": table.encode(), **figures}, description, metrics, ended_ms)
    return table
