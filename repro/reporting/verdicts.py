"""What the runs of a table come to, row by row: means, prediction intervals, verdicts and differences from the base.

Runs at chance or diverged do not enter where another run of the row learned. docs/statistics.md has the formulas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from repro.published import Metric, size_unit
from repro.reporting import samplesize, stats
from repro.reporting.frame import Row, Split
from repro.reporting.join import Setting, Table
from repro.reporting.stats import Estimate, Images, Noise

LEARNED = 10.0
"""Points above the share of the largest class from which an accuracy shows that a network has learned; a quarter of what
is left above that share where it is less."""
ENOUGH = 3
"""Runs from which on "none of them learned" is a result."""
Verdict: TypeAlias = Literal["consistent", "ours below", "ours above", "undecided", ""]
"""Where our runs lie, seen from the published number; empty where none was published."""
ACCURACIES: tuple[Metric, ...] = ("val", "test", "gap")
"""What a family pools its noise for; other metrics have that of their own rows."""
_HELD_OUT: tuple[Metric, ...] = ("val", "gap")


class Judgement(NamedTuple):
    """A published accuracy against our runs, in percent."""

    predicted: Estimate | None
    """95% prediction interval of one new run; None where the spread is unknown."""
    verdict: Verdict
    why: str
    """One line for the reader; empty where there is no published number."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is concluded of one row. Estimates are in percent or points."""

    val: Estimate | None
    """Mean, standard deviation and 95% interval of the mean over runs; None without runs."""
    test: Estimate | None
    on_val: Judgement
    on_test: Judgement
    difference: Estimate | None
    """Test accuracy minus the base's with its simultaneous 95% interval and adjusted p; None without a base or runs."""
    image_noise: float | None
    """Half-width of the difference's 95% interval over other images; None where no predictions exist."""
    size_verdict: Literal["fits", "differs", ""]
    """Whether our model has the published size, within one unit of its last digit."""


class Noises:
    """The noise over seeds and over images of the rows of one setting, each computed once."""

    def __init__(self, setting: Setting) -> None:
        """Takes every question of the setting with all of its runs; nothing is computed yet."""
        self.rows = {row.question: row for row in setting.rows}
        self._seeds: dict[Metric, dict[str, Noise | None]] = {}
        self._images: dict[tuple[str, Split], float | None] = {}

    def seeds(self, row: Row, measure: Metric) -> Noise | None:
        """The noise over seeds of a row, pooled over its family in the setting."""
        if row.question not in self.rows:
            self.rows[row.question] = row
            self._seeds.clear()
        if measure not in self._seeds:
            found = {asked: one.values(measure, learned=True) for asked, one in self.rows.items()}
            learned = {asked: values for asked, values in found.items() if values.size}
            self._seeds[measure] = stats.pool(learned, {asked: self.rows[asked].family for asked in learned})
        return self._seeds[measure].get(row.question)

    def borrowed(self, row: Row) -> bool:
        """Whether no network of a row's family has two runs, so that its noise is that of other families."""
        alike = [one for one in self.rows.values() if one.family == row.family]
        return all(one.values("val", learned=True).size < 2 for one in alike)

    def foreign(self, first: Row, second: Row, found: Estimate) -> bool:
        """Whether a difference of accuracies rests on the noise of other families alone, which decides nothing."""
        return bool(found.error) and found.n == 1 and self.borrowed(first) and self.borrowed(second)

    def images(self, row: Row, split: Split) -> Images:
        """The images of a row's accuracy; their variance is the row's own, else the mean of its family's."""
        variance = self._variance(row, split)
        if variance is None:
            alike = [self._variance(one, split) for one in self.rows.values() if one.family == row.family]
            known = [one for one in alike if one is not None]
            variance = float(np.mean(known)) if known else None
        return Images(row.images(split), row.images("val") + row.images("test"), variance, 100)

    def difference(self, row: Row, base: Row, measure: Metric) -> Estimate | None:
        """Mean of a row minus mean of another over the runs that learned; None where either has none.

        Two rows with folds are paired by fold, after averaging over the seeds of a fold. Times have the noise of both rows.
        """
        one, other = (each.values(measure, learned=True) for each in (row, base))
        if not one.size or not other.size:
            return None
        ours, theirs = by_fold(row, measure), by_fold(base, measure)
        if folds := sorted(ours.keys() & theirs.keys()):
            return _over_folds([ours[fold] - theirs[fold] for fold in folds], row, measure)
        return stats.difference(one, other, *self.pair(row, base, measure))

    def pair(self, row: Row, base: Row, measure: Metric) -> tuple[Noise | None, Noise | None]:
        """The noise of two rows, of their own runs alone for what is no accuracy."""
        if measure in ACCURACIES:
            return self.seeds(row, measure), self.seeds(base, measure)
        values = {name: each.values(measure, learned=True) for name, each in (("row", row), ("base", base))}
        found = stats.pool(values, dict.fromkeys(values, ""))
        return found["row"], found["base"]

    def prediction(self, row: Row, split: Split) -> Estimate:
        """Where one more run of a row, at least one of which learned, is expected, within 0 to 100%."""
        found = stats.prediction(row.values(split, learned=True), self.seeds(row, split), self.images(row, split))
        if found.low is None or found.high is None:
            return found
        return replace(found, low=max(0.0, found.low), high=min(100.0, found.high))

    def dunnett(self, rows: Sequence[Row], base: Row) -> dict[str, Estimate]:
        """Test accuracy of every row that learned minus one base's, with simultaneous intervals over all of them.

        Rows with folds are paired with the base's, each with its own interval.
        """
        against = base.values("test", learned=True)
        usable = [row for row in rows if row.values("test", learned=True).size and against.size]
        folded = {row.name: self.difference(row, base, "test") for row in usable if by_fold(row, "test")}
        plain = [row for row in usable if row.name not in folded]
        values, noises = [row.values("test", learned=True) for row in plain], [self.seeds(row, "test") for row in plain]
        found = stats.dunnett(values, against, noises, self.seeds(base, "test")) if plain else ()
        both = dict(zip((row.name for row in plain), found, strict=True)) | folded
        return {name: one for name, one in both.items() if one is not None}

    def _variance(self, row: Row, split: Split) -> float | None:
        if (key := (row.question, split)) not in self._images:
            correct = self.rows.get(row.question, row).correct(split)
            known = correct is not None and len(correct) > 1
            self._images[key] = stats.image_variance(correct) if correct is not None and known else None
        return self._images[key]


