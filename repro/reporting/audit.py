"""Are the numbers that a paper prints consistent with one another? A few general checks; no run is needed.

    studies (printed numbers, declared settings) + statements (sentences as tests) + models (parameters, sizes) ─► findings

Nothing here knows a paper: the same checks run over any studies and statements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repro import studies as declared_studies
from repro.published import decimals, size_unit
from repro.reporting.printed import Model, Printed
from repro.reporting.sentences import CONTRADICTED, Doubt, doubts
from repro.reporting.statements import Claim, Paper, Statement
from repro.studies import Study

UNLIKELY = 0.001
"""Probability below which a pattern of digits is not put down to chance."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency."""

    kind: str
    where: tuple[str, ...]
    """Rows (`study/variant`) and sections (`section 5.1`)."""
    printed: str
    computed: str
    sentence: str
    """All of it in one plain sentence."""


def audit(paper: Paper, studies: Sequence[Study], models: Mapping[tuple[str, str], Model]) -> tuple[Finding, ...]:
    """Every inconsistency that the checks find, check by check.

    Args:
        paper: the statements of the running text.
        studies: the declared studies with the printed numbers.
        models: (study, variant) -> what its architecture is; rows that it lacks are not held against it.

    Raises:
        InputError: a statement names a row that no study declares.
    """
    printed = Printed(paper, studies, models)
    checks: tuple[Callable[[Printed], Iterator[Finding]], ...] = (
        _sentences,
        _text_against_table,
        _impossible_means,
        _single_runs,
        _copied,
        _bounds,
        _sizes,
        _equal_sizes,
        _times,
        _uneven_training,
        _missing_base,
    )
    return tuple(finding for check in checks for finding in check(printed))


def _sentences(printed: Printed) -> Iterator[Finding]:
    """One finding for a sentence and a kind of doubt; who is contradicted need not be told how narrowly he is right."""
    said: tuple[Claim | Statement, ...] = (*printed.paper.claims.values(), *printed.paper.statements.values())
    for one in said:
        by_kind: dict[str, list[Doubt]] = {}
        for doubt in doubts(printed, one) if one.section else ():  # a question of our own is not the paper's
            by_kind.setdefault(doubt.kind, []).append(doubt)
        if CONTRADICTED in by_kind:
            by_kind.pop("within sampling error", None)
        for kind, found in by_kind.items():
            rows = dict.fromkeys(row for doubt in found for row in doubt.rows)
            computed = "; ".join(doubt.computed for doubt in found)
            section = f"section {one.section}" if one.section[0].isdigit() else one.section
            numbers = "; ".join(dict.fromkeys(doubt.printed for doubt in found))
            yield Finding(kind, (section, *rows), numbers, computed, f"It says that {one.says}, but {computed}.")


def _text_against_table(printed: Printed) -> Iterator[Finding]:
    for name, row in printed.rows.items():
        section = f"section {printed.studies[name.partition('/')[0]].section}"
        off = {number: said for number, said in row.text.items() if getattr(row, number) not in {None, said}}
        if off:
            table = ", ".join(f"{number} {getattr(row, number):g}" for number in off)
            text = ", ".join(f"{number} {said:g}" for number, said in off.items())
            sentence = f"The table prints {table} for {name}, the running text {text}."
            yield Finding(CONTRADICTED, (section, name), table, text, sentence)


def _shares(printed: Printed) -> tuple[dict[float, str], int]:
    """Each accuracy once, with a row that has it, and their decimals: final zeros are not seen, so the most of any."""
    shares: dict[float, str] = {}
    for name, row in printed.rows.items():
        for share in (row.accuracy, row.test_accuracy):
            if share is not None:
                shares.setdefault(share, name)
    return shares, max(map(decimals, shares), default=0)


def _on_grain(shares: ArrayLike, total: int, places: int) -> NDArray[np.bool_]:
    """Which percentages are counts of `total`, rounded to so many places, halves up or down."""
    percent = np.asarray(shares, dtype=np.float64)
    return np.abs(100 * np.rint(percent / 100 * total) / total - percent) <= 0.5 * 10.0**-places + 1e-9


