"""Single runs of an open store: look one up, fetch a file of it, add to it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import InputError
from repro.rows import RunRow
from repro.tracking import api
from repro.tracking.credentials import shown
from repro.tracking.names import TAG_LENGTH, Tag
from repro.tracking.store import Store
from repro.tracking.stored import StoredRun

if TYPE_CHECKING:
    from mlflow.entities import Metric

NO_SUCH_RUN = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""MLflow's codes for an id that it does not know, or that cannot be one."""

MADE_UP = re.compile(r"[a-z]+-[a-z]+-\d+")
"""A name that MLflow gave a run for want of one."""
_METRICS_A_BATCH = 900  # MLflow takes 1,000 metrics, params and tags at a time, of them 100 params


class Runs:
    """The runs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def run(self, run_id: str) -> StoredRun:
        """One run of the store.

        Raises:
            InputError: the store has no run of that id.
        """
        from mlflow.exceptions import MlflowException

        with self.store.errors():
            try:
                return api.stored(self.store.client.get_run(run_id))
            except MlflowException as error:
                if error.error_code not in NO_SUCH_RUN:
                    raise
                raise InputError(
                    f"{shown(self.store.uri)} has no run {run_id!r}; give a run id or a key, or at least 4 digits"
                    " that one begins with; `repro status` lists the keys"
                ) from None

    def beginning(self, digits: str) -> list[str]:
        """Ids of the runs and sweeps whose id, or whose key, begins with some hexadecimal digits."""
        named = (
            f"tags.`{Tag.KIND}` LIKE '%' AND attributes.run_id LIKE '{digits}%'",
            f"tags.`{Tag.KEY}` LIKE '{digits}%'",
        )
        with self.store.errors():
            found = [run.info.run_id for name in named for run in api.search(self.store, name)]
        return list(dict.fromkeys(found))

    def artifact(self, run: str | RunRow, path: str) -> bytes | None:
        """The bytes of one artifact of a run, given by its id or as it was read, or None where it has none of that path.

        Raises:
            InputError: the store has no run of that id.
        """
        found = self.run(run) if isinstance(run, str) else run
        with self.store.errors():
            return api.download(self.store, found, path)

    def describe(self, run_id: str, text: str, name: str) -> None:
        """Sets what MLflow's UI shows above a run, in Markdown; longer than MLflow takes, it is cut at a line.

        A run that has a name of MLflow's own making gets `name`.
        """
        with self.store.errors():
            self._log(run_id, tags={Tag.NOTE: cut(text)})
            if MADE_UP.fullmatch(self.run(run_id).name):
                self.store.client.update_run(run_id, name=name)

    def log_files(self, run_id: str, files: Mapping[str, bytes | Path]) -> None:
        """Stores files with a run, over those it has: artifact path -> bytes, or the file to copy."""
        if not files:
            return
        with self.store.errors(), tempfile.TemporaryDirectory() as staging:
            for name, content in files.items():
                staged = Path(staging, name)
                staged.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    staged.write_bytes(content)
                else:
                    staged.symlink_to(content.absolute())
            self.store.client.log_artifacts(run_id, staging)

    def _create_run(self, name: str, tags: Mapping[str, str], start_ms: int | None = None) -> str:
        plain = {str(tag): value for tag, value in tags.items()}
        run_id: str = self.store.client.create_run(self.store.experiment_id, start_ms, plain, name).info.run_id
        return run_id

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """One batch; more only where it holds more metrics than MLflow takes at a time."""
        from mlflow.entities import Param, RunTag

        settings = [Param(name, value) for name, value in (params or {}).items()]
        labels = [RunTag(str(name), value) for name, value in (tags or {}).items()]
        if metrics or settings or labels:
            # whatever MLFLOW_ENABLE_ASYNC_LOGGING says: the order of these calls is what makes them repeatable
            self.store.client.log_batch(run_id, metrics[:_METRICS_A_BATCH], settings, labels, synchronous=True)
        for start in range(_METRICS_A_BATCH, len(metrics), _METRICS_A_BATCH):
            self.store.client.log_batch(run_id, metrics[start : start + _METRICS_A_BATCH], synchronous=True)


def cut(text: str) -> str:
    """`text`, or as many whole lines of it as MLflow keeps in a tag."""
    if len(text) <= TAG_LENGTH:
        return text
    more = "\n\n(cut here; in full among the artifacts)"
    return text[: TAG_LENGTH - len(more)].rpartition("\n")[0] + more
