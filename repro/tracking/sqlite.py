"""Reads a sqlite store by SQL, without MLflow: a few statements for what its API takes a call a run and metric for.

The connection is read-only. A store that lacks one of the tables or columns is read through MLflow instead.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from repro.records import EPOCH_METRICS
from repro.tracking.stored import Histories, Points, StoredRun, number

_HISTORIES = """
    SELECT key, step, timestamp, value, is_nan FROM metrics
    WHERE run_uuid = ? AND key IN (SELECT value FROM json_each(?))"""
_ACTIVE = """
    CREATE TEMP TABLE ours AS
    SELECT runs.run_uuid FROM runs
    JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.lifecycle_stage = 'active'
    LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'repro.kind'
    WHERE runs.lifecycle_stage = 'active' AND """
_OURS = _ACTIVE + "(tags.value = 'sweep' OR tags.value = 'run' AND runs.status = 'FINISHED')"
"""Ids of the sweeps, whatever became of them, and of the finished runs; in memory, not in the store."""


class UnknownSchemaError(Exception):
    """The store lacks a table or a column that is read here; the plain API has to do."""


@contextlib.contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection that sees one state of the store throughout.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
        UnknownSchemaError: also for what is executed inside.
    """
    if database.with_name(f"{database.name}-journal").exists():
        # a writer that was killed in the middle has left it; only a connection that may write can take its changes back
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database, timeout=20)) as writing:
            writing.execute("SELECT count(*) FROM sqlite_master")
    name = f"file:{quote(str(database))}?mode=ro"
    with contextlib.closing(sqlite3.connect(name, uri=True, timeout=20, isolation_level=None)) as connection:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("BEGIN")
        try:
            connection.execute(_HISTORIES, ("", "[]"))  # what is read later, when there is no way back to MLflow
            yield connection
        except sqlite3.OperationalError as error:
            if re.search("no such (table|column)|not present in both tables", str(error)):
                raise UnknownSchemaError(f"its schema is not known ({error})") from None
            raise


def finished(connection: sqlite3.Connection) -> dict[str, str]:
    """Key -> run id of every finished run, the newest where there are several."""
    connection.execute(_OURS)
    found = connection.execute(
        "SELECT tags.value, run_uuid FROM ours JOIN tags USING (run_uuid) JOIN runs USING (run_uuid)"
        " WHERE tags.key = 'repro.key' ORDER BY runs.start_time, run_uuid"
    )
    return dict(found.fetchall())


def experiments(connection: sqlite3.Connection) -> dict[str, int]:
    """Name -> id of every experiment that is not deleted."""
    found = connection.execute("SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'")
    return dict(found.fetchall())


def runs(connection: sqlite3.Connection, experiment: int | None = None) -> list[StoredRun]:
    """Every sweep and every finished run, newest first; or every run of one experiment, whoever logged it."""
    connection.execute(_OURS if experiment is None else f"{_ACTIVE} runs.experiment_id = {experiment:d}")
    params: dict[str, dict[str, str]] = {}
    for run, key, value in connection.execute("SELECT run_uuid, key, value FROM ours JOIN params USING (run_uuid)"):
        params.setdefault(run, {})[key] = value
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in connection.execute("SELECT run_uuid, key, value FROM ours JOIN tags USING (run_uuid)"):
        tags.setdefault(run, {})[key] = value
    metrics: dict[str, dict[str, float]] = {}
    for run, key, value, is_nan in connection.execute(
        "SELECT run_uuid, key, value, is_nan FROM ours JOIN latest_metrics USING (run_uuid)"
    ):
        metrics.setdefault(run, {})[key] = math.nan if is_nan else number(value)
    data: dict[str, list[str]] = {}
    with contextlib.suppress(sqlite3.OperationalError):  # an older store has no such tables
        for run, name, digest in connection.execute(
            "SELECT run_uuid, datasets.name, digest FROM ours JOIN inputs ON destination_id = run_uuid"
            " JOIN datasets ON dataset_uuid = source_id WHERE destination_type = 'RUN' ORDER BY 2, 3"
        ):
            data.setdefault(run, []).append(f"{name} {digest}")
    found = connection.execute(
        "SELECT run_uuid, experiment_id, name, status, start_time, end_time, artifact_uri"
        " FROM ours JOIN runs USING (run_uuid) ORDER BY start_time DESC, run_uuid"
    )
    return [
        StoredRun(
            run_id=run,
            experiment_id=str(experiment),
            name=name or "",
            status=status,
            started_ms=started or 0,
            ended_ms=ended or 0,
            artifact_uri=artifacts or "",
            params=params.get(run, {}),
            tags=tags.get(run, {}),
            metrics=metrics.get(run, {}),
            data=tuple(data.get(run, ())),
        )
        for run, experiment, name, status, started, ended, artifacts in found
    ]


def histories(database: Path, run_ids: Collection[str], names: Collection[str] = EPOCH_METRICS) -> Histories:
    """The points of some metrics of some runs."""
    wanted = json.dumps([*names])
    histories: dict[str, dict[str, Points]] = {}
    with reading(database) as connection:
        for run in run_ids:
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
            for key, step, timestamp, value, is_nan in connection.execute(_HISTORIES, (run, wanted)):
                found[key].append((step, timestamp, math.nan if is_nan else number(value)))
            histories[run] = {key: np.array(points, dtype=np.float64).reshape(-1, 3) for key, points in found.items()}
    return histories
