"""The paper's claims, and ours, judged by our runs.

A claim is a test of a general kind (`statements`). It is decided by differences paired by seed, on test accuracy, of rows
in one setting: supported where the 95% interval of every difference lies on the claimed side; not supported where one is
on the other side, Holm-corrected for the number of differences looked at; undecided otherwise, and with fewer than three
seeds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from repro.reporting import stats
from repro.reporting.join import Scope, describe, scope_of, scopes
from repro.reporting.measures import UNITS, Measure, difference, measured
from repro.reporting.statements import Alike, Best, Claim, Compare, Ends, Ordered, Paper, Parity, Ratio
from repro.reporting.verdicts import ENOUGH
from repro.rows import Contents, RunRow
from repro.spec import changes

Decision: TypeAlias = Literal["supported", "not supported", "undecided"]
_TIMES = {"epoch_seconds", "training_seconds"}


@dataclass(frozen=True, slots=True)
class Step:
    """One comparison that a claim rests on."""

    first: str
    second: str
    difference: stats.Estimate | None
    """first minus second, paired by seed; None where no seed has both."""
    verdict: Decision
    why: str
    against: float
    """One-sided p value of what was claimed; near 0 speaks against it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its verdict."""

    slug: str
    says: str
    section: str
    """Empty for a question of our own."""
    verdict: Decision
    why: str
    """One line: the differences with their intervals and n, or what is missing."""
    steps: tuple[Step, ...]
    run_ids: tuple[str, ...]
    """The runs that it rests on."""
    setting_id: str
    setting: str
    """The setting in words."""


def judge(paper: Paper, contents: Contents, setting: str | None = None) -> tuple[Judged, ...]:
    """Every claim of a paper, each by the runs of one setting.

    Args:
        paper: the claims.
        contents: what the store holds.
        setting: id of the setting; None is for each claim the declared protocol where it has finished runs for some of
            its rows, else the one that has them for most, the latest of equals.

    Raises:
        InputError: the store holds no sweep, or no such setting.
    """
    every = scopes(contents)
    chosen = None if setting is None else scope_of(every, setting)
    return tuple(
        _judge(slug, claim, chosen or max(every, key=lambda scope: _answered(scope, claim)))
        for slug, claim in paper.claims.items()
    )


def _answered(scope: Scope, claim: Claim) -> tuple[bool, int]:
    """How many of a claim's rows have finished runs among what was planned in a setting; the declared one comes first."""
    rows = [scope.row(name) for name in set(claim.test.rows) if name in scope.planned]
    count = sum(row is not None and bool(row.runs) for row in rows)
    return count > 0 and not changes(scope.setting), count


