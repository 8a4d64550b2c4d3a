"""Checkpoints: what is saved comes back exactly, seldom enough, and a damaged one is none at all."""

from __future__ import annotations

import errno
import os
import pickle
import random
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from repro.errors import ReproError
from repro.execution import checkpoint
from repro.execution.checkpoint import Checkpoints

SNAPSHOT = {
    "key": "0123456789abcdef",
    "epochs_done": 3,
    "best": OrderedDict(weight=torch.arange(6, dtype=torch.float32).reshape(2, 3), bias=torch.tensor([float("nan")])),
    "optimizer": {"step": torch.tensor(7), "exp_avg": torch.full((5,), -0.0, dtype=torch.float64)},
    "generator": torch.get_rng_state(),
    "cuda_generator": None,
    "epoch_seconds": [0.1, 1e-300],
    "position": {"order": torch.randperm(10), "loss": 1.25, "done": False, "text": "naïve"},
}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, 30)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(checkpoint, "time", clock)
    return clock


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.numpy().tobytes() == other.numpy().tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    else:
        assert repr(one) == repr(other)


def test_a_snapshot_comes_back_bit_by_bit(checkpoints):
    checkpoints.save(SNAPSHOT)
    same(checkpoints.load(), SNAPSHOT)


def test_the_last_one_counts(checkpoints, tmp_path):
    checkpoints.save(SNAPSHOT)
    checkpoints.save({**SNAPSHOT, "epochs_done": 4})
    assert checkpoints.load()["epochs_done"] == 4
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


def test_without_one_there_is_none(checkpoints):
    assert checkpoints.load() is None
    checkpoints.remove()
    checkpoints.save(SNAPSHOT)
    checkpoints.remove()
    assert checkpoints.load() is None


def test_one_is_due_after_the_time_that_was_asked_for(clock, tmp_path):
    checkpoints = Checkpoints(tmp_path, 30)
    assert not checkpoints.due
    clock.now += 29.9
    assert not checkpoints.due
    clock.now += 0.1
    assert checkpoints.due
    checkpoints.save(SNAPSHOT)
    assert not checkpoints.due
    clock.now += 30
    assert checkpoints.due


def test_saving_takes_at_most_a_fiftieth_of_the_time(clock, tmp_path, monkeypatch):
    def slow(_path, _content):
        clock.now += 2

    monkeypatch.setattr(checkpoint.disk, "write", slow)
    checkpoints = Checkpoints(tmp_path, 30)
    checkpoints.save(SNAPSHOT)
    clock.now += 99.9
    assert not checkpoints.due
    clock.now += 0.2
    assert checkpoints.due


def test_with_no_time_between_them_one_is_always_due_at_first(clock, tmp_path):
    assert Checkpoints(tmp_path, 0).due


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_one_that_cannot_be_read_for_the_moment_is_read_again(checkpoints, tmp_path, monkeypatch, number):
    checkpoints.save(SNAPSHOT)
    monkeypatch.setattr(checkpoint, "_PAUSES", (0, 0, 0))
    fails = iter([True, True, True, False])
    real = Path.read_bytes

    def read_bytes(path):
        if next(fails):
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    same(checkpoints.load(), SNAPSHOT)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_one_that_cannot_be_read_is_said_and_not_taken_for_missing(checkpoints, tmp_path, monkeypatch, number):
    checkpoints.save(SNAPSHOT)
    monkeypatch.setattr(checkpoint, "_PAUSES", (0,))

    def read_bytes(path):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(ReproError, match=f"cannot be read now .*{os.strerror(number)}.*does not start over"):
            checkpoints.load()
    same(checkpoints.load(), SNAPSHOT)


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_whole_one_for_which_there_is_no_memory_is_said(checkpoints, tmp_path, monkeypatch, error):
    checkpoints.save(SNAPSHOT)

    def load(*_args, **_words):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(ReproError, match="cannot be loaded now"):
        checkpoints.load()
    raw = bytearray((tmp_path / checkpoint.NAME).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / checkpoint.NAME).write_bytes(raw)
    assert checkpoints.load() is None


def test_one_that_was_cut_anywhere_is_none(checkpoints, tmp_path):
    checkpoints.save(SNAPSHOT)
    path = tmp_path / checkpoint.NAME
    raw = path.read_bytes()
    for cut in range(0, len(raw), 97):
        path.write_bytes(raw[:cut])
        assert checkpoints.load() is None


def test_damage_anywhere_raises_nothing(checkpoints, tmp_path):
    checkpoints.save(SNAPSHOT)
    path = tmp_path / checkpoint.NAME
    raw = path.read_bytes()
    damage = random.Random(0)
    for _ in range(300):
        damaged = bytearray(raw)
        for _ in range(damage.choice([1, 1, 4, 64])):
            damaged[damage.randrange(len(raw))] = damage.randrange(256)
        path.write_bytes(damaged)
        assert isinstance(checkpoints.load(), dict | None)


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02.", b"PK\x03\x04", b"\x80\x04N."])
def test_what_is_no_checkpoint_is_none(checkpoints, tmp_path, content):
    (tmp_path / checkpoint.NAME).write_bytes(content)
    assert checkpoints.load() is None


@pytest.mark.parametrize("value", [[1, 2], 5, torch.zeros(2), "text", None])
def test_what_holds_no_snapshot_is_none(checkpoints, tmp_path, value):
    torch.save(value, tmp_path / checkpoint.NAME)
    assert checkpoints.load() is None


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_never_run(checkpoints, tmp_path, zipped):
    path = tmp_path / checkpoint.NAME
    if zipped:
        torch.save({"key": Evil(tmp_path / "ran")}, path)
    else:
        path.write_bytes(pickle.dumps({"key": Evil(tmp_path / "ran")}))
    assert checkpoints.load() is None
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_former_one(small_disk):
    checkpoints = Checkpoints(small_disk, 30)
    checkpoints.save({"key": "former"})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save({"key": "new", "model": torch.zeros(100_000)})
    assert checkpoints.load() == {"key": "former"}


SAVES = """
import sys
from pathlib import Path
import torch
from repro.execution.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), 0)
for number in range(10 ** 9):
    checkpoints.save({"epochs_done": number, "model": torch.full((50_000,), float(number))})
    if number == 1:
        print("begins", flush=True)
"""


def test_kill_9_while_one_is_saved_leaves_a_whole_one(checkpoints, tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", SAVES, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"begins\n"
    time.sleep(random.Random(0).uniform(0.1, 0.3))
    writer.kill()
    writer.communicate()
    found = checkpoints.load()
    assert found["epochs_done"] > 0
    assert found["model"].tolist() == [float(found["epochs_done"])] * 50_000
