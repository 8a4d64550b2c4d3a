"""Finished runs as models of MLflow 3: an exported program that is loaded and served without a line of this project.

A worker has written the program (`model.pt2`, torch's pickle-free archive); here it gets the files that MLflow wants beside
it, built from their parts, since nothing here knows torch. Every call may be repeated.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import yaml

from repro.errors import InputError
from repro.journal import Journal
from repro.rows import RunRow
from repro.spec import hashed
from repro.tracking import entries, stored
from repro.tracking.api import paged
from repro.tracking.names import Tag
from repro.tracking.runs import Runs

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

Which: TypeAlias = Literal["best", "all", "none"]
"""The runs that get a model: of each variant the one with the best validation accuracy, every one, or none."""

PROGRAM = "model.pt2"
REFUSAL = "not_exported.txt"
"""In a run's folder, in place of the program: why there is none."""

_ABOUT = "extra/about.json"
_NEEDED = ("mlflow", "numpy", "torch")
_FLAVOR = "mlflow.pytorch"


def ship(runs: Runs, rows: Iterable[RunRow], keys: Collection[str], folder: Path, which: Which) -> Iterator[str]:
    """Gives the finished runs that `keys` and `which` name a model, where they have none; yields what went wrong, a line each.

    Args:
        runs: the store.
        rows: its finished runs; those that differ from one of `keys` in seed and fold alone compete with it.
        keys: which runs are meant.
        folder: where the folders of runs lie that are not where they were trained.
        which: of them, the ones that get a model.
    """
    groups: dict[str, list[RunRow]] = {}
    for row in rows if which != "none" else ():
        groups.setdefault(group(row), []).append(row)
    experiments: set[str] = set()
    marks: dict[str, dict[Tag, str]] = {}  # run id -> tags of its model
    for name, rivals in groups.items():
        if not any(row.key in keys for row in rivals):
            continue
        ranked = sorted(
            rivals, key=lambda row: (-row.metrics.get("best_val_accuracy", -math.inf), row.seed, row.run_id)
        )
        wanted = ranked[:1] if which == "best" else [row for row in ranked if row.key in keys]
        for row in wanted:
            try:
                _publish(runs, row, folder)
            except (InputError, ValueError, KeyError, zipfile.BadZipFile) as error:
                yield f"{row.name}: no model in MLflow: {error}"
        experiments |= {row.experiment_id for row in ranked}
        marks |= {row.run_id: {Tag.GROUP: name, Tag.BEST: "false"} for row in ranked}
        marks[ranked[0].run_id][Tag.BEST] = "true"
    if marks:
        _mark(runs, experiments, marks)


def find(runs: Runs, row: RunRow) -> LoggedModel | None:
    """The model of a run, complete or not; None where it has none."""
    return next(iter(_search(runs, {row.experiment_id}, f"source_run_id = '{row.run_id}'")), None)


def register(runs: Runs, row: RunRow, name: str, alias: str, setting: str) -> tuple[int, bool]:
    """Makes a run's model a version of the registered model `name`, and the one that `alias` stands for.

    `setting` is the data and training in which the run was the best, in words: a tag of the version.

    Returns:
        The version's number, and whether it is new. A version that had the alias before keeps its place without it.

    Raises:
        InputError: the run has no model, or MLflow takes no such name or alias.
    """
    from mlflow.exceptions import MlflowException

    client = runs.store.client
    with runs.store.errors():
        model = find(runs, row)
        if model is None or model.status != "READY":
            raise InputError(
                f"run {row.run_id} ({row.name}) has no model in MLflow; `repro sync --models best` ships it"
                " from its folder, where it was trained with --models best or all"
            )
        try:
            known = client.search_registered_models(f"name = '{name}'") or [client.create_registered_model(name)]
            versions = client.search_model_versions(f"name = '{known[0].name}'")
            found = next((version for version in versions if version.run_id == row.run_id), None)
            version = found or client.create_model_version(
                name, model.model_uri, row.run_id, {str(Tag.KEY): row.key}, model_id=model.model_id
            )
            client.set_model_version_tag(name, str(version.version), str(Tag.SETTING), setting)
            client.set_registered_model_alias(name, alias, str(version.version))
            listed = json.loads(model.tags.get(Tag.VERSIONS, "[]"))
            if (this := {"name": known[0].name, "version": str(version.version)}) not in listed:
                client.set_logged_model_tags(model.model_id, {str(Tag.VERSIONS): json.dumps([*listed, this])})
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise InputError(f"--name {name!r} or --alias {alias!r}: {' '.join(str(error).split())}") from None
    return int(version.version), found is None


def group(row: RunRow) -> str:
    """The same for the runs of one variant, whatever their seed and fold, and whichever version has trained them."""
    asked = {name: stored.value(param) for name, param in row.params.items() if name not in {"seed", "data.fold"}}
    return hashlib.sha256(json.dumps(hashed(asked), sort_keys=True).encode()).hexdigest()[:16]


