"""Feeds the tracking store from the journals while a sweep trains, in a thread of its own.

The store may be slow or away: training neither waits nor stops. A journal is published again and again until the store
has all of it; the thread spends at most about a hundredth of its time on that, and backs off while the store is away.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from repro import journal
from repro.errors import ReproError
from repro.records import Environment
from repro.reporting.report import sweep_table
from repro.rows import Curve
from repro.studies import Plan
from repro.tracking import reader
from repro.tracking.writer import State, Status, Writer

_SHARE = 0.01
_LEAST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0


class Publisher:
    """The only writer of the store during a sweep. `note` may be called from another thread at any time."""

    def __init__(
        self,
        writer: Writer,
        plan: Plan,
        reused: Mapping[str, str],
        environment: Environment,
        say: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._plan = plan
        self._reused = dict(reused)
        self._environment = environment
        self._say = say
        self.parent: str | None = None
        self._noted: dict[Path, tuple[int, State]] = {}  # how often a journal was noted, and its run's state
        self._published: dict[Path, int] = {}  # up to which note the store has it
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._killed = False
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def note(self, folder: Path, state: State = "running") -> None:
        """Says that the journal in `folder` has grown, and in which state its run is."""
        with self._lock:
            self._noted[folder] = (self._noted.get(folder, (0, state))[0] + 1, state)
        if state != "running":
            self._wake.set()

    def close(self, patience: float, *, killed: bool = False) -> int:
        """Publishes what is left, for at most `patience` seconds; returns how many journals remain unpublished.

        A sweep that was killed is marked so, within the same time.
        """
        self._killed = killed
        self._closing.set()
        self._wake.set()
        self._thread.join(patience)
        return len(self._left())

    def conclude(self, status: Status) -> str:
        """Ends the sweep in the store, with its tables; returns them in Markdown. The thread has ended before.

        Raises:
            TrackingError: the store is away.
        """
        contents = reader.read(self._writer.store.uri, studies=[study.study for study in self._plan.studies])
        table = sweep_table(self._plan, contents.runs)
        if self.parent is not None:
            self._writer.close_sweep(self.parent, status, {"results.md": table.encode()}, table)
        return table

    def _left(self) -> dict[Path, tuple[int, State]]:
        with self._lock:
            return {folder: note for folder, note in self._noted.items() if note[0] > self._published.get(folder, 0)}

    def _work(self) -> None:
        away = 0
        while True:
            began = time.monotonic()
            try:
                self._round()
                if away:
                    self._say("the tracking store is back; what was waiting is published")
                away = 0
            except Exception as error:  # whatever the store does, training goes on
                away += 1
                if away == 1:
                    self._say(f"{error}; training goes on, its journals keep everything until the store is back")
            if self._closing.is_set() and not away and not self._left():
                if self._killed and self.parent is not None:
                    with contextlib.suppress(ReproError):  # else the next sweep's start closes it
                        self._writer.close_sweep(self.parent, "KILLED", {})
                return
            spent = time.monotonic() - began
            pause = 2.0**away if away else max(_LEAST_PAUSE, spent / _SHARE)
            if self._closing.is_set():
                pause = 0.5 if away else 0.0
            self._wake.wait(min(_LONGEST_PAUSE, pause))
            self._wake.clear()

    def _round(self) -> None:
        if self.parent is None:
            self.parent = self._writer.open_sweep(self._plan, reused=self._reused, environment=self._environment)
        for folder, (count, state) in self._left().items():
            drawn = draw(folder)
            published = self._writer.publish(folder, parent=self.parent, state=state)
            if not drawn and draw(folder):  # it came to its end in between
                self._writer.log_files(published.run_id, {"curves.png": folder / "curves.png"})
            with self._lock:
                self._published[folder] = count


def draw(folder: Path) -> bool:
    """Writes `curves.png` beside the journal of a run that is at its end; whether it is there now."""
    known = journal.read(folder)
    if known is None or known.result is None:
        return False
    picture = folder / "curves.png"
    if not picture.exists():
        from repro.reporting import figures  # matplotlib takes half a second, which a sweep's start need not wait for

        title = f"{known.attempts[0].variant} seed {known.spec.seed}"
        try:
            picture.write_bytes(figures.run_curves(Curve.of(known.epochs), title))
        except OSError:  # a full disk: the run is published without its picture
            return False
    return True
