"""The networks: `build` makes one of its spec, `describe` says what was made; the rest is about its weights as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from repro.networks import AlexNetSpec, ModelSpec, PythonSpec, SqueezeNetSpec, TorchvisionSpec
from repro.training.models import foreign
from repro.training.models.alexnet import AlexNet
from repro.training.models.architecture import describe
from repro.training.models.squeezenet import SqueezeNet
from repro.training.models.state import saved, state_bytes, weights_digest

__all__ = ["build", "describe", "multiplied", "saved", "state_bytes", "weights_digest"]


BUILDERS: Mapping[type[ModelSpec], Callable[[Any], nn.Module]] = {
    SqueezeNetSpec: SqueezeNet,
    AlexNetSpec: AlexNet,
    TorchvisionSpec: foreign.of_torchvision,
    PythonSpec: foreign.of_function,
}
"""What makes the network of each declaration."""


def build(spec: ModelSpec) -> nn.Module:
    """The network that `spec` declares, on the CPU, initialized from torch's global generator, its filters channels last.

    Its forward pass takes (N, 3, input_size, input_size) float32 and returns logits (N, classes).

    Raises:
        InputError: the settings leave a layer without filters or without pixels, or there is no such function: one line.
    """
    return BUILDERS[type(spec)](spec)


def multiplied(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """The parameters of convolutions and linear layers: those that bf16 rounds, as torch's autocast does."""
    layers = (part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear)))
    return tuple(parameter for layer in layers for parameter in layer.parameters())