@lru_cache(maxsize=8)
def noises_of(setting: Setting) -> Noises:
    """The noises of a setting, once for all its tables and claims."""
    return Noises(setting)


def statistics(table: Table) -> dict[str, Statistics]:
    """What is concluded of every row of a table, by `study/variant`."""
    noises = noises_of(table.setting)
    bases = {base.name: base for row in table.rows if (base := table.base(row)) is not None}
    differences: dict[str, Estimate] = {}
    for base in bases.values():
        differences |= noises.dunnett([row for row in table.rows if row.base == base.name], base)
    return {
        row.name: Statistics(
            val=_mean(row, "val", noises),
            test=_mean(row, "test", noises),
            on_val=against_published(row, "val", noises),
            on_test=against_published(row, "test", noises),
            difference=differences.get(row.name),
            image_noise=_image_noise(row, table.base(row)),
            size_verdict=_size(row),
        )
        for row in table.rows
    }


def by_fold(row: Row, measure: Metric) -> dict[int, float]:
    """A measure by fold, averaged over the seeds of each; empty for a row without folds."""
    found: dict[int, list[float]] = {}
    for run in row.runs:
        if run.fold is not None and run.learned and (value := run.value(measure)) is not None:
            found.setdefault(run.fold, []).append(value)
    return {fold: float(np.mean(values)) for fold, values in found.items()}


def chance(row: Row) -> float:
    """The share of the largest class in percent: of the test images where predictions are kept, else of equal classes."""
    kept = next((run.predictions for run in row.runs if run.predictions is not None), None)
    if kept is None:
        return 100 / len(row.known.classes)
    return 100 * float(np.bincount(kept.test_true).max()) / kept.test_true.size


def learned_from(row: Row) -> float:
    """The accuracy in percent from which a network of a row's data has learned."""
    return chance(row) + min(LEARNED, (100 - chance(row)) / 4)


def failed(row: Row) -> str:
    """How a row's runs ended where no run learned ("3 of 3 runs stayed at chance"), else empty."""
    return "" if any(run.learned for run in row.runs) else failures(row)


