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
from repro.reporting import figures
from repro.rows import Curve
from repro.studies import Plan
from repro.tracking.writer import State, Writer

_SHARE = 0.01
_LEAST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0


class Publisher:
    """The only writer of the store during a sweep. `note` may be called from another thread at any time."""

    def __init__(self, writer: Writer, plan: Plan, reused: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._writer = writer
        self._plan = plan
        self._reused = dict(reused)
        self._say = say
        self.parent: str | None = None
        self._states: dict[Path, State] = {}
        self._done: set[Path] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def note(self, folder: Path, state: State = "running") -> None:
        """Says that the journal in `folder` has grown, and in which state its run is."""
        with self._lock:
            self._states[folder] = state
            self._done.discard(folder)
        if state != "running":
            self._wake.set()

    def close(self, patience: float) -> int:
        """Publishes what is left, for at most `patience` seconds; returns how many journals remain unpublished."""
        self._closing.set()
        self._wake.set()
        deadline = time.monotonic() + patience
        while self._left() and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return len(self._left())

    def _left(self) -> dict[Path, State]:
        with self._lock:
            return {folder: state for folder, state in self._states.items() if folder not in self._done}

    def _work(self) -> None:
        away = 0
        while True:
            began = time.monotonic()
            try:
                self._round()
                if away:
                    self._say("the tracking store is back; what was waiting is published")
                away = 0
            except ReproError as error:
                away += 1
                if away == 1:
                    self._say(f"{error}; training goes on, its journals keep everything until the store is back")
            spent = time.monotonic() - began
            if self._closing.is_set() and not self._left() and self.parent is not None:
                return
            pause = min(_LONGEST_PAUSE, 2.0**away) if away else min(_LONGEST_PAUSE, max(_LEAST_PAUSE, spent / _SHARE))
            if self._closing.is_set():
                pause = min(pause, 1.0 if away else 0.0)
            self._wake.wait(pause)
            self._wake.clear()

    def _round(self) -> None:
        if self.parent is None:
            self.parent = self._writer.open_sweep(self._plan, reused=self._reused)
        for folder, state in self._left().items():
            if state == "running":
                self._writer.publish(folder, parent=self.parent, state=state)
                with self._lock:
                    if self._states[folder] == "running":
                        self._done.add(folder)  # until it is noted again
            else:
                with contextlib.suppress(OSError):
                    draw(folder)
                self._writer.publish(folder, parent=self.parent, state=state)
                with self._lock:
                    if self._states[folder] == state:
                        self._done.add(folder)


def draw(folder: Path) -> None:
    """Writes `curves.png`, the epochs of the run in `folder`, beside its journal."""
    known = journal.read(folder)
    if known is not None and known.epochs:
        run = known.attempts[0]
        title = f"{run.variant} seed {known.spec.seed}"
        (folder / "curves.png").write_bytes(figures.run_curves(Curve.of(known.epochs), title))
