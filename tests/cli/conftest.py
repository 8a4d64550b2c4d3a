"""`mlflow run` as a user types it: a copy of the project as git has it, and the shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro.tracking.project import link_environment
from tests.starting import PROJECT, environment


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files as they are now, in a folder of their own, with no store and no data."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    copy = tmp_path_factory.mktemp("clone") / "project"
    for name in listed:
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def linked(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shell in which set-up has run for the clone, and there is no pyenv."""
    roots = tmp_path_factory.mktemp("environments")
    link_environment(clone, Path(sys.prefix), roots)
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if "pyenv" not in folder]
    env = environment(
        {"MLFLOW_ENV_ROOT": str(roots), "PATH": os.pathsep.join([str(Path(sys.executable).parent), *path])}
    )
    del env["PYTHONPATH"]
    return env
