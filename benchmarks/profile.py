"""Where the time of a training step goes: by kind of operation, one thread, as torch's profiler sees it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks import asked
from benchmarks.stopwatch import Stopwatch, say
from repro.records import Progress
from repro.training.data import load
from repro.training.loop import Training
from repro.training.prepare import prepare

OPTIMIZER = "optimizer"
KINDS = {
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("addmm", "bmm", "linear", "::mm"),
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


def parts_ms(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Milliseconds of some events by kind; whatever happens inside of the optimizer is its own."""
    found: dict[str, float] = {}
    for event in events:
        names = {event.name}
        above = event.cpu_parent
        while above is not None:
            names.add(above.name)
            above = above.cpu_parent
        kind = OPTIMIZER if OPTIMIZER in names else kind_of(event.name)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1000
    return found


def main() -> None:
    """Prints the milliseconds of a step of a real run, and of every kind in it."""
    given = asked.parse()
    torch.set_num_threads(1)
    data = load(prepare(given.dataset, given.data_dir), given.spec.data)
    training = Training(given.spec, data, device="cpu", deterministic=True)
    update = training.optimizer.step

    def marked() -> None:
        with record_function(OPTIMIZER):
            update()

    training.optimizer.step = marked  # type: ignore[method-assign]
    points = (record for record in training if isinstance(record, Progress))
    for _ in range(WARMUP):
        point = next(points)
    steps = min(given.steps, point.steps - WARMUP - 1)  # no further than the epoch
    watch = Stopwatch(0, steps)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        while not watch.done:  # the first step is seen, but not timed: the profiler begins in it
            point = next(points)
            watch.at(point.epoch, point.step)
    parts = {kind: ms / (steps + 1) for kind, ms in parts_ms(seen.events()).items()}
    say(json.dumps({"step_ms": watch.report.seconds / watch.report.steps * 1000, "parts_ms": parts}))
    say("done")


if __name__ == "__main__":
    main()
