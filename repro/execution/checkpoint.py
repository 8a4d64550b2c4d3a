"""The checkpoint of a run: everything that training needs to go on as if it had not been interrupted."""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from repro.errors import ReproError
from repro.execution import disk

NAME = "checkpoint.pt"
_PAUSES = (0.2, 1.0, 3.0)  # seconds after which a checkpoint that could not be read is read again
_STAYS = "the run does not start over; rerun the same command when the checkpoint can be read"


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
        """The last snapshot, or None where there is none or it is damaged.

        Raises:
            ReproError: it may be whole but could not be read, tried four times: the run must not start over for that.
        """
        raw = self._read()
        if raw is None:
            return None
        try:
            snapshot = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        except (MemoryError, RuntimeError) as error:
            if (isinstance(error, MemoryError) or "allocate" in str(error)) and _whole(
                raw
            ):  # the machine has no room now
                raise ReproError(f"{self._path}: cannot be loaded now ({error}); {_STAYS}") from None
            return None
        except Exception:
            return None  # damaged: the run starts anew, and its journal holds it to what it said before
        return snapshot if isinstance(snapshot, dict) else None

    def _read(self) -> bytes | None:
        """The file's bytes; None where there is none."""
        for pause in (*_PAUSES, None):
            try:
                return self._path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                return None
            except (OSError, MemoryError) as error:  # a disk or a network file system that fails for the moment
                if pause is None:
                    raise ReproError(f"{self._path}: cannot be read now ({error}); {_STAYS}") from None
                time.sleep(pause)
        return None

    def remove(self) -> None:
        """Deletes the checkpoint of a run that has ended, and what a kill left of one."""
        for path in (self._path, disk.partial(self._path)):
            path.unlink(missing_ok=True)


def _whole(raw: bytes) -> bool:
    """Whether the checksums in a file in torch's zip format are those of its content."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(raw)) as file:
        return file.testzip() is None
    return False
