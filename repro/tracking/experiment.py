"""The runs of one experiment, whoever logged them: no tag of this project is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from repro.errors import InputError, unknown
from repro.tracking import api, reader, sqlite
from repro.tracking.credentials import link
from repro.tracking.failures import errors
from repro.tracking.store import EXPERIMENT, connect, existing, sqlite_path
from repro.tracking.stored import Histories, StoredRun


@dataclass(frozen=True, slots=True)
class Experiment:
    """What was read, and how to read the histories of metrics: from run ids and names."""

    name: str
    runs: list[dict[str, Any]]
    """A row a run, newest first: the fields of `StoredRun`, `run_name` and `url`, which is empty but for a server."""
    histories: Callable[[Sequence[str], Collection[str]], Histories]


def read(uri: str | None, name: str | None, condition: str = "") -> Experiment:
    """Every run of an experiment that is not deleted.

    Args:
        uri: the store; None is MLFLOW_TRACKING_URI, else mlflow.db in the working folder.
        name: of the experiment; None is MLflow's MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, else this project's.
        condition: of MLflow's search (`params.model = 'resnet18'`), which is slower than reading everything.

    Raises:
        InputError: no such store or experiment, or a condition that MLflow does not take.
        TrackingError: the store cannot be read; reading the histories may raise it, too.
    """
    uri = existing(uri)
    histories = None
    if (database := sqlite_path(uri)) is not None:
        with errors(uri), contextlib.suppress(sqlite.UnknownSchemaError), sqlite.reading(database) as connection:
            histories = errors(uri)(partial(sqlite.histories, database))
            if not condition:
                name, number = _chosen(sqlite.experiments(connection), name)
                return Experiment(name, _records(uri, sqlite.runs(connection, number)), histories)
    from mlflow.exceptions import MlflowException

    store = connect(uri, create=False)
    with store.errors():
        name, number = _chosen(api.experiments(store), name)
        try:
            runs = _records(uri, map(api.stored, api.search(store, condition, [str(number)])))
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise InputError(
                f"--filter {condition!r}: {' '.join(str(error).split())[:300]} (example: params.model = 'resnet18' and"
                " metrics.accuracy > 0.5)"
            ) from None
    return Experiment(name, runs, histories or store.errors()(partial(reader.histories, store, notes=[])))


def _records(uri: str, runs: Iterable[StoredRun]) -> list[dict[str, Any]]:
    page = f"{link(uri)}/#/experiments" if uri.startswith("http") else ""
    return [
        asdict(run)
        | {"run_name": run.name, "data": ", ".join(run.data)}
        | {"url": page and f"{page}/{run.experiment_id}/runs/{run.run_id}"}
        for run in runs
    ]


def _chosen(known: Mapping[str, int] | Mapping[str, str], given: str | None) -> tuple[str, int]:
    """The name and id of the experiment that is meant."""
    by_id = {str(number): name for name, number in known.items()}
    asked = given or by_id.get(os.environ.get("MLFLOW_EXPERIMENT_ID", ""))
    name = asked or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if name not in known:
        raise unknown("experiment of the store", name, known)
    return name, int(known[name])
