"""Which job a run was submitted as: `job.json` beside its journal, for a sweep that is started again and for `repro status`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from repro.execution import disk
from repro.records import Environment
from repro.studies import PlannedRun

NAME = "job.json"


@dataclass(frozen=True, slots=True)
class Submission:
    """A run's last job that outlives its sweep."""

    id: str
    """What the executor's `attach` takes: a job's number and the run's key."""
    commit: str
    diff_digest: str
    """Of the code when it was submitted, as in a run's environment."""
    entries: int = 0
    """Of its journal when it was submitted: an attempt after these is the job's."""
    name: str = ""
    """Study, variant, seed and fold."""
    epochs: int = 0
    """The budget."""

    @classmethod
    def of(cls, run: PlannedRun, id: str, here: Environment, entries: int) -> Submission:
        """What is noted of a run that is submitted `here`."""
        name = f"{run.study}/{run.name}"
        return cls(id, here.commit, here.diff_digest, entries, name, run.spec.training.epochs)

    @property
    def job(self) -> str:
        """The job's number."""
        return self.id.partition("/")[0]


def write(folder: Path, submission: Submission | None) -> None:
    """Notes the job of a run; None: it has none any more."""
    if submission is None:
        (folder / NAME).unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    disk.write(folder / NAME, json.dumps(asdict(submission)).encode())


def read(folder: Path) -> Submission | None:
    """The job of a run; None where it has none."""
    return disk.record(Submission, folder / NAME)
