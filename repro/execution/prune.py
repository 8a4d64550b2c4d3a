"""Runs that nobody wants any more: their folders are removed, and a mark says so to `repro sync`.

The mark is an empty file `pruned/<id>` in the folder of the runs, by the id of the journal: a copy of that journal is not
brought into a store again, and the same settings are trained anew, in a journal of another id: a sweep sets the copy aside.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from repro import journal
from repro.errors import InputError, ReproError
from repro.execution import folders
from repro.execution.status import Status

FOLDER = "pruned"


def marks(*runs: Path) -> set[str]:
    """The ids of the journals that were pruned in some folders of runs."""
    return {mark.name for folder in runs for mark in (folder / FOLDER).glob("*")}


def pruned(folder: Path) -> bool:
    """Whether the journal of a run's folder has a mark: it is a copy that came back, and counts as not there."""
    try:
        known = journal.read(folder)
    except ReproError:
        return False
    return known is not None and (folder.parent / FOLDER / known.id).exists()


def keep_away(runs: Path, keys: Iterable[str]) -> None:
    """Sets the folders of pruned runs aside that were copied back under these keys."""
    for key in keys if marks(runs) else ():
        folders.set_aside(runs / key, pruned)


def chosen(found: Iterable[Status], names: Iterable[str], states: Iterable[str]) -> list[Status]:
    """The runs whose key begins with one of `names`, and those in one of `states`.

    Raises:
        InputError: a name is that of no run, of several, or of one that is being trained.
    """
    found, wanted = list(found), set(states)
    taken = {one.key: one for one in found if one.state in wanted}
    for name in names:
        meant = [one for one in found if one.key == name] or [one for one in found if one.key.startswith(name)]
        if len(meant) != 1:
            raise InputError(f"{name}: matches {len(meant)} runs (allowed: one; `repro status` lists them)")
        if meant[0].state in {"running", "waiting"}:
            how = f"`scancel {meant[0].job}` ends its job" if meant[0].job else "stop its sweep first"
            raise InputError(f"{name}: is {meant[0].state} and cannot be removed; {how}")
        taken[meant[0].key] = meant[0]
    return list(taken.values())


def prune(folder: Path, forget: Callable[[str], int]) -> int:
    """Removes the folder of a run and leaves its mark.

    Args:
        folder: the run's.
        forget: deletes the runs of a journal, by its id, in the store; where that fails, nothing is removed.

    Returns:
        How many runs the store had of it; 0 for a journal that cannot be read.

    Raises:
        ReproError: a process trains it, or the store cannot be reached.
    """
    lock = journal.claim(folder)
    if lock is None:
        raise ReproError(f"{folder}: another process uses it; try again when that process has ended")
    with lock:
        try:
            known = journal.read(folder)
        except ReproError:
            known = None
        deleted = 0
        gone = folder.parent / FOLDER / folder.name  # where a kill in the middle leaves nothing that looks like a run
        gone.parent.mkdir(exist_ok=True)
        if known is not None:
            deleted = forget(known.id)
            (gone.parent / known.id).touch()
            journal.sync(gone.parent)
        if gone.exists():  # such a kill has left it
            shutil.rmtree(gone)
        folder.rename(gone)
        shutil.rmtree(gone)
    return deleted
