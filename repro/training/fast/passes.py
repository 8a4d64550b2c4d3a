"""Forward and backward passes of a network on a CPU, written out where the time goes.

A network is a chain of blocks. Convolutions and linear layers with what stands around them, Fire modules and max pools have
passes of their own here; the blocks beside them (`coverage` lists both) go through autograd one by one. The arithmetic is
that of the modules, up to rounding; `check` holds them to it before a run trains. What is spared is what stands around it: a
small network calls hundreds of operators a step, and the way through modules and autograd costs more than some of them
compute. A Fire module keeps its output once and not its halves, too.

The bias of a convolution in front of batch normalization has gradient 0, since the mean is subtracted again. Adding up the
gradients gives the same but for rounding, of which AdaBound would make steps as large as its rate.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import ReproError
from repro.training.fast.coverage import uncovered
from repro.training.fast.filters import Filters, Saved, as_rows
from repro.training.models.layers import Convolution, Linear
from repro.training.models.squeezenet import Fire

_threshold_backward = torch.ops.aten.threshold_backward.default
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
_max_pool = torch.ops.aten.max_pool2d_with_indices.default
_linear_backward = torch.ops.aten.mkldnn_linear_backward_input.default
_max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default

_LARGE_PRODUCT = 2**20
"""From this many weights on, what oneDNN saves in a product is more than what its tensors cost."""


class Passes:
    """The passes of one network in training mode.

    Args:
        network: on the CPU, channels last, its weights where they will stay: once the optimizer has moved them. What it
            computes must not be changed afterwards: neither mode nor weights' places nor which of them are frozen.

    Raises:
        ValueError: a part of the network is not covered.
    """

    def __init__(self, network: nn.Sequential) -> None:
        if reason := uncovered(network):
            raise ValueError(reason)
        self._parts, self._parameters = list(network.modules()), list(network.parameters())
        self._stands = self._standing()
        self._blocks = [_block(part, first=number == 0) for number, part in enumerate(network)]
        for block, following in itertools.pairwise(self._blocks):
            if isinstance(block, _Convolution) and isinstance(following, _MaxPool):
                block.relu, following.relu = False, block.relu  # the same values, and fewer of them
        self._tape: list[Saved] = []
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        self._batches_seen = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of `forward`; `backward` follows where autograd goes back through them."""
        logits = self.forward(images).requires_grad_()
        logits.register_hook(self.backward)  # type: ignore[no-untyped-call]
        return logits

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W), channels last, to logits (N, classes) in the type of the weights; statistics move on.

        Raises:
            ReproError: the network was changed since these passes were made.
        """
        if self._standing() != self._stands:
            raise ReproError(
                "the network was changed since its passes were made: its mode, its weights or what is frozen"
            )
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

    def _standing(self) -> tuple[list[bool], list[tuple[int, bool]]]:
        """What the blocks took from the network for good."""
        weights = [(parameter.data_ptr(), parameter.requires_grad) for parameter in self._parameters]
        return [part.training for part in self._parts], weights


class _Block(Protocol):
    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        """The output, and what the backward pass needs."""

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        """The gradient of the input from that of the output; for a first block, which has no use for it, anything."""


def _block(part: nn.Module, first: bool) -> _Block:
    if isinstance(part, Convolution):
        return _Convolution(part, first)
    if isinstance(part, nn.MaxPool2d):
        return _MaxPool(part)
    if isinstance(part, Linear):
        return _Linear(part)
    return _Fire(part) if isinstance(part, Fire) else _Other(part)


class _Other:
    """Any module, by autograd."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
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
        self.relu = False
        """Whether a ReLU follows."""

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        output, indices = _max_pool(images, *self.shape)
        if self.relu:
            output.relu_()
        return output, (images, indices, output)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        images, indices, output = saved
        if self.relu:
            gradient = _threshold_backward(gradient, output, 0)
        found: Tensor = _max_pool_backward(gradient, images, *self.shape, indices)
        return found


