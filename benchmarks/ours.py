"""One run as a worker of a sweep trains it, with a stopwatch; the harness starts one for each core.

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
from repro.records import Progress
from repro.training.data import load, prepare
from repro.training.loop import Training


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
    for record in Training(given.spec, data, device="cpu", deterministic=True):
        if isinstance(record, Progress):
            watch.at(record.epoch, record.step)


if __name__ == "__main__":
    main()
