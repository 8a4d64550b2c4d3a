"""The sentences of a paper held against the numbers that it prints: what contradicts them, what cannot carry them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from repro.published import decimals
from repro.reporting.printed import Printed
from repro.reporting.statements import (
    About,
    Alike,
    Best,
    Claim,
    Compare,
    Ends,
    Metric,
    Ordered,
    Parity,
    Ratio,
    Statement,
    Together,
    Uses,
)

CONTRADICTED = "text against table"
_Z = 1.96  # of a 95% interval


@dataclass(frozen=True, slots=True)
class Doubt:
    """One reason why the printed numbers do not bear out a sentence."""

    kind: str
    rows: tuple[str, ...]
    printed: str
    computed: str


def doubts(printed: Printed, said: Claim | Statement) -> Iterator[Doubt]:
    """Every doubt about a sentence.

    Raises:
        InputError: it names a row that no study declares.
    """
    match said.test:
        case Compare(metric=metric, pairs=pairs, first=first):
            for pair in pairs:
                yield from _higher(printed, *(pair if first == "higher" else pair[::-1]), metric)
        case Ordered(metric=metric, rows=rows, direction=direction):
            for low, high in pairwise(rows if direction == "rising" else rows[::-1]):
                yield from _higher(printed, high, low, metric)
        case Best(metric=metric, row=row, others=others, extreme=extreme):
            for other in others:
                yield from _higher(printed, *((row, other) if extreme == "highest" else (other, row)), metric)
        case Parity():
            yield from _parity(printed, said.test)
        case Ratio():
            yield from _ratio(printed, said.test)
        case About(metric=metric, rows=rows, value=value, within=within):
            for name in rows:
                found = printed.value(name, metric)
                if found is not None and abs(found - value) > within:
                    yield Doubt(CONTRADICTED, (name,), f"{name} {found:g}", f"{metric} is {found:g} for {name}")
        case Uses(rows=rows, setting=setting, value=value, count=count):
            for name in rows:
                has = printed.setting(name, setting)
                if has != value if count is None else len(has or ()) != count:
                    shown = f"{name} is declared with {', '.join(has) if isinstance(has, list) else has}"
                    yield Doubt(
                        "text against declaration", (name,), f"{setting} {value if count is None else count}", shown
                    )
        case Together():
            yield from _together(printed, said.test)
        case Alike(metric=metric, pairs=pairs, margin=margin):
            for pair in pairs:
                ours, theirs = (printed.value(row, metric) for row in pair)
                if ours is not None and theirs is not None and abs(ours - theirs) > margin:
                    told = f"{metric} is {ours:g} for {pair[0]} and {theirs:g} for {pair[1]}"
                    yield Doubt(CONTRADICTED, pair, f"{pair[0]} {ours:g}, {pair[1]} {theirs:g}", told)
        case Ends():
            pass  # how a run ended is not printed


def _higher(printed: Printed, high: str, low: str, metric: Metric) -> Iterator[Doubt]:
    ours, theirs = printed.value(high, metric), printed.value(low, metric)
    if ours is None or theirs is None:
        return
    numbers = f"{high} {ours:g}, {low} {theirs:g}"
    if ours <= theirs:
        yield Doubt(CONTRADICTED, (high, low), numbers, f"{metric} is {ours:g} for {high} and {theirs:g} for {low}")
    elif metric == "accuracy" and ours - theirs < _Z * (error := printed.error(ours, theirs)):
        gap = f"{high} is ahead of {low} by only {ours - theirs:.2f} points (standard error {error:.2f})"
        yield Doubt("within sampling error", (high, low), numbers, gap)


def _parity(printed: Printed, test: Parity) -> Iterator[Doubt]:
    """Against the row that is named, and those beside it in its study that are the same kind of network."""
    rows = [printed.row(name) for name in test.among]
    both = [row.accuracy if row.test_accuracy is None else row.test_accuracy for row in rows]
    reached = max((accuracy for accuracy in both if accuracy is not None), default=None)
    study, kind = test.against.partition("/")[0], printed.setting(test.against, "model.name")
    alike = [
        name for name in printed.rows if name.startswith(f"{study}/") and printed.setting(name, "model.name") == kind
    ]
    for name in alike:
        theirs = printed.value(name, "accuracy")
        if reached is not None and theirs is not None and reached < theirs - test.margin:
            numbers = f"{', '.join(test.among)} {reached:g}, {name} {theirs:g}"
            yield Doubt(CONTRADICTED, (*test.among, name), numbers, f"{name} has {theirs:g}, not {reached:g}")


def _ratio(printed: Printed, test: Ratio) -> Iterator[Doubt]:
    above, below = printed.value(test.of, test.metric), printed.value(test.to, test.metric)
    if above is not None and below is not None and not _says(test.times, above / below):
        yield Doubt("ratio", test.rows, f"{test.times:g}", f"{above:g} / {below:g} is {above / below:.1f}")
    big, small = printed.models.get(test.of), printed.models.get(test.to)
    if test.metric == "size" and big is not None and small is not None:
        real = big.size_legacy_mib / small.size_legacy_mib
        if not _says(test.times, real):
            yield Doubt("ratio", test.rows, f"{test.times:g}", f"the declared models are {real:.1f} to 1")


def _together(printed: Printed, test: Together) -> Iterator[Doubt]:
    reference = printed.row(test.against).size
    sizes = {name: row.size for name, row in printed.rows.items() if row.size is not None}
    times = {name: reference / size for name, size in sizes.items()} if reference is not None else {}
    accurate = [name for name, row in printed.rows.items() if test.accuracy in {row.accuracy, row.test_accuracy}]
    small = [name for name, ratio in times.items() if _says(test.reduction, ratio)]
    if not set(accurate) & set(small):
        first = ", ".join(f"{name} ({times[name]:.1f} times smaller)" for name in accurate if name in times)
        second = ", ".join(f"{name} ({_accuracies(printed, name)})" for name in small)
        yield Doubt(
            kind="numbers of different rows",
            rows=tuple(dict.fromkeys([*accurate, *small])),
            printed=f"{test.accuracy:g}%, {test.reduction:g} times",
            computed=f"{test.accuracy:g}% belongs to {first or 'no row'}, {test.reduction:g} times to {second or 'no row'}",
        )


def _accuracies(printed: Printed, name: str) -> str:
    row = printed.row(name)
    return " and ".join(f"{one:g}%" for one in (row.accuracy, row.test_accuracy) if one is not None)


def _says(printed: float, computed: float) -> bool:
    """Whether a number may be printed so: rounded or cut off at its last digit."""
    scale = 10 ** decimals(printed)
    return round(printed * scale) in {round(computed * scale), math.floor(computed * scale)}
