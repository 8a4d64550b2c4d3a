"""Where a run in training stands within its epoch: `progress.json`, a side channel that nothing is computed from.

The worker replaces the file twice a second; it is neither synced to the disk nor kept with the run, and never reaches a store.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from repro.execution import disk

NAME = "progress.json"
_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Beat:
    """One look at a run."""

    epoch: int
    step: int
    steps: int
    """Length of the epoch in steps."""
    loss: float
    """Mean training loss of the epoch so far, in nats; nan before its first step."""
    images_per_second: float


class Pulse:
    """The writing side."""

    def __init__(self, folder: Path) -> None:
        self._path, self._next = folder / NAME, 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for the next look."""
        return time.monotonic() >= self._next

    def write(self, beat: Beat) -> None:
        """Replaces the file; a disk that is full is no reason to stop training."""
        self._next = time.monotonic() + _SECONDS
        partial = self._path.with_suffix(".partial")
        with suppress(OSError):
            partial.write_text(json.dumps(asdict(beat)))
            partial.replace(self._path)

    def stop(self) -> None:
        """Removes the file: nobody trains the run any more."""
        self._path.unlink(missing_ok=True)


def read(folder: Path) -> Beat | None:
    """The last look at a run; None where there is none."""
    return disk.record(Beat, folder / NAME)