def _search(runs: Runs, experiments: Collection[str], condition: str | None = None) -> list[LoggedModel]:
    with runs.store.errors():
        return list(paged(partial(runs.store.client.search_logged_models, sorted(experiments), condition)))


def _mark(runs: Runs, experiments: Collection[str], marks: Mapping[str, Mapping[Tag, str]]) -> None:
    """Tells the models of each variant's best run from the others, which keep their place and lose the mark."""
    for model in _search(runs, experiments):
        tags = {str(tag): value for tag, value in marks.get(model.source_run_id or "", {}).items()}
        if tags.items() - model.tags.items():
            with runs.store.errors():
                runs.store.client.set_logged_model_tags(model.model_id, tags)


def _publish(runs: Runs, row: RunRow, folder: Path) -> None:
    from mlflow.entities import LoggedModelOutput

    model = find(runs, row)
    client = runs.store.client
    if model is not None and model.status == "READY":
        with runs.store.errors():
            if client.list_logged_model_artifacts(model.model_id):
                return  # else the store has lost its files
    known = entries.journal_of(runs.run(row.run_id).tags, folder)
    if known is None:
        return  # trained elsewhere
    if not (known.folder / PROGRAM).is_file():
        if (known.folder / REFUSAL).is_file():
            raise ValueError((known.folder / REFUSAL).read_text().strip())
        return
    with runs.store.errors():
        if model is None:
            model = client.create_logged_model(
                row.experiment_id,
                "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in row.variant),
                row.run_id,
                {str(Tag.KEY): row.key, str(Tag.SEED): str(row.seed)},
                entries.params(known),
                "classifier",
            )
        with tempfile.TemporaryDirectory() as staging:
            _assemble(Path(staging), known, model.model_id, row.run_id)
            client.log_model_artifacts(model.model_id, staging)
        held = client.get_run(row.run_id).outputs
        if model.model_id not in {output.model_id for output in (held.model_outputs if held else ())}:
            assert known.result is not None
            client.log_outputs(row.run_id, [LoggedModelOutput(model.model_id, known.result.best_epoch)])
        # the same points as the run has, which MLflow does not double
        client.log_batch(row.run_id, entries.of_model(known, model.model_id), synchronous=True)
        client.finalize_logged_model(model.model_id, "READY")


def _assemble(folder: Path, known: Journal, model_id: str, run_id: str) -> None:
    """Writes what `mlflow.pytorch.save_model` would, around the program that is there.

    Raises:
        ValueError, KeyError, BadZipFile: the program's archive is not one that a worker has written.
    """
    program = known.folder / PROGRAM
    with zipfile.ZipFile(program) as archive:
        name = next((name for name in archive.namelist() if name.endswith(_ABOUT)), None)
        if name is None:
            raise ValueError(f"{program} names no classes; it was not written by repro")
        about = json.loads(archive.read(name))
    classes, example = about["classes"], about["example"]  # images (n, height, width, channels), 0 to 255
    environment = known.attempts[-1].environment
    versions = {name: environment.packages[name] for name in _NEEDED}
    (folder / "data").mkdir()
    (folder / "data" / PROGRAM).symlink_to(program.absolute())
    files = {
        "input_example.json": json.dumps(example),
        "serving_input_example.json": json.dumps({"inputs": example}),
        "requirements.txt": "".join(f"{name}=={version.partition('+')[0]}\n" for name, version in versions.items()),
        "python_env.yaml": yaml.safe_dump({"python": environment.python, "dependencies": ["-r requirements.txt"]}),
        "MLmodel": yaml.safe_dump(
            {
                "flavors": {
                    "python_function": {
                        "loader_module": _FLAVOR,
                        "data": "data",
                        "env": {"virtualenv": "python_env.yaml"},
                        "python_version": environment.python,
                        "model_config": {"device": "cpu"},  # on which it was exported, and cannot leave
                    },
                    "pytorch": {"model_data": "data", "pytorch_version": versions["torch"]},
                },
                "signature": {
                    "inputs": entries.tensor("uint8", -1, *np.shape(example)[1:]),
                    "outputs": entries.tensor("float32", -1, len(classes)),
                    "params": None,
                },
                "saved_input_example_info": {
                    "artifact_path": "input_example.json",
                    "serving_input_path": "serving_input_example.json",
                    "type": "ndarray",
                    "format": "tf-serving",
                },
                "metadata": {"classes": classes, "key": known.spec.key},
                "mlflow_version": versions["mlflow"],
                "model_id": model_id,
                "model_uuid": model_id,
                "model_size_bytes": program.stat().st_size,
                "run_id": run_id,
            },
            sort_keys=False,
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