def failures(row: Row) -> str:
    """How those of a row's runs ended that did not learn ("2 of 3 runs stayed at chance"), empty where all did."""
    ends = Counter(run.record.outcome for run in row.runs)
    parts = [(ends["chance"], "stayed at chance"), (ends["diverged"], "diverged")]
    runs = "1 run" if len(row.runs) == 1 else f"{len(row.runs)} runs"
    return " and ".join(f"{count} of {runs} {how}" for count, how in parts if count)


def _mean(row: Row, split: Split, noises: Noises) -> Estimate | None:
    folds = by_fold(row, split)
    if len(folds) > 1:
        return _over_folds([folds[fold] for fold in sorted(folds)], row, split)
    learned, every = row.values(split, learned=True), row.values(split)
    if learned.size:
        return stats.mean(learned, noises.seeds(row, split))
    return stats.mean(every, None) if every.size else None


def _over_folds(values: Sequence[float], row: Row, measure: Metric) -> Estimate:
    """The mean over folds. What is counted on the held-out images has their share of the training images as its ratio.

    The share follows from the declared number of folds, else from those that were run.
    """
    declared = max(2, row.spec.data.folds or len(values))
    return stats.folds(values, 1 / (declared - 1) if measure in _HELD_OUT else 0.0)


def against_published(row: Row, split: Split, noises: Noises) -> Judgement:
    """Where one more run is expected, and the published number against it.

    Published numbers are of the fixed split, so a row with folds has neither.
    """
    if by_fold(row, split):
        return Judgement(None, "", "")
    paper, how = row.published, failures(row)
    found = noises.prediction(row, split) if row.values(split, learned=True).size else None
    found = None if found is None or found.half is None else found
    bound = paper.bound if split == "val" else None
    published = bound if bound is not None else paper.accuracy if split == "val" else paper.test_accuracy
    if published is None:
        return Judgement(found, "", "")
    if how and published < learned_from(row):
        return Judgement(found, "consistent", f"published {published:g}; {how}")
    if failed(row):
        enough = len(row.runs) >= ENOUGH
        verdict: Verdict = "consistent" if bound is not None else "ours below" if enough else "undecided"
        more = "" if enough or bound is not None else f"; {ENOUGH} runs are needed"
        return Judgement(found, verdict, f"published {published:g}; {how}{more}")
    if found is None or found.low is None or found.high is None:
        why = "no finished run" if not row.runs else f"n = {len(row.runs)}, and the spread over seeds is unknown"
        return Judgement(None, "undecided", why)
    told = f"published {'at most ' if bound is not None else ''}{published:g}"
    why = f"{told}, one more run is expected to reach {found.low:.2f} to {found.high:.2f} (n = {found.n})"
    if how:
        why += f"; {how}, left out"
    if noises.borrowed(row):
        why += "; with the spread over seeds of other networks, since none of this family has two runs"
    if found.method == stats.BINOMIAL:
        why += "; conservative: no network of this family has two runs with predictions"
    if improving := sum(run.improving for run in row.runs):
        ended = "the run" if len(row.runs) == 1 else f"{improving} of {len(row.runs)} runs"
        why += f"; {ended} ended at the limit of epochs"
    if found.low > published:
        return Judgement(found, "ours above", why)
    if found.high < published and bound is None:
        return Judgement(found, "ours below", why)
    if bound is not None and found.estimate <= bound:
        return Judgement(found, "consistent", why)
    noise, images = noises.seeds(row, split), noises.images(row, split)
    n = samplesize.runs_to_exclude(abs(published - found.estimate), found.estimate, noise, images)
    tell = "no number of seeds" if n is None else f"{n} seeds"
    return Judgement(found, "consistent", f"{why}; {tell} would tell the two apart if the mean stays the same")


def _image_noise(row: Row, base: Row | None) -> float | None:
    ours, theirs = row.correct("test"), base.correct("test") if base is not None else None
    if ours is None or theirs is None or min(len(ours), len(theirs)) < 2 or ours.shape[1] != theirs.shape[1]:
        return None
    return 100 * stats.Z * stats.image_error(ours, theirs)


def _size(row: Row) -> Literal["fits", "differs", ""]:
    published, mib = row.published.size, row.size
    if published is None or mib is None:
        return ""
    return "differs" if size_unit(published, mib) is None else "fits"
