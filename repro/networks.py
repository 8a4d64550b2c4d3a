"""The networks that a run can ask for: one declaration each, `model.name` says which.

SqueezeNet and AlexNet are the project's own. `torchvision` is any classification network of torchvision, `python` what any
function returns: a `torch.nn.Module` from images (N, 3, input_size, input_size) to logits (N, classes).
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from repro.errors import InputError, nearest, shown, unknown
from repro.validation import Strict

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


class _Network(Strict):
    """What every network has: a name that says which it is, and what it is told of the data."""

    name: str
    classes: int = Field(10, ge=2, le=100_000)
    """Number of classes."""
    input_size: int = Field(32, ge=8, le=1024)
    """Height and width of the input images in pixels."""

    @property
    def normalised(self) -> bool:
        """Whether it is known to have batch normalization; of networks from elsewhere that is seen when they are tried."""
        return getattr(self, "batch_norm", "none") != "none"

    def usual(self) -> Self:
        """The network of this kind that differs in nothing from the defaults."""
        return type(self)(**self.model_dump(include={"name", "architecture", "function", "source"}))


class _Declared(_Network):
    """What the project's own networks share."""

    conv_bias: bool = True
    """Whether convolutions before batch normalization keep their bias; others always have one."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout probability before the classifier."""


class SqueezeNetSpec(_Declared):
    """SqueezeNet by the metaparameters of its paper (Iandola et al. 2016, section 5) and the changes studied here.

    Module i = 0, 1, ... is called fire2, fire3, ...; it expands to e(i) = base_e + incr_e * (i // freq) channels, of which
    a share `expand_3x3` comes from the larger expand kernel, after a squeeze layer of squeeze_ratio * e(i) channels.
    """

    network: ClassVar[str] = "SqueezeNet"

    name: Literal["squeezenet"]
    """Network: `squeezenet`, `alexnet`, `torchvision` (one of torchvision's) or `python` (a function of your own)."""
    fire_modules: int = Field(8, ge=1, le=64)
    """Number of Fire modules before replication and removal; their names are fire2, fire3, ..."""
    base_e: int = Field(128, ge=1, le=4096)
    """Expand width (channels) of the first Fire modules."""
    incr_e: int = Field(128, ge=0, le=4096)
    """Channels added to the expand width after every `model.freq` modules."""
    freq: int = Field(2, ge=1, le=64)
    """Number of successive Fire modules of one width."""
    squeeze_ratio: float = Field(0.125, gt=0, le=1)
    """Squeeze filters as a share of the module's expand width."""
    expand_3x3: float = Field(0.5, ge=0, le=1)
    """Share of the expand filters that have the larger kernel."""
    squeeze_kernel: Kernel = 1
    """Kernel size of the squeeze layers."""
    expand_kernels: Annotated[tuple[Kernel, Kernel], Field(strict=False)] = (1, 3)
    """Kernel sizes of the smaller and the larger expand filters; padding keeps the spatial size."""
    first_kernel: int = Field(7, ge=1, le=31)
    """Kernel size of the first convolution."""
    first_stride: int = Field(2, ge=1, le=8)
    """Stride of the first convolution."""
    first_filters: int = Field(96, ge=1, le=4096)
    """Filters of the first convolution."""
    first_padding: int = Field(0, ge=0, le=15)
    """Padding of the first convolution, in pixels on each side."""
    pools: Layers = ("conv1", "fire4", "fire8")
    """Layers followed by a 3x3 max pool of stride 2 (ceil mode); a pool with no Fire module after it is omitted."""
    replicated: Repeated = ()
    """Fire modules followed by a replica of the same width; a name given twice gives two replicas."""
    removed: Layers = ()
    """Fire modules that are removed; a pool after one of them stays in place."""
    residual: Literal["none", "simple", "complex"] = "none"
    """Additions around Fire modules: `none`, `simple` (identity, where widths agree) or `complex` (1x1 convolutions too)."""
    batch_norm: Literal["none", "fire", "outside", "all"] = "none"
    """Where batch normalization is applied: `none`, `fire`, `outside` or `all`."""
    head_relu: bool = False
    """Whether a ReLU follows the last convolution, as in the first SqueezeNet release."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        fires = [f"fire{i + 2}" for i in range(self.fire_modules)]
        beyond = [f"fire{i}" for i in range(2, 66)]  # a pool behind a module that there is not is left out
        for field, allowed in (("pools", ["conv1", *fires]), ("replicated", fires), ("removed", fires)):
            for name in getattr(self, field):
                if name not in allowed and not (field == "pools" and name in beyond):
                    raise ValueError(f"model.{field}: {unknown('layer', name, allowed)}")
        if set(self.removed) >= set(fires):
            raise ValueError("model.removed: at least one Fire module must remain")
        if both := sorted(set(self.removed) & set(self.replicated)):
            raise ValueError(f"model.replicated: {both[0]} is removed, so it cannot be replicated")
        return self


class AlexNetSpec(_Declared):
    """AlexNet as usual on CIFAR-10: five 3x3 convolutions and three linear layers (Krizhevsky et al. 2012, adapted)."""

    network: ClassVar[str] = "AlexNet"

    name: Literal["alexnet"]
    batch_norm: Literal["none", "all"] = "none"
    input_size: int = Field(32, ge=16, le=1024)


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, lists as tuples."""

    def plain(value: Any) -> bool:
        return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))

    for name, value in given.items():
        if not name.isidentifier():
            raise ValueError(f"model.args: {shown(name)} is not the name of an argument (example: width)")
        if not all(map(plain, value if isinstance(value, list | tuple) else [value])):
            raise ValueError(
                f"model.args.{name}: got {shown(value)} (allowed: numbers, text, true, false, null and lists of them)"
            )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


