"""The folders of runs, as a sweep finds them: at their end or not, damaged, in the way."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
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


def look(places: Iterable[Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """The folders of some runs that are at their end, by name, and why the journal of others cannot be read."""
    found: dict[str, Path] = {}
    damaged: dict[str, str] = {}
    for folder in places:
        try:
            if ended(folder):
                found[folder.name] = folder
        except ReproError as error:
            damaged[folder.name] = str(error)
    return found, damaged


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


def over(before: int) -> Callable[[Path], bool]:
    """Tells of a folder whether its run ended before then, in milliseconds since 1970, or its journal is damaged."""

    def is_over(folder: Path) -> bool:
        try:
            known = journal.read(folder)
        except ReproError:
            return True
        return known is not None and known.result is not None and known.entries[-1].time_ms < before

    return is_over


def of_other_code(folders: Iterable[Path], training: str) -> str:
    """How many of some runs were trained by another state of `repro/training` than this one, in words; empty for none."""
    found = 0
    for folder in folders:
        with contextlib.suppress(OSError, ReproError), (folder / journal.NAME).open("rb") as file:
            entries, _ = journal.parse(file.readline(), str(folder))  # the first attempt is enough
            record = entries[0].record if entries else None
            found += isinstance(record, journal.Attempt) and record.environment.training not in {"", training}
    count = "1 reused run was" if found == 1 else f"{found:,} reused runs were"
    return f"{count} trained by another state of repro/training; --fresh true retrains what is reused" if found else ""


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
