"""Forward and backward passes of a network on a CPU, written out where the time goes.

A network is a chain of blocks. Convolutions with what follows them, Fire modules and max pools have passes of their own
here; any other block is left to autograd. The arithmetic is that of the modules, up to the order of additions. What is
spared is what stands around it: a small network calls hundreds of operators a step, and the way through modules and
autograd costs more than some of them compute. A Fire module keeps its output once and not its halves, too. And each product
is computed by what was measured to be fastest for it, where images lie channels last and a batch has 50 of them:

- 1x1 filters are a matrix product of the rows of all pixels, without a convolution's preparations.
- So are larger filters over an image of one pixel, all of whose neighbours are padding: only their middle counts.
- In bfloat16 the gradient of larger filters is a product with the patches of the image. In float32 it would gain nothing.
- The bias of a convolution in front of batch normalization has gradient 0, since the mean is subtracted again. Adding up
  the gradients gives the same but for rounding, of which AdaBound would make steps as large as its rate.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.training.models.layers import Convolution
from repro.training.models.squeezenet import Fire

_threshold_backward = torch.ops.aten.threshold_backward.default
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
_max_pool = torch.ops.aten.max_pool2d_with_indices.default
_max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
_convolution_backward = torch.ops.aten.convolution_backward.default

_Saved: TypeAlias = tuple[Any, ...]


class Passes:
    """The passes of one network in training mode.

    Args:
        network: on the CPU, channels last, its weights where they will stay: once the optimizer has moved them. Hooks on
            parts of convolutions and Fire modules are not called.
    """

    def __init__(self, network: nn.Sequential) -> None:
        self._blocks = [_block(part, first=number == 0) for number, part in enumerate(network)]
        self._tape: list[_Saved] = []
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        self._batches_seen = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W), channels last, to logits (N, classes) in the type of the weights; statistics move on."""
        self._tape.clear()
        for block in self._blocks:
            images, saved = block.forward(images)
            self._tape.append(saved)
        if self._batches_seen:
            torch._foreach_add_(self._batches_seen, 1)
        return images

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Sets the `grad` of every parameter, from the gradient of the last forward pass's logits; they must have none yet."""
        for block in reversed(self._blocks):
            gradient = block.backward(gradient, *self._tape.pop())


class _Block(Protocol):
    def forward(self, images: Tensor) -> tuple[Tensor, _Saved]:
        """The output, and what the backward pass needs."""

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        """The gradient of the input from that of the output; for a first block, which has no use for it, anything."""


def _block(part: nn.Module, first: bool) -> _Block:
    if isinstance(part, Convolution):
        return _Convolution(part, first)
    if isinstance(part, nn.MaxPool2d):
        return _MaxPool(part)
    return _Fire(part) if isinstance(part, Fire) else _Other(part)


