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
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from repro.datasets import DATASETS, DataSpec, KnownData, kind_of
from repro.errors import InputError, shown, unknown
from repro.recipe import AdaBoundSpec, OptimizerSpec, TrainingSpec
from repro.validation import Strict, validated

TRAINING_SEMANTICS = 1
"""Version of what training computes. It is part of every key: raise it when the same spec would train differently."""

ADDED_LATER: Mapping[str, object] = MappingProxyType(
    {
        "data.image_size": 32,
        "data.folds": None,
        "optimizer.schedule": "constant",
        "optimizer.warmup_epochs": 0.0,
        "optimizer.step_epochs": [],
        "optimizer.step_factor": 0.1,
        "training.label_smoothing": 0.0,
    }
)
"""Dotted name -> value at which the field stays out of every hash (keys and the ids of settings), for every field added
after the first release."""

Value: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None
"""What a setting may hold: whatever YAML says."""


Names: TypeAlias = Annotated[tuple[str, ...], Field(strict=False)]  # takes a YAML list


def _by_depth(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: (name != "conv1", len(name), name)))


def _no_switch(given: Any) -> Any:
    if isinstance(given, bool):  # True equals 1, so a Literal alone would take it
        raise PydanticKnownError("int_type")
    return given


Layers: TypeAlias = Annotated[Names, AfterValidator(lambda names: _by_depth(tuple(set(names))))]
"""Names of layers, each once and in the network's order however they were given: one question has one key."""
Repeated: TypeAlias = Annotated[Names, AfterValidator(_by_depth)]
"""Names of layers in the network's order; a name may stand several times."""
Kernel: TypeAlias = Annotated[Literal[1, 3, 5, 7], BeforeValidator(_no_switch)]


class SqueezeNetSpec(Strict):
    """SqueezeNet by the metaparameters of its paper (Iandola et al. 2016, section 5) and the changes studied here.

    Module i = 0, 1, ... is called fire2, fire3, ...; it expands to e(i) = base_e + incr_e * (i // freq) channels, of which
    a share `expand_3x3` comes from the larger expand kernel, after a squeeze layer of squeeze_ratio * e(i) channels.
    """

    name: Literal["squeezenet"]
    fire_modules: int = Field(8, ge=1, le=64)
    base_e: int = Field(128, ge=1, le=4096)
    incr_e: int = Field(128, ge=0, le=4096)
    freq: int = Field(2, ge=1, le=64)
    squeeze_ratio: float = Field(0.125, gt=0, le=1)
    expand_3x3: float = Field(0.5, ge=0, le=1)
    squeeze_kernel: Kernel = 1
    expand_kernels: Annotated[tuple[Kernel, Kernel], Field(strict=False)] = (1, 3)
    """Kernel of the smaller and of the larger expand filters; padding keeps the spatial size."""
    first_kernel: int = Field(7, ge=1, le=31)
    first_stride: int = Field(2, ge=1, le=8)
    first_filters: int = Field(96, ge=1, le=4096)
    first_padding: int = Field(0, ge=0, le=15)
    pools: Layers = ("conv1", "fire4", "fire8")
    """Layers after which a 3x3 max pool of stride 2 (ceil mode) follows; one with no Fire module behind it is omitted."""
    replicated: Repeated = ()
    """Modules that get a replica of the same width right behind them; a name given twice gives two replicas."""
    removed: Layers = ()
    """Modules that are dropped; a pool after one of them stays where it was."""
    residual: Literal["none", "simple", "complex"] = "none"
    """simple: identity additions where widths agree; complex: 1x1 convolutions where they do not, as well."""
    batch_norm: Literal["none", "fire", "outside", "all"] = "none"
    conv_bias: bool = True
    """Whether a convolution that is followed by batch normalization keeps its bias; others always have one."""
    dropout: float = Field(0.5, ge=0, lt=1)
    head_relu: bool = False
    """Whether conv10 is followed by a ReLU, as in the first SqueezeNet release."""
    classes: int = Field(10, ge=2, le=100_000)
    input_size: int = Field(32, ge=8, le=1024)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        fires = [f"fire{i + 2}" for i in range(self.fire_modules)]
        layers = ["conv1", *fires]
        for field, names, allowed in (
            ("pools", self.pools, ["conv1", *(f"fire{i}" for i in range(2, 66))]),
            ("replicated", self.replicated, fires),
            ("removed", self.removed, fires),
        ):
            for name in names:
                if name not in allowed:
                    shown = layers if field == "pools" else fires
                    raise ValueError(f"model.{field}: {unknown('layer', name, shown)}")
        if set(self.removed) >= set(fires):
            raise ValueError("model.removed: at least one Fire module must stay")
        if both := sorted(set(self.removed) & set(self.replicated)):
            raise ValueError(f"model.replicated: {both[0]} is removed, so it cannot be replicated")
        return self


