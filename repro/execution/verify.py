"""Train a recorded run's own spec again, and hold what comes out against what was recorded, bit for bit."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro import journal
from repro.errors import InputError, ReproError, shown
from repro.execution.executors.local import Local
from repro.execution.job import Exit, Job
from repro.records import EPOCH_METRICS, RESULT_METRICS, Environment, EpochRecord, RunResult
from repro.tracking.stored import number

if TYPE_CHECKING:
    from repro.tracking.stored import Points

_POLL_SECONDS = 0.05
_TIMES = {"epoch_seconds", "mean_epoch_seconds"}
_UNSAID = {"step", "step_reason", "training"}  # by journals of earlier versions


@dataclass(frozen=True, slots=True)
class Verification:
    """What a second training of a recorded run showed."""

    epochs: int
    """Epochs that were trained again and compared."""
    complete: bool
    """Whether the end was compared, too: the final weights, metrics of the test split, sizes, outcome."""
    differences: tuple[str, ...]
    """What is not bit-identical, a line each, times left aside: in the first epoch that differs, else at the end."""
    environment: tuple[tuple[str, str, str], ...]
    """(what, recorded, here) for everything about code, versions and machine that is not the same as in some attempt."""


def verify(recorded: journal.Journal, cache: Path, epochs: int | None = None) -> Iterator[EpochRecord | Verification]:
    """Trains a run again in a folder of its own; yields each epoch as it ends, at last the `Verification`.

    Args:
        recorded: journal of a run that has at least one epoch.
        cache: the verified cache file of its data set.
        epochs: compare the first ones only; None is all, and the final weights.

    Raises:
        InputError: the run has no epoch to compare with, or not as many.
        ReproError: the training failed here.
    """
    known = recorded.epochs
    if not known or (epochs is not None and not 1 <= epochs <= len(known)):
        raise InputError(f"epochs: {epochs} cannot be verified; the run recorded {len(known)}")
    if epochs is None and recorded.result is None:
        raise InputError(f"the run is not finished; verify its {len(known)} epochs with --epochs {len(known)}")
    before = recorded.attempts[-1].environment
    attempt = recorded.attempts[0]
    with tempfile.TemporaryDirectory(prefix="repro-verify-") as name:
        folder = Path(name) / recorded.spec.key
        job = Job(
            spec=recorded.spec,
            study=attempt.study,
            variant=attempt.variant,
            folder=folder,
            cache=cache.absolute(),
            device=before.device,
            threads=before.threads,
            side_by_side=1,
            deterministic=before.deterministic,
            checkpoint_seconds=float("inf"),
            until=epochs,
        )
        (process,) = Local(1, before.threads).submit([job])
        try:
            told, differs, code = 0, list[str](), None
            while code is None and not differs:
                time.sleep(_POLL_SECONDS)
                code = process.exit()
                again = journal.read(folder)
                for record in again.epochs[told:] if again is not None else ():
                    told += 1
                    yield record
                    if record.epoch > len(known):
                        break  # the result says how many there were
                    for one in journal.differences(known[record.epoch - 1], record):
                        differs.append(_line(f"epoch {one.epoch}: {one.metric}", one.recorded, one.retrained))
                    if differs:
                        break
            if again is None or (code != Exit.DONE and not differs):
                raise ReproError(f"the run could not be retrained: {process.last_words()}")
        finally:
            process.kill()
        complete = epochs is None and not differs
        if complete and recorded.result is not None and again.result is not None:
            differs = list(_ends(recorded.result, again.result))
        here = again.attempts[-1].environment
        changed = dict.fromkeys(one for there in recorded.environments for one in compare(there, here))
        yield Verification(told, complete, tuple(differs), tuple(changed))


def in_store(recorded: journal.Journal, points: Mapping[str, Points], metrics: Mapping[str, float]) -> Iterator[str]:
    """What a store says otherwise than the journal that it was fed from, a line each; times are left aside.

    Args:
        recorded: the journal.
        points: metric -> its points in the store, (n, 3): step, time, value.
        metrics: the latest value of every metric there.
    """
    for name in EPOCH_METRICS:
        stored: dict[int, list[float]] = {}
        for step, _, value in points[name].tolist() if name in points else ():
            stored.setdefault(int(step), []).append(number(value))
        for record in recorded.epochs if name not in _TIMES else ():
            found, value = stored.get(record.epoch, []), getattr(record, name)
            if len(found) != 1 or not _same(found[0], value):
                there = ", ".join(map(repr, found)) or "missing"
                yield f"epoch {record.epoch}: {name} is {there} in the store and {value!r} in the journal"
    for name in RESULT_METRICS if recorded.result is not None else ():
        kept, value = metrics.get(name), float(getattr(recorded.result, name))
        if name not in _TIMES and (kept is None or not _same(kept, value)):
            there = "missing" if kept is None else repr(kept)
            yield f"at the end: {name} is {there} in the store and {value!r} in the journal"


def _ends(recorded: RunResult, again: RunResult) -> Iterator[str]:
    """Everything but times in which two ends of one run differ, a line each."""
    for field in dataclasses.fields(RunResult):
        before, after = getattr(recorded, field.name), getattr(again, field.name)
        if field.name in {"confusion", "outcome"} and before != after:
            yield f"at the end: {field.name} was {shown(before)} and is {shown(after)}"
        elif field.name in RESULT_METRICS and field.name not in _TIMES and not _same(before, after):
            yield _line(f"at the end: {field.name}", before, after)
    if recorded.weights_digest != again.weights_digest:
        digests = f"{recorded.weights_digest[:16]} recorded, {again.weights_digest[:16]} here"
        yield f"the final weights differ: digest {digests}"


def _line(what: str, before: float, after: float) -> str:
    return f"{what} was {before!r} and is {after!r} (by {abs(after - before):.3g})"


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def compare(before: Environment, after: Environment) -> tuple[tuple[str, str, str], ...]:
    """What differs between two environments: (what, before, after), each package on its own."""
    found: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(Environment):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name == "packages":
            names = sorted({name for name in one.keys() | other.keys() if one.get(name) != other.get(name)})
            found += [(name, one.get(name, "absent"), other.get(name, "absent")) for name in names]
        elif one != other and field.name != "side_by_side" and not (field.name in _UNSAID and "" in (one, other)):
            found.append((field.name, str(one), str(other)))
    return tuple(found)
