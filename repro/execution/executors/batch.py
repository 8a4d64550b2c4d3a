"""Trains the runs of one Slurm job, one after the other, each in a worker of its own.

    python -m repro.execution.executors.batch FOLDER TIMEOUTS < job lines

SIGUSR2, which Slurm sends before the time limit, ends in a checkpoint and puts the job back into the queue, at most TIMEOUTS
times. SIGTERM, which comes before a pre-emption, a requeue and a cancellation, ends in a checkpoint, too; Slurm itself puts
a pre-empted job back. A job that starts again goes on where it was, and tries nothing again that has failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from repro.execution import disk
from repro.execution.executors.local import Process
from repro.execution.job import Exit, Job

_POLL_SECONDS = 0.1
_LINES = 12
_OVER = {Exit.STOPPED, Exit.BUSY}  # which a job that starts again does not pass over


@dataclass
class Ledger:
    """How the runs of a job have ended, and how often the job came to its time limit: `runs/slurm/<id>.json`."""

    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Key -> an `Exit` or a signal's number, negative, and the last lines that the run wrote."""
    timeouts: int = 0

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger of a file; an empty one where it is not there, or is not whole for the moment."""
        return disk.record(cls, path) or cls()

    def write(self, path: Path) -> None:
        """Replaces the file."""
        disk.write(path, json.dumps(asdict(self)).encode())


def main() -> int:
    """Trains the jobs on standard input; the result is an `Exit`."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, _: asked.append(number))
    folder, timeouts, job_id = Path(sys.argv[1]), int(sys.argv[2]), os.environ["SLURM_JOB_ID"]
    path = folder / f"{job_id}.json"
    ledger = Ledger.read(path)
    worst = Exit.DONE
    for line in sys.stdin.read().splitlines():
        job = Job.parse(line)
        key = job.folder.name
        if ledger.ends.get(key, (Exit.STOPPED, ""))[0] not in _OVER:
            continue
        code, words = _train(job, asked)
        if code == Exit.STOPPED and signal.SIGUSR2 in asked:
            ledger.timeouts += 1
            if ledger.timeouts <= timeouts:
                ledger.write(path)
                subprocess.run(["scontrol", "requeue", job_id], check=False)
                return Exit.STOPPED
            code = Exit.REFUSED
            words = f"the job reached its time limit {ledger.timeouts} times; increase `minutes` or `timeouts`"
        ledger.ends[key] = (code, words)
        ledger.write(path)
        if words:
            print(f"{job.study}/{job.spec.run_name(job.variant)}: {words}", flush=True)  # noqa: T201 - the job's log
        if asked or code == Exit.STOPPED:
            return Exit.STOPPED
        worst = Exit.FAILED if code else worst
    return worst


def _train(job: Job, asked: list[int]) -> tuple[int, str]:
    """How a run ended, and its last words."""
    process = Process(job.threads)
    process.assign(job)
    told = False
    while (code := process.exit()) is None:
        if asked and not told:
            process.stop()
            told = True
        time.sleep(_POLL_SECONDS)
    words = process.last_words(_LINES)
    process.kill()  # closes its log
    return Exit.STOPPED if code == -signal.SIGTERM else code, words  # it was still starting


if __name__ == "__main__":
    sys.exit(main())
