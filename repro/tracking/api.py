"""Reads a store through MLflow: a tracking server in bulk, and anything else by the plain API."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from repro.records import EPOCH_METRICS
from repro.rows import RunRow
from repro.tracking.failures import errors
from repro.tracking.places import content, is_local
from repro.tracking.store import Store
from repro.tracking.stored import Histories, Points, StoredRun, number

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList

FINISHED = "tags.`repro.kind` = 'run' AND attributes.status = 'FINISHED'"
"""The condition of a finished run of ours."""

_PAGE = 500
_RUNS_A_REQUEST = 100  # what the server takes at most
_POINTS_A_REQUEST = 25_000  # what it gives at most, without saying that there are more
_REQUESTS = 4
_Entity = TypeVar("_Entity")
_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class NoBulkError(Exception):
    """The server does not have the bulk call; the plain API has to do."""


def paged(call: Callable[..., PagedList[_Entity]]) -> Iterator[_Entity]:
    """Everything that a call of MLflow gives in pages."""
    yield from (page := call())
    while page.token:
        yield from (page := call(page_token=page.token))


def experiments(store: Store) -> dict[str, str]:
    """Name -> id of every experiment that is not deleted."""
    found = paged(partial(store.client.search_experiments, max_results=1000))
    return {experiment.name: experiment.experiment_id for experiment in found}


def search(store: Store, condition: str, within: Collection[str] | None = None) -> Iterator[Run]:
    """The runs that meet a condition of MLflow's search, newest first, of some experiments by their ids, or of all.

    Names of tags stand in backquotes: tags.`repro.key` = 'a'.
    """
    wanted = list(experiments(store).values() if within is None else within)
    order = ["attributes.start_time DESC"]
    call = partial(store.client.search_runs, wanted, condition, max_results=_PAGE, order_by=order)
    yield from paged(call) if wanted else ()


def forget(store: Store, journal: str) -> int:
    """Deletes the runs of a journal, by its id, as MLflow's pages do; returns how many there were."""
    with store.errors():
        found = list(search(store, f"tags.`repro.journal` = '{journal}'"))
        for run in found:
            store.client.delete_run(run.info.run_id)
    return len(found)


def runs(store: Store) -> list[StoredRun]:
    """Every sweep and every finished run, newest first."""
    sweeps = search(store, "tags.`repro.kind` = 'sweep'")
    # while runs are added, a page may begin with what the last one ended with
    found = {run.info.run_id: stored(run) for each in (sweeps, search(store, FINISHED)) for run in each}
    return sorted(found.values(), key=lambda run: (-run.started_ms, run.run_id))


def stored(run: Run) -> StoredRun:
    """MLflow's run as ours."""
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    return StoredRun(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=run.info.run_name or "",
        status=run.info.status,
        started_ms=run.info.start_time or 0,
        ended_ms=run.info.end_time or 0,
        artifact_uri=run.info.artifact_uri or "",
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics={name: number(value) for name, value in run.data.metrics.items()},
        data=tuple(sorted(f"{one.dataset.name} {one.dataset.digest}" for one in inputs)),
    )


def histories(store: Store, run_ids: Collection[str], names: Collection[str] = EPOCH_METRICS) -> Histories:
    """The points of some metrics of some runs, a call a run and metric."""
    return {run: {name: _history(store, run, name) for name in names} for run in run_ids}


def bulk_histories(store: Store, run_ids: Sequence[str], names: Collection[str] = EPOCH_METRICS) -> Histories:
    """The same from a tracking server, a call a metric and hundred runs, through the call its own UI draws with.

    Raises:
        NoBulkError: the server has no such call.
    """
    groups = [run_ids[i : i + _RUNS_A_REQUEST] for i in range(0, len(run_ids), _RUNS_A_REQUEST)]
    asked = [(name, group) for group in groups for name in names]
    histories: dict[str, dict[str, Points]] = {run: {} for run in run_ids}
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for (name, _), found in zip(asked, pool.map(lambda one: _bulk(store, *one), asked), strict=True):
            for run, points in found.items():
                histories[run][name] = points
    return histories


def download(store: Store, run: StoredRun | RunRow, path: str) -> bytes | None:
    """The bytes of one artifact; None where the run has none of that path. A local file is read without MLflow."""
    if is_local(run.artifact_uri):
        return content(store.places(run.artifact_uri), path)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        for place in store.places(run.artifact_uri):
            try:
                return Path(
                    download_artifacts(artifact_uri=f"{place}/{path}", dst_path=folder, tracking_uri=store.uri)
                ).read_bytes()
            except (MlflowException, OSError) as error:
                reason = error
        folder_of, _, _ = path.rpartition("/")
        if path in {file.path for file in store.client.list_artifacts(run.run_id, folder_of or None)}:
            with errors(store.uri):  # what requests raises is an OSError, as a file's that is broken
                raise reason
        return None


def _history(store: Store, run: str, name: str) -> Points:
    found = store.client.get_metric_history(run, name)
    return np.array([(point.step, point.timestamp, number(point.value)) for point in found], dtype=np.float64).reshape(
        -1, 3
    )


def _bulk(store: Store, name: str, run_ids: Sequence[str]) -> dict[str, Points]:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    query: list[tuple[str, Any]] = [("metric_key", name), ("max_results", _POINTS_A_REQUEST)]
    query += [("run_id", run) for run in run_ids]
    credentials = get_default_host_creds(store.uri)  # type: ignore[no-untyped-call]
    answer = http_request(credentials, _BULK, "GET", params=query)  # type: ignore[no-untyped-call]
    if answer.status_code != 200:
        raise NoBulkError(f"{_BULK}: status {answer.status_code}")
    points = answer.json()["metrics"]
    if len(points) >= _POINTS_A_REQUEST:  # cut off: ask for less at a time
        if len(run_ids) == 1:
            return {run_ids[0]: _history(store, run_ids[0], name)}
        middle = len(run_ids) // 2
        return _bulk(store, name, run_ids[:middle]) | _bulk(store, name, run_ids[middle:])
    found: dict[str, list[tuple[float, float, float]]] = {run: [] for run in run_ids}
    for point in points:
        found[point["run_id"]].append((point["step"], point["timestamp"], number(float(point["value"]))))
    return {run: np.array(kept, dtype=np.float64).reshape(-1, 3) for run, kept in found.items()}
