"""One run as a worker of a sweep trains it, with a stopwatch; the harness starts one for each core, or some on a GPU.

It says `ready` after its warm-up, measures when all are (a line on standard input), and goes on until that input is
closed, so that no worker is measured while another one rests.
"""

from __future__ import annotations

import os
import sys
import threading

import torch

from benchmarks import asked
from benchmarks.stopwatch import Stopwatch, say
from repro.records import EpochRecord, Progress
from repro.training.data import load
from repro.training.loop import Event, Training
from repro.training.prepare import prepare


def main() -> None:
    """Trains until standard input is closed."""
    given = asked.parse()
    torch.set_num_threads(1)
    watch = Stopwatch(given.warmup, given.steps, say)
    watch.held.set()

    def listen() -> None:
        if sys.stdin.readline():
            watch.held.clear()
            sys.stdin.read()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    data = load(prepare(given.dataset, given.data_dir), given.spec.data)
    for event in Training(given.spec, data, device=given.device, deterministic=given.deterministic):
        if (at := reached(event, given.device)) is not None:
            watch.at(*at)


def reached(event: Event, device: str) -> tuple[int, int] | None:
    """Epoch and step as the stopwatch counts them; on a GPU whole epochs, since steps are but queued until one ends."""
    match event:
        case Progress() if device == "cpu":
            return event.epoch, event.step
        case EpochRecord() if device != "cpu":
            return 1, event.epoch
    return None


if __name__ == "__main__":
    main()
