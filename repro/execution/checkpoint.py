"""The checkpoint of a run: everything that training needs to go on as if it had not been interrupted."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from repro.execution import disk

NAME = "checkpoint.pt"


class Checkpoints:
    """Saves a run's snapshots, seldom enough: `seconds` apart at least, and at most a fiftieth of the time spent on it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._path = folder / NAME
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() >= self._next

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """Writes a snapshot in one step; a crash leaves the former one."""
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save(dict(snapshot), buffer)
        disk.write(self._path, buffer.getbuffer())
        end = time.monotonic()
        self._next = end + max(self._seconds, 50 * (end - start))

    def load(self) -> dict[str, Any] | None:
        """The last snapshot, or None where there is none that can be read."""
        try:
            snapshot = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception:
            return None  # none there, or damaged: the run starts anew, and its journal holds it to what it said before
        return snapshot if isinstance(snapshot, dict) else None

    def remove(self) -> None:
        """Deletes the checkpoint of a run that has ended, and what a kill left of one."""
        for path in (self._path, disk.partial(self._path)):
            path.unlink(missing_ok=True)
