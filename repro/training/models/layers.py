"""The pieces that both networks are built of. Every step of a forward pass is a module, so `describe` sees all of them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Two outputs side by side: (N, A, H, W) and (N, B, H, W) to (N, A + B, H, W)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The channels of `first`, then those of `second`."""
        return torch.cat((first, second), dim=1)


class Add(nn.Module):
    """A residual addition of two tensors of one shape."""

    def forward(self, output: Tensor, bypass: Tensor) -> Tensor:
        """The sum. Not in place: the layers on both sides need their tensors for their own gradients."""
        return output + bypass


class Dropout(nn.Module):
    """Dropout as torch's, with the mask drawn as uniform numbers: on the CPU five times as fast as Bernoulli ones."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """In training, each element is 0 with probability `share` or else divided by 1 - share; in evaluation, as it is."""
        return features * self.mask(features) if self.training else features

    def mask(self, features: Tensor) -> Tensor:
        """What each element is multiplied by in training, drawn anew: as `features` in shape and type."""
        kept = torch.rand_like(features, dtype=torch.float32) >= self.share
        return kept.to(features.dtype).div_(1 - self.share)


class GlobalAveragePool(nn.Module):
    """The mean over height and width: (N, C, H, W) to (N, C). Unlike adaptive pooling, deterministic on CUDA."""

    def forward(self, images: Tensor) -> Tensor:
        """The mean of every channel."""
        return images.mean(dim=(2, 3))


class Convolution(nn.Sequential):
    """A convolution with what follows it: `conv`, `bn` where normalized, `relu` where there is one."""

    conv: nn.Conv2d


class Linear(nn.Sequential):
    """A linear layer with what stands around it: `dropout` and `relu` where there are such, `linear` between them."""

    linear: nn.Linear


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    norm: bool = False,
    bias: bool = True,
    relu: bool = True,
) -> Convolution:
    """A convolution with what follows it: `conv`, `bn` where `norm`, `relu` where `relu`.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: height and width of the filters.
        stride: step of the filters.
        padding: zeros added on each side.
        norm: whether batch normalization follows.
        bias: whether the convolution keeps its bias where batch normalization follows; elsewhere it always has one.
        relu: whether a ReLU comes last.
    """
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias or not norm)
    parts: list[tuple[str, nn.Module]] = [("conv", conv)]
    if norm:
        parts.append(("bn", nn.BatchNorm2d(outputs)))
    if relu:
        parts.append(("relu", nn.ReLU(inplace=True)))
    return Convolution(OrderedDict(parts))
