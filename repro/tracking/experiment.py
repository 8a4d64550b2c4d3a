"""The runs of one experiment, whoever logged them: no tag of this project is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.errors import InputError, unknown
from repro.tracking import api, reader, sqlite
from repro.tracking.credentials import link
from repro.tracking.failures import errors
from repro.tracking.store import EXPERIMENT, connect, resolve, sqlite_path
from repro.tracking.stored import Histories, StoredRun


@dataclass(frozen=True, slots=True)
class Experiment:
    """What was read, and how to read the histories of metrics: from run ids and names."""

    uri: str
    name: str
    runs: tuple[StoredRun, ...]
    histories: Callable[[Sequence[str], Collection[str]], Histories]
    notes: list[str]
    """What the reader must know beside the runs, a line each; reading histories may add one."""

    def records(self) -> list[dict[str, Any]]:
        """A row a run, with the columns of `mlflow.search_runs` and `run_name`, `data` and `url`."""
        pages = link(self.uri) if self.uri.startswith("http") else None
        return [
            {
                "run_id": run.run_id,
                "run_name": run.name,
                "status": run.status,
                "data": ", ".join(run.data),
                "url": pages and f"{pages}/#/experiments/{run.experiment_id}/runs/{run.run_id}",
                **{f"params.{name}": value for name, value in run.params.items()},
                **{f"tags.{name}": value for name, value in run.tags.items()},
                **{f"metrics.{name}": value for name, value in run.metrics.items()},
            }
            for run in self.runs
        ]


def read(uri: str | None, name: str | None, condition: str = "") -> Experiment:
    """Every run of an experiment that is not deleted, newest first.

    Args:
        uri: the store; None is MLFLOW_TRACKING_URI, else mlflow.db in the working folder.
        name: of the experiment; None is MLflow's MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, else this project's.
        condition: of MLflow's search (`params.model = 'resnet18'`), which is slower than reading everything.

    Raises:
        InputError: no such store or experiment, or a condition that MLflow does not take.
        TrackingError: the store cannot be read.
    """
    uri, notes = resolve(uri), list[str]()
    database = sqlite_path(uri)
    if database is not None:
        if not database.is_file():
            raise InputError(f"{uri}: no such file; name the store with --tracking-uri (example: sqlite:///mlflow.db)")
        with errors(uri), sqlite.reading(database) as connection:
            if sqlite.unknown_schema(connection) is None and not condition:
                name, found = _chosen(sqlite.experiments(connection), name)
                runs = sqlite.runs(connection, found)
                return Experiment(uri, name, tuple(runs), lambda *asked: sqlite.histories(database, *asked), notes)
    from mlflow.exceptions import MlflowException

    store = connect(uri, create=False)
    with store.errors():
        name, found = _chosen(api.experiments(store), name)
        try:
            runs = [api.stored(run) for run in api.search(store, condition, [str(found)])]
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise InputError(
                f"--filter {condition!r}: {' '.join(str(error).split())[:300]} (example: params.model = 'resnet18' and"
                " metrics.accuracy > 0.5)"
            ) from None
    return Experiment(uri, name, tuple(runs), lambda ids, names: reader.histories(store, ids, notes, names), notes)


def _chosen(known: Mapping[str, int] | Mapping[str, str], given: str | None) -> tuple[str, int]:
    """The name and id of the experiment that is meant."""
    by_id = {str(number): name for name, number in known.items()}
    asked = given or by_id.get(os.environ.get("MLFLOW_EXPERIMENT_ID", ""))
    name = asked or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if name not in known:
        raise unknown("experiment of the store", name, known)
    return name, int(known[name])
