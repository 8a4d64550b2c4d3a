"""AdaBound, Adam, AdamW and SGD over one flat buffer of weights.

The parameters become views into one buffer, and an optimizer's state lies in buffers of the same layout. An update goes
through them in chunks that stay in the processor's cache, so each value comes from memory once a step, not once for each of
the eight or so operations of a step, and a hundred small tensors cost what one large tensor does. The results are those of
the reference implementations: the adabound package and torch.optim, whose formulas the updates repeat.

A network may see some of its parameters in bfloat16: they are rounded copies of the float32 weights, written while an update
has those in the cache, and their gradients become float32 as they are read.

On a GPU the whole buffer is one chunk, and the number of steps and all that depends on it stay on the device, so that a step
can be captured as a CUDA graph.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from repro.recipe import AdaBoundSpec, AdamSpec, AdamWSpec, OptimizerSpec, SGDSpec

Weights: TypeAlias = Collection[nn.Parameter]

_CHUNK = 2**18
"""Elements of a chunk: 1 MiB of each buffer, small enough for a processor's cache and large enough for the calls."""
_LARGE = 2**16
"""From this many elements on, a gradient is read where the backward pass left it; smaller ones are gathered first."""
_ALIGN = 16
"""Parameters begin at multiples of this many elements: 64 bytes in float32, as torch aligns its own tensors."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the flat buffers that is updated at once."""

    begin: int
    """Where it lies in its gradient."""
    end: int
    weights: Tensor
    state: tuple[Tensor, ...]
    """In the order of the optimizer's slots."""
    scratch: Tensor
    """As long as the weights; holds anything."""
    rounded: Tensor | None
    """The weights in bfloat16, where a parameter shows them."""


