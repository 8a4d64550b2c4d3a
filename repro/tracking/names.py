"""Every name the project writes into MLflow, with what it means: docs/tracking.md is made from here.

The writer writes no other name and the reader asks for no other; tests hold both, and the document, to these lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import get_args

from repro.datasets import DataSpec
from repro.networks import MODELS
from repro.recipe import OptimizerSpec, TrainingSpec
from repro.records import EPOCH_METRICS
from repro.validation import described


class Tag(StrEnum):
    """The tags written by the project, MLflow's own among them."""

    KIND = "repro.kind"
    SCHEMA = "repro.schema"
    STUDY = "repro.study"
    PLAN = "repro.plan"
    VARIANT = "repro.variant"
    SETTING = "repro.setting"
    SEED = "repro.seed"
    FOLD = "repro.fold"
    KEY = "repro.key"
    OUTCOME = "repro.outcome"
    JOURNAL = "repro.journal"
    FORK_OF = "repro.fork_of"
    START = "repro.start"
    FOLDER = "repro.folder"
    OWNER = "repro.owner"
    ATTEMPTS = "repro.attempts"
    DIFFERENCES = "repro.differences"
    MESSAGE = "repro.message"
    CLOSED = "repro.closed"
    COMMIT = "repro.commit"
    DIRTY = "repro.dirty"
    MIXED = "repro.mixed"
    HARDWARE = "repro.hardware"
    STEP = "repro.step"
    THREADS = "repro.threads"
    SIDE_BY_SIDE = "repro.side_by_side"
    GROUP = "repro.group"
    BEST = "repro.best"
    VERSIONS = "mlflow.modelVersions"
    PARENT = "mlflow.parentRunId"
    NAME = "mlflow.runName"
    NOTE = "mlflow.note.content"
    USER = "mlflow.user"
    SOURCE_NAME = "mlflow.source.name"
    SOURCE_TYPE = "mlflow.source.type"
    SOURCE_COMMIT = "mlflow.source.git.commit"
    SOURCE_BRANCH = "mlflow.source.git.branch"
    SOURCE_REPOSITORY = "mlflow.source.git.repoURL"
    SOURCE_DIRTY = "mlflow.source.git.dirty"
    SOURCE_DIFF = "mlflow.source.git.diff"


TAG_LENGTH = 8000
"""Characters that MLflow keeps of a tag."""
SCHEMA = "1"
"""Version of these names; a sweep and a run of another version are passed over with a note."""

PARAMS: Mapping[str, str] = {
    **described("model", *MODELS),
    **described("data", DataSpec),
    **described("optimizer", *get_args(OptimizerSpec)),
    **described("training", TrainingSpec),
    "seed": "Seed of initialization, dropout and order.",
    "semantics": "Version of what training computes.",
}
"""Params of a run: every field of its spec. Values that are not text are written as JSON (true, null, [1, 3])."""

METRICS: Mapping[str, str] = {
    "train_loss": "Mean cross-entropy over the training split in nats, measured during the training passes; with"
    " `training.label_smoothing` that to the smoothed labels.",
    "train_accuracy": "Accuracy on the training split in the same passes (0 to 1).",
    "val_loss": "Mean cross-entropy over the validation split in nats, after the epoch.",
    "val_accuracy": "Accuracy on the validation split after the epoch (0 to 1).",
    "epoch_seconds": "Seconds of training and validation of the epoch.",
    "test_loss": "Mean cross-entropy over the test split in nats, with the best epoch's weights.",
    "test_accuracy": "Accuracy on the test split with the best epoch's weights (0 to 1).",
    "best_val_accuracy": "Best validation accuracy (0 to 1).",
    "best_epoch": "First epoch that reached it; 0 if no epoch was completed.",
    "epochs_run": "Epochs trained.",
    "mean_epoch_seconds": "Mean of epoch_seconds.",
    "model_size_mib": "Size of model.pt in MiB (2**20 bytes).",
    "model_size_legacy_mib": "Size of the same weights in torch's format before 1.6, in MiB.",
    "parameters": "Trainable parameters.",
    "parameter_count": "`parameters` under a name that other tools use.",
    "multiply_adds": "Multiply-adds of one image's forward pass.",
}
"""Metrics of a run. Those of `EPOCH_METRICS` have step = epoch from 1; the others stand once, at step 0."""

