"""The claims of a paper, or of a study of one's own, judged by runs; and the headline of a report.

A claim is one thing: contrasts of two rows in a metric, each tested against a margin, all of them or any of them. All of:
supported where every contrast is (an intersection-union test, which needs no correction), not supported where one is
against it after Holm's correction. Any of: the reverse. The 95% interval of a contrast lies wholly on the side that decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from repro import declarations, studies
from repro.errors import InputError, unknown
from repro.published import Claim, Contrast, Ends, Metric, Paper, Ratio
from repro.reporting import samplesize, stats
from repro.reporting.frame import Row, Run
from repro.reporting.join import Setting, Table
from repro.reporting.stats import TAIL, Estimate
from repro.reporting.verdicts import ACCURACIES, ENOUGH, Noises, failed, failures, noises_of
from repro.studies import DECLARATIONS
from repro.validation import validated

Decision: TypeAlias = Literal["supported", "not supported", "undecided"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""In the order in which a report has them."""
_WORDS: Mapping[Metric, tuple[str, str, str]] = {
    "val": ("points", "more accurate", "less accurate"),
    "test": ("points", "more accurate", "less accurate"),
    "gap": ("points", "further apart on training and validation", "closer on training and validation"),
    "size": ("MiB", "larger", "smaller"),
    "best_epoch": ("epochs", "later at its best epoch", "earlier at its best epoch"),
    "epoch_seconds": ("s", "slower per epoch", "faster per epoch"),
    "training_seconds": ("s", "slower until its best epoch", "faster until its best epoch"),
}
FOREIGN = "with the spread of other networks; two runs of either are needed"
"""Why a difference of single runs is undecided, see `Noises.foreign`."""
_TIMES = ("epoch_seconds", "training_seconds")


def load(path: Path | None = None) -> Paper:
    """The claims in a YAML file; without one, those of the paper that the declared studies follow.

    Raises:
        InputError: broken YAML, a declaration that is not valid, or a row that no declared study has.
    """
    path = path or DECLARATIONS / "claims" / "paper.yaml"
    paper = validated(Paper, declarations.read(path), str(path))
    for slug, name in paper.claimed:
        owner, _, variant = name.partition("/")
        known = studies.load_base(owner, f"{path}: claims.{slug}").variants
        if variant not in known:
            raise InputError(f"{path}: claims.{slug}: {unknown(f'variant of {owner}', variant, known)}")
    return paper


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its verdict."""

    slug: str
    says: str
    section: str
    """The section of the paper; empty for your own claim."""
    verdict: Decision
    why: str
    """One line: the differences with their intervals, n, and what n can tell."""
    statistic: float | None
    """The difference (or ratio) that decided, with its unit and interval."""
    low: float | None
    high: float | None
    unit: str
    margin: float | None
    n: int
    """Runs of the smaller of the two rows that decided."""
    needed: str
    """The smallest n that would decide ("5 seeds per row"), or empty where it is decided."""
    setting: Setting
    runs: tuple[Run, ...]
    """Those of all its rows, each once."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One contrast with what the runs say of it."""

    why: str
    found: Estimate | None = None
    support: float = 1.0
    """One-sided p value; near 0 supports the contrast."""
    against: float = 1.0
    """One-sided p value; near 0 speaks against it."""
    needed: int | None = None
    """The fewest runs of either row that would decide; None: more than `samplesize.MOST`, or unknown."""
    leans: bool = True
    """Whether the estimate itself is on the claimed side."""


def judge(paper: Paper, tables: Sequence[Table]) -> tuple[Judged, ...]:
    """The claims about rows of some tables, each by the runs of one setting of these tables.

    Of several settings it is the declared one if that has runs for the claim, else the one with most of its rows.

    Args:
        paper: claims about the paper's studies; a study's own claims come with its table.
        tables: what was asked for.
    """
    judged = []
    for slug, claim, asked in _asked(paper, tables):
        answered = {one.id: sum(bool(row.runs) for row in one.known(claim.rows)) for one in asked}
        setting = max(asked, key=lambda one: (answered[one.id] > 0 and not one.changes, answered[one.id]))
        judged.append(_judge(slug, claim, setting, noises_of(setting)))
    return tuple(judged)


