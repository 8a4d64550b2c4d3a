"""Sweeps on file systems that lack something: locks, or hard links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Repro
from tests.execution.watching import statuses

NO_LOCKS = """
import errno, fcntl
def flock(file, how):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
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


@pytest.mark.parametrize("words", [["sync"], ["--offline"]])
def test_a_file_system_without_locks_is_said(repro: Repro, sweep_words, on, tmp_path, words):
    (tmp_path / "runs").mkdir()
    asked = words if words == ["sync"] else [*sweep_words, "--offline", "true"]
    done = repro(*asked, env=on(NO_LOCKS))
    assert done.returncode == 1 + (words == ["sync"])
    said = done.stderr + done.stdout
    assert "its file system has no file locks" in said
    assert "Traceback" not in said
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_is_made_on_a_file_system_without_hard_links(repro: Repro, sweep_words, on, tmp_path):
    done = repro(*sweep_words, env=on(NO_LINKS))
    assert done.returncode == 0, done.stderr
    assert set(statuses(tmp_path).values()) == {"FINISHED"}
    assert not list(tmp_path.glob("mlflow.db.new*"))
