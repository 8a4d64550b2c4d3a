"""What a sweep tells a worker, one JSON line on its standard input, and how the worker answers by its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from repro.spec import RunSpec
from repro.validation import plain, typed


class Exit(IntEnum):
    """How a worker ends, as its owner reads it."""

    DONE = 0
    """The run is at its end; its journal has the result."""
    FAILED = 1
    """Its last words say why."""
    REFUSED = 2
    """The run cannot be trained as it is asked for, and another try would end in the same; its last words say why."""
    BUSY = 75
    """Another process trains this run."""
    STOPPED = 76
    """It was told to stop; the run can be resumed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to train, and how; nothing here changes what comes out of it."""

    spec: RunSpec
    study: str
    variant: str
    folder: Path
    """`runs/<key>`: journal, checkpoint and artifacts of the run."""
    cache: Path
    """The verified cache file of the data set."""
    device: str
    threads: int
    side_by_side: int
    """Runs that the sweep trains at a time."""
    deterministic: bool
    checkpoint_seconds: float
    """Least time between two checkpoints."""
    export: bool = False
    """Whether to keep the best weights as an exported program, too: what MLflow loads and serves."""
    until: int | None = None
    """Stop after this many epochs without ending the run, for a verification of its beginning."""

    def dump(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(plain(self))

    @classmethod
    def parse(cls, line: str) -> Job:
        """The job that `dump` wrote."""
        return typed(cls, json.loads(line))
