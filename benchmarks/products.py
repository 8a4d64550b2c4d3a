"""What this project's ways to convolutions and linear layers gain over torch's own, layer by layer: time, and rounding."""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections import OrderedDict
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import asked
from benchmarks.stopwatch import say
from repro.training import cpu
from repro.training.fast import Passes
from repro.training.fast.filters import Filters
from repro.training.models import build
from repro.training.models.layers import Linear

WARMUP = 3

Layer: TypeAlias = nn.Conv2d | nn.Linear
Results: TypeAlias = tuple[Tensor, ...]
"""Output, gradient of the weight and, of a convolution, that of the images."""


def layers(network: nn.Module, images: Tensor) -> list[tuple[str, Layer, Tensor]]:
    """Name, module and input of the 3x3 convolutions and the linear layers, the first one of each shape."""
    names = {
        module: name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3))
    }
    found: dict[Any, tuple[str, Any, Tensor]] = {}

    def keep(layer: Any, inputs: Results, _: Tensor) -> None:
        found.setdefault((layer.weight.shape, inputs[0].shape), (names[layer], layer, inputs[0]))

    hooks = [module.register_forward_hook(keep) for module in names]
    with torch.no_grad():
        network(images)
    for hook in hooks:  # the fast passes cover no layer that has one
        hook.remove()
    return list(found.values())


class Torch:
    """The passes of one layer by torch's operators, without autograd."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def passes(self, images: Tensor, gradient: Tensor) -> Results:
        """Forward, then backward."""
        layer, weight, bias = self.layer, self.layer.weight, self.layer.bias
        if isinstance(layer, nn.Linear):
            output, to_weight, _ = F.linear(images, weight, bias), gradient.t() @ images, gradient @ weight
            return output, to_weight  # `Passes` keeps the gradient of the images to itself
        stride, padding = list(layer.stride), [int(part) for part in layer.padding]
        output = torch.conv2d(images, weight, bias, stride, padding)
        to_images, to_weight, _ = torch.ops.aten.convolution_backward.default(
            gradient, images, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [True, True, False]
        )
        return output, to_weight, to_images


class Ours:
    """The passes of one layer as a run of this project computes them on a CPU."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        if isinstance(layer, nn.Linear):
            self.whole = Passes(nn.Sequential(Linear(OrderedDict(linear=layer))))
        else:
            self.filters = Filters(layer)

    def passes(self, images: Tensor, gradient: Tensor) -> Results:
        """Forward, then backward."""
        if isinstance(self.layer, nn.Linear):
            output = self.whole.forward(images)
            self.whole.backward(gradient)
            return output, self.layer.weight.grad
        output, saved = self.filters.forward(images)
        to_images = self.filters.backward(gradient, saved)
        return output, self.layer.weight.grad, to_images


def error(results: Results, exact: Results) -> float:
    """The largest of the results' errors, in the norm of what is exact."""
    return max(((one - truth).norm() / truth.norm()).item() for one, truth in zip(results, exact, strict=True))


@torch.no_grad()
def compare(layer: Layer, images: Tensor, steps: int) -> dict[str, float]:
    """Median milliseconds forward and backward of both, in turn, and the errors of both against float64."""
    sides = {"torch": Torch(layer), "ours": Ours(layer)}
    gradient = torch.randn_like(layer(images))
    milliseconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(WARMUP + steps):
        for side, program in sides.items():
            began = time.perf_counter()
            program.passes(images, gradient)
            milliseconds[side].append((time.perf_counter() - began) * 1000)
    exact = Torch(copy.deepcopy(layer).double()).passes(images.double(), gradient.double())
    return {
        **{f"{side}_ms": statistics.median(found[WARMUP:]) for side, found in milliseconds.items()},
        **{f"{side}_error": error(program.passes(images, gradient), exact) for side, program in sides.items()},
    }


def main() -> None:
    """Prints the comparison of each layer of a network, on one thread in float32, over one batch of noise."""
    given = asked.parse()
    torch.set_num_threads(1)
    cpu.keep_freed_memory()
    torch.manual_seed(given.spec.seed)
    size, number = given.spec.model.input_size, given.spec.training.batch_size
    network = build(given.spec.model).to(memory_format=torch.channels_last)
    noise = torch.randn(number, 3, size, size).contiguous(memory_format=torch.channels_last)
    for name, layer, images in layers(network, noise):
        shapes = {"weight": list(layer.weight.shape), "images": list(images.shape)}
        say(json.dumps({"layer": name, **shapes, **compare(layer, images, given.steps)}))
    say("done")


if __name__ == "__main__":
    main()
