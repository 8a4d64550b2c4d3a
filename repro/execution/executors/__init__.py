"""Where runs are computed. An executor takes jobs and says how each ended; whether one is tried again, the sweep decides.

Nothing is returned by value: a job is one line of JSON, and the truth about its run is the journal in its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from repro.execution.job import Job


class Handle(Protocol):
    """A run that was submitted."""

    @property
    def id(self) -> str:
        """What `Executor.attach` finds it by."""

    def exit(self) -> int | None:
        """None while it waits or works; else an `Exit`, or a signal's number, negative."""

    def stop(self) -> None:
        """Asks it to leave a checkpoint and end."""

    def kill(self) -> None:
        """Ends it at once."""

    def last_words(self, lines: int = 1) -> str:
        """The last lines that it wrote."""


class Executor(Protocol):
    """Computes runs somewhere."""

    slots: int
    """Runs that may be submitted at a time; the others wait in the sweep."""
    outlives: bool
    """Whether its jobs go on when the sweep ends."""
    together: int
    """So many runs may be submitted at once, to share a job one after the other."""
    poll_seconds: float
    """How often it is worth looking at a run."""

    def expect(self, runs: int) -> None:
        """So many runs are coming, at most: what takes time to start may start."""

    def submit(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        """Takes jobs, at most `together`; returns a handle for each.

        Raises:
            ReproError: they are not taken; one line.
        """

    def attach(self, id: str) -> Handle | None:
        """A run that was submitted before, where that is still to be computed."""

    def close(self) -> None:
        """Ends what was started for runs that did not come."""