def _asked(paper: Paper, tables: Sequence[Table]) -> Iterator[tuple[str, Claim, list[Setting]]]:
    """Every claim about some rows of the tables, with the settings of these tables."""
    for slug, claim in paper.claims.items():
        of = {name.partition("/")[0] for name in claim.about}
        if asked := [table.setting for table in tables if table.study.study in of]:
            yield slug, claim, asked
    for table in tables:
        for slug, claim in table.study.claims.items():
            yield slug, claim, [table.setting]


def _judge(slug: str, claim: Claim, setting: Setting, noises: Noises) -> Judged:
    rows = setting.known(claim.rows)
    if claim.ratio is not None:
        steps = [_ratio(claim.ratio, setting)]
    elif claim.ends is not None:
        steps = [_ends(claim.ends, rows)]
    else:
        steps = [_contrast(one, claim, setting, noises) for one in claim.contrasts]
    verdict, why, shown = _together(claim, steps)
    found, counts = shown[0].found, [one.found.n for one in shown if one.found]
    if claim.section and claim.metric != "size" and claim.ratio is None and setting.changes:
        verdict, why = "undecided", f"run with {', '.join(setting.changes)}, not in the setting of the paper; {why}"
    needed = ""
    known = all(one.found and one.found.error and not one.found.folded for one in steps)
    if verdict == "undecided" and known and not (claim.section and setting.changes):
        n = _needed(claim, steps)
        needed = f"{f'more than {samplesize.MOST:,}' if n is None else n} seeds per row"
    return Judged(
        slug=slug,
        says=claim.says,
        section=claim.section,
        verdict=verdict,
        why=f"{why}; {needed} would decide it if the means stay the same" if needed else why,
        statistic=None if found is None else found.estimate,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        unit="times" if claim.ratio else _WORDS[claim.metric][0],
        margin=claim.ratio.times if claim.ratio else None if claim.ends else claim.margin,
        n=min(counts, default=min((len(row.runs) for row in rows), default=0)),
        needed=needed,
        runs=tuple({run.record.run_id: run for row in rows for run in row.runs}.values()),
        setting=setting,
    )


def _together(claim: Claim, steps: Sequence[_Step]) -> tuple[Decision, str, list[_Step]]:
    """The verdict over all contrasts, what it rests on, and the contrasts that decided or are open, the first one first."""
    support, against = [one.support for one in steps], [one.against for one in steps]
    if claim.any:
        supported, refuted = min(stats.holm(support)) < TAIL, max(against) < TAIL
    else:
        supported, refuted = max(support) < TAIL, min(stats.holm(against)) < TAIL
    weakest = sorted(steps, key=lambda one: -one.support)
    if supported:
        shown = weakest[::-1] if claim.any else weakest
    elif refuted:
        shown = sorted((one for one in steps if one.against < TAIL), key=lambda one: one.against)
    else:
        shown = [one for one in (weakest[::-1] if claim.any else weakest) if one.support >= TAIL]
        if claim.any:
            shown.sort(key=lambda one: one.against < TAIL)  # what is refuted is open no more
    reasons = list(dict.fromkeys(one.why for one in shown))
    told = "; ".join(reasons[:2]) + (f"; and {len(reasons) - 2} more" if len(reasons) > 2 else "")
    if not supported and not refuted and min(support if claim.any else against) < TAIL:
        told += f"; Holm's correction for {len(steps)} comparisons leaves it open"
    verdict: Decision = "supported" if supported else "not supported" if refuted else "undecided"
    one_decides = supported if claim.any else refuted
    return verdict, told, shown[:1] if one_decides else shown