class _Other:
    """Any module, by autograd."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, _Saved]:
        with torch.enable_grad():
            given = images.detach().requires_grad_()
            output = self.module(given)
        return output.detach(), (given, output)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        given, output = saved
        output.backward(gradient)
        found: Tensor = given.grad
        return found


class _Norm:
    """Batch normalization as it is stored: asking a module for its parameters costs as much as adding two small tensors."""

    def __init__(self, module: nn.BatchNorm2d) -> None:
        assert module.momentum is not None
        self.scale, self.shift, self.momentum, self.eps = module.weight, module.bias, module.momentum, module.eps
        self.mean, self.variance, _ = module.buffers()


class _MaxPool:
    def __init__(self, module: nn.MaxPool2d) -> None:
        self.shape = ([module.kernel_size] * 2, [module.stride] * 2, [0, 0], [1, 1], module.ceil_mode)

    def forward(self, images: Tensor) -> tuple[Tensor, _Saved]:
        output, indices = _max_pool(images, *self.shape)
        return output, (images, indices)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        images, indices = saved
        found: Tensor = _max_pool_backward(gradient, images, *self.shape, indices)
        return found


class _Convolution:
    """A convolution with batch normalization and ReLU, or without.

    Its filters are channels last, float32 or bfloat16 as the images are; batch normalization's parameters are float32.
    """

    def __init__(self, module: Convolution, first: bool = False) -> None:
        self.first = first
        conv = module.conv
        self.weight, self.bias, self.filters = conv.weight, conv.bias, conv.out_channels
        norm = getattr(module, "bn", None)
        self.norm = None if norm is None else _Norm(norm)
        self.relu = hasattr(module, "relu")
        self.side, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        self.middle = self.weight.detach()[:, :, self.side // 2, self.side // 2]
        """(filters, channels): the weights in the middle of the filters."""
        self.turned = self.middle.t()
        self.pointwise = (self.side, self.stride, self.padding) == (1, 1, 0)
        self.by_patches = self.weight.dtype is torch.bfloat16 and self.stride == 1

    def forward(self, images: Tensor) -> tuple[Tensor, _Saved]:
        output, saved = self.before_relu(images)
        if self.relu:
            output.relu_()
        return output, (images, output, *saved)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        images, output, *of_norm = saved
        if self.relu:
            gradient = _threshold_backward(gradient, output, 0)
        return self.through(gradient, images, of_norm)

    def before_relu(self, images: Tensor) -> tuple[Tensor, _Saved]:
        """The output before its ReLU; with batch normalization also what it was given, its mean and inverse deviation."""
        if self.is_product(images):
            rows = _rows(images)
            rows = torch.mm(rows, self.turned) if self.bias is None else torch.addmm(self.bias, rows, self.turned)
            convolved = _as_images(rows, images)
        else:
            convolved = torch.conv2d(images, self.weight, self.bias, self.stride, self.padding)
        norm = self.norm
        if norm is None:
            return convolved, ()
        output, mean, inverse = torch.native_batch_norm(
            convolved, norm.scale, norm.shift, norm.mean, norm.variance, True, norm.momentum, norm.eps
        )
        return output, (convolved, mean, inverse)

    def through(
        self, gradient: Tensor, images: Tensor, of_norm: _Saved | list[Any], onto: Tensor | None = None
    ) -> Tensor:
        """The gradient of the images from the one before the ReLU.

        `onto` is a gradient of the images by another way, to which theirs is added in place.
        """
        if self.norm is not None:
            convolved, mean, inverse = of_norm
            norm = self.norm
            gradient, norm.scale.grad, norm.shift.grad = _batch_norm_backward(
                gradient, convolved, norm.scale, None, None, mean, inverse, True, norm.eps, [True] * 3
            )
        if self.bias is not None:
            self.bias.grad = torch.zeros_like(self.bias) if self.norm is not None else _rows(gradient).sum(0)
        if self.is_product(images):
            rows = _rows(gradient)
            self._set_gradient(rows.t() @ _rows(images))
            if onto is None:
                return _as_images(rows @ self.middle, images)
            _rows(onto).addmm_(rows, self.middle)
            return onto
        to_images, to_weight, _ = _convolution_backward(
            gradient,
            images,
            self.weight,
            None,
            [self.stride] * 2,
            [self.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [not self.first, not self.by_patches, False],
        )
        if self.by_patches:
            self._set_gradient(_rows(gradient).t() @ _patches(images, self.side, self.padding))
        else:
            self.weight.grad = to_weight
        return gradient if self.first else to_images if onto is None else onto.add_(to_images)

    def is_product(self, images: Tensor) -> bool:
        """Whether the output is a matrix product of single pixels with the middle of the filters."""
        return self.pointwise or (images.shape[2] == images.shape[3] == 1 and 2 * self.padding + 1 == self.side)

    def _set_gradient(self, product: Tensor) -> None:
        """From (filters, side * side * channels), or (filters, channels) where only the middle has one."""
        if product.numel() == self.weight.numel():
            self.weight.grad = product.as_strided(self.weight.size(), self.weight.stride())
        else:
            self.weight.grad = torch.zeros_like(self.weight)
            self.weight.grad[:, :, self.side // 2, self.side // 2] = product


class _Fire:
    """A Fire module, with a bypass or without."""

    def __init__(self, module: Fire) -> None:
        self.squeeze = _Convolution(module.squeeze)
        names = ("expand_small", "expand_large")
        self.expands = [_Convolution(getattr(module, name)) for name in names if hasattr(module, name)]
        self.bypass = _Convolution(module.bypass) if isinstance(module.bypass, Convolution) else None
        self.adds = module.bypass is not None

    def forward(self, images: Tensor) -> tuple[Tensor, _Saved]:
        squeezed, of_squeeze = self.squeeze.forward(images)
        parts = [expand.before_relu(squeezed) for expand in self.expands]
        output = torch.cat([part for part, _ in parts], 1).relu_()
        saved = (of_squeeze, squeezed, output, [of_norm for _, of_norm in parts])
        if self.bypass is not None:
            bypass, of_bypass = self.bypass.forward(images)
            return output + bypass, (*saved, of_bypass)
        return output + images if self.adds else output, (*saved, None)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        of_squeeze, squeezed, output, of_norms, of_bypass = saved
        to_squeezed, end = None, gradient.shape[1]
        for expand, of_norm in zip(reversed(self.expands), reversed(of_norms), strict=True):
            width = expand.filters
            end -= width
            # This makes a dense tensor of strided halves; what follows would copy them or be slow on them.
            half = _threshold_backward(gradient.narrow(1, end, width), output.narrow(1, end, width), 0)
            to_squeezed = expand.through(half, squeezed, of_norm, to_squeezed)
        assert to_squeezed is not None
        to_images = self.squeeze.backward(to_squeezed, *of_squeeze)
        if self.bypass is not None:
            return to_images.add_(self.bypass.backward(gradient, *of_bypass))
        return to_images.add_(gradient) if self.adds else to_images


def _rows(images: Tensor) -> Tensor:
    """(N, C, H, W), channels last, as (N * H * W, C): the same memory."""
    number, channels, height, width = images.shape
    return images.as_strided((number * height * width, channels), (channels, 1))


def _as_images(rows: Tensor, like: Tensor) -> Tensor:
    """Back to (N, C, H, W), channels last, with N, H and W as `like` has them."""
    number, _, height, width = like.shape
    channels = rows.shape[1]
    return rows.as_strided(
        (number, channels, height, width), (height * width * channels, 1, width * channels, channels)
    )


def _patches(images: Tensor, side: int, padding: int) -> Tensor:
    """(N * H' * W', side * side * C): the pixels under the filters at each place of the output, stride 1."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    number, height, width, channels = padded.shape
    image, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (number, height - side + 1, width - side + 1, side, side, channels), (image, row, column, row, column, 1)
    )
    return windows.reshape(-1, side * side * channels)
