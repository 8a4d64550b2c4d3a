"""A network as a table: its layers with shapes, parameters and multiply-adds, found by running it once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from repro.networks import AlexNetSpec, ModelSpec, SqueezeNetSpec
from repro.records import Architecture, Layer
from repro.training.models.layers import Add, Concat, Dropout, GlobalAveragePool

_KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.BatchNorm2d: "batch_norm",
    nn.ReLU: "relu",
    nn.MaxPool2d: "max_pool",
    GlobalAveragePool: "avg_pool",
    Dropout: "dropout",
    nn.Linear: "linear",
    Concat: "concat",
    Add: "add",
}


def describe(module: nn.Module, spec: ModelSpec) -> Architecture:
    """The architecture of `module`, which `build` made of `spec`.

    One black image goes through in evaluation mode: neither weights, running statistics nor generators change. (On
    torch's meta device nothing would be computed at all, but its first use costs a second of imports.)
    """
    layers: list[Layer] = []
    counter = FlopCounterMode(display=False)
    edges: list[tuple[str, str, str]] = []

    def record(name: str, part: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            layers.append(_layer(name, part, _shape(inputs), _shape(output)))
            if isinstance(part, Add) and hasattr(around := module.get_submodule(name.rpartition(".")[0]), "bypass"):
                block = name.partition(".")[0]
                edges.append((block, "identity" if isinstance(around.bypass, nn.Identity) else "conv1x1", block))

        return hook

    shape = (3, spec.input_size, spec.input_size)
    ours = isinstance(spec, SqueezeNetSpec | AlexNetSpec)  # others may compute with what is no layer
    training = [part for part in module.modules() if part.training]
    handles = [
        part.register_forward_hook(record(name, part))
        for name, part in module.named_modules()
        if type(part) in _KINDS or (name and not any(part.children()) and list(part.parameters()))
    ]
    try:
        module.eval()
        with torch.no_grad(), contextlib.nullcontext() if ours else _counting(counter):
            module(torch.zeros(1, *shape, device=next(module.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
        for part in training:
            part.training = True
    return Architecture(
        model=spec.name if ours else spec.network,
        input=shape,
        layers=tuple(layers),
        residual=tuple(edges),
        parameters=sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        multiply_adds=sum(layer.multiply_adds for layer in layers) if ours else counter.get_total_flops() // 2,
    )


@contextmanager
def _counting(counter: FlopCounterMode) -> Iterator[None]:
    """Counts two a multiply-add; attention is computed by its parts, which torch's counter knows."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), counter:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _shape(values: Any) -> tuple[int, ...]:
    """The shape of a tensor, or of the first among several values, without the images' own dimension."""
    if isinstance(values, tuple | list):
        return next((_shape(value) for value in values if isinstance(value, Tensor)), ())
    return tuple(values.shape[1:]) if isinstance(values, Tensor) else ()


def _layer(name: str, part: nn.Module, given: tuple[int, ...], output: tuple[int, ...]) -> Layer:
    multiply_adds = 0
    if isinstance(part, nn.Conv2d):
        multiply_adds = math.prod(output) * part.weight[0].numel()
    elif isinstance(part, nn.Linear):
        multiply_adds = part.weight.numel()
    return Layer(
        name=name,
        kind=_KINDS.get(type(part), type(part).__name__),
        module=name.partition(".")[0],
        input=given,
        output=output,
        kernel=_side(part, "kernel_size"),
        stride=_side(part, "stride"),
        padding=_side(part, "padding"),
        parameters=sum(parameter.numel() for parameter in part.parameters()),
        multiply_adds=multiply_adds,
    )


def _side(part: nn.Module, field: str) -> int | None:
    """A square kernel, stride or padding as one number; None for a layer that has none."""
    value = getattr(part, field, None)
    return value[0] if isinstance(value, tuple) else value