class _Foreign(_Network):
    """A network whose code is not the project's: it is called with `args`."""

    args: Annotated[Mapping[str, Any], AfterValidator(_arguments)] = Field(default_factory=dict)
    """Arguments of the architecture or function by name, each a separate setting: `model.args.width`."""

    def __hash__(self) -> int:
        return hash((type(self), *(tuple(value.items()) if isinstance(value, Mapping) else value for _, value in self)))


class TorchvisionSpec(_Foreign):
    """A classification network of torchvision, untrained, with as many outputs as there are classes."""

    name: Literal["torchvision"]
    architecture: str = Field(pattern=r"^[a-z0-9_]+$")
    """Torchvision's name of the network: `resnet18`, `efficientnet_b0`, `mobilenet_v3_small` ..."""

    @property
    def network(self) -> str:
        """What kind of network it is, in words."""
        return f"torchvision {self.architecture}"


class PythonSpec(_Foreign):
    """What a function returns. It gets `args`, and `classes` and `input_size` where it takes them."""

    name: Literal["python"]
    function: str
    """Function that returns the network, as `module:function`. Python finds the module on PYTHONPATH, among what is installed,
    or finally in the working folder."""
    source: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the source of its module (of the whole package where it is in one)."""

    @model_validator(mode="after")
    def _names_a_function(self) -> Self:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", self.function):
            raise ValueError(
                f"model.function: got {shown(self.function)} (allowed: module:function, for example my_nets:small)"
            )
        return self

    @property
    def network(self) -> str:
        """What kind of network it is, in words."""
        return f"python {self.function}"


ModelSpec: TypeAlias = SqueezeNetSpec | AlexNetSpec | TorchvisionSpec | PythonSpec
MODELS: tuple[type[ModelSpec], ...] = get_args(ModelSpec)
"""Every declaration of a network."""


def source_digest(function: str) -> str:
    """SHA-256 of the source that `module:function` stands in; the rest is as with `source`."""
    files, digest = source(function), hashlib.sha256()
    for name, content in files:
        if "/" in name:
            digest.update(f"{name.partition('/')[2]}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def source(function: str) -> list[tuple[str, bytes]]:
    """The source that `module:function` stands in, as file names from where it is imported and contents; it is not imported.

    It is all .py files of the top-level package, or the one file of a module that stands alone.

    Raises:
        InputError: there is no such module, or no source of it.
    """
    top = function.partition(":")[0].partition(".")[0]
    places = [*sys.path[not sys.flags.safe_path :], str(Path.cwd())]  # not the folder of the script that was started
    found = PathFinder.find_spec(top, places)
    if found is None:
        hint = nearest(top, [path.stem for path in Path().glob("*.py")])
        raise InputError(
            f"model.function: there is no module {top!r}{hint} (allowed: one in {Path.cwd()} or on PYTHONPATH)"
        )
    if found.submodule_search_locations is not None:
        return [
            (f"{top}/{path.relative_to(folder).as_posix()}", path.read_bytes())
            for folder in map(Path, found.submodule_search_locations)
            for path in sorted(folder.rglob("*.py"))
        ]
    if found.origin is None or not found.origin.endswith(".py"):
        raise InputError(f"model.function: the module {top!r} has no source in Python ({found.origin})")
    return [(f"{top}.py", Path(found.origin).read_bytes())]