_SHARED = {
    Tag.SCHEMA: "Version of the names on this page.",
    Tag.COMMIT: "Git commit of the code; of a run, that of its last attempt.",
    Tag.DIRTY: "Whether the working tree had changes (`true` or `false`); of a run, in any of its attempts.",
    Tag.HARDWARE: "Processor or GPU that computed.",
    Tag.USER: "Login name.",
    Tag.SOURCE_NAME: "`repro`; for a sweep under `mlflow run`, the name that MLflow gives.",
    Tag.SOURCE_TYPE: "`LOCAL`; for a sweep under `mlflow run`, `PROJECT`.",
    Tag.SOURCE_COMMIT: "The commit again, where MLflow's UI looks for it.",
    Tag.SOURCE_BRANCH: "Git branch, where one was checked out.",
    Tag.SOURCE_REPOSITORY: "URL of the git remote `origin`, without credentials; absent where there is none.",
    Tag.SOURCE_DIRTY: "`repro.dirty` again.",
}
"""Tags of runs and of sweeps."""

RUN_TAGS: Mapping[Tag, str] = {
    Tag.KIND: "`run`.",
    Tag.STUDY: "Study that the run was first trained for.",
    Tag.VARIANT: "Variant of that study.",
    Tag.SETTING: "How data and training differ from the declared protocol: `training.epochs=6`; else `declared`.",
    Tag.SEED: "Seed, as the param.",
    Tag.FOLD: "Fold of a cross-validation, as the param; absent for the fixed split.",
    Tag.KEY: "Hash of the spec: runs with the same key have the same settings.",
    Tag.OUTCOME: "How training ended: `finished`, `diverged` (a loss was not finite) or `chance` (stayed at chance).",
    Tag.JOURNAL: "Id of the journal that the run is published from.",
    Tag.FORK_OF: "Id of the journal that this one is a copy of, if both continued separately; otherwise absent.",
    Tag.START: "Digest of the starts of all its attempts; differs between copies of a journal that continued separately.",
    Tag.FOLDER: "Absolute path of that journal's folder on the host that trained; absent for a run from an archive.",
    Tag.OWNER: "The process that publishes the run: host, pid, start (JSON).",
    Tag.ATTEMPTS: "Number of processes that trained it in turn: 1 plus the times it was resumed.",
    Tag.MIXED: "What changed between its attempts: `code`, `torch`, `hardware`, `threads`; absent if nothing did.",
    Tag.DIFFERENCES: "Number of values of retrained epochs that differ from their record; absent if none do.",
    Tag.MESSAGE: "Why the run was killed or failed; empty once it resumes.",
    Tag.STEP: "How a step was computed: `fast`, `autograd` or `cuda graph`; environment.txt says why it is autograd.",
    Tag.THREADS: "Threads the run computed on.",
    Tag.SIDE_BY_SIDE: "Number of concurrent runs of the sweep.",
    Tag.PARENT: "Run id of the sweep that trained it, or first brought it into the store.",
    Tag.NAME: "`<variant> seed <n>`, followed by `fold <n>` in a cross-validation.",
    Tag.NOTE: "Description: title, published numbers, what differs from the base, and the command that repeats the run.",
    **_SHARED,
    Tag.SOURCE_DIFF: "The uncommitted changes, cut to the length of a tag; diff.patch has all of them.",
}

MODEL_TAGS: Mapping[Tag, str] = {
    Tag.GROUP: "The same for the models of one variant, whatever their seed and fold.",
    Tag.BEST: "`true` for the variant's run with the best validation accuracy, otherwise `false`.",
    Tag.KEY: "Key of the run.",
    Tag.SEED: "Seed of the run.",
    Tag.VERSIONS: "The registered models that it is a version of, as MLflow's Models tab shows them.",
}

