"""Store to rows: sweeps with their plans, finished runs, and curves where they are asked for.

A sqlite store is read by SQL, without MLflow; a tracking server through MLflow's search and, for curves, its bulk call;
anything else by the plain API. All three give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TypeAlias

from repro import studies as declared
from repro.errors import InputError
from repro.records import EPOCH_METRICS
from repro.rows import Contents, RunRow, SweepRow
from repro.tracking import api, sqlite, stored
from repro.tracking.credentials import shown
from repro.tracking.failures import errors
from repro.tracking.names import Tag
from repro.tracking.places import Moved, content, is_local, moved
from repro.tracking.store import Store, connect, existing, sqlite_path
from repro.tracking.stored import Histories, StoredRun

PLAN = "sweep.json"

Curves: TypeAlias = bool | Collection[str] | Callable[[Contents], Collection[str]]


def read(
    uri: str | None = None, *, plans: bool = True, curves: Curves = False, studies: Sequence[str] | None = None
) -> Contents:
    """What tables and figures are made from.

    Args:
        uri: the store; None is MLFLOW_TRACKING_URI, else mlflow.db in the working folder.
        plans: whether to read the sweeps, each of which has its plan in a file; else only the runs.
        curves: whether to read the histories: of all runs, of none, or of those with these keys; a function chooses the
            keys from what was read without them.
        studies: keep the sweeps that plan one of these studies, and the runs that their tables are made from;
            None keeps everything.

    Raises:
        InputError: not the URI of a store, or a database file that does not exist.
        TrackingError: the store cannot be read.
    """
    uri = existing(uri)
    notes: list[str] = []
    with errors(uri):
        source = _source(uri, notes)
        asked = [run for run in source.runs if plans and run.tags[Tag.KIND] == "sweep"]
        sweeps = [sweep for run in asked if (sweep := _sweep(run, source.plan, notes))]
        rows = {run.run_id: row for run in source.runs if run.tags[Tag.KIND] == "run" and (row := _row(run, notes))}
        notes += _without_sweep(source.runs, sweeps, rows)
        if studies is not None:
            sweeps = [sweep for sweep in sweeps if any(study.study in studies for study in sweep.plan.studies)]
            planned = [run for sweep in sweeps for run in sweep.plan.runs]
            keys = {run.key for run in planned}
            named = {*studies, *(run.against.partition("/")[0] for run in planned if run.against)}
            rows = {run: row for run, row in rows.items() if row.key in keys or row.study in named}
        if callable(curves):
            curves = curves(Contents(shown(uri), tuple(sweeps), tuple(rows.values()), tuple(notes)))
        if curves is not False:
            drawn = [run for run, row in rows.items() if curves is True or row.key in curves]
            for run, points in source.histories(drawn).items():
                curve, doubled = stored.curve(points)
                rows[run] = replace(rows[run], curve=curve)
                if doubled:
                    notes.append(f"run {run}: {doubled} doubled points; the latest of each step is kept")
    return Contents(shown(uri), tuple(sweeps), tuple(rows.values()), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Source:
    """One way to read a store."""

    runs: Sequence[StoredRun]
    plan: Callable[[StoredRun], bytes | None]
    histories: Callable[[Sequence[str]], Histories]


def _source(uri: str, notes: list[str]) -> _Source:
    """The fastest way to read a store."""
    if (database := sqlite_path(uri)) is not None:
        try:
            with sqlite.reading(database) as connection:  # not for longer: a writer would wait for it
                found = sqlite.runs(connection)
        except sqlite.UnknownSchemaError as error:
            notes.append(f"{uri}: {error}; read through MLflow, which takes longer")
        else:
            misplaced = moved(database)
            notes += [f"{uri}: {misplaced}"] if misplaced else []
            store = cache(lambda: connect(uri, create=False))
            plan = partial(_beside, store, misplaced)
            return _Source(found, plan, partial(sqlite.histories, database))
    opened = connect(uri, create=False)
    plan = partial(api.download, opened, path=PLAN)
    return _Source(api.runs(opened), plan, partial(histories, opened, notes=notes))


def _without_sweep(runs: Sequence[StoredRun], sweeps: Sequence[SweepRow], rows: Mapping[str, RunRow]) -> list[str]:
    """A line for each sweep that was deleted while runs of it stand that no other one plans."""
    there = {run.run_id for run in runs}
    planned = {run.key for sweep in sweeps for run in sweep.plan.runs}
    parents = {
        run.tags.get(Tag.PARENT, "") for run in runs if run.run_id in rows and rows[run.run_id].key not in planned
    }
    return [
        f"sweep {parent} is deleted, its runs are not: `mlflow runs restore --run-id {parent}` brings it back"
        for parent in sorted(parents - there - {""})
    ]


def _sweep(run: StoredRun, plan: Callable[[StoredRun], bytes | None], notes: list[str]) -> SweepRow | None:
    where = f"sweep {run.run_id} ({run.name})"
    try:
        stored.check_schema(run)
        content = plan(run)
        if content is None:
            raise ValueError(f"has no {PLAN}")
        restored = declared.restore(content.decode(), PLAN)
    except (ValueError, InputError, OSError) as error:
        notes.append(f"{where}: {error}; passed over")
        return None
    finished = int(run.metrics.get("sweep_finished", 0))
    return SweepRow(run.run_id, run.experiment_id, run.started_ms, restored, run.status, finished)


def _row(run: StoredRun, notes: list[str]) -> RunRow | None:
    try:
        stored.check_schema(run)
        return stored.row(run)
    except ValueError as error:
        notes.append(f"run {run.run_id} ({run.name}): {error}; passed over")
        return None


def _beside(store: Callable[[], Store], misplaced: Moved | None, run: StoredRun) -> bytes | None:
    """A sweep's plan, from the folder that a sqlite store keeps its artifacts in; elsewhere through MLflow."""
    if run.artifact_uri.startswith("mlflow-artifacts:"):
        raise ValueError("its files are kept by a tracking server; name that server as the store")
    if not is_local(run.artifact_uri):
        return api.download(store(), run, PLAN)
    return content((misplaced.place(run.artifact_uri) if misplaced else run.artifact_uri, run.artifact_uri), PLAN)


def histories(
    store: Store, run_ids: Sequence[str], names: Collection[str] = EPOCH_METRICS, *, notes: list[str]
) -> Histories:
    """The points of some metrics of some runs through MLflow, in the fastest way that the store has."""
    if store.uri.startswith(("http://", "https://")):
        try:
            return api.bulk_histories(store, run_ids, names)
        except api.NoBulkError as error:
            notes.append(
                f"{shown(store.uri)} has no bulk call for curves ({error}); read one by one, which takes longer"
            )
    return api.histories(store, run_ids, names)