def _impossible_means(printed: Printed) -> Iterator[Finding]:
    """A mean of k shares of n images is a multiple of 1/(k n): some percentages are none, rounded as they are."""
    total = printed.paper.protocol.seeds * printed.paper.protocol.images
    shares, places = _shares(printed)
    for (share, name), possible in zip(shares.items(), _on_grain(list(shares), total, places), strict=True):
        if not possible:
            runs = f"{printed.paper.protocol.seeds} runs on {printed.paper.protocol.images} images"
            sentence = f"No accuracy over {runs} rounds to {share:g}%."
            yield Finding("impossible accuracy", (name,), f"{share:g}", f"multiples of 1/{total}", sentence)


def _single_runs(printed: Printed) -> Iterator[Finding]:
    """Of the means of k runs about one in k is a multiple of 1/n; if all that is printed is, they are single runs."""
    seeds, images = printed.paper.protocol.seeds, printed.paper.protocol.images
    shares, places = _shares(printed)
    means = np.round(100 * np.arange(seeds * images + 1) / (seeds * images), places)
    expected = float(_on_grain(means, images, places).mean())
    single = int(_on_grain(list(shares), images, places).sum())
    if shares and _at_least(single, len(shares), expected) < UNLIKELY:
        count = f"{single} of {len(shares)} accuracies are counts on {images} images"
        yield Finding(
            kind="single runs",
            where=tuple(shares.values()),
            printed=f"means of {seeds} seeds",
            computed=f"{count}; of such means {expected:.0%} would be",
            sentence=f"They are called means of {seeds} seeds, but {count}, as single runs are.",
        )