class _Case:
    """One claim in one scope: collects the steps and the runs that its verdict rests on."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.steps: list[Step] = []
        self.runs: dict[str, RunRow] = {}

    def step(self, first: str, second: str, measure: Measure, *, least: float = 0.0, sign: int = 1) -> Step:
        """Adds: sign * (first - second) is more than `least` (at least, where that is not 0)."""
        rows = [self.scope.row(name) for name in (first, second)]
        found, used = difference(rows[0], rows[1], measure) if rows[0] and rows[1] else (None, ())
        self.runs |= {run.run_id: run for run in used}
        verdict, why = _decide(found, measure, least, sign)
        if measure in _TIMES and len({(run.hardware, run.side_by_side) for run in used}) > 1:
            verdict, why = "undecided", f"{why}, but on different hardware or beside another number of runs"
        step = Step(first, second, found, verdict, f"{first} − {second}: {why}", _against(found, measure, sign))
        self.steps.append(step)
        return step

    def mean(self, name: str, measure: Measure) -> float | None:
        """The mean of a row over its seeds."""
        row = self.scope.row(name)
        used = [(run, v) for run in row.runs if (v := measured(run, measure)) is not None] if row else []
        self.runs |= {run.run_id: run for run, _ in used}
        return float(np.mean([value for _, value in used])) if used else None

    def best(self, names: Iterable[str], sign: int, measure: Measure) -> tuple[str | None, list[str]]:
        """The row with the highest (sign -1: lowest) mean of those that have one, and the rows that have none."""
        means = {name: self.mean(name, measure) for name in names}
        known = {name: value for name, value in means.items() if value is not None}
        lacking = [name for name in means if name not in known]
        return max(known, key=lambda name: sign * known[name], default=None), lacking


def _judge(slug: str, claim: Claim, scope: Scope) -> Judged:
    case = _Case(scope)
    match claim.test:
        case Compare(metric=measure, pairs=pairs, first=first):
            for one, other in pairs:
                case.step(one, other, measure, sign=1 if first == "higher" else -1)
            verdict, why = _all(case.steps)
        case Alike():
            verdict, why = _alike(case, claim.test)
        case Ordered():
            verdict, why = _ordered(case, claim.test)
        case Best():
            verdict, why = _best(case, claim.test)
        case Parity():
            verdict, why = _parity(case, claim.test)
        case Ratio():
            verdict, why = _ratio(case, claim.test)
        case Ends():
            verdict, why = _ends(case, claim.test)
    if isinstance(claim.test, Compare | Alike | Ordered | Best | Ratio) and claim.test.metric in _TIMES and case.runs:
        why += f" (on {', '.join(sorted({run.hardware for run in case.runs.values()}))})"
    if claim.section and getattr(claim.test, "metric", "") != "size" and (changed := changes(scope.setting)):
        verdict, why = "undecided", f"run with {', '.join(changed)}, so not in the setting of the paper; {why}"
    return Judged(
        slug=slug,
        says=claim.says,
        section=claim.section,
        verdict=verdict,
        why=why,
        steps=tuple(case.steps),
        run_ids=tuple(case.runs),
        setting_id=scope.setting_id,
        setting=describe(scope.setting),
    )


def _decide(found: stats.Estimate | None, measure: Measure, least: float, sign: int) -> tuple[Decision, str]:
    if found is None:
        return "undecided", "no seed has a finished run of both"
    unit = UNITS[measure]
    if measure == "size":  # the same whatever the seed
        return "supported" if sign * found.estimate > least else "not supported", f"{found.estimate:+.3f}{unit}"
    why = f"{found.estimate:+.2f}{unit}"
    if found.n < ENOUGH:
        return "undecided", f"{why}, n = {found.n}, {ENOUGH} seeds are needed"
    if found.low is None or found.high is None:
        return "undecided", f"{why} for each of {found.n} seeds, which tells nothing of their spread"
    why += f" (95% {found.low:+.2f} to {found.high:+.2f}, n = {found.n})"
    low, high = sorted((sign * found.low, sign * found.high))
    if low > least or low == least != 0:
        return "supported", why
    return ("not supported" if high < least else "undecided"), why


def _all(steps: Sequence[Step]) -> tuple[Decision, str]:
    if refuted := _refuted(steps):
        return "not supported", "; ".join(step.why for step in refuted)
    found = {step.verdict for step in steps}
    return "supported" if found == {"supported"} else "undecided", "; ".join(step.why for step in steps)


def _against(found: stats.Estimate | None, measure: Measure, sign: int) -> float:
    if found is None or (found.p is None and measure != "size"):
        return 1.0
    half = 0.0 if measure == "size" or found.p is None else found.p / 2
    return half if sign * found.estimate <= 0 else 1 - half


def _refuted(steps: Sequence[Step]) -> list[Step]:
    """The steps against the claim that stay so when it is counted how many were looked at."""
    corrected = stats.holm([step.against for step in steps])
    bound = (1 - stats.LEVEL) / 2
    return [step for step, p in zip(steps, corrected, strict=True) if step.verdict == "not supported" and p < bound]


def _alike(case: _Case, test: Alike) -> tuple[Decision, str]:
    """Two one-sided tests a pair: neither row is more than the margin below the other."""
    steps = [
        case.step(one, other, test.metric, least=-test.margin)
        for pair in test.pairs
        for one, other in (pair, pair[::-1])
    ]
    return _all(steps)[0], f"{'; '.join(step.why for step in steps[::2])}, margin {test.margin:g}"


def _ordered(case: _Case, test: Ordered) -> tuple[Decision, str]:
    """The ends must differ in the claimed direction and no neighbours against it; neighbours may be too close to tell."""
    sign = 1 if test.direction == "rising" else -1
    steps = [case.step(after, before, test.metric, sign=sign) for before, after in pairwise(test.rows)]
    if refuted := _refuted(steps):
        return "not supported", "; ".join(step.why for step in refuted)
    seeds = 1 if test.metric == "size" else ENOUGH
    if unknown := [step for step in steps if step.difference is None or step.difference.n < seeds]:
        return "undecided", "; ".join(step.why for step in unknown)
    ends = case.step(test.rows[-1], test.rows[0], test.metric, sign=sign) if len(steps) > 1 else steps[0]
    return ends.verdict, f"from end to end, {ends.why}; no step against it"


def _best(case: _Case, test: Best) -> tuple[Decision, str]:
    """For accuracy the best row is chosen on validation and the differences are stated on test."""
    sign = 1 if test.extreme == "highest" else -1
    chosen, lacking = case.best(test.rows, sign, "val_accuracy" if test.metric == "accuracy" else test.metric)
    if lacking:
        return "undecided", f"no finished run of {', '.join(lacking)}"
    steps = [case.step(test.row, other, test.metric, sign=sign) for other in test.others]
    verdict, _ = _all(steps)
    if verdict == "supported" and chosen != test.row:
        verdict = "undecided"
    closest = min(steps, key=lambda step: sign * step.difference.estimate if step.difference else math.inf)
    return verdict, f"{chosen} is best{' on validation' * (test.metric == 'accuracy')}; {closest.why}"


def _parity(case: _Case, test: Parity) -> tuple[Decision, str]:
    chosen, lacking = case.best(test.among, 1, "val_accuracy")
    if chosen is None:
        return "undecided", f"no finished run of {', '.join(lacking)}"
    step = case.step(chosen, test.against, "accuracy", least=-test.margin)
    missing = f"; without a finished run: {', '.join(lacking)}" if lacking else ""
    verdict = "undecided" if lacking and step.verdict == "not supported" else step.verdict  # one of those may reach it
    return verdict, f"{step.why}, margin {test.margin:g}{missing}"


def _ratio(case: _Case, test: Ratio) -> tuple[Decision, str]:
    of, to = case.mean(test.of, test.metric), case.mean(test.to, test.metric)
    if of is None or to is None:
        return "undecided", f"no finished run of {test.of if of is None else test.to}"
    ratio = of / to
    verdict: Decision = "supported" if ratio >= test.times else "not supported"
    return verdict, f"{test.of} / {test.to}: {ratio:.1f}, claimed {test.times:g}"


def _ends(case: _Case, test: Ends) -> tuple[Decision, str]:
    """One run that ends otherwise is enough against it."""
    found = {name: row.runs if (row := case.scope.row(name)) else () for name in test.rows}
    case.runs |= {run.run_id: run for runs in found.values() for run in runs}
    counts = {name: Counter(run.outcome for run in runs) for name, runs in found.items()}
    told = "; ".join(
        f"{name}: {', '.join(f'{n} {outcome}' for outcome, n in ended.items()) or 'no finished run'}"
        for name, ended in counts.items()
    )
    if any(outcome not in test.outcomes for ended in counts.values() for outcome in ended):
        return "not supported", told
    if any(ended.total() < ENOUGH for ended in counts.values()):
        return "undecided", f"{told}, {ENOUGH} runs are needed"
    return "supported", told
