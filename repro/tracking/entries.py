"""What a journal says, in MLflow's terms: params, metrics, tags and the data set of its run."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from repro.journal import Journal
from repro.records import EPOCH_METRICS, RESULT_METRICS, Environment, EpochRecord, RunResult
from repro.spec import DATASETS, PROTOCOL, changes, flatten
from repro.tracking import owner
from repro.tracking.names import DATASET_CONTEXT, SCHEMA, Tag
from repro.tracking.stored import param

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

_DIGEST_LENGTH = 36  # what MLflow takes for a data set's; the whole digest is a param


def name(known: Journal) -> str:
    """The run's name."""
    return f"{known.attempts[0].variant} seed {known.spec.seed}"


def params(known: Journal) -> dict[str, str]:
    """Every field of the spec."""
    return {field: param(value) for field, value in flatten(known.spec).items()}


def metrics(known: Journal, epochs: int, result: bool) -> list[Metric]:
    """The points after the first `epochs` epochs, and those of the result where asked for, with the journal's times."""
    from mlflow.entities import Metric

    points = []
    for entry in known.entries:
        record = entry.record
        if isinstance(record, EpochRecord) and record.epoch > epochs:
            points += [Metric(one, getattr(record, one), entry.time_ms, record.epoch) for one in EPOCH_METRICS]
        elif isinstance(record, RunResult) and result:
            points += [Metric(one, getattr(record, one), entry.time_ms, record.epochs_run) for one in RESULT_METRICS]
    return points


def tags(known: Journal) -> dict[str, str]:
    """Everything but how the run ends and who owns it; of several attempts the last one's environment."""
    first, last = known.attempts[0], known.attempts[-1]
    asked = {name: value for name, value in flatten(known.spec).items() if name in PROTOCOL}
    found = {
        Tag.KIND: "run",
        Tag.SCHEMA: SCHEMA,
        Tag.STUDY: first.study,
        Tag.VARIANT: first.variant,
        Tag.SETTING: ", ".join(changes(asked)) or "declared",
        Tag.SEED: str(known.spec.seed),
        Tag.KEY: known.spec.key,
        Tag.JOURNAL: known.id,
        Tag.FOLDER: str(known.folder.absolute()),
        Tag.OWNER: owner.me(),
        Tag.ATTEMPTS: str(len(known.attempts)),
        Tag.THREADS: str(last.environment.threads),
        Tag.SIDE_BY_SIDE: str(last.environment.side_by_side),
        **computed(last.environment),
        **source(last.environment),
    }
    if last.environment.step:
        found[Tag.STEP] = last.environment.step
    return {str(tag): value for tag, value in found.items()}


def computed(environment: Environment) -> dict[str, str]:
    """Tags on the code and the machine."""
    return {
        Tag.COMMIT: environment.commit,
        Tag.DIRTY: param(environment.dirty),
        Tag.HARDWARE: environment.hardware,
    }


def source(environment: Environment | None) -> dict[str, str]:
    """MLflow's own tags on where a run comes from."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose uid has no name
        user = "unknown"
    found: dict[str, str] = {Tag.USER: user, Tag.SOURCE_NAME: "repro", Tag.SOURCE_TYPE: "LOCAL"}
    if environment is not None and environment.commit != "unknown":
        found[Tag.SOURCE_COMMIT] = environment.commit
    return found


def dataset(known: Journal) -> DatasetInput:
    """The data set as a logged input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = known.spec.data
    images: Mapping[str, int] = {}
    if (declared := DATASETS.get(data.dataset)) is not None:
        images = dict(zip(("train", "validation", "test"), declared.images, strict=True))
    return DatasetInput(
        Dataset(
            name=data.dataset,
            digest=data.digest[:_DIGEST_LENGTH],
            source_type="repro",
            source=json.dumps(
                {"dataset": data.dataset, "digest": data.digest, "split_digest": data.split_digest}, sort_keys=True
            ),
            profile=json.dumps({"images": images}),
        ),
        [InputTag("mlflow.data.context", DATASET_CONTEXT)],
    )
