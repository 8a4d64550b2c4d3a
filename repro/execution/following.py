"""A run that a worker trains, followed by its journal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repro import journal
from repro.execution import environment
from repro.execution.beat import Beat
from repro.execution.events import Ended, Epoch, Event, Notice, Started
from repro.execution.executors import Handle
from repro.execution.job import Exit
from repro.records import Environment, EpochRecord, RunResult
from repro.studies import PlannedRun

_LINES = 12


@dataclass
class Followed:
    """A run that is being trained, and how much of its journal was told."""

    run: PlannedRun
    folder: Path
    handle: Handle
    told: int = 0
    size: int = 0
    beat: Beat | None = None
    ended: bool = False
    """Whether its end was told; its process may take a moment longer."""

    def news(self, states: set[tuple[str, str]]) -> Iterator[Event]:
        """Yields what is new in the journal.

        Args:
            states: the states of the code that the sweep knows, as commit and digest of what is not committed; others
                are said once, and added.
        """
        file = self.folder / journal.NAME
        size = file.stat().st_size if file.exists() else 0
        if size == self.size:
            return
        self.size = size
        known = journal.read(self.folder)
        fresh = known.entries[self.told :] if known is not None else ()
        self.told += len(fresh)
        for entry in fresh:
            match entry.record:
                case journal.Attempt():
                    yield Started(self.run, entry.record.resumed_epoch)
                    yield from self._other_code(entry.record.environment, states)
                    if entry.record.resumed_epoch and known is not None and known.mixed:
                        yield Notice(
                            f"{self.run.name}: {' and '.join(known.mixed)} changed since its first epochs were trained;"
                            " the run records it, and --fresh true retrains it in one piece once it has ended"
                        )
                case EpochRecord():
                    yield Epoch(self.run, entry.record)
                case journal.Difference(epoch, metric, recorded, retrained):
                    yield Notice(
                        f"{self.run.name}: epoch {epoch} was retrained and its {metric} is {retrained!r}, not"
                        f" {recorded!r} as recorded: this machine does not reproduce the run bit for bit"
                    )
                case RunResult():
                    self.ended = True
                    yield Ended(self.run, entry.record)
                case journal.Stop():
                    pass  # the process's end says it

    def _other_code(self, there: Environment, states: set[tuple[str, str]]) -> Iterator[Event]:
        if (there.commit, there.diff_digest) not in states:
            states.add((there.commit, there.diff_digest))
            yield Notice(
                f"{self.run.name}: the code has changed since the sweep started; this run and later ones are trained"
                f" with commit {environment.state(there.commit, there.diff_digest)}; each run records its commit"
            )


def why(handle: Handle, code: int) -> tuple[str, str]:
    """Why a job ended with `code` before its run did, in one line, and the last lines that it wrote."""
    words = handle.last_words(_LINES)
    if code < 0:
        name = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
        return f"killed by {name}", words
    if code == Exit.STOPPED:
        return "its process was stopped", words
    return words.rpartition("\n")[2] or f"exit code {code}", words