def _at_least(hits: int, n: int, p: float) -> float:
    """Probability of at least so many hits in n tries, each with probability p."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))


def _copied(printed: Printed) -> Iterator[Finding]:
    """Two or more equal numbers in rows of different questions; a single one may be chance."""
    for first, second in combinations(printed.rows, 2):
        one, other = printed.rows[first], printed.rows[second]
        pairs = {name: (getattr(one, name), getattr(other, name)) for name in ("accuracy", "epochs", "epoch_seconds")}
        same = [f"{name} {a:g}" for name, (a, b) in pairs.items() if a is not None and a == b]
        if len(same) > 1 and (settings := printed.differing(first, second)):
            numbers, differing = ", ".join(same), f"they differ in {', '.join(sorted(settings))}"
            sentence = f"{first} and {second} both have {numbers}, though {differing}: one is likely a copy."
            yield Finding("copied numbers", (first, second), numbers, differing, sentence)


def _bounds(printed: Printed) -> Iterator[Finding]:
    """A bound in words that is to the last digit the number of another experiment."""
    for bound in dict.fromkeys(
        row.accuracy_at_most for row in printed.rows.values() if row.accuracy_at_most is not None
    ):
        rows = [name for name, row in printed.rows.items() if row.accuracy_at_most == bound]
        for other, row in printed.rows.items():
            if row.accuracy == bound and other not in rows:
                sentence = (
                    f"The bound of {bound:g}% is exactly the accuracy of {other}, which is none of the rows it is for."
                )
                yield Finding(
                    "copied numbers", (*rows, other), f"at most {bound:g}", f"{other} has {bound:g}", sentence
                )


def _sizes(printed: Printed) -> Iterator[Finding]:
    """Sizes that the declared architecture cannot have; rows with one printed and one computed size are one finding."""
    misfits: dict[tuple[float, str], list[str]] = {}
    for name, row in printed.rows.items():
        if row.size is not None and (model := printed.models.get(name)) is not None:
            unit = size_unit(row.size, model.size_legacy_mib)
            if unit != "MiB":
                told = f"{model.size_legacy_mib:.2f} MiB" + (f", which in {unit} is the printed number" if unit else "")
                misfits.setdefault((row.size, told), []).append(name)
    for (size, told), rows in misfits.items():
        yield Finding("size", tuple(rows), f"{size:g}", told, f"{size:g} is printed, the declared model has {told}.")


def _equal_sizes(printed: Printed) -> Iterator[Finding]:
    """One printed size for models that are further apart than its last digit."""
    groups: dict[float, dict[str, Model]] = {}
    for name, row in printed.rows.items():
        if row.size is not None and name in printed.models:
            groups.setdefault(row.size, {})[name] = printed.models[name]
    for size, members in groups.items():
        sizes = [model.size_legacy_mib for model in members.values()]
        if max(sizes) - min(sizes) > 10.0 ** -max(2, decimals(size)):
            counts = " and ".join(f"{count:,}" for count in sorted({model.parameters for model in members.values()}))
            apart = f"{max(sizes) - min(sizes):.3f} MiB apart"
            sentence = f"One size, {size:g}, for models of {counts} parameters, which are {apart}."
            yield Finding("equal sizes", tuple(members), f"{size:g}", apart, sentence)


def _times(printed: Printed) -> Iterator[Finding]:
    """Rows that differ in one setting: one is larger, computes at least 5% more, and takes 10% less time an epoch."""
    for study in printed.studies.values():
        own = [f"{study.study}/{slug}" for slug in study.variants]
        bases = [base for slug in study.variants if (base := declared_studies.based_on(study, slug)) in printed.rows]
        for name in own:
            slower = [
                other for other in dict.fromkeys([*own, *filter(None, bases)]) if _odd_times(printed, name, other)
            ]
            if slower:
                times = "; ".join(f"{other} {printed.value(other, 'epoch_seconds'):g} s" for other in (name, *slower))
                work = "; ".join(
                    f"{other} {printed.models[other].multiply_adds / 1e6:.1f} million" for other in (name, *slower)
                )
                sentence = f"{name} computes more than {' and '.join(slower)} in less time an epoch ({times})."
                yield Finding("time against work", (name, *slower), times, f"multiply-adds: {work}", sentence)


def _odd_times(printed: Printed, name: str, other: str) -> bool:
    large, small = printed.models.get(name), printed.models.get(other)
    seconds, longer = printed.value(name, "epoch_seconds"), printed.value(other, "epoch_seconds")
    if large is None or small is None or seconds is None or longer is None:
        return False
    more_work = large.multiply_adds >= 1.05 * small.multiply_adds and large.parameters > small.parameters
    return more_work and longer >= 1.1 * seconds and len(printed.differing(name, other)) == 1


def _uneven_training(printed: Printed) -> Iterator[Finding]:
    """A row with less than a quarter of the epochs that are usual in its study."""
    for study in printed.studies.values():
        rows = {f"{study.study}/{slug}": variant.published.epochs for slug, variant in study.variants.items()}
        epochs = {name: count for name, count in rows.items() if count is not None}
        for name, own in epochs.items():
            others = [count for other, count in epochs.items() if other != name]
            if len(others) > 1 and own < median(others) / 4:
                told = ", ".join(map(str, others))
                sentence = f"{name} stopped after {own} epochs, the other rows of its table after {told}."
                yield Finding("uneven training", (name,), f"{own} epochs", f"others: {told}", sentence)


def _missing_base(printed: Printed) -> Iterator[Finding]:
    """A sweep without the value that its rows are compared with."""
    for study in printed.studies.values():
        own = [f"{study.study}/{slug}" for slug in study.variants]
        for base in dict.fromkeys(declared_studies.based_on(study, slug) for slug in study.variants):
            if study.axis and base in printed.rows and all(printed.differing(base, name) for name in own):
                value = printed.setting(base, study.axis)
                sentence = (
                    f"{study.title} has no row for {study.axis} = {value}, the default that its rows are compared with."
                )
                yield Finding("missing row", (study.study, base), f"{len(own)} rows", f"none for {value}", sentence)
