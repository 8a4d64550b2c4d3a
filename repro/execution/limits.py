"""What a container or a batch job allows: the quota of processors and the memory of its control groups (v1 and v2)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from repro.studies import PlannedRun

_RUN_BYTES = {"SqueezeNet": 1.0e9, "AlexNet": 1.6e9}
"""The most that a run of a network takes with batches of 50 images of 32x32 pixels, as docs/speed.md holds it to."""
_OTHER_BYTES = 1.6e9  # of a network that was never measured
_BATCH_BYTES = {
    "SqueezeNet": 0.04e9,
    "AlexNet": 0.04e9,
}  # of the activations of such a batch, which grow with its pixels
_OTHER_BATCH_BYTES = 0.1e9
_SWEEP_BYTES = 0.4e9  # of the sweep's own process, with MLflow in it
_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpus() -> float | None:
    """Processors' worth of time that the groups of this process get; None without a quota."""
    quotas = [(line[0], line[1]) for line in _lines("", "cpu.max") if len(line) == 2]
    quotas += [
        (quota[0], period[0])
        for quota, period in zip(_lines("cpu", "cpu.cfs_quota_us"), _lines("cpu", "cpu.cfs_period_us"), strict=False)
    ]
    found = [int(quota) / int(period) for quota, period in quotas if quota.isdecimal() and int(period)]
    return min(found, default=None)


def memory() -> int:
    """Bytes of memory that this process and its children may take: the machine's, or less where a group is limited."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [line[0] for line in (*_lines("", "memory.max"), *_lines("memory", "memory.limit_in_bytes"))]
    return min([machine, *(int(limit) for limit in limits if limit.isdecimal())])


def side_by_side(runs: Iterable[PlannedRun], cores: int, device: str) -> int:
    """How many of a plan's runs are trained at a time: one on a GPU; else one on each core, as far as memory reaches."""
    if device != "cpu":
        return 1
    return max(1, min(cores, int((memory() - _SWEEP_BYTES) / max(map(_bytes, runs), default=1.0))))


def _bytes(run: PlannedRun) -> float:
    network, batch = run.spec.model.network, run.spec.training.batch_size
    larger = (run.spec.model.input_size / 32) ** 2 * batch / 50 - 1
    grows = _BATCH_BYTES.get(network, _OTHER_BATCH_BYTES) * max(0.0, larger)
    return _RUN_BYTES.get(network, _OTHER_BYTES) + grows


def _lines(controller: str, name: str) -> Iterator[list[str]]:
    """The words of a file of every group that this process is in, the innermost first; "" is version 2's controller."""
    paths = [Path("/")]  # a container may show the host's path for a group that it sees as its root
    with contextlib.suppress(OSError, ValueError):
        for line in _OWN.read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            if controller in controllers.split(","):
                paths = [Path(own), *Path(own).parents]
    for path in paths:
        with contextlib.suppress(OSError):
            if words := (_CGROUPS / controller / path.relative_to("/") / name).read_text().split():
                yield words
