"""Train a recorded run's own spec again, and hold what comes out against what was recorded, bit for bit."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repro import journal
from repro.errors import InputError, ReproError
from repro.execution import environment
from repro.execution.job import Exit, Job
from repro.execution.process import Process
from repro.records import Environment, EpochRecord

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Verification:
    """What a second training of a recorded run showed."""

    epochs: int
    """Epochs that were trained again and compared."""
    differences: tuple[journal.Difference, ...]
    """The metrics of the first epoch that is not bit-identical; empty where all are."""
    weights: tuple[str, str] | None
    """Digest of the final weights as recorded and as trained again; None for the beginning of a run only."""
    environment: tuple[tuple[str, str, str], ...]
    """(what, recorded, here) for everything about code, versions and machine that is not the same."""

    @property
    def identical(self) -> bool:
        """Whether every metric but times, and the final weights, are the same to the last bit."""
        return not self.differences and (self.weights is None or self.weights[0] == self.weights[1])


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
        raise InputError(f"epochs: {epochs} cannot be verified; the run has recorded {len(known)}")
    if epochs is None and recorded.result is None:
        raise InputError(f"the run is not at its end; verify its {len(known)} epochs with --epochs {len(known)}")
    before = recorded.attempts[-1].environment
    here = environment.gather(
        device=before.device, threads=before.threads, side_by_side=1, deterministic=before.deterministic
    )
    attempt = recorded.attempts[0]
    with tempfile.TemporaryDirectory(prefix="repro-verify-") as name:
        folder = Path(name) / recorded.spec.key
        process = Process(before.threads)
        try:
            process.assign(
                Job(
                    spec=recorded.spec,
                    study=attempt.study,
                    variant=attempt.variant,
                    folder=folder,
                    cache=cache.absolute(),
                    environment=here,
                    diff=environment.code().diff,
                    checkpoint_seconds=float("inf"),
                    until=epochs,
                )
            )
            told = 0
            while True:
                code = process.returncode
                again = journal.read(folder)
                for record in again.epochs[told:] if again is not None else ():
                    told += 1
                    yield record
                    first = journal.differences(known[record.epoch - 1], record) if record.epoch <= len(known) else []
                    if first:
                        yield Verification(told, tuple(first), None, compare(before, here))
                        return
                if code is not None:
                    break
                time.sleep(_POLL_SECONDS)
            if code != Exit.DONE or again is None:
                raise ReproError(f"the run could not be trained again: {process.last_words()}")
        finally:
            process.kill()
        weights = None
        if recorded.result is not None and again.result is not None:
            weights = (recorded.result.weights_digest, again.result.weights_digest)
        yield Verification(told, (), weights, compare(before, here))


def compare(before: Environment, after: Environment) -> tuple[tuple[str, str, str], ...]:
    """What differs between two environments: (what, before, after), each package on its own."""
    found: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(Environment):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name == "packages":
            names = sorted({name for name in one.keys() | other.keys() if one.get(name) != other.get(name)})
            found += [(name, one.get(name, "absent"), other.get(name, "absent")) for name in names]
        elif one != other and field.name != "side_by_side":
            found.append((field.name, str(one), str(other)))
    return tuple(found)
