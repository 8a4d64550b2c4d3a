"""What one run is: every setting that can change its result, validated, frozen, with a key.

A `RunSpec` is the question asked, fully resolved. Its `key` is a hash of that question: two runs with one key were asked
the same thing, so one of them need not be trained. Device, threads, workers, paths and package versions can change how a
question is answered, not what is asked; they are recorded as environment and stand in no field here.

Growth: a field added after the first release is listed in `ADDED_LATER` with the value at which it stays out of the hash,
so the keys of the runs that exist never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self, TypeAlias

from pydantic import BaseModel, Field, model_validator

from repro.datasets import DATASETS, DataSpec, KnownData, kind_of
from repro.errors import InputError, shown
from repro.networks import ModelSpec, source_digest
from repro.recipe import AdaBoundSpec, OptimizerSpec, TrainingSpec
from repro.validation import Strict, validated

TRAINING_SEMANTICS = 1
"""Version of what training computes. It is part of every key: raise it when the same spec would train differently."""

ADDED_LATER: Mapping[str, object] = {
    "data.image_size": 32,
    "data.folds": None,
    "optimizer.schedule": "constant",
    "optimizer.warmup_epochs": 0.0,
    "optimizer.step_epochs": [],
    "optimizer.step_factor": 0.1,
    "training.label_smoothing": 0.0,
}
"""Dotted name -> value at which the field stays out of every hash (keys and the ids of settings), for every field added
after the first release."""

Value: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None
"""What a setting may hold: whatever YAML says."""


class RunSpec(Strict):
    """One run, fully resolved. Equal specs have equal keys, and on one machine with one set of versions equal weights."""

    model: ModelSpec = Field(discriminator="name")
    data: DataSpec = DataSpec()
    optimizer: OptimizerSpec = Field(AdaBoundSpec(name="adabound"), discriminator="name")
    training: TrainingSpec = TrainingSpec()
    seed: int = Field(0, ge=0, le=2**31 - 1)
    semantics: int = Field(TRAINING_SEMANTICS, ge=1, le=TRAINING_SEMANTICS)

    @model_validator(mode="after")
    def _fits_data(self) -> Self:
        side = self.data.image_size
        if self.model.input_size != side:
            raise ValueError(
                f"model.input_size: {self.data.dataset} has images of {side}x{side}, got {self.model.input_size}"
            )
        if self.data.dataset in DATASETS:
            self.fits(DATASETS[self.data.dataset])
        if self.training.batch_size == 1 and self.model.normalised:
            raise ValueError(
                "training.batch_size: 1 has no variance to normalize by (allowed with batch_norm: 2 or more)"
            )
        return self

    def fits(self, known: KnownData) -> None:
        """Raises a ValueError of one line where the run cannot be trained on a data set of these classes and images."""
        if self.model.classes < len(known.classes):
            raise ValueError(
                f"model.classes: {self.model.classes} is fewer than the {len(known.classes)} classes of {known.name}"
            )
        images, folds = known.images[0], self.data.folds
        if folds is not None:
            both = sum(known.images[:2])
            images = both - -(-both // folds)
            if folds > known.smallest:
                raise ValueError(
                    f"data.folds: {folds} folds need {folds} images of every class; one of {known.name} has"
                    f" {known.smallest} for training and validation (allowed: 2 to {known.smallest})"
                )
        if self.training.batch_size > images:
            raise ValueError(
                f"training.batch_size: {self.training.batch_size} is larger than the training split of {known.name}"
                f" (allowed: 1 to {images})"
            )

    @property
    def key(self) -> str:
        """16 hexadecimal digits: the hash of the question asked."""
        canonical = json.dumps(
            hashed(flatten(self)), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def of(self, seed: int, fold: int | None) -> RunSpec:
        """The same question under another seed, on another fold of its folds."""
        data = self.data if fold == self.data.fold else self.data.model_copy(update={"fold": fold})
        return self.model_copy(update={"seed": seed, "data": data})

    def run_name(self, variant: str) -> str:
        """The run's name: `residual seed 0`, with `fold 2` behind it where it is of a cross-validation."""
        return run_name(variant, self.seed, self.data.fold)


def run_name(variant: str, seed: int, fold: int | None) -> str:
    """The name of a variant's run."""
    return f"{variant} seed {seed}" + ("" if fold is None else f" fold {fold}")


