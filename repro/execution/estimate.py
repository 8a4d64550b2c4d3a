"""How long runs will take, by the journals of earlier runs on this machine."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from repro import journal
from repro.errors import ReproError
from repro.records import Environment
from repro.spec import RunSpec, flatten


def seconds(specs: Sequence[RunSpec], runs: Path, workers: int, here: Environment) -> float | None:
    """Upper estimate of the wall time of training `specs`, `workers` at a time; None without earlier runs to go by.

    Earlier runs count that were trained on the machine, the device and as many threads as `here` names.

    An epoch is taken to last as long as in earlier runs of the same model on the same data, else as in those of the same
    network; a run is taken to use its whole budget, for its patience may never run out.
    """
    exact: dict[str, list[float]] = {}
    rough: dict[str, list[float]] = {}
    for folder in journal.find(runs):
        try:
            known = journal.read(folder)
            if known is None or not known.epochs or _machine(known.attempts[-1].environment) != _machine(here):
                continue
            typical = median(epoch.epoch_seconds for epoch in known.epochs)
            exact.setdefault(_cost(known.spec), []).append(typical)
            rough.setdefault(_kind(known.spec), []).append(typical)
        except ReproError:
            continue  # a journal that cannot be read tells nothing of time
    free_at = [0.0] * workers
    for spec in specs:  # each goes to the worker that is free first, as in a sweep
        typical_epochs = exact.get(_cost(spec)) or rough.get(_kind(spec))
        if typical_epochs is None:
            return None
        heapq.heapreplace(free_at, free_at[0] + median(typical_epochs) * spec.training.epochs)
    return max(free_at)


def _machine(environment: Environment) -> tuple[object, ...]:
    return environment.host, environment.device, environment.threads


def _cost(spec: RunSpec) -> str:
    """What the length of an epoch depends on."""
    fields = flatten(spec)
    return repr(
        [(name, value) for name, value in fields.items() if name.startswith(("model.", "data."))]
    ) + _arithmetic(spec)


def _kind(spec: RunSpec) -> str:
    return f"{spec.model.name} {spec.data.dataset} {_arithmetic(spec)}"


def _arithmetic(spec: RunSpec) -> str:
    return f"{spec.training.batch_size} {spec.training.precision}"
