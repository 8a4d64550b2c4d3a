"""The folders of runs, as a sweep finds them: at their end or not, damaged, in the way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from repro import journal
from repro.errors import InputError, ReproError

_LOCK_SECONDS = 10.0  # what a process may take to let go of the folder of a run that is at its end


def ended(folder: Path, *, damaged: bool | None = None) -> bool:
    """Whether the run of a folder is at its end; `damaged` is the answer for a journal that cannot be read.

    Raises:
        ReproError: the journal cannot be read, and there is no answer for that.
    """
    try:
        known = journal.read(folder)
    except ReproError:
        if damaged is None:
            raise
        return damaged
    return known is not None and known.result is not None


def over(folder: Path) -> bool:
    """Whether the run of a folder cannot go on: it is at its end, or its journal is damaged."""
    return ended(folder, damaged=True)


def set_aside(folder: Path, when: Callable[[Path], bool]) -> Path | None:
    """Keeps a folder of which `when` is true under the next free name beside it; returns that, or None for any other.

    Raises:
        ReproError: another process does not let go of the folder.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while when(folder):
        try:
            lock = journal.claim(folder)
        except FileNotFoundError:
            return None  # another sweep was faster
        if lock is not None:
            with lock:
                if not when(folder):
                    return None  # another sweep was faster
                number = 1
                while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
                    number += 1
                folder.rename(kept)
                journal.sync(folder.parent)
                return kept
        if time.monotonic() > deadline:
            raise ReproError(f"{folder}: another process uses it; try again when that process has ended")
    return None


def writable(runs: Path) -> None:
    """Makes the folder of all runs where it is not there.

    Raises:
        InputError: it cannot be made, or nothing can be written there.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{runs}: cannot be created ({error.strerror}); choose another folder with --runs-dir"
        ) from None
    if not os.access(runs, os.W_OK | os.X_OK):
        raise InputError(f"{runs}: cannot be written; choose another folder with --runs-dir")
