"""Claims where there is no `flock`: who has one, and when it is taken over."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro import locks, owner
from tests.starting import environment


@pytest.fixture
def path(tmp_path: Path, monkeypatch) -> Path:
    """A file in a folder whose file system has no locks."""
    monkeypatch.setattr(locks, "_tested", {tmp_path.stat().st_dev: False})
    return tmp_path / "lock"


def claimed(path: Path, **changes: str) -> Path:
    """A claim that another process has left: by default one of this machine that is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", "from repro import owner; print(owner.me())"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as other:
        said = json.loads(other.communicate()[0])
    claim = path.with_name("lock.claim")
    job = changes.pop("job", "")
    claim.write_text(json.dumps({"owner": json.dumps({**said, **changes}), "job": job, "id": "x"}))
    path.touch()
    return claim


def test_a_lock_that_keeps_a_second_process_out_is_used(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "_tested", {})
    with locks.claim(tmp_path / "lock"):
        assert [one.name for one in tmp_path.iterdir()] == ["lock"]
    monkeypatch.setattr(locks, "_tested", {})
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with locks.claim(tmp_path / "lock"):
        assert (tmp_path / "lock.claim").exists()
    assert not (tmp_path / "lock.claim").exists()


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ("rw,vers=3,local_lock=none,addr=10.0.0.1", True),
        ("rw,vers=3,local_lock=posix,addr=10.0.0.1", True),
        ("rw,vers=3,local_lock=flock,addr=10.0.0.1", False),
        ("rw,vers=3,nolock,local_lock=all", False),
        ("rw,localflock,lazystatfs", False),
        ("rw,flock,lazystatfs", True),
    ],
)
def test_locks_that_other_machines_do_not_see_are_not_used(tmp_path: Path, monkeypatch, options, used) -> None:
    mounts, device = tmp_path / "mountinfo", tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    other = "9:9 / /other rw shared:1 - nfs other:/ rw,local_lock=all"
    mounts.write_text(f"36 35 {other}\n37 35 {number} / /runs rw,relatime shared:2 - nfs server:/runs {options}\n")
    monkeypatch.setattr(locks, "_MOUNTS", mounts)
    monkeypatch.setattr(locks, "_tested", {})
    with locks.claim(tmp_path / "lock"):
        assert (tmp_path / "lock.claim").exists() is not used
        assert locks.held(tmp_path / "lock")
        assert locks.claim(tmp_path / "lock") is None


def test_a_claim_is_refused_until_it_is_given_back(path: Path) -> None:
    lock = locks.claim(path)
    assert lock is not None
    assert locks.held(path)
    assert locks.claim(path) is None
    lock.write(b"written")
    lock.close()
    lock.close()
    assert path.read_bytes() == b"written"
    assert not locks.held(path)
    with locks.alone(path), locks.alone(path.with_name("other")):
        assert locks.claim(path) is None
    assert locks.claim(path) is not None


def test_a_claim_of_a_process_that_is_gone_is_taken_over(path: Path) -> None:
    claim = claimed(path)
    assert not locks.held(path)
    with locks.claim(path):
        assert json.loads(json.loads(claim.read_bytes())["owner"]) == json.loads(owner.me())
        assert locks.claim(path) is None


def test_a_claim_of_another_host_is_taken_over_when_it_is_silent_or_its_job_was_requeued(path, monkeypatch) -> None:
    claim = claimed(path, host="elsewhere", job="17")
    began = claim.stat().st_mtime
    for seconds, job, free in ((0, "", False), (599, "18", False), (0, "17", True), (601, "", True)):
        monkeypatch.setattr(locks.time, "time", lambda seconds=seconds: began + seconds)
        monkeypatch.setenv("SLURM_JOB_ID", job)
        assert locks.held(path) is not free
    with locks.claim(path) as lock:
        assert lock is not None


def test_an_owner_touches_its_claim(path: Path, monkeypatch) -> None:
    touched = []
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(locks.os, "utime", touched.append)
    with locks.claim(path):
        while len(touched) < 3:
            locks.time.sleep(0.01)
    assert set(touched) == {path.with_name("lock.claim")}


def test_of_two_that_find_a_stale_claim_one_takes_it(path: Path, monkeypatch) -> None:
    claim = claimed(path)
    guard = path.with_name("lock.taking")
    guard.touch()  # another process is just about it
    assert locks.claim(path) is None
    assert claim.exists()
    began = guard.stat().st_mtime
    monkeypatch.setattr(locks.time, "time", lambda: began + 601)  # it was killed in between
    assert locks.claim(path) is None
    lock = locks.claim(path)
    assert lock is not None
    assert not guard.exists()
    lock.close()


def test_a_claim_that_was_taken_over_is_not_given_back_by_its_former_owner(path: Path) -> None:
    lock = locks.claim(path)
    claim = path.with_name("lock.claim")
    claim.write_text("another's")
    lock.close()
    assert claim.read_text() == "another's"
    assert locks.held(path), "a claim that is being written is one"
