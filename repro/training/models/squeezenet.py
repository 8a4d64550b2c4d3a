"""SqueezeNet from its metaparameters (Iandola et al. 2016, sections 3.2, 5 and 6), with the changes studied here.

The layout is v1.0 of the SqueezeNet paper: conv1, Fire modules, dropout, conv10 with 1x1 filters, global average pool;
3x3 max pools of stride 2 in ceil mode between them. Deviations from it, all declared in `SqueezeNetSpec`:

- batch normalization may follow every convolution, conv10 among them, or only those inside or outside of Fire modules;
- conv10 is followed by no ReLU unless `head_relu` asks for it;
- modules may be replicated or removed.

Initialisation is torchvision's: Kaiming uniform, conv10 normal with standard deviation 0.01, biases 0.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from repro import layout
from repro.layout import FireShape
from repro.networks import SqueezeNetSpec
from repro.training.models.layers import Add, Concat, Convolution, Dropout, GlobalAveragePool, convolution


class Fire(nn.Module):
    """A squeeze layer, two expand layers side by side, and perhaps an addition around them (SqueezeNet, figure 1).

    Every convolution ends in its own ReLU: one over the concatenation would be the same arithmetic, but then the gradient
    that batch normalization gets is a strided half of a tensor, for which torch's CPU kernel takes four times as long.

    A share of 0 or 1 leaves one expand layer. The bypass, where there is one, is the identity or a 1x1 convolution; it is
    added behind the last ReLU, as in the SqueezeNet paper's figure 2, and counts as outside of the module for batch
    normalization.
    """

    def __init__(self, spec: SqueezeNetSpec, inputs: int, shape: FireShape) -> None:
        super().__init__()
        norm = spec.batch_norm in {"fire", "all"}

        def same_size(width: int, filters: int, kernel: int) -> Convolution:
            return convolution(width, filters, kernel, padding=kernel // 2, norm=norm, bias=spec.conv_bias)

        self.squeeze = same_size(inputs, shape.squeeze, spec.squeeze_kernel)
        small, large = spec.expand_kernels
        if shape.expand_small:
            self.expand_small = same_size(shape.squeeze, shape.expand_small, small)
        if shape.expand_large:
            self.expand_large = same_size(shape.squeeze, shape.expand_large, large)
        self.concat = Concat()
        self.bypass: nn.Module | None = None
        if spec.residual != "none" and inputs == shape.width:
            self.bypass = nn.Identity()
        elif spec.residual == "complex":
            outside = spec.batch_norm in {"outside", "all"}
            self.bypass = convolution(inputs, shape.width, 1, norm=outside, bias=spec.conv_bias, relu=False)
        self.add = Add()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, width, H, W)."""
        squeezed = self.squeeze(images)
        output: Tensor
        if not self.shape.expand_large:
            output = self.expand_small(squeezed)
        elif not self.shape.expand_small:
            output = self.expand_large(squeezed)
        else:
            output = self.concat(self.expand_small(squeezed), self.expand_large(squeezed))
        return output if self.bypass is None else self.add(output, self.bypass(images))


class SqueezeNet(nn.Sequential):
    """The whole network: (N, 3, input_size, input_size) to logits (N, classes). Its blocks are its children, in order.

    Raises:
        InputError: a Fire module without filters, or an image that is smaller than a layer needs: one line.
    """

    def __init__(self, spec: SqueezeNetSpec) -> None:
        body = layout.blocks(spec)
        outside = partial(convolution, norm=spec.batch_norm in {"outside", "all"}, bias=spec.conv_bias)
        width = spec.first_filters
        conv1 = outside(3, width, spec.first_kernel, stride=spec.first_stride, padding=spec.first_padding)
        blocks: list[tuple[str, nn.Module]] = [("conv1", conv1)]
        for name, shape in body:
            if shape is None:
                blocks.append((name, nn.MaxPool2d(3, stride=2, ceil_mode=True)))
            else:
                blocks.append((name, Fire(spec, width, shape)))
                width = shape.width
        conv10 = outside(width, spec.classes, 1, relu=spec.head_relu)
        blocks += [("dropout", Dropout(spec.dropout)), ("conv10", conv10), ("pool10", GlobalAveragePool())]
        super().__init__(OrderedDict(blocks))
        self._initialise()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                if name == "conv10.conv":
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
