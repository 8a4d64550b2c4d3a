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

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from repro.errors import InputError, shown, unknown
from repro.recipe import AdaBoundSpec, OptimizerSpec, TrainingSpec
from repro.validation import Strict, validated

TRAINING_SEMANTICS = 1
"""Version of what training computes. It is part of every key: raise it when the same spec would train differently."""

ADDED_LATER: Mapping[str, object] = MappingProxyType(
    {
        "optimizer.schedule": "constant",
        "optimizer.warmup_epochs": 0.0,
        "optimizer.step_epochs": [],
        "optimizer.step_factor": 0.1,
        "training.label_smoothing": 0.0,
    }
)
"""Dotted name -> value at which the field stays out of the hash, for every field added after the first release."""

Value: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None
"""What a setting may hold: whatever YAML says."""


class KnownData(BaseModel):
    """The constants of a data set that planning and comparing need without its files."""

    model_config = ConfigDict(frozen=True)

    digest: str
    """SHA-256 over the images (N, 32, 32, 3) uint8 and the labels (N,) uint8, in that order."""
    split_digest: str
    """SHA-256 over the three index arrays (train, validation, test) as little-endian int64."""
    classes: tuple[str, ...]
    images: tuple[int, int, int]
    """Number of images in the training, validation and test split."""


DATASETS: Mapping[str, KnownData] = MappingProxyType(
    {
        "cifar10": KnownData(
            digest="795f1793d7b8f8883c578442a02455d2469d49685325e98ea0621b15f4a88d69",
            split_digest="50e892e7915c712b30809446b846fef4d352d3a192ee29680817c98e242440dd",
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            images=(50_000, 5_000, 5_000),
        ),
        "digits": KnownData(
            digest="d5959d0b8bfed833d936ef995040499160cfa8d61c2bb7d6be7a04c100bb7e2c",
            split_digest="20651c3948a8432f6738de80bee8bc4be80cf7b956551fd82c0ce25a0892b946",
            classes=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
            images=(1_437, 180, 180),
        ),
    }
)
"""Every data set the project knows; `repro data` checks the files against these constants."""


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


class DataSpec(Strict):
    """Which images are seen, and how. The digests are filled in for the data sets in `DATASETS`."""

    dataset: Literal["cifar10", "digits"] = "cifar10"
    digest: str = Field("", pattern=r"^[0-9a-f]{64}$")
    split_digest: str = Field("", pattern=r"^[0-9a-f]{64}$")
    normalisation: Literal["channel"] = "channel"
    """Per channel, by mean and standard deviation of the training split."""
    augmentation: Literal["none"] = "none"
    fold: None = None

    @model_validator(mode="before")
    @classmethod
    def _known_digests(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = DATASETS.get(str(given.get("dataset", "cifar10")))
        return given if known is None else {"digest": known.digest, "split_digest": known.split_digest, **given}


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
        known = DATASETS[self.data.dataset]
        if self.model.classes < len(known.classes):
            raise ValueError(
                f"model.classes: {self.model.classes} is fewer than the {len(known.classes)} classes of {self.data.dataset}"
            )
        if self.model.input_size != 32:
            raise ValueError(f"model.input_size: {self.data.dataset} has images of 32x32, got {self.model.input_size}")
        if self.training.batch_size > known.images[0]:
            raise ValueError(
                f"training.batch_size: {self.training.batch_size} is larger than the training split of {self.data.dataset}"
                f" (allowed: 1 to {known.images[0]})"
            )
        if self.training.batch_size == 1 and self.model.batch_norm != "none":
            raise ValueError(
                "training.batch_size: 1 has no variance to normalise by (allowed with batch_norm: 2 or more)"
            )
        return self

    @property
    def key(self) -> str:
        """16 hexadecimal digits: the hash of the question asked."""
        canonical = json.dumps(
            hashed(flatten(self)), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def hashed(flat: Mapping[str, Value]) -> dict[str, Value]:
    """What counts of some settings, in the one form that is hashed: -0.0 as 0.0."""
    return {
        name: value + 0.0 if isinstance(value, float) else value
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


def resolve(settings: Mapping[str, Any], where: str) -> RunSpec:
    """A spec from dotted settings, the defaults filling the rest; `where` stands at the head of an error's line."""
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
    if "data.dataset" in differing:
        differing = {name: value for name, value in differing.items() if not name.endswith("digest")}
    return tuple(f"{name}={value}" for name, value in differing.items())
