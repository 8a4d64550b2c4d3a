"""The published numbers held against our runs: one verdict for each accuracy and each size.

A published accuracy is one run on a half of its own of the images that we halve, too, so it is held against the prediction
interval of one new run, not against the interval of our mean. Epochs and seconds get no verdict: they depend on the machine
and on chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from repro.published import size_unit
from repro.reporting import stats
from repro.reporting.join import Row, Table, metric
from repro.spec import Value, changes

ENOUGH = 3
"""Runs without which nothing is decided."""

Number: TypeAlias = Literal["accuracy", "accuracy_at_most", "test_accuracy", "size"]
Outcome: TypeAlias = Literal["consistent", "above", "below", "undecided", "fits", "differs"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One published number beside ours; accuracies in percent, sizes in MiB."""

    row: str
    """`study/variant`."""
    number: Number
    published: float
    ours: stats.Estimate | None
    """Our mean with its prediction interval, or our size; None where nothing is finished."""
    verdict: Outcome
    """above, below: where the published number lies, seen from the interval; fits, differs: of sizes."""
    why: str
    """One line for the reader, numbers included."""


def verdicts(table: Table) -> tuple[Verdict, ...]:
    """Every verdict of a table, row by row."""
    return tuple(
        found for row in table.rows for found in (*accuracies(row, table.setting), size(row)) if found is not None
    )


def accuracies(row: Row, setting: Mapping[str, Value]) -> tuple[Verdict, ...]:
    """A verdict for each accuracy published for a row: the tables' one is held against best validation accuracy."""
    published = row.published
    _, val_images, test_images = row.known.images
    numbers: tuple[tuple[Number, float | None, str, int], ...] = (
        ("accuracy", published.accuracy, "best_val_accuracy", val_images),
        ("accuracy_at_most", published.accuracy_at_most, "best_val_accuracy", val_images),
        ("test_accuracy", published.test_accuracy, "test_accuracy", test_images),
    )
    made = []
    for number, value, name, images in numbers:
        if value is not None:
            shares = [share for run in row.runs if (share := metric(run, name)) is not None]
            ours = stats.in_percent(stats.prediction(shares, images, of=val_images + test_images)) if shares else None
            verdict, why = _held_against(ours, number, value, setting)
            made.append(Verdict(row.name, number, value, ours, verdict, why))
    return tuple(made)


def size(row: Row) -> Verdict | None:
    """Whether our model has the published size; None where none was published."""
    published, mib = row.published.size, _mib(row)
    if published is None:
        return None
    if mib is None:
        return Verdict(row.name, "size", published, None, "undecided", "no finished run")
    unit = size_unit(published, mib)
    printed = "" if unit == "MiB" else f", printed in {unit}"
    return Verdict(
        row=row.name,
        number="size",
        published=published,
        ours=stats.Estimate(mib, None, None, len(row.runs), "MiB of the state dict in torch's format before 1.6"),
        verdict="differs" if unit is None else "fits",
        why=f"ours has {mib:.3f} MiB" + (f"; {row.note}" * bool(row.note) if unit is None else printed),
    )


def reduction(row: Row, reference: Row | None) -> float | None:
    """How many times smaller a row's model is than the reference's; None until both have a finished run."""
    ours, theirs = _mib(row), None if reference is None else _mib(reference)
    return None if ours is None or theirs is None else theirs / ours


def _held_against(
    ours: stats.Estimate | None, number: Number, published: float, setting: Mapping[str, Value]
) -> tuple[Outcome, str]:
    if ours is None:
        return "undecided", "no finished run"
    if other := changes(setting):
        return "undecided", f"run with {', '.join(other)}, so not in the setting of the published number"
    if ours.n < ENOUGH or ours.low is None or ours.high is None:
        return "undecided", f"n = {ours.n}, {ENOUGH} runs are needed"
    interval = f"{ours.low:.2f} to {ours.high:.2f}"
    if published < ours.low:
        return "below", f"the published {published:g} lies below {interval}"
    if published > ours.high and number != "accuracy_at_most":
        return "above", f"the published {published:g} lies above {interval}"
    if not 0 <= ours.low <= ours.high <= 100:
        return "undecided", f"one more run is expected in {interval}, which is too wide to stay within 0 to 100"
    if number == "accuracy_at_most":
        return "consistent", f"at most {published:g} was published, a run of ours is expected in {interval}"
    return "consistent", f"the published {published:g} lies in {interval}, {ours.high - ours.low:.2f} points wide"


def _mib(row: Row) -> float | None:
    return next((mib for run in row.runs if (mib := metric(run, "model_size_legacy_mib")) is not None), None)
