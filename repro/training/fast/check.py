"""One step by the passes held against the same step by autograd: what a run does before it trains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.training.fast.passes import Passes

Results: TypeAlias = dict[str, Tensor]

IMAGES = 16
TRIALS = 3
_ALLOWED = 0.05
"""Largest difference of a tensor, in its norm. Usually float32 differs by millionths; but where a ReLU or a pool decides
between what is nearly equal, batch normalization over a few images makes some hundredths of it, in one trial of a hundred."""
_ALLOWED_OF_ALL = 0.005
"""The same in the norm of all gradients: some gradients cancel out, and are nothing but rounding."""
_ROUNDINGS = 3
"""In bfloat16 the passes may be this many times as far from autograd as that is from float32."""


def difference(network: nn.Module, passes: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> str:
    """Where the passes differ most from autograd, and by how much; "" where one of the batches shows no difference.

    Both see the same dropout masks. Gradients are None afterwards; statistics and generators are as they were.

    Args:
        network: in training mode, on the CPU. One that computes in bfloat16 is checked in float32 as well, with passes of
            its own: in bfloat16 autograd itself is so far off that only large faults would be seen.
        passes: those of the network.
        batches: normalized images, in the type of the network, with their labels.
    """
    worst = ""
    for images, labels in batches:
        generator = torch.get_rng_state()
        try:
            worst = _difference(network, passes, images, labels, generator)
        finally:
            torch.set_rng_state(generator)
        if not worst:
            break
    return worst


def _difference(
    network: nn.Module, passes: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, generator: Tensor
) -> str:
    def step(module: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor) -> Results:
        torch.set_rng_state(generator)
        return _step(module, forward, images, labels)

    if images.dtype is not torch.bfloat16:
        return _worst(step(network, passes, images), step(network, network, images), None)
    precise = copy.deepcopy(network).float()
    exact = step(precise, precise, images.float())
    worst = _worst(step(precise, Passes(precise), images.float()), exact, None)  # type: ignore[arg-type]
    return worst or _worst(step(network, passes, images), step(network, network, images), exact)


def _worst(fast: Results, plain: Results, exact: Results | None) -> str:
    """The result in which the passes are furthest from autograd, of those that are further than they may be."""
    everything = math.hypot(*(float(value.norm()) for name, value in plain.items() if name.startswith("gradient")))
    worst, excess = "", 1.0
    for name, value in plain.items():
        size, apart = float(value.float().norm()), _distance(fast[name], value)
        allowed = _ALLOWED * size + (_ALLOWED_OF_ALL * everything if name.startswith("gradient") else 0.0)
        if exact is not None:
            allowed += _ROUNDINGS * _distance(value, exact[name])
        if not math.isfinite(allowed) or apart <= allowed:
            continue
        ratio = apart / allowed if allowed and math.isfinite(apart) else math.inf
        if ratio > excess:
            worst, excess = f"{name} by {apart / (size or 1.0):.1%}", ratio
    return worst


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm())


def _step(network: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Results:
    """Outputs, gradients and statistics of one step from where the network stands, which it leaves as it was."""
    before = [buffer.clone() for buffer in network.buffers()]
    network.zero_grad()
    outputs = forward(images)
    torch.autograd.backward(F.cross_entropy(outputs.float(), labels))
    found = {"the output": outputs.detach()}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            found[f"gradient of {name}"] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    for (name, buffer), former in zip(network.named_buffers(), before, strict=True):
        found[name] = buffer.clone()
        buffer.copy_(former)
    network.zero_grad()
    return found