class _Convolution:
    """A convolution with batch normalization and ReLU, or without.

    Its filters are channels last, float32 or bfloat16 as the images are; batch normalization's parameters are float32.
    """

    def __init__(self, module: Convolution, first: bool = False) -> None:
        conv = module.conv
        self.bias = conv.bias if conv.bias is not None and conv.bias.requires_grad else None
        self.width = conv.out_channels
        self.filters = Filters(conv, first)
        norm = getattr(module, "bn", None)
        self.norm = None if norm is None else _Norm(norm)
        self.relu = hasattr(module, "relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        output, saved = self.before_relu(images)
        if self.relu:
            output.relu_()
        return output, (output, saved)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        output, of_parts = saved
        if self.relu:
            gradient = _threshold_backward(gradient, output, 0)
        return self.through(gradient, of_parts)

    def before_relu(self, images: Tensor) -> tuple[Tensor, Saved]:
        """The output before its ReLU, and what the filters and batch normalization need for their backward passes."""
        convolved, of_filters = self.filters.forward(images)
        norm = self.norm
        if norm is None:
            return convolved, (of_filters, ())
        output, mean, inverse = torch.native_batch_norm(
            convolved, norm.scale, norm.shift, norm.mean, norm.variance, True, norm.momentum, norm.eps
        )
        return output, (of_filters, (convolved, mean, inverse))

    def through(self, gradient: Tensor, saved: Saved, onto: Tensor | None = None) -> Tensor:
        """The gradient of the images from the one before the ReLU.

        `onto` is a gradient of the images by another way, to which theirs is added in place.
        """
        of_filters, of_norm = saved
        if self.norm is not None:
            convolved, mean, inverse = of_norm
            norm = self.norm
            gradient, norm.scale.grad, norm.shift.grad = _batch_norm_backward(
                gradient, convolved, norm.scale, None, None, mean, inverse, True, norm.eps, [True] * 3
            )
        if self.bias is not None:
            self.bias.grad = torch.zeros_like(self.bias) if self.norm is not None else as_rows(gradient).sum(0)
        return self.filters.backward(gradient, of_filters, onto)


class _Linear:
    """A linear layer with ReLU behind it and dropout before it, or without.

    A batch is a few rows, and oneDNN's products of few rows are faster than MKL's (`benchmarks/products.py`). torch's own
    way to the former is by its opaque tensors, which only float32 needs: in bfloat16 all products are oneDNN's.
    """

    def __init__(self, module: Linear) -> None:
        self.weight, self.bias = module.linear.weight, module.linear.bias
        self.dropout = getattr(module, "dropout", None)
        self.relu = hasattr(module, "relu")
        fits = self.weight.dtype is torch.float32 and self.weight.numel() >= _LARGE_PRODUCT
        self.by_onednn = fits and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        mask = None if self.dropout is None else self.dropout.mask(images)
        features = images if mask is None else images * mask
        if self.by_onednn:
            output = F.linear(features.to_mkldnn(), self.weight, self.bias).to_dense()
        else:
            output = F.linear(features, self.weight, self.bias)
        if self.relu:
            output.relu_()
        return output, (features, mask, output)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        features, mask, output = saved
        if self.relu:
            gradient = _threshold_backward(gradient, output, 0)
        self.bias.grad = gradient.sum(0)
        self.weight.grad = gradient.t() @ features
        if self.by_onednn:
            found: Tensor = _linear_backward(features.size(), gradient.to_mkldnn(), self.weight).to_dense()
        else:
            found = gradient @ self.weight
        return found if mask is None else found.mul_(mask)


class _Fire:
    """A Fire module, with a bypass or without."""

    def __init__(self, module: Fire) -> None:
        self.squeeze = _Convolution(module.squeeze)
        names = ("expand_small", "expand_large")
        self.expands = [_Convolution(getattr(module, name)) for name in names if hasattr(module, name)]
        self.bypass = _Convolution(module.bypass) if isinstance(module.bypass, Convolution) else None
        self.adds = module.bypass is not None

    def forward(self, images: Tensor) -> tuple[Tensor, Saved]:
        squeezed, of_squeeze = self.squeeze.forward(images)
        parts = [expand.before_relu(squeezed) for expand in self.expands]
        output = torch.cat([part for part, _ in parts], 1).relu_()
        saved = (of_squeeze, output, [of_part for _, of_part in parts])
        if self.bypass is not None:
            bypass, of_bypass = self.bypass.forward(images)
            return output + bypass, (*saved, of_bypass)
        return output + images if self.adds else output, (*saved, None)

    def backward(self, gradient: Tensor, *saved: Any) -> Tensor:
        of_squeeze, output, of_parts, of_bypass = saved
        to_squeezed, end = None, gradient.shape[1]
        for expand, of_part in zip(reversed(self.expands), reversed(of_parts), strict=True):
            width = expand.width
            end -= width
            # This makes a dense tensor of strided halves; what follows would copy them or be slow on them.
            half = _threshold_backward(gradient.narrow(1, end, width), output.narrow(1, end, width), 0)
            to_squeezed = expand.through(half, of_part, to_squeezed)
        assert to_squeezed is not None
        to_images = self.squeeze.backward(to_squeezed, *of_squeeze)
        if self.bypass is not None:
            return to_images.add_(self.bypass.backward(gradient, *of_bypass))
        return to_images.add_(gradient) if self.adds else to_images