class AlexNetSpec(Strict):
    """AlexNet as usual on CIFAR-10: five 3x3 convolutions and three linear layers (Krizhevsky et al. 2012, adapted)."""

    name: Literal["alexnet"]
    batch_norm: Literal["none", "all"] = "none"
    conv_bias: bool = True
    dropout: float = Field(0.5, ge=0, lt=1)
    classes: int = Field(10, ge=2, le=100_000)
    input_size: int = Field(32, ge=16, le=1024)


class RunSpec(Strict):
    """One run, fully resolved. Equal specs have equal keys, and on one machine with one set of versions equal weights."""

    model: SqueezeNetSpec | AlexNetSpec = Field(discriminator="name")
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
        if self.training.batch_size == 1 and self.model.batch_norm != "none":
            raise ValueError(
                "training.batch_size: 1 has no variance to normalise by (allowed with batch_norm: 2 or more)"
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
        return f"{variant} seed {self.seed}" + ("" if self.data.fold is None else f" fold {self.data.fold}")


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


def flatten(spec: BaseModel) -> dict[str, Value]:
    """Every field by dotted name, in declaration order: {"model.squeeze_ratio": 0.125, ..., "seed": 0}."""

    def walk(prefix: str, tree: Mapping[str, Any]) -> dict[str, Value]:
        flat: dict[str, Value] = {}
        for name, value in tree.items():
            if isinstance(value, Mapping):
                flat |= walk(f"{prefix}{name}.", value)
            else:
                flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
        return flat

    return walk("", spec.model_dump())


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
            raise InputError(f"{shown(dotted)}: got {shown(value)}; name settings with dots, as model.first_kernel: 5")
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
    try:
        tree = nest(settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return validated(RunSpec, tree, where)


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `changes` on top; naming another model or optimizer drops what was set for the former one."""
    kept = dict(settings)
    for group in ("model", "optimizer"):
        named = changes.get(f"{group}.name")
        if named is not None and named != settings.get(f"{group}.name", "adabound"):
            kept = {name: value for name, value in kept.items() if not name.startswith(f"{group}.")}
    return kept | dict(changes)


PROTOCOL: Mapping[str, Value] = MappingProxyType(
    {
        f"{group}.{name}": value
        for group, defaults in (("data", DataSpec()), ("training", TrainingSpec()))
        for name, value in flatten(defaults).items()
    }
    | {"semantics": TRAINING_SEMANTICS}
)
"""Data and training as they are declared: what the rows of the paper's tables share."""


def changes(setting: Mapping[str, Value]) -> tuple[str, ...]:
    """How a setting differs from the protocol, as `name=value`; empty where it is that of the paper's tables."""
    differing = {name: value for name, value in setting.items() if name not in PROTOCOL or value != PROTOCOL[name]}
    differing.pop("data.fold", None)  # the folds of a cross-validation are one setting
    if "data.dataset" in differing:
        differing = {name: value for name, value in differing.items() if not name.endswith("digest")}
    return tuple(f"{name}={value}" for name, value in differing.items())
