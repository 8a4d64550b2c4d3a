"""The networks: `build` makes one of its spec, `describe` says what was made; the rest is about its weights as bytes."""

from __future__ import annotations

from torch import nn

from repro.spec import AlexNetSpec, SqueezeNetSpec
from repro.training.models.alexnet import AlexNet
from repro.training.models.architecture import describe
from repro.training.models.squeezenet import SqueezeNet
from repro.training.models.state import saved, state_bytes, weights_digest

__all__ = ["build", "describe", "multiplied", "saved", "state_bytes", "weights_digest"]


def build(spec: SqueezeNetSpec | AlexNetSpec) -> nn.Sequential:
    """The network that `spec` declares, on the CPU, initialised from torch's global generator.

    Its forward pass takes (N, 3, input_size, input_size) float32 and returns logits (N, classes).

    Raises:
        InputError: the settings leave a layer without filters or without pixels: one line.
    """
    return SqueezeNet(spec) if isinstance(spec, SqueezeNetSpec) else AlexNet(spec)


def multiplied(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """The parameters of convolutions and linear layers: those that bf16 rounds, as torch's autocast does."""
    layers = (part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear)))
    return tuple(parameter for layer in layers for parameter in layer.parameters())
