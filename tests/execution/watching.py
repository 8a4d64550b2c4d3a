"""What tests of sweeps look at from outside: journals, the database, and the processes of a sweep."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from repro import journal
from repro.records import EPOCH_METRICS, RESULT_METRICS

_TIMES = {"epoch_seconds", "mean_epoch_seconds"}
METRICS = [name for name in (*EPOCH_METRICS, *RESULT_METRICS, "parameter_count") if name not in _TIMES]


def rows(database: Path, query: str) -> list[tuple]:
    # rw: what a writer that was killed has left half done is taken back by such a connection alone
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=20)) as db:
        return db.execute(query).fetchall()


def statuses(folder: Path) -> dict[str, str]:
    """Status of each run in the store of `folder`, by name."""
    return dict(rows(folder / "mlflow.db", "SELECT name, status FROM runs"))


POINTS = (
    "SELECT runs.name, key, step, value FROM metrics JOIN runs USING (run_uuid)"
    " WHERE key NOT LIKE '%seconds' AND key NOT LIKE 'sweep_%'"
)
"""(run, metric, step, value) of every point of a run but times."""


def points(folder: Path) -> list[tuple[str, str, int, float]]:
    """The points of the store of `folder`, in order."""
    return sorted(rows(folder / "mlflow.db", POINTS))


def said(runs: Path) -> list[tuple[str, str, int, float]]:
    """The same, as the journals say it."""
    found = []
    for folder in journal.find(runs):
        known = journal.read(folder)
        name = f"{known.attempts[0].variant} seed {known.spec.seed}"
        found += [(name, one, e.epoch, getattr(e, one)) for e in known.epochs for one in EPOCH_METRICS]
        if (end := known.result) is not None:
            found += [(name, one, 0, float(getattr(end, one))) for one in RESULT_METRICS]
            found.append((name, "parameter_count", 0, float(end.parameters)))
    return sorted(one for one in found if one[1] not in _TIMES)


def digests(runs: Path) -> dict[str, str]:
    """Digest of the final weights of each run, by key."""
    known = [journal.read(folder) for folder in journal.find(runs)]
    return {one.spec.key: one.result.weights_digest for one in known}


def epochs_written(folder: Path) -> int:
    known = [journal.read(one) for one in journal.find(folder / "runs")]
    return sum(len(one.epochs) for one in known if one is not None)


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "repro.execution.worker" in one.cmdline():
                    found.append(one)
    return found


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
