"""Where the time of a training step goes: by kind of operation, one thread, as torch's profiler sees it."""

from __future__ import annotations

import json
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import asked
from benchmarks.step import Bare, whole_steps
from benchmarks.stopwatch import Stopwatch, say
from repro.training.data import load, prepare
from repro.training.optim import make

KINDS = {
    "convolutions": ("convolution", "conv2d"),
    "linear layers": ("addmm", "linear", "::mm"),
    "batch norm": ("batch_norm",),
    "ReLU": ("clamp_min", "threshold", "relu"),
    "pooling": ("pool", "mean"),
    "dropout": ("dropout", "bernoulli"),
    "concatenation": ("cat", "narrow", "slice"),
    "casts": ("_to_copy", "copy_"),
}
"""Kind -> what stands in the names of its operators; the first kind that fits has it."""
WARMUP = 10


def kind_of(operator: str) -> str:
    """The kind of an operator by its name; `other` where none is known."""
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "other")


def passes_ms(bare: Bare, steps: int) -> dict[str, float]:
    """Milliseconds of a forward and backward pass by kind of operator."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            bare.step()
    found: dict[str, float] = {}
    for event in seen.key_averages():
        kind = kind_of(event.key)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1000 / steps
    return found


def main() -> None:
    """Prints the milliseconds of every kind, of the optimizer, of a whole step, and what is left."""
    given = asked.parse()
    torch.set_num_threads(1)
    data = load(prepare(given.dataset, given.data_dir), given.spec.data)
    watch = Stopwatch(WARMUP, given.steps)
    for point in whole_steps(given.spec, data):  # first, for it settles how memory is kept in this process
        watch.at(point.epoch, point.step)
        if watch.done:
            break
    torch.set_flush_denormal(True)  # as in training
    bare = Bare(given.spec, data)
    for _ in range(WARMUP):
        bare.step()
    parts = passes_ms(bare, given.steps)
    optimizer = make(given.spec.optimizer, bare.model.parameters())
    spent = 0.0
    for number in range(WARMUP + given.steps):
        bare.step()
        began = time.perf_counter()
        optimizer.step()
        spent += (time.perf_counter() - began) * (number >= WARMUP)
    parts["optimizer"] = spent / given.steps * 1000
    whole = watch.report.seconds / watch.report.steps * 1000
    say(json.dumps({"step_ms": whole, "parts_ms": parts}))
    say("done")


if __name__ == "__main__":
    main()
