"""How a sweep trains; nothing here changes what comes out of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro.execution.executors.entries import Entry
from repro.execution.job import Job
from repro.studies import PlannedRun

if TYPE_CHECKING:
    from repro.tracking.models import Which


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options of `options.running` say."""

    cache: Path
    runs: Path = Path("runs")
    device: str = "cpu"
    workers: int | None = None
    """Runs at a time; None is one a core (one on a GPU)."""
    threads: int = 1
    deterministic: bool = True
    fresh: bool = False
    """Train again what is already there; the former journals are kept beside."""
    offline: bool = False
    """Train with the journals alone, without MLflow."""
    uri: str | None = None
    experiment: str | None = None
    """Name of MLflow's experiment; None is that of the environment, else the project's."""
    models: Which = "none"
    """Which finished runs get a model in MLflow: the best run of each variant, all, or none."""
    checkpoint_seconds: float = 30.0
    patience_seconds: float = 60.0
    """How long to wait for the tracking store at the end, from its last progress."""
    executor: Entry | None = None
    """How Slurm is asked for jobs; None trains on this machine."""
    wait: bool = True
    """Follow the runs to their end; else end when they are submitted, which needs jobs that outlive the sweep."""

    def job(self, run: PlannedRun, side_by_side: int) -> Job:
        """What a worker is told of a run; `side_by_side`: so many are trained on its machine at a time."""
        return Job(
            spec=run.spec,
            study=run.study,
            variant=run.variant,
            folder=(self.runs / run.key).absolute(),
            cache=self.cache.absolute(),
            device=self.device,
            threads=self.threads,
            side_by_side=side_by_side,
            deterministic=self.deterministic,
            checkpoint_seconds=self.checkpoint_seconds,
            export=self.models != "none",
        )
