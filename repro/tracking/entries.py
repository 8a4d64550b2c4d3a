"""What a journal says, in MLflow's terms: params, metrics, tags and the data set of its run."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from repro import journal, owner
from repro.datasets import DATASETS
from repro.journal import Journal
from repro.records import EPOCH_METRICS, RESULT_METRICS, Environment, EpochRecord, RunResult
from repro.spec import PROTOCOL, changes, flatten
from repro.tracking.names import DATASET_CONTEXTS, SCHEMA, Tag
from repro.tracking.stored import param

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

_DIGEST_LENGTH = 36  # what MLflow takes for a data set's; the whole digest is a param
_URLS = {"cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"}


def name(known: Journal) -> str:
    """The run's name."""
    return known.spec.run_name(known.attempts[0].variant)


def journal_of(tags: Mapping[str, str], runs: Path) -> Journal | None:
    """The journal that a run with these tags was published from: in the folder of all runs, or where it was trained.

    Of two copies that went on apart, it is the one that the run holds.
    """
    id, start = tags.get(Tag.FORK_OF, tags.get(Tag.JOURNAL)), tags.get(Tag.START)
    for place in (runs / tags.get(Tag.KEY, ""), Path(tags.get(Tag.FOLDER, ""))):
        known = journal.read(place)
        if known is not None and known.id == id and start in (None, *known.starts):
            return known
    return None


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
            # at step 0 MLflow's UI draws them as bars
            points += [Metric(one, getattr(record, one), entry.time_ms, 0) for one in RESULT_METRICS]
            points.append(Metric("parameter_count", record.parameters, entry.time_ms, 0))
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
        Tag.START: known.starts[-1],
        Tag.FOLDER: str(known.folder.absolute()),
        Tag.OWNER: owner.me(),
        Tag.ATTEMPTS: str(len(known.attempts)),
        Tag.THREADS: str(last.environment.threads),
        Tag.SIDE_BY_SIDE: str(last.environment.side_by_side),
        **computed(last.environment),
        **source(last.environment),
    }
    if known.mixed:
        found[Tag.MIXED] = ", ".join(known.mixed)
    if any(one.dirty for one in known.environments):
        found |= {tag: param(True) for tag in (Tag.DIRTY, Tag.SOURCE_DIRTY) if tag in found}
    if last.environment.step:
        found[Tag.STEP] = last.environment.step
    if known.spec.data.fold is not None:
        found[Tag.FOLD] = str(known.spec.data.fold)
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
        found |= {Tag.SOURCE_COMMIT: environment.commit, Tag.SOURCE_DIRTY: param(environment.dirty)}
        found |= {Tag.SOURCE_BRANCH: environment.branch} if environment.branch else {}
        found |= {Tag.SOURCE_REPOSITORY: environment.repository} if environment.repository else {}
    return found


def datasets(known: Journal) -> list[DatasetInput]:
    """The training, validation and test split as logged inputs, each with a digest of its own."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data, last = known.spec.data, known.attempts[-1].environment
    counts = known.attempts[-1].images
    if not counts and data.dataset in DATASETS and data.fold is None:  # a journal of a former version
        counts = DATASETS[data.dataset].images
    if data.dataset in _URLS:
        source_type, source = "http", json.dumps({"url": _URLS[data.dataset]})
    else:
        made = {Tag.SOURCE_NAME: f"repro data --dataset {data.dataset}", Tag.SOURCE_COMMIT: last.commit}
        source_type, source = "code", json.dumps({"tags": made})
    side = known.spec.model.input_size
    arrays = {"features": tensor("uint8", -1, side, side, 3), "targets": tensor("int64", -1)}
    schema = json.dumps({"mlflow_tensorspec": arrays})
    profile = {"digest": data.digest, "split_digest": data.split_digest}
    inputs = []
    for place, (split, context) in enumerate(DATASET_CONTEXTS.items()):
        images = {"images": counts[place]} if counts else {}
        dataset = Dataset(*split_of(known, split), source_type, source, schema, json.dumps(images | profile))
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    return inputs


def split_of(known: Journal, split: str) -> tuple[str, str]:
    """Name and digest of one split of a run's data set, as MLflow knows it."""
    data = known.spec.data
    digest = hashlib.sha256(json.dumps([data.model_dump(mode="json"), split], sort_keys=True).encode()).hexdigest()
    return f"{data.dataset} {split}", digest[:_DIGEST_LENGTH]


def of_model(known: Journal, model_id: str) -> list[Metric]:
    """The points of the result that are finite, as those of a model on the split that each was measured on."""
    from mlflow.entities import Metric

    points = []
    for point in metrics(known, epochs=len(known.epochs), result=True):
        split = {"test": "test", "best_val": "validation"}.get(point.key.rpartition("_")[0])
        name, digest = split_of(known, split) if split else (None, None)
        if math.isfinite(point.value):
            points.append(Metric(point.key, point.value, point.timestamp, point.step, model_id, name, digest))
    return points


def tensor(dtype: str, *shape: int) -> str:
    """The schema of one array as MLflow writes it; a size of -1 is any."""
    return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}])
