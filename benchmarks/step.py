"""A whole training step against its bare forward and backward pass, as they are written out, in turn, on one thread."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator

import torch
from torch.nn import functional

from benchmarks import asked
from benchmarks.stopwatch import Stopwatch, say
from repro.records import Progress
from repro.spec import RunSpec
from repro.training.data import Data, load
from repro.training.fast import Passes
from repro.training.loop import Training
from repro.training.models import build, multiplied
from repro.training.prepare import prepare

BLOCK = 10
"""Steps of one kind in a row: short enough that both meet the same state of the machine."""


class Bare:
    """Forward and backward passes over one batch, and nothing else."""

    def __init__(self, spec: RunSpec, data: Data) -> None:
        torch.manual_seed(spec.seed)
        model = build(spec.model).to(memory_format=torch.channels_last)
        dtype = torch.bfloat16 if spec.training.precision == "bf16" else torch.float32
        for parameter in multiplied(model):
            parameter.data = parameter.data.to(dtype)
        self.parameters = list(model.parameters())
        self.passes = Passes(model)
        batch = data.train[: spec.training.batch_size]
        pixels = (data.images[batch].float() / 255 - data.mean) / data.std
        self.images = pixels.permute(0, 3, 1, 2).to(dtype)  # in memory as before: channels last
        self.labels = data.labels[batch]

    def step(self) -> None:
        """One forward and one backward pass."""
        for parameter in self.parameters:
            parameter.grad = None
        functional.cross_entropy(self.passes(self.images).float(), self.labels).backward()


def whole_steps(spec: RunSpec, data: Data) -> Iterator[Progress]:
    """The points between the steps of a real run."""
    training = Training(spec, data, device="cpu", deterministic=True)
    return (record for record in training if isinstance(record, Progress))


def main() -> None:
    """Prints the median milliseconds a step of both, and their ratio."""
    given = asked.parse()
    torch.set_num_threads(1)
    data = load(prepare(given.dataset, given.data_dir), given.spec.data)
    bare = Bare(given.spec, data)
    points = whole_steps(given.spec, data)
    whole_ms, bare_ms = [], []
    for block in itertools.count():
        watch = Stopwatch(0, BLOCK)
        while not watch.done:
            point = next(points)
            watch.at(point.epoch, point.step)
        torch.set_flush_denormal(True)  # as in training
        bare_began = time.perf_counter()
        for _ in range(BLOCK):
            bare.step()
        bare_seconds = time.perf_counter() - bare_began
        if block:  # the first one is the warm-up
            whole_ms.append(watch.report.seconds / watch.report.steps * 1000)
            bare_ms.append(bare_seconds / BLOCK * 1000)
        if block * BLOCK >= given.steps:
            break
    ratios = [whole / alone for whole, alone in zip(whole_ms, bare_ms, strict=True)]
    say(
        json.dumps(
            {
                "step_ms": statistics.median(whole_ms),
                "bare_ms": statistics.median(bare_ms),
                "ratio": statistics.median(ratios),
            }
        )
    )
    say("done")


if __name__ == "__main__":
    main()
