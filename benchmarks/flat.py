"""Whether seconds a step stay the same from the first epoch to the last, and so does memory: a run of many short epochs.

`--steps` is the least number of training steps; the embedded digits make an epoch of 29 of them.
"""

from __future__ import annotations

import json
import os
import statistics

import torch

from benchmarks import asked
from benchmarks.processes import session_pss_mib
from benchmarks.stopwatch import say
from repro.records import EpochRecord, Progress
from repro.training.data import load
from repro.training.loop import Training
from repro.training.prepare import prepare

SHARE = 4
"""A quarter of the epochs is the beginning, and another one the end."""


def main() -> None:
    """Prints the median epoch of the first and of the last quarter in seconds, and the memory (PSS) after each."""
    given = asked.parse()
    torch.set_num_threads(1)
    seconds: list[float] = []
    memory: list[float | None] = []
    steps = 0
    for record in Training(
        given.spec, load(prepare(given.dataset, given.data_dir), given.spec.data), device="cpu", deterministic=True
    ):
        match record:
            case Progress():
                steps = record.steps
            case EpochRecord():
                seconds.append(record.epoch_seconds)
                memory.append(session_pss_mib(os.getsid(0)))
                if steps * (len(seconds) - 1) >= given.steps and len(seconds) > SHARE:
                    break
    counted = seconds[1:]  # the first epoch pays for the first use of everything
    part = -(-len(counted) // SHARE)
    say(
        json.dumps(
            {
                "epochs": len(counted),
                "first_seconds": statistics.median(counted[:part]),
                "last_seconds": statistics.median(counted[-part:]),
                "ratio": statistics.median(counted[-part:]) / statistics.median(counted[:part]),
                "first_pss_mib": memory[part],
                "last_pss_mib": memory[-1],
            }
        )
    )
    say("done")


if __name__ == "__main__":
    main()
