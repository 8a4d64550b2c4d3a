"""What the passes of this package cover, exactly. One part that is not covered sends the whole network to autograd.

A part is covered by its exact type, its settings and its children. What could change what a part computes without changing
its type (a hook, a forward method of its own, a frozen parameter, evaluation mode, a part that is used twice) is not covered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from repro.training.models.layers import Add, Concat, Convolution, Dropout, GlobalAveragePool, Linear
from repro.training.models.squeezenet import Fire


def _anything(_: Any) -> bool:
    return True


def _plain_filters(conv: nn.Conv2d) -> bool:
    square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, tuple(conv.padding)))
    alone = conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return square and alone and not isinstance(conv.padding, str)


def _plain_pool(pool: nn.MaxPool2d) -> bool:
    square = isinstance(pool.kernel_size, int) and isinstance(pool.stride, int)
    return square and (pool.padding, pool.dilation, pool.return_indices) == (0, 1, False)


def _usual_statistics(norm: nn.BatchNorm2d) -> bool:
    return norm.affine and norm.track_running_stats and norm.momentum is not None


def _children(pattern: str) -> Callable[[nn.Module], bool]:
    """A test of a block's children, in order: "conv Conv2d[, bn BatchNorm2d]" as a regular expression."""

    def fits(block: nn.Module) -> bool:
        found = "".join(f"{name}:{type(child).__name__} " for name, child in block.named_children())
        return re.fullmatch(pattern, found) is not None

    return fits


_LAYERS: Mapping[type[nn.Module], Callable[[Any], bool]] = {
    nn.Conv2d: _plain_filters,
    nn.BatchNorm2d: _usual_statistics,
    nn.Linear: lambda linear: linear.bias is not None,
    nn.ReLU: _anything,
    nn.Identity: _anything,
    Add: _anything,
    Concat: _anything,
}
"""Layers inside of blocks, with the settings that are covered."""

_BLOCKS: Mapping[type[nn.Module], Callable[[Any], bool]] = {
    Convolution: _children(r"conv:Conv2d (bn:BatchNorm2d )?(relu:ReLU )?"),
    Linear: _children(r"(dropout:Dropout )?linear:Linear (relu:ReLU )?"),
    Fire: _children(
        r"squeeze:Convolution (expand_small:Convolution )?(expand_large:Convolution )?concat:Concat "
        r"(bypass:(Identity|Convolution) )?add:Add "
    ),
    nn.MaxPool2d: _plain_pool,
    nn.Flatten: _anything,
    Dropout: _anything,
    GlobalAveragePool: _anything,
}
"""Blocks that a network is a chain of. The last three have no passes of their own: they go through autograd one by one."""


def uncovered(network: nn.Module) -> str:
    """The first part of a network in training mode that the passes do not cover, or "" where they cover all of it."""
    if type(network).forward is not nn.Sequential.forward or "forward" in vars(network):
        return f"{type(network).__name__} is not a chain of blocks"
    for name, child in network.named_children():
        if type(child) not in _BLOCKS:
            return _named(name, child)
    parts = list(network.named_modules())[1:]
    for name, part in sorted(parts, key=lambda one: any(one[1].children())):  # what is inside of a block says more
        fits = _BLOCKS.get(type(part)) or _LAYERS.get(type(part))
        if fits is None or not fits(part) or "forward" in vars(part):
            return _named(name, part)
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d) and not part.weight.is_contiguous(memory_format=torch.channels_last):
            return f"{name}: its filters do not lie channels last"
        if not part.training:
            return f"{name or 'the network'} is in evaluation mode"
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            return f"{name or 'the network'} has a hook"
    return _frozen(network) or _shared(network) or _without_relu(network)


def before_norm(network: nn.Module) -> tuple[nn.Parameter, ...]:
    """The biases of convolutions in front of batch normalization, whose gradient is 0: the mean is subtracted again."""
    parts = (part for part in network.modules() if isinstance(part, Convolution) and hasattr(part, "bn"))
    return tuple(part.conv.get_parameter("bias") for part in parts if part.conv.bias is not None)


def _named(name: str, part: nn.Module) -> str:
    shown = repr(part) if not list(part.children()) else type(part).__name__
    return f"{name}: {shown} is not covered"


def _frozen(network: nn.Module) -> str:
    needless = set(before_norm(network))
    frozen = (name for name, one in network.named_parameters() if not one.requires_grad and one not in needless)
    return next((f"{name} is frozen" for name in frozen), "")


def _shared(network: nn.Module) -> str:
    parts = [part for _, part in network.named_modules(remove_duplicate=False)]
    weights = [one for _, one in network.named_parameters(remove_duplicate=False)]
    twice = max(Counter(map(id, [*parts, *weights])).values())
    return "a part is used twice" if twice > 1 else ""


def _without_relu(network: nn.Module) -> str:
    """Both expand layers of a Fire module end in one ReLU, over what they give side by side."""
    for name, part in network.named_modules():
        if isinstance(part, Fire):
            expands = [child for at, child in part.named_children() if at.startswith("expand")]
            if not expands or any(not hasattr(expand, "relu") for expand in expands):
                return f"{name}: an expand layer without ReLU is not covered"
    return ""
