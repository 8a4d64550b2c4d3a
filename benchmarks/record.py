"""The record of past figures: a JSON object a line, appended by the harness alone. benchmarks/README.md has its schema."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repro.execution import environment

SCHEMA = 1
RECORD = Path(__file__).parent / "record.jsonl"
_PACKAGES = ("torch", "torchvision", "mlflow", "lightning", "adabound", "numpy")
Record = dict[str, Any]
Measurement = dict[str, Any]


def make(asked: dict[str, Any], load: Sequence[float], measurements: Sequence[Measurement]) -> Record:
    """What was measured, with the machine and the code it was measured on.

    Args:
        asked: options of the harness.
        load: the system's load average right before each round: what else was running.
        measurements: each names its `part`.
    """
    here = environment.gather(device="cpu", threads=1, side_by_side=environment.cores(), deterministic=True)
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": here.commit,
        "dirty": here.dirty,
        "machine": {
            "hardware": here.hardware,
            "cores": environment.cores(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "platform": here.platform,
            "python": here.python,
            "packages": {name: here.packages[name] for name in _PACKAGES if name in here.packages},
        },
        "asked": asked,
        "load": [round(value, 2) for value in load],
        "measurements": list(measurements),
    }


def read(path: Path = RECORD) -> list[Record]:
    """All records, oldest first; none where nothing was measured yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def append(record: Record, path: Path = RECORD) -> None:
    """Adds a record."""
    with path.open("a") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")
