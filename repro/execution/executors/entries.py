"""`executors.toml`: how this site's Slurm is asked for a job, under names of one's own. The file is optional.

[slurm]                       # what `--executor slurm` takes
partition = "gpu"
minutes = 240
setup = ["module load cuda"]

[debug]                       # `--executor debug`
partition = "short"
runs_per_job = 8
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field

from repro.errors import InputError, unknown
from repro.validation import Strict, validated

NAME = "executors.toml"
_LOCAL, _DEFAULT = "local", "slurm"


class Entry(Strict):
    """What a job of Slurm asks for; what is not set is not passed to sbatch."""

    partition: str | None = None
    account: str | None = None
    gres: str | None = None
    """In place of `gpu:1`, which a run on CUDA asks for."""
    memory_gb: float | None = Field(default=None, gt=0)
    minutes: int | None = Field(default=None, ge=2)
    """The time limit of a run; a job of several has their sum. It is told a minute before, 90 seconds at most."""
    options: list[str] = Field(default=[])
    """Further options of sbatch: `--qos=long`."""
    setup: list[str] = Field(default=[])
    """Lines of bash that a job begins with."""
    runs_per_job: int = Field(default=1, ge=1, le=1000)
    """Runs that share a job, one after the other."""
    timeouts: int = Field(default=10, ge=0)
    """So often a job may come to its time limit and go on in the queue; pre-emptions do not count."""


def chosen(name: str, file: Path = Path(NAME)) -> Entry | None:
    """The entry of an executor; None for `local`.

    Raises:
        InputError: there is no such entry, or the file cannot be read; one line.
    """
    entries = {}
    if file.is_file():
        try:
            entries = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read as TOML ({error})") from None
    if _LOCAL in entries:
        raise InputError(f"{file}: [{_LOCAL}] has no settings (allowed: entries of other names, for Slurm)")
    if name == _LOCAL:
        return None
    if name not in entries and name != _DEFAULT:
        raise unknown("executor", name, {_LOCAL, _DEFAULT, *entries})
    return validated(Entry, entries.get(name, {}), f"{file}: {name}")
