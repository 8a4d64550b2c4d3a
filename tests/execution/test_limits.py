"""What a container allows: quotas and memory limits of control groups, version 1 and 2."""

from __future__ import annotations

import os

import pytest

from repro import studies
from repro.execution import environment, limits

GIB = 2**30


@pytest.fixture
def group(tmp_path, monkeypatch):
    """`group(own, {file: content})`: this process is in the groups `own`, and the control groups hold these files."""

    def make(own, files):
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        monkeypatch.setattr(limits, "_OWN", tmp_path / "own")
        monkeypatch.setattr(limits, "_CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
        monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 16 * GIB, "SC_PAGE_SIZE": 1}.__getitem__)

    return make


V1 = "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/a/b\n", {}, 8, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/b/memory.max": "max\n"}, 8, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000\n", "a/b/memory.max": f"{3 * GIB}\n"}, 2, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n", "a/memory.max": f"{GIB}"}, 3, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1, 16),
        ("0::/on/the/host\n", {"cpu.max": "200000 100000\n"}, 2, 16),
        ("0::/a\n", {"a/cpu.max": "2000000 100000\n", "a/memory.max": f"{64 * GIB}"}, 8, 16),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8, 16),
        (V1, {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4, 16),
        (V1, {"cpu/docker/a/cpu.cfs_quota_us": "150000\n", "cpu/docker/a/cpu.cfs_period_us": "50000\n"}, 3, 16),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8, 16),
        (V1, {"memory/docker/a/memory.limit_in_bytes": f"{2 * GIB}\n"}, 8, 2),
        ("by hand\n", {"cpu.max": "words\n", "memory.max": "\n"}, 8, 16),
    ],
)  # fmt: skip
def test_a_quota_and_a_memory_limit_are_kept_to(group, own, files, cores, memory):
    group(own, files)
    assert environment.cores() == cores
    assert limits.memory() == memory * GIB


@pytest.mark.parametrize(
    ("study", "gib", "fits", "put"),
    [
        ("best", 16, 8, {}),
        ("best", 4, 3, {}),
        ("best", 1, 1, {}),
        ("reproducibility", 8, 5, {}),
        ("best", 16, 5, {"training.batch_size": 2500}),
    ],
)
def test_as_many_runs_are_trained_at_a_time_as_fit_in_memory(group, study, gib, fits, put):
    group("0::/\n", {"memory.max": f"{gib * GIB}"})
    named = studies.load(study)
    plan = studies.plan([(named, studies.select(named))], seeds=[0], overrides=put)
    assert limits.side_by_side(plan.unique, environment.cores(), "cpu") == fits
    assert limits.side_by_side(plan.unique, environment.cores(), "cuda:1") == 1
