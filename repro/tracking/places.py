"""Where a sqlite store keeps its files: MLflow records absolute places, also for a project that is moved or copied."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

_RECORDED = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL"
"""Where the files of every experiment are."""
_ORIGIN = "SELECT creation_time, artifact_location FROM experiments WHERE experiment_id = 0"
"""What a store has in common with its copies alone: when its first experiment was made, and where."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A store whose files lie beside its database, and are recorded somewhere else."""

    recorded: str
    """The folder of all files as the store has it, as a URI or a path: what its records begin with."""
    here: Path
    why: str
    copied: bool = False

    def __str__(self) -> str:
        return (
            f"files are recorded under {local(self.recorded)}, {self.why}, and looked for under {self.here};"
            " `repro sync` records that place for MLflow's pages, too"
        )

    def place(self, uri: str) -> str:
        """The place beside the database of a file that is recorded at `uri`; others are as they are."""
        inside = uri.startswith(f"{self.recorded}/")
        return quoted(self.here) + uri.removeprefix(self.recorded) if inside else uri

    def record(self, database: Path) -> str:
        """Records the new place, so that MLflow finds and writes the files there; returns a line that says so."""

        def of_run(uri: str) -> str:
            return uri if local(uri).exists() and not self.copied else self.place(uri)

        with contextlib.closing(sqlite3.connect(database, timeout=20)) as store, store:
            store.create_function("place", 1, self.place)
            store.create_function("of_run", 1, of_run)
            store.execute(
                "UPDATE experiments SET artifact_location = place(artifact_location) WHERE artifact_location IS NOT NULL"
            )
            store.execute("UPDATE runs SET artifact_uri = of_run(artifact_uri) WHERE artifact_uri IS NOT NULL")
        return (
            f"{database}: files were recorded under {local(self.recorded)}, {self.why}; from now on under {self.here}"
        )


def moved(database: Path) -> Moved | None:
    """What is wrong with the places that a store records; None where nothing is, or that cannot be told.

    The recorded folder is gone, belongs to the project that this one is a copy of, or was recorded with a % that MLflow
    reads as the beginning of a code. A folder elsewhere that is there is the user's choice.
    """
    try:
        found = (_misplaced(database, str(recorded)) for (recorded,) in _read(database, _RECORDED))
        return next((one for one in found if one), None)
    except sqlite3.Error:
        return None


def _misplaced(database: Path, recorded: str) -> Moved | None:
    if not is_local(recorded):
        return None
    root, folder = recorded.rpartition("/")[0], local(recorded).parent
    here = database.parent / folder.name
    if folder == here or _same(folder, here):
        return None
    if Path(root) == here:
        return Moved(root, here, "where MLflow reads % as the beginning of a code")
    if not folder.exists():
        return Moved(root, here, "which is gone") if here.exists() or not folder.parent.exists() else None
    original = folder.parent / database.name
    if original.is_file() and not _same(original, database) and _read(original, _ORIGIN) == _read(database, _ORIGIN):
        return Moved(root, here, "which is that of the project that this one is a copy of", copied=True)
    return None


def local(uri: str) -> Path:
    """The path that MLflow means by a local URI, or by a path, in which it reads codes like %20, too."""
    return Path(unquote(urlparse(uri).path if uri.startswith("file:") else uri))


def is_local(uri: str) -> bool:
    """Whether files at a place that a store records are files of this machine, and not those of a server."""
    return urlparse(uri).scheme in {"", "file"}


def content(places: Iterable[str], path: str) -> bytes | None:
    """The bytes of a file in the first of some local places that has it; None where none has."""
    for place in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (local(place) / path).read_bytes()
    return None


def quoted(path: Path) -> str:
    """A path as MLflow reads it."""
    return str(path).replace("%", "%25")


def _read(database: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as store:
        return store.execute(query).fetchall()


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