def _contrast(contrast: Contrast, claim: Claim, setting: Setting, noises: Noises) -> _Step:
    first, second = setting.row(contrast.first), setting.row(contrast.second)
    if first is None or not first.runs:
        return _Step(f"no finished run of {contrast.first if first is None else first.named}")
    if second is None or not second.runs:
        return _Step(f"no finished run of {contrast.second if second is None else second.named}")
    sign, margin = -1 if claim.direction == "lower" else 1, contrast.margin
    if claim.metric == "size":
        if first.size is None or second.size is None:
            return _Step(f"no size of {(first if first.size is None else second).named}")
        difference = first.size - second.size
        holds = abs(difference) < margin if claim.direction == "alike" else sign * difference > margin
        exact = Estimate(difference, None, None, min(len(first.runs), len(second.runs)), "size of the saved model")
        return _Step(told(first, second, exact, "size"), exact, float(not holds), float(holds))
    if how := [f"{row.named}: {text}" for row in (first, second) if (text := failed(row))]:
        both = len(how) == 2
        clear = claim.metric in {"val", "test"} and not both and min(len(first.runs), len(second.runs)) >= ENOUGH
        holds = bool(failed(second)) == (sign > 0) and claim.direction != "alike"
        return _Step("; ".join(how), None, float(not (clear and holds)), float(not (clear and not holds)))
    found = noises.difference(first, second, claim.metric)
    if found is None:
        return _Step(f"no {claim.metric} of {first.named} or {second.named}")
    why = told(first, second, found, claim.metric)
    for row in (first, second):
        why += f"; {row.named}: {ends}, left out" if (ends := failures(row)) else ""
    machines = {(run.record.hardware, run.record.side_by_side) for row in (first, second) for run in row.runs}
    if claim.metric in _TIMES and len(machines) > 1:
        return _Step(f"{why}, but on different hardware or with another number of concurrent runs")
    if claim.direction == "alike":
        support = max(found.p_beyond(margin, -1), found.p_beyond(-margin))
        against, ahead = min(found.p_beyond(margin), found.p_beyond(-margin, -1)), margin - abs(found.estimate)
    else:
        support, against = found.p_beyond(sign * margin, sign), found.p_beyond(sign * margin, -sign)
        ahead = sign * found.estimate - margin
    corrected = (ahead > 0) == (claim.any is not None)  # Holm's side: one of the contrasts is enough
    tests = len(claim.contrasts) if corrected else 1
    noise = noises.pair(first, second, claim.metric)
    needed = None if found.folded else samplesize.runs_to_tell(abs(ahead), *noise, tests)
    if claim.metric in ACCURACIES and noises.foreign(first, second, found):
        why, support, against = f"{why}, {FOREIGN}", 1.0, 1.0
    return _Step(
        why + (f", margin {margin:g}".replace("-", "−") if margin else ""), found, support, against, needed, ahead > 0
    )


def told(first: Row, second: Row, found: Estimate, metric: Metric) -> str:
    """A difference in words: "SqueezeNet is 1.71 points less accurate than AlexNet (95% interval ...)"."""
    unit, more, less = _WORDS[metric]
    word = more if found.estimate > 0 else less
    told = f"{first.named} is {abs(found.estimate):.2f} {unit} {word} than {second.named}"
    if abs(found.estimate) < 0.005:
        told = f"{first.named} and {second.named} differ by less than 0.005 {unit}"
    if metric == "size":
        return told
    if found.low is None or found.high is None:
        return f"{told} (n = {found.n}, the spread over seeds is unknown)"
    low, high = (f"{value:+.2f}".replace("-", "−") for value in (found.low, found.high))
    return f"{told} (95% {low} to {high}, {'folds' if found.folded else 'n'} = {found.n})"


def _ratio(claimed: Ratio, setting: Setting) -> _Step:
    of, to = setting.row(claimed.of), setting.row(claimed.to)
    if of is None or to is None or of.size is None or to.size is None:
        return _Step("both rows need a finished run")
    times = of.size / to.size
    why = f"{of.named} is {times:.1f} times as large as {to.named}; the claim is {claimed.times:g} times"
    found = Estimate(times, None, None, min(len(of.runs), len(to.runs)), "sizes of the saved models")
    return _Step(why, found, support=float(times < claimed.times), against=float(times >= claimed.times))


def _ends(claimed: Ends, rows: Sequence[Row]) -> _Step:
    """One run that ends otherwise is enough against it."""
    counts = [Counter(run.record.outcome for run in row.runs) for row in rows]
    why = "; ".join(
        f"{row.named}: {', '.join(f'{n} {outcome}' for outcome, n in ends.items()) or 'no finished run'}"
        for row, ends in zip(rows, counts, strict=True)
    )
    if any(outcome not in claimed.outcomes for ends in counts for outcome in ends):
        return _Step(why, against=0.0)
    if len(rows) < len(claimed.rows) or any(ends.total() < ENOUGH for ends in counts):
        return _Step(f"{why}; {ENOUGH} runs per row are needed")
    return _Step(why, support=0.0)


def _needed(claim: Claim, steps: Sequence[_Step]) -> int | None:
    """The fewest runs a row that would decide if all means stay: by one contrast that can, else by all of them."""
    enough = [one for one in steps if one.leans == (claim.any is not None)]
    runs = [one.needed or samplesize.MOST + 1 for one in enough or steps]
    n = min(runs) if enough else max(runs)
    return n if n <= samplesize.MOST else None
