from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from repro.tracking import owner


def test_this_process_lives() -> None:
    assert owner.alive(owner.me()) is True


def test_a_process_that_ended() -> None:
    text = "from repro.tracking import owner; print(owner.me(), flush=True); input()"
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
        ({"pids": "pid:[1]"}, None),  # another container's
    ],
)
def test_owners_told_apart(change: dict[str, str], expected: bool | None) -> None:
    assert owner.alive(json.dumps(json.loads(owner.me()) | change)) is expected


@pytest.mark.parametrize("tag", [None, "", "{}", "somebody", '{"pid": "x"}', "[1]"])
def test_tags_that_say_nothing(tag: str | None) -> None:
    assert owner.alive(tag) is None
