"""How the filters of a convolution are applied on a CPU, forward and backward: four ways, by what was measured to be fastest.

Images lie channels last. The arithmetic is that of torch's convolution up to the order of additions, and for Winograd's
algorithm up to rounding. Weights get their gradients here, biases where what follows a convolution is known.

- 1x1 filters are a matrix product of the rows of all pixels, without a convolution's preparations.
- So are larger filters over an image of one pixel, all of whose neighbours are padding: only their middle counts.
- Over small images 3x3 filters take Winograd's algorithm; not in bfloat16, for which its rounding is too coarse.
- All others are torch's convolution. In bfloat16 the gradient of the filters is a product with the patches of the image; in
  float32 that would gain nothing.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.training.fast import winograd

_convolution_backward = torch.ops.aten.convolution_backward.default

Saved: TypeAlias = tuple[Any, ...]


class Filters:
    """The filters of `conv`, whose weight is channels last and stays where it is.

    Args:
        first: nothing uses the gradient of the images, so it may be anything.
    """

    def __init__(self, conv: nn.Conv2d, first: bool = False) -> None:
        side, padding = conv.kernel_size[0], int(conv.padding[0])
        shape = (side, conv.stride[0], padding)
        self._pointwise, self._centred = shape == (1, 1, 0), 2 * padding + 1 == side
        self._product = _Product(conv)
        self._direct = _Direct(conv, first)
        fits = shape == (3, 1, 1) and conv.weight.dtype is not torch.bfloat16
        self._winograd = _Winograd(conv) if fits else None

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        """(N, channels, H, W) to (N, filters, H', W'), and what the backward pass needs."""
        way = self._way(images)
        output, saved = way.forward(images)
        return output, (way, saved)

    def backward(self, gradient: Tensor, saved: Saved, onto: Tensor | None = None) -> Tensor:
        """Sets the weight's `grad` and gives the images': added to `onto`, in place, where there is one."""
        way, saved = saved
        found: Tensor = way.backward(gradient, saved, onto)
        return found

    def _way(self, images: Tensor) -> _Way:
        channels, height, width = images.shape[1:]
        if self._pointwise or (self._centred and height == width == 1):
            return self._product
        if self._winograd is not None and winograd.pays(channels, height, width):
            return self._winograd
        return self._direct


class _Way(Protocol):
    def forward(self, images: Tensor) -> tuple[Tensor, Saved]: ...

    def backward(self, gradient: Tensor, saved: Saved, onto: Tensor | None) -> Tensor: ...


class _Product:
    """A matrix product of single pixels with the middle of the filters."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.weight, self.bias = conv.weight, conv.bias
        self.at = conv.kernel_size[0] // 2
        self.middle = self.weight.detach()[:, :, self.at, self.at]
        """(filters, channels)."""
        self.turned = self.middle.t()

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        rows = as_rows(images)
        rows = torch.mm(rows, self.turned) if self.bias is None else torch.addmm(self.bias, rows, self.turned)
        return as_images(rows, images), (images,)

    def backward(self, gradient: Tensor, saved: Saved, onto: Tensor | None) -> Tensor:
        (images,) = saved
        rows = as_rows(gradient)
        found = rows.t() @ as_rows(images)
        if found.numel() == self.weight.numel():
            self.weight.grad = _like(found, self.weight)
        else:
            self.weight.grad = torch.zeros_like(self.weight)
            self.weight.grad[:, :, self.at, self.at] = found
        if onto is None:
            return as_images(rows @ self.middle, images)
        return as_images(as_rows(onto).addmm_(rows, self.middle), images)


class _Winograd:
    """3x3 filters with stride 1 and padding 1 over small square images."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.weight, self.bias = conv.weight, conv.bias
        self.rows = _in_rows(self.weight.detach())

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        output, saved = winograd.forward(_in_rows(images), self.rows, self.bias)
        return as_images(output.flatten(0, 1), images), saved

    def backward(self, gradient: Tensor, saved: Saved, onto: Tensor | None) -> Tensor:
        pixels, filters = saved
        onto = None if onto is None else _in_rows(onto)
        to_images, to_weight = winograd.backward(_in_rows(gradient), pixels, filters, onto)
        self.weight.grad = _like(to_weight, self.weight)
        return as_images(to_images.flatten(0, 1), gradient)


class _Direct:
    """torch's convolution."""

    def __init__(self, conv: nn.Conv2d, first: bool) -> None:
        self.weight, self.bias, self.first = conv.weight, conv.bias, first
        self.side, stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        self.shape = ([stride] * 2, [self.padding] * 2, [1, 1])
        self.by_patches = self.weight.dtype is torch.bfloat16 and stride == 1
        self.wanted = [not first, not self.by_patches, False]
        """Of the gradients of images, filters and bias."""

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        return torch.conv2d(images, self.weight, self.bias, *self.shape), (images,)

    def backward(self, gradient: Tensor, saved: Saved, onto: Tensor | None) -> Tensor:
        (images,) = saved
        to_images, to_weight, _ = _convolution_backward(
            gradient, images, self.weight, None, *self.shape, False, [0, 0], 1, self.wanted
        )
        if self.by_patches:
            to_weight = _like(as_rows(gradient).t() @ _patches(images, self.side, self.padding), self.weight)
        self.weight.grad = to_weight
        return gradient if self.first else to_images if onto is None else onto.add_(to_images)


def as_rows(images: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C): the same memory where they lie channels last, as they do in every covered network."""
    number, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    return images.as_strided((number * height * width, channels), (channels, 1))


def as_images(rows: Tensor, like: Tensor) -> Tensor:
    """Back to (N, C, H, W), channels last, with N, H and W as `like` has them."""
    number, _, height, width = like.shape
    channels = rows.shape[1]
    return rows.as_strided(
        (number, channels, height, width), (height * width * channels, 1, width * channels, channels)
    )


def _in_rows(images: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H * W, C): the same memory where they lie channels last."""
    number, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    return images.as_strided((number, height * width, channels), (height * width * channels, channels, 1))


def _like(found: Tensor, tensor: Tensor) -> Tensor:
    """What lies contiguous, as `tensor` lies in its memory."""
    return found.as_strided(tensor.size(), tensor.stride())


def _patches(images: Tensor, side: int, padding: int) -> Tensor:
    """(N * H' * W', side * side * C): the pixels under the filters at each place of the output, stride 1."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    number, height, width, channels = padded.shape
    image, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (number, height - side + 1, width - side + 1, side, side, channels), (image, row, column, row, column, 1)
    )
    return windows.reshape(-1, side * side * channels)
