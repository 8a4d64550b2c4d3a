"""Files that are whole or not there: written to a temporary name, fsynced, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TypeVar

from repro import locks
from repro.journal import sync

_PAUSE_SECONDS = 0.05
_Record = TypeVar("_Record")


def write(path: Path, content: bytes | memoryview) -> None:
    """Puts `content` at `path` in one step: a crash leaves the former file or the new one.

    Raises:
        OSError: the disk is full or the folder cannot be written; the former file stays.
    """
    temporary = partial(path)
    while (file := locks.claim(temporary)) is None:  # another process is writing this very file
        time.sleep(_PAUSE_SECONDS)
    with file:
        try:
            file.truncate(0)  # a crash may have left something
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    sync(path.parent)


def record(kind: type[_Record], path: Path) -> _Record | None:
    """The dataclass whose fields stand in a file as JSON; None where it is not there, or not whole for the moment."""
    try:
        return kind(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def partial(path: Path) -> Path:
    """Where `write` puts the content of `path` until it is whole; a crash may leave it."""
    return path.with_name(f".{path.name}.partial")
