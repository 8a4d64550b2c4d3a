"""`repro` as a user starts it: in a process of its own, in a shell in which nothing of MLflow is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user's shell in which nothing of MLflow is set; no models, which take seconds a run."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return env | {"PYTHONPATH": str(PROJECT), "REPRO_MODELS": "none"} | dict(extra or {})


def command(*words: str) -> list[str]:
    """`repro WORDS` as a process of its own."""
    return [sys.executable, "-m", "repro", *words]
