"""`repro` as a user starts it: in a process of its own, in a shell in which nothing of MLflow is set."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
MLFLOW = str(Path(sys.executable).parent / "mlflow")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user's shell in which nothing of MLflow is set; no models, which take seconds a run."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return env | {"PYTHONPATH": str(PROJECT), "REPRO_MODELS": "none"} | dict(extra or {})


def command(*words: str) -> list[str]:
    """`repro WORDS` as a process of its own."""
    return [sys.executable, "-m", "repro", *words]


def given(*parameters: str) -> list[str]:
    """The parameters of `mlflow run`: `-P name=value` for each."""
    return [word for parameter in parameters for word in ("-P", parameter)]


@contextlib.contextmanager
def served(service: Callable[[Path], Any]) -> Iterator[Any]:
    """A service that runs inside, in a folder with a short path: the name of a socket is short."""
    folder = Path(tempfile.mkdtemp(prefix="repro-"))
    running = service(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
