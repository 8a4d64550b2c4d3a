"""What each mechanism of a step on a CPU gains: blocks of steps with it and without it in turn, in one process.

A step's time is that which the processor spends on it, so what else runs on the machine counts little.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import asked
from benchmarks.stopwatch import say
from benchmarks.usual_loop import optimizer_for
from repro.spec import flatten, merged, resolve
from repro.training import cpu, models, optim, ways
from repro.training.batches import Batches
from repro.training.data import Data, load
from repro.training.fast import before_norm, winograd
from repro.training.prepare import prepare

BLOCK = 5
_LATE = 5_000
"""Steps without a gradient: after so many the moments of a weight behind a dead unit have decayed as far as they do."""


class Steps:
    """Steps of one network on real images; each mechanism can be taken away and put back."""

    def __init__(self, given: asked.Asked, data: Data, weight_decay: float | None = None) -> None:
        spec = given.spec
        if weight_decay is not None:
            spec = resolve(merged(flatten(spec), {"optimizer.weight_decay": weight_decay}), "benchmarks")
        torch.manual_seed(0)
        self.network = models.build(spec.model).to(memory_format=torch.channels_last)
        self.network.train()
        self.batches = Batches(spec, data, torch.device("cpu"), torch.float32)
        self.order = self.batches.of_epoch(1)
        still = before_norm(self.network)
        for bias in still:
            bias.requires_grad_(False)
        self.flat = optim.make(spec.optimizer, list(self.network.parameters()), still=still)
        self.package = optimizer_for(self.network, spec.optimizer)
        for group in self.package.param_groups:
            group["weight_decay"] = spec.optimizer.weight_decay
        self.passes, _ = ways.forward_on_cpu(self.network, self.batches)
        self.at = 0
        self._aged: Tensor = self.flat.state["exp_avg"]

    def block(self, steps: int = BLOCK, *, passes: bool = True, flat: bool = True) -> float:
        """Milliseconds that the processor spends on a step."""
        forward, optimizer = self.passes if passes else self.network, self.flat if flat else self.package
        began = time.process_time()
        for _ in range(steps):
            images, labels = self.batches.load(self.order[self.at % len(self.order)])
            self.at += 1
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(forward(images), labels))
            optimizer.step()
        return (time.process_time() - began) / steps * 1000

    def age(self) -> float:
        """Gives moments that the last step had no gradient for the value that they keep; returns the share of these."""
        torch.set_flush_denormal(False)
        mean = self.flat.state["exp_avg"]
        before, beta = mean.clone(), self.flat.spec.beta1
        self.block(1)
        least = torch.ones(1)
        for _ in range(_LATE):
            least.lerp_(torch.zeros(1), 1 - beta)
        still = (before != 0) & ((mean - before * beta).abs() <= 1e-6 * before.abs())
        self._aged = torch.where(still, mean.sign() * least, mean)
        torch.set_flush_denormal(True)
        return float(still.double().mean())

    def old_block(self) -> float:
        """A block that begins with the moments that `age` gave."""
        self.flat.state["exp_avg"].copy_(self._aged)  # a copy keeps denormal numbers, whatever the arithmetic does
        return self.block()


@contextlib.contextmanager
def _memory_goes_back() -> Iterator[None]:
    """Glibc with the largest thresholds that it gives itself, as in a process that has allocated large tensors."""
    libc = ctypes.CDLL(None)
    for what, value in (
        (-4, 65536),
        (-3, 32 * 2**20),
        (-1, 64 * 2**20),
    ):  # M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        libc.mallopt(what, value)
    libc.malloc_trim(0)
    yield
    cpu.keep_freed_memory()


def _direct() -> AbstractContextManager[object]:
    return mock.patch.object(winograd, "pays", lambda *_: False)


@contextlib.contextmanager
def _denormals() -> Iterator[None]:
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(True)


def main() -> None:
    """Prints, for each mechanism, the median milliseconds of a step with it, and how many times as long one takes without."""
    given = asked.parse()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the package calls torch as it was called once
    cpu.keep_freed_memory()
    torch.set_flush_denormal(True)
    data = load(prepare(given.dataset, given.data_dir), given.spec.data)
    steps = Steps(given, data)
    blocks = max(2, given.steps // BLOCK)
    _compare("passes", steps.block, lambda: steps.block(passes=False), blocks)
    _compare("winograd", steps.block, _within(_direct, steps.block), blocks)
    _compare("flat", steps.block, lambda: steps.block(flat=False), blocks)
    _compare("memory", steps.block, _within(_memory_goes_back, steps.block), blocks)
    undecayed = Steps(given, data, weight_decay=0.0)
    undecayed.block(given.warmup)
    share = undecayed.age()
    _compare("denormals", undecayed.old_block, _within(_denormals, undecayed.old_block), blocks, denormal=share)
    say("done")


def _within(context: Callable[[], AbstractContextManager[object]], block: Callable[[], float]) -> Callable[[], float]:
    def there() -> float:
        with context():
            return block()

    return there


def _compare(name: str, on: Callable[[], float], off: Callable[[], float], blocks: int, **more: float) -> None:
    on(), off()  # the first block after a change pays for it
    pairs = []
    for number in range(blocks):
        if number % 2:
            without, with_it = off(), on()
        else:
            with_it, without = on(), off()
        pairs.append((with_it, without))
    ratio = statistics.median(without / with_it for with_it, without in pairs)
    say(
        json.dumps({"mechanism": name, "step_ms": statistics.median(one for one, _ in pairs), "without": ratio, **more})
    )


if __name__ == "__main__":
    main()
