"""Anonymous memory of a sweep over a large folder of images, which is converted and trained for an epoch.

`--steps` is the number of images; they have 64x64 pixels. Mapped pages, the data set's own among them, are not counted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import asked
from benchmarks.processes import environment
from benchmarks.stopwatch import say
from repro.errors import ReproError

SIDE = 64
CLASSES = 10
_LOOK_SECONDS = 0.05
_STUDY = """
study: folder
title: A large folder
question: How much memory does it take?
variants:
  small:
    title: Small
    set: {model.name: squeezenet, model.fire_modules: 2, model.base_e: 8, model.incr_e: 0, model.squeeze_ratio: 0.5,
      model.first_filters: 8, model.first_stride: 4, model.batch_norm: all}
"""
_COMMAND = "experiment --study folder.yaml --dataset imagefolder:images --set data.image_size=64 --epochs 1 --seeds 0"


def main() -> None:
    """Prints the largest anonymous memory of the conversion's processes together, of the sweep's own, and of the run's."""
    given = asked.parse()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).absolute()
        make(folder / "images", given.steps)
        (folder / "folder.yaml").write_text(_STUDY)
        words = [sys.executable, "-m", "repro", *_COMMAND.split(), "--offline", "true", "--workers", "1"]
        with (folder / "said").open("w") as said:
            sweep = subprocess.Popen(words, cwd=folder, env=environment(folder), stdout=said, stderr=said)
            peaks = watched(sweep)
        if sweep.returncode:
            raise ReproError(f"{' '.join(words)}: {(folder / 'said').read_text().strip().splitlines()[-1]}")
    say(json.dumps({"images": given.steps, "side": SIDE, **peaks}))
    say("done")


def make(folder: Path, count: int) -> None:
    """Writes that many JPEG files of noise, in equal parts to each class."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((SIDE, SIDE))
        image.save(folder / f"class{number % CLASSES}" / f"{number:06}.jpg", quality=80)


def watched(sweep: subprocess.Popen[bytes]) -> dict[str, float]:
    """Seconds of each phase of a sweep with one run, and the peaks of its anonymous memory in MiB."""
    peaks: dict[str, float] = defaultdict(float)
    began, trains = time.perf_counter(), None
    while sweep.poll() is None:
        now = anonymous_mib(sweep.pid)
        runs = [mib for words, mib in now.values() if "repro.execution.worker" in words]
        others = sum(mib for words, mib in now.values() if "repro.execution.worker" not in words)
        if runs and trains is None:
            trains = time.perf_counter()
        peaks["converting_mib" if trains is None else "sweep_mib"] = max(
            peaks["converting_mib" if trains is None else "sweep_mib"], others
        )
        peaks["run_mib"] = max(peaks["run_mib"], *runs, 0.0)
        time.sleep(_LOOK_SECONDS)
    ended = time.perf_counter()
    found = {name: round(value, 1) for name, value in peaks.items()}
    return found | {
        "converting_seconds": round((trains or ended) - began, 1),
        "training_seconds": round(ended - (trains or ended), 1),
    }


def anonymous_mib(root: int) -> dict[int, tuple[list[str], float]]:
    """Command line and anonymous memory in MiB of a process and all below it, by process id."""
    parents, found = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError, StopIteration):  # a process that has just ended
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        above = pid
        while above != root and above in parents:
            above = parents[above]
        if above == root:
            with contextlib.suppress(OSError, StopIteration):
                status = (Path("/proc") / str(pid) / "status").read_text().splitlines()
                kib = next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
                words = (Path("/proc") / str(pid) / "cmdline").read_text(errors="replace").split("\0")
                found[pid] = words, kib / 1024
    return found


if __name__ == "__main__":
    main()
