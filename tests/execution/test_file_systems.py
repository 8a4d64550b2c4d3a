"""Sweeps on file systems that lack something: locks, or hard links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repro import journal
from tests.conftest import Repro
from tests.execution.watching import points, statuses

NO_LOCKS = """
import errno, fcntl
def flock(file, how):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
"""
LOCKS_OF_NO_USE = """
import fcntl
fcntl.flock = lambda file, how: None
"""
NO_LINKS = """
import errno, os
def link(*_, **__):
    raise PermissionError(errno.EPERM, "Operation not permitted")
os.link = link
"""


@pytest.fixture
def on(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """`on(NO_LOCKS)`: the environment in which Python finds a file system without something."""

    def changed(text: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("site")
        (folder / "sitecustomize.py").write_text(text)
        project = Path(__file__).parent.parent.parent
        return {"PYTHONPATH": f"{folder}:{project}"}

    return changed


@pytest.mark.parametrize("lacking", [NO_LOCKS, LOCKS_OF_NO_USE], ids=["none", "of no use"])
def test_without_file_locks_two_sweeps_train_each_key_once_too(
    start, repro: Repro, sweep_words, on, tmp_path, lacking
) -> None:
    env = on(lacking)
    both = [start(sweep_words, env=env) for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [len(journal.read(one).attempts) for one in journal.find(tmp_path / "runs")] == [1, 1]
    assert set(statuses(tmp_path).values()) == {"FINISHED"}
    seen = [(name, metric, step) for name, metric, step, _ in points(tmp_path)]
    assert len(seen) == len(set(seen))
    assert not list(tmp_path.rglob("*.claim")), "claims are given back"
    assert repro("status", env=env).returncode == 0


def test_a_store_is_made_on_a_file_system_without_hard_links(repro: Repro, sweep_words, on, tmp_path):
    done = repro(*sweep_words, env=on(NO_LINKS))
    assert done.returncode == 0, done.stderr
    assert set(statuses(tmp_path).values()) == {"FINISHED"}
    assert not list(tmp_path.glob("mlflow.db.new*"))