def hashed(flat: Mapping[str, Value]) -> dict[str, Value]:
    """What counts of some settings, in the one form that is hashed: -0.0 as 0.0, a folder's name left out."""

    def one_form(name: str, value: Value) -> Value:
        if name == "data.dataset":
            return kind_of(str(value))  # the digest says which images they are, wherever they lie
        return value + 0.0 if isinstance(value, float) else value

    return {
        name: one_form(name, value)
        for name, value in flat.items()
        if name not in ADDED_LATER or ADDED_LATER[name] != value
    }


def flatten(spec: BaseModel, *, exclude_defaults: bool = False) -> dict[str, Value]:
    """Every field by dotted name, in declaration order: {"model.squeeze_ratio": 0.125, ..., "seed": 0}."""

    def walk(prefix: str, tree: Mapping[str, Any]) -> dict[str, Value]:
        flat: dict[str, Value] = {}
        for name, value in tree.items():
            if isinstance(value, Mapping):
                flat |= walk(f"{prefix}{name}.", value)
            else:
                flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
        return flat

    return walk("", spec.model_dump(exclude_defaults=exclude_defaults))


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`, as plain dicts: {"model.name": "alexnet"} -> {"model": {"name": "alexnet"}}."""
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        *parents, leaf = dotted.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError(f"{shown(dotted)}: {shown(parent)} is a value, not a group of settings")
        if isinstance(value, Mapping):
            raise InputError(
                f"{shown(dotted)}: got {shown(value)}; use dotted names, for example model.first_kernel: 5"
            )
        if leaf in node:
            raise InputError(f"{shown(dotted)}: is set both as a value and as a group of settings")
        node[leaf] = value
    return tree


def resolve(settings: Mapping[str, Any], where: str, known: KnownData | None = None) -> RunSpec:
    """A spec from dotted settings, the defaults filling the rest; `where` stands at the head of an error's line.

    With the data set's `known`, its digests are pinned into the spec, and the network has its classes and side.
    """
    if known is not None:
        settings = {
            "model.classes": len(known.classes),
            "model.input_size": known.side,
            "data.digest": known.digest,
            "data.split_digest": known.split_digest,
            **settings,
            "data.dataset": known.name,
            "data.image_size": known.side,
        }
    if any(name.startswith("optimizer.") for name in settings):
        settings = {"optimizer.name": "adabound", **settings}
    settings = spread(settings)
    function = settings.get("model.function")
    try:
        if isinstance(function, str) and ":" in function:
            settings = {"model.source": source_digest(function), **settings}
        tree = nest(settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return validated(RunSpec, tree, where)


def spread(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with each argument of a network by itself: `model.args.width: 8` for `model.args: {width: 8}`."""
    given = settings.get("model.args")
    if not isinstance(given, Mapping):
        return dict(settings)
    kept = {name: value for name, value in settings.items() if name != "model.args"}
    return kept | {f"model.args.{name}": value for name, value in given.items()}


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `changes` on top; naming another model or optimizer drops what was set for the former one."""
    kept, changes = spread(settings), spread(changes)
    for choice, dropped in _CHOICES.items():
        if choice in changes and changes[choice] != settings.get(choice, "adabound"):
            kept = {name: value for name, value in kept.items() if not name.startswith(dropped)}
    return kept | changes


_CHOICES = {
    "model.name": "model.",
    "model.architecture": "model.args.",
    "model.function": "model.args.",
    "optimizer.name": "optimizer.",
}
"""Field -> the fields that another value of it makes meaningless, by the beginning of their names."""


PROTOCOL: Mapping[str, Value] = {
    f"{group}.{name}": value
    for group, defaults in (("data", DataSpec()), ("training", TrainingSpec()))
    for name, value in flatten(defaults).items()
} | {"semantics": TRAINING_SEMANTICS}
"""Data and training as they are declared: what the rows of the paper's tables share."""


def changes(setting: Mapping[str, Value], declared: Mapping[str, Value] | None = None) -> tuple[str, ...]:
    """How a setting differs from the protocol with what is declared besides, as `name=value`; empty where it does not."""
    usual = {**PROTOCOL, **(declared or {})}
    differing = {name: value for name, value in setting.items() if name not in usual or value != usual[name]}
    differing.pop("data.fold", None)  # the folds of a cross-validation are one setting
    if "data.dataset" in {*differing, *(declared or {})}:
        differing = {name: value for name, value in differing.items() if not name.endswith("digest")}
    return tuple(f"{name}={value}" for name, value in differing.items())