class Optimizer(ABC):
    """Steps over parameters that it moved into one flat buffer, on their device.

    Args:
        parameters: they keep shape, strides and values, but lie in the flat buffer afterwards. Frozen ones keep their values;
            those of another type than float32, or with gaps in memory, stay where they are.
        spec: rates and decays.
        rounded: those of the parameters that become bfloat16.
        still: those that get no gradient since it is always 0; they decay as the others do, which frozen ones do not.
    """

    slots: ClassVar[tuple[str, ...]]
    """Names of the state buffers."""

    def __init__(self, parameters: Weights, spec: Any, rounded: Weights = (), still: Weights = ()) -> None:
        resting, parameters = set(still), list(parameters)
        self.exact: dict[nn.Parameter, Tensor] = {parameter: parameter.data for parameter in parameters}
        """The float32 weights of every parameter: views into `weights`, as the parameters themselves are where not rounded."""
        moving = {one: one.requires_grad or one in resting for one in parameters if one.requires_grad or fits(one)}
        self.parameters = sorted(moving, key=lambda parameter: (not moving[parameter], parameter.numel() >= _LARGE))
        self.spec = spec
        self.weight_decay = spec.weight_decay
        first = self.parameters[0]
        self.factor: Tensor | None = None
        """What a schedule multiplies every rate with in this step: a 0-d tensor on the device; None where they are constant."""
        self._on_cpu = first.device.type == "cpu"
        sizes = (-(-parameter.numel() // _ALIGN) * _ALIGN for parameter in self.parameters)
        *offsets, size = itertools.accumulate(sizes, initial=0)
        self.weights = first.new_zeros(size, requires_grad=False)
        self.rounded = self.weights.bfloat16() if rounded else None
        self.state = {slot: torch.zeros_like(self.weights) for slot in self.slots}
        self.steps = torch.zeros((), dtype=torch.float64, device=first.device)
        self._places: list[tuple[nn.Parameter, Tensor, int]] = []
        of_rounded = set(rounded)
        for parameter, offset in zip(self.parameters, offsets, strict=True):
            layout = (parameter.size(), parameter.stride(), offset)
            self.exact[parameter] = self.weights.as_strided(*layout).copy_(parameter.data)
            if self.rounded is not None and parameter in of_rounded:
                parameter.data = self.rounded.as_strided(*layout)
            else:
                parameter.data = self.exact[parameter]
            self._places.append((parameter, parameter.data, parameter.data_ptr()))
        self.refresh()

        self._scratch = self.weights.new_empty(min(_CHUNK, size) if self._on_cpu else size)
        self._cast = torch.empty_like(self._scratch) if rounded and self._on_cpu else None
        trained = sum(moving.values())
        gathered = sum(not (self._on_cpu and one.numel() >= _LARGE) for one in self.parameters[:trained])
        end = [*offsets, size][gathered]
        self._gathered = self.weights.new_zeros(end)
        self._zeros: list[Tensor] = []
        by_type: dict[torch.dtype, tuple[list[Tensor], list[nn.Parameter]]] = {}
        for parameter, offset in zip(self.parameters[:gathered], offsets, strict=False):
            view = self._gathered.as_strided(parameter.size(), parameter.stride(), offset)
            if parameter in resting:
                self._zeros.append(view)
                continue
            views, of_type = by_type.setdefault(parameter.dtype, ([], []))
            views.append(view)
            of_type.append(parameter)
        self._gathered_by_type = list(by_type.values())
        """Where gradients are gathered, and whose: on a GPU those of one type are one copy, and others one copy each."""
        self._gathered_chunks = self._chunks(0, end)
        self._large_chunks = [
            (parameter, self._chunks(offset, offset + parameter.numel()))
            for parameter, offset in zip(self.parameters[gathered:trained], offsets[gathered:trained], strict=True)
        ]

    def _chunks(self, start: int, stop: int) -> list[Chunk]:
        step = _CHUNK if self._on_cpu else max(stop - start, 1)
        return [
            Chunk(
                at - start,
                end - start,
                self.weights[at:end],
                tuple(self.state[slot][at:end] for slot in self.slots),
                self._scratch[: end - at],
                None if self.rounded is None else self.rounded[at:end],
            )
            for at in range(start, stop, step)
            for end in [min(at + step, stop)]
        ]

    @torch.no_grad()
    def take_back(self) -> None:
        """Moves parameters whose `data` a network replaced, as constraints on weights do, into the flat buffer again."""
        for parameter, place, address in self._places:
            if parameter.data_ptr() != address:
                place.copy_(parameter.data)
                self.exact[parameter].copy_(parameter.data)
                parameter.data = place

    def refresh(self) -> None:
        """Rounds the weights anew, after they were written to from outside."""
        if self.rounded is not None:
            self.rounded.copy_(self.weights)

    def zero_grad(self) -> None:
        """Forgets the gradients, so that the next backward pass writes new ones and adds to none."""
        self.take_back()
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update from the parameters' gradients, which it may overwrite; one that is not there counts as 0."""
        self.take_back()
        self.steps += 1
        self._begin_step()
        for views, parameters in self._gathered_by_type:
            torch._foreach_copy_(views, [_gradient(parameter) for parameter in parameters])
        if self._zeros and self.weight_decay:  # the decay of the step before was added there
            torch._foreach_zero_(self._zeros)
        self._update_chunks(self._gathered, self._gathered_chunks)
        for parameter, chunks in self._large_chunks:
            self._update_chunks(_in_memory_order(_gradient(parameter), parameter), chunks)

    def _update_chunks(self, gradient: Tensor, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            part = gradient[chunk.begin : chunk.end]
            if self._cast is not None and part.dtype != self._cast.dtype:
                part = self._cast[: len(part)].copy_(part)
            if self.weight_decay:
                part.add_(chunk.weights, alpha=self.weight_decay)
            self._update(chunk, part)
            if chunk.rounded is not None:
                chunk.rounded.copy_(chunk.weights)

    def _now(self, rate: float) -> Any:
        """A rate in this step."""
        return rate if self.factor is None else rate * self.factor

    def _begin_step(self) -> None:  # noqa: B027 - nothing depends on the number of steps in SGD
        """Works out what the updates of this step share."""

    def _cast_once(self, scalar: Tensor) -> Tensor:
        """A scalar on the device in the type of the weights, in which it is used: a GPU would convert it for each of them."""
        return scalar if self._on_cpu else scalar.to(self.weights.dtype)

    @abstractmethod
    def _update(self, chunk: Chunk, gradient: Tensor) -> None:
        """The update of one chunk, in place."""

    def state_dict(self) -> dict[str, Tensor]:
        """The number of steps and the state buffers, themselves and not copies."""
        return {"steps": self.steps, **self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`, exactly."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014) as torch.optim.Adam computes it."""

    slots = ("exp_avg", "exp_avg_sq")

    def _begin_step(self) -> None:
        inverse_rate = (1 - self.spec.beta1**self.steps) / self._now(self.spec.lr)
        self._factor = self._cast_once(inverse_rate / (1 - self.spec.beta2**self.steps).sqrt())
        self._eps = self._cast_once(self.spec.eps * inverse_rate)

    def _update(self, chunk: Chunk, gradient: Tensor) -> None:
        mean, square = chunk.state
        mean.lerp_(gradient, 1 - self.spec.beta1)
        square.mul_(self.spec.beta2).addcmul_(gradient, gradient, value=1 - self.spec.beta2)
        divisor = self._bounded(_sqrt(square, self._factor, chunk.scratch).add_(self._eps))
        chunk.weights.addcdiv_(mean, divisor, value=-1)

    def _bounded(self, divisor: Tensor) -> Tensor:
        return divisor


class AdaBound(Adam):
    """AdaBound (Luo et al. 2019) as the adabound package 0.0.5 computes it: Adam with rates clamped to a closing band.

    The update divides by what the package multiplies with, which spares a pass over the weights.
    """

    def _begin_step(self) -> None:
        spec, steps = self.spec, self.steps
        factor = (1 - spec.beta1**steps) / (self._now(spec.lr) * (1 - spec.beta2**steps).sqrt())
        self._factor, self._eps = self._cast_once(factor), self._cast_once(spec.eps * factor)
        fastest, slowest = 1 + 1 / (spec.gamma * steps), 1 - 1 / (spec.gamma * steps + 1)
        band = [1 / (self._now(spec.final_lr) * bound) for bound in (fastest, slowest)]
        self._band: Any = [bound.item() if self._on_cpu else self._cast_once(bound) for bound in band]

    def _bounded(self, divisor: Tensor) -> Tensor:
        return divisor.clamp_(*self._band)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019) as torch.optim.AdamW computes it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.weight_decay = 0.0

    def _begin_step(self) -> None:
        super()._begin_step()
        kept = 1 - self._now(self.spec.lr) * self.spec.weight_decay
        self._kept = kept if self.factor is None else self._cast_once(kept)

    def _update(self, chunk: Chunk, gradient: Tensor) -> None:
        if self.spec.weight_decay:
            chunk.weights.mul_(self._kept)
        super()._update(chunk, gradient)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum as torch.optim.SGD computes it."""

    slots = ("momentum",)

    def _update(self, chunk: Chunk, gradient: Tensor) -> None:
        (velocity,) = chunk.state
        velocity.mul_(self.spec.momentum).add_(gradient)
        if self.factor is None:
            chunk.weights.add_(velocity, alpha=-self.spec.lr)
        else:
            chunk.weights.addcmul_(velocity, self._cast_once(self._now(self.spec.lr)), value=-1)


def fits(parameter: nn.Parameter) -> bool:
    """Whether a parameter can lie in the flat buffer: float32, without gaps or overlaps in memory."""
    dense: bool = torch.ops.aten.is_non_overlapping_and_dense(parameter)
    return parameter.dtype is torch.float32 and dense


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _in_memory_order(gradient: Tensor, parameter: nn.Parameter) -> Tensor:
    """The gradient in one dimension; autograd lays it out as its parameter, dimensions of size 1 aside."""
    strides = zip(gradient.shape, gradient.stride(), parameter.stride(), strict=True)
    assert all(size == 1 or ours == theirs for size, ours, theirs in strides)
    return gradient.as_strided((gradient.numel(),), (1,))


def _sqrt(square: Tensor, factor: Tensor, out: Tensor) -> Tensor:
    """`factor` times the square roots, up to two units in the last place, 0 for 0.

    On a CPU torch.sqrt goes through MKL, which takes several times as long where many values are 0, as the moments of
    weights behind a dead ReLU are; this way takes the same time for all values, and less than torch.sqrt at its best.
    """
    return torch.div(factor, torch.rsqrt(square, out=out), out=out)


_OPTIMIZERS: Mapping[type[OptimizerSpec], type[Optimizer]] = {
    AdaBoundSpec: AdaBound,
    AdamSpec: Adam,
    AdamWSpec: AdamW,
    SGDSpec: SGD,
}


def make(spec: OptimizerSpec, parameters: Weights, *, rounded: Weights = (), still: Weights = ()) -> Optimizer:
    """The optimizer that `spec` declares, over `parameters`; what it takes is said with `Optimizer`."""
    return _OPTIMIZERS[type(spec)](parameters, spec, rounded, still)
