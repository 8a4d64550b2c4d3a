"""Sweeps that go on while a test does something to them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.starting import command, environment

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `repro WORDS` in the test's folder and does not wait; what is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(words: list[str], cwd: Path = tmp_path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*words),
            cwd=cwd,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def long_words(sweep_words: list[str]) -> Callable[[int], list[str]]:
    """`long_words(epochs)`: the sweep of the tiny study with a budget that no patience cuts short."""
    return lambda epochs: [*sweep_words[:-1], str(epochs), "--patience", str(epochs)]
