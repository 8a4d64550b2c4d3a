from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from repro import owner


def test_this_process_lives() -> None:
    assert owner.alive(owner.me()) is True


def test_a_process_that_ended() -> None:
    text = "from repro import owner; print(owner.me(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        tag = other.stdout.readline()
        assert owner.alive(tag) is True
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert owner.alive(tag) is False  # a zombie: its parent has not asked for its end yet
        other.wait()
        assert owner.alive(tag) is False


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"started": "1"}, False),  # another process has its pid now
        ({"boot": "before"}, False),  # the machine was started anew
        ({"host": "elsewhere"}, None),
        ({"machine": "another that is called the same", "boot": "its own"}, None),
        ({"boot": 1}, None),
        ({"pids": "pid:[1]"}, None),  # another container's
    ],
)
def test_owners_told_apart(change: dict[str, str], expected: bool | None) -> None:
    assert owner.alive(json.dumps(json.loads(owner.me()) | change)) is expected


def test_a_tag_that_names_no_machine_is_of_this_one() -> None:
    fields = json.loads(owner.me())
    del fields["machine"]
    assert owner.alive(json.dumps(fields)) is True


def test_a_process_that_is_hidden_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /proc's option hidepid, for a process of another user."""
    monkeypatch.setattr(owner, "_started", lambda pid: None)
    assert owner.alive(json.dumps(json.loads(owner.me()) | {"pid": 2**22 + 1})) is False

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert owner.alive(owner.me()) is None


def test_without_proc_nothing_that_may_live_is_taken_for_gone(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(owner, "_PROC", tmp_path / "none")
    monkeypatch.setattr(owner, "_machine", owner._machine.__wrapped__)
    tag = owner.me()
    assert owner.alive(tag) is None
    assert owner.alive(json.dumps(json.loads(tag) | {"pid": 2**22 + 1})) is False


def test_a_process_may_be_called_anything(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    name = tmp_path / b"caf\xe9".decode(errors="surrogateescape")
    name.symlink_to("/bin/sleep")
    with subprocess.Popen([name, "60"]) as process:
        assert owner._started(process.pid) is not None
        process.kill()


@pytest.mark.parametrize("tag", [None, "", "{}", "somebody", '{"pid": "x"}', "[1]"])
def test_tags_that_say_nothing(tag: str | None) -> None:
    assert owner.alive(tag) is None
