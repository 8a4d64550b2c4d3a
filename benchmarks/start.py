"""How long a user waits: from the command of a sweep to its first step, and for `repro --help`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import environment, wall
from repro import journal
from repro.errors import ReproError

HELP_RUNS = 5
_PATIENCE_SECONDS = 120


def help_seconds(folder: Path) -> list[float]:
    """Seconds of `repro --help`, some times over."""
    return [wall([sys.executable, "-m", "repro", "--help"], folder) for _ in range(HELP_RUNS)]


def first_step_seconds(folder: Path, dataset: str, data_dir: Path, sides: int) -> float:
    """Seconds from the start of a sweep's command to the first step of the last of its first `sides` runs.

    The store and the folder of the runs are new ones. A worker writes the first record of its journal right before its
    first step, with the time.

    Raises:
        ReproError: the sweep ended before that, or never came there.
    """
    words = [
        *(sys.executable, "-m", "repro", "experiment", "--study", "reproducibility", "--variant", "squeezenet_bn"),
        *("--seeds", f"0-{sides - 1}" if sides > 1 else "0", "--workers", str(sides)),
        *("--dataset", dataset, "--data-dir", str(data_dir.absolute())),
    ]
    log = folder / "log"
    began = time.time()
    with log.open("wb") as output:
        sweep = subprocess.Popen(
            words, cwd=folder, env=environment(folder), stdout=output, stderr=output, start_new_session=True
        )
    try:
        while time.time() - began < _PATIENCE_SECONDS:
            first = [known.entries[0].time_ms for at in journal.find(folder / "runs") if (known := journal.read(at))]
            if len(first) == sides:
                return max(first) / 1000 - began
            if sweep.poll() is not None:
                raise ReproError(f"repro experiment: {(log.read_text().strip().splitlines() or ['failed'])[-1]}")
            time.sleep(0.05)
        raise ReproError(f"repro experiment: no step within {_PATIENCE_SECONDS} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(sweep.pid, signal.SIGINT)
        try:
            sweep.wait(10)
        except subprocess.TimeoutExpired:
            sweep.kill()
            sweep.wait()