VERSION_TAGS: Mapping[Tag, str] = {
    Tag.KEY: "Key of the run.",
    Tag.SETTING: "Data and training in which it is the best, as `repro register` prints it: `cifar10 (795f1793)`.",
}

SWEEP_TAGS: Mapping[Tag, str] = {
    Tag.KIND: "`sweep`.",
    Tag.STUDY: "The study, or `paper` for all of them.",
    Tag.PLAN: "First digits of the SHA-256 of the plan: a stopped sweep resumes in the run with the same plan.",
    Tag.OWNER: "The process that drives the sweep: host, pid, start (JSON).",
    Tag.CLOSED: "Final status, as recorded by the sweep itself.",
    Tag.NAME: "The sweep's name; under `mlflow run` it replaces MLflow's random name.",
    Tag.NOTE: "Description: the planned runs and, at the end, a short result table.",
    **_SHARED,
}

RUN_ARTIFACTS: Mapping[str, str] = {
    "spec.yaml": "The spec, fully resolved.",
    "environment.txt": "Versions, hardware and flags that the run was computed with.",
    "journal.jsonl": "The journal: all records of the run, with their times.",
    "model.pt": "State dict of the best epoch's weights.",
    "architecture.json": "Layers with shapes and multiply-adds, and the residual edges.",
    "source.zip": "Source of a network of one's own (`model.name: python`).",
    "not_exported.txt": "Why the run has no model, if torch could not export it.",
    "predictions.npz": "Predicted and true class of every validation and test image, by the best epoch's weights.",
    "confusion.csv": "Confusion matrix on the test split: rows are the true classes.",
    "curves.png": "Loss and accuracy over the epochs.",
    "diff.patch": "Uncommitted changes of the last attempt, if there were any.",
    "former.patch": "Those of earlier attempts that had others.",
}
"""What is stored of a run when it ends: files of its folder, where they are there, and the picture of its curves."""

SWEEP_METRICS: Mapping[str, str] = {
    "sweep_runs": "Number of runs in the sweep.",
    "sweep_finished": "Number of finished runs among them, including reused ones.",
    "sweep_best_val_accuracy": "Best validation accuracy (0 to 1) of the best variant, its mean over seeds.",
    "sweep_best_test_accuracy": "Test accuracy of that variant.",
}
"""Metrics of a sweep, once it has ended. Its params are the settings that were put on every variant."""

SWEEP_ARTIFACTS: Mapping[str, str] = {
    "sweep.json": "The plan: studies, and each row's variant, title, seed, key, spec and published numbers.",
    "reused.json": "Key and run id of every finished run that was reused instead of trained.",
    "results.md": "The result tables, once the sweep has ended; its description has a short version.",
    "<study>-forest.png": "Forest plot of a study: beside the published numbers, or differences from the base.",
}

DATASET_CONTEXTS: Mapping[str, str] = {"train": "training", "validation": "validation", "test": "test"}
"""Split -> MLflow's word for what a run uses it for."""


def markdown() -> str:
    """All names as the tables of docs/tracking.md."""
    epochs = {name: METRICS[name] for name in EPOCH_METRICS}
    finals = {name: meaning for name, meaning in METRICS.items() if name not in EPOCH_METRICS}
    sections: list[tuple[str, str, Mapping[str, str] | Mapping[Tag, str]]] = [
        ("Params of a run", "param", PARAMS),
        ("Metrics of every epoch", "metric", epochs),
        ("Metrics at the end", "metric", finals),
        ("Tags of a run", "tag", RUN_TAGS),
        ("Artifacts of a run", "artifact", RUN_ARTIFACTS),
        ("Tags of a model", "tag", MODEL_TAGS),
        ("Tags of a registered version", "tag", VERSION_TAGS),
        ("Tags of a sweep", "tag", SWEEP_TAGS),
        ("Metrics of a sweep", "metric", SWEEP_METRICS),
        ("Artifacts of a sweep", "artifact", SWEEP_ARTIFACTS),
    ]
    return "\n".join(
        f"## {title}\n\n| {kind} | meaning |\n|---|---|\n"
        + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in names.items())
        for title, kind, names in sections
    )
