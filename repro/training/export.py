"""A trained network as an exported program (`torch.export`): images as they are go in, probabilities come out.

The file is torch's pt2 archive: a graph and raw tensors, no pickle, and no code of this project is needed to load it.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.spec import RunSpec
from repro.training import models
from repro.training.data import Data

ABOUT = "about.json"
"""Beside the program: `classes`, the names in the order of its outputs, and `example`, two images that it takes."""


class Classifier(nn.Module):
    """A network with its normalization in front and a softmax behind it."""

    def __init__(self, network: nn.Module, data: Data) -> None:
        super().__init__()
        self.network = network
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (255 * data.std.double())).float())
        self.register_buffer("shift", (-data.mean.double() / data.std.double()).float())

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, height, width, 3) uint8 to probabilities (N, classes) float32."""
        normalised = torch.addcmul(self.shift, images.float(), self.scale).permute(0, 3, 1, 2)
        logits: Tensor = self.network(normalised)
        return logits.softmax(1)


def restored(spec: RunSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The network of a run with the weights of a state dict, as it was evaluated.

    It lies on the CPU in evaluation mode, takes normalized images (N, 3, height, width) float32 and gives logits (N, classes)
    float32. In one of bf16 the weights of convolutions and linear layers are bfloat16, and so is what passes between layers.
    """
    with torch.random.fork_rng(devices=[]):
        network = models.build(spec.model)
    network.load_state_dict(state)
    if spec.training.precision == "bf16":
        for parameter in models.multiplied(network):
            parameter.data = parameter.data.bfloat16()
        network.register_forward_pre_hook(lambda _, images: images[0].bfloat16())
        network.register_forward_hook(lambda *called: called[2].float())
    return network.eval()


def exported(spec: RunSpec, state: Mapping[str, Tensor], data: Data) -> bytes:
    """The program of a run's weights as the content of a .pt2 file.

    Raises:
        Exception: whatever torch.export raises for a network that it cannot trace.
    """
    classifier = Classifier(restored(spec, state).requires_grad_(False), data).eval()
    example = data.images[data.test[:2]]  # of one image alone, the size would be taken for a constant
    about = {"classes": list(data.classes), "example": example.tolist()}
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        program = torch.export.export(classifier, (example,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()
