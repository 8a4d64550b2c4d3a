"""AlexNet as it is usual on CIFAR-10 (Krizhevsky et al. 2012, section 3.5, adapted to 32x32 images).

Five 3x3 convolutions with 2x2 max pools behind the first, second and fifth, then 4096, 4096 and `classes` features with
dropout before the first two linear layers. Deviations from the paper: small kernels, no local response normalization, no
split over two GPUs, and batch normalization behind the five convolutions where it is asked for. Initialisation is
torch's default (Kaiming uniform with a = sqrt(5), biases uniform).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from repro.networks import AlexNetSpec
from repro.training.models.layers import Dropout, Linear, convolution

_CONVOLUTIONS = ((64, 2, True), (192, 1, True), (384, 1, False), (256, 1, False), (256, 1, True))
"""Filters, stride, and whether a pool follows."""
_HIDDEN = 4096


class AlexNet(nn.Sequential):
    """The whole network: (N, 3, input_size, input_size) to logits (N, classes). Its blocks are its children, in order."""

    def __init__(self, spec: AlexNetSpec) -> None:
        blocks: list[tuple[str, nn.Module]] = []
        width, size = 3, spec.input_size
        norm = spec.batch_norm == "all"
        for number, (filters, stride, pooled) in enumerate(_CONVOLUTIONS, start=1):
            conv = convolution(width, filters, 3, stride=stride, padding=1, norm=norm, bias=spec.conv_bias)
            blocks.append((f"conv{number}", conv))
            width, size = filters, (size - 1) // stride + 1
            if pooled:
                blocks.append((f"pool{number}", nn.MaxPool2d(2)))
                size //= 2
        blocks.append(("flatten", nn.Flatten()))
        features = width * size * size
        for number in (1, 2):
            parts = [Dropout(spec.dropout), nn.Linear(features, _HIDDEN), nn.ReLU(inplace=True)]
            blocks.append((f"fc{number}", Linear(OrderedDict(zip(("dropout", "linear", "relu"), parts, strict=True)))))
            features = _HIDDEN
        blocks.append(("fc3", Linear(OrderedDict(linear=nn.Linear(features, spec.classes)))))
        super().__init__(OrderedDict(blocks))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
