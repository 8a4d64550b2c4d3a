"""Locks between processes, by `flock` on files: the kernel frees one however its holder ends, so none is ever stale.

A lock holds between the processes of one machine; a network file system may not pass it on to others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from repro.errors import InputError

_MISSING = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What a file system without locks answers."""


def claim(path: Path) -> IO[bytes] | None:
    """The lock on a file, which is made for it, held until the returned one is closed; None where another process holds it.

    Raises:
        InputError: the file system has no locks.
        OSError: the file cannot be made.
    """
    for pause in (0.01, 0.05, 0):  # `held` takes the lock for a moment when it looks
        file = path.open("ab")
        with contextlib.suppress(FileNotFoundError):
            if _taken(file, fcntl.LOCK_EX | fcntl.LOCK_NB) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file  # else the folder was set aside in between, and its lock with it
        file.close()
        time.sleep(pause)
    return None


def held(path: Path) -> bool:
    """Whether some process holds the lock on a file.

    Raises:
        InputError: the file system has no locks.
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return not _taken(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def alone(path: Path, mode: str = "ab") -> Iterator[None]:
    """Waits for the lock on a file, and holds it inside.

    Raises:
        InputError: the file system has no locks.
        OSError: the file cannot be opened in that mode.
    """
    with path.open(mode) as file:
        _taken(file, fcntl.LOCK_EX)
        yield


def _taken(file: IO[bytes], how: int) -> bool:
    """Whether the lock was to be had."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        raise InputError(
            f"{file.name}: its file system has no file locks, by which two processes never write to one place;"
            " choose a folder on another one"
        ) from None
    return True
