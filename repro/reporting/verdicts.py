"""What the runs of a table come to, row by row: means, prediction intervals, verdicts and differences from the base.

Runs at chance or diverged do not enter where another run of the row learned. docs/statistics.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from repro.published import size_unit
from repro.reporting import stats
from repro.reporting.frame import Measure, Row, Setting, Split, Statistics, Table, Verdict
from repro.reporting.stats import Estimate, Images, Noise

LEARNED = 10.0
"""Points above the share of the largest class from which an accuracy shows that a network has learned."""
_POOLED: tuple[Measure, ...] = ("val", "test", "gap")


class Noises:
    """The noise over seeds and over images of the rows of one setting, each computed once."""

    def __init__(self, setting: Setting) -> None:
        """Takes every row of the setting; nothing is computed yet."""
        self.rows = {_runs(row): row for row in setting.rows}
        self._seeds: dict[Measure, dict[str, Noise | None]] = {}
        self._images: dict[tuple[str, Split], float | None] = {}

    def seeds(self, row: Row, measure: Measure) -> Noise | None:
        """The noise over seeds of a row, pooled over its family in the setting."""
        if _runs(row) not in self.rows:
            self.rows[_runs(row)] = row
            self._seeds.clear()
        if measure not in self._seeds:
            learned = {runs: one for runs, one in self.rows.items() if one.values(measure, learned=True).size}
            values = {runs: one.values(measure, learned=True) for runs, one in learned.items()}
            self._seeds[measure] = stats.pool(values, {runs: one.family for runs, one in learned.items()})
        return self._seeds[measure].get(_runs(row))

    def images(self, row: Row, split: Split) -> Images:
        """The images of a row's accuracy; their variance is the row's own, else the mean of its family's."""
        variance = self._variance(row, split)
        if variance is None:
            alike = [self._variance(one, split) for one in self.rows.values() if one.family == row.family]
            known = [one for one in alike if one is not None]
            variance = float(np.mean(known)) if known else None
        return Images(row.images(split), row.images("val") + row.images("test"), variance, 100)

    def difference(self, row: Row, base: Row, measure: Measure) -> Estimate | None:
        """Mean of a row minus mean of another over the runs that learned; None where either has none.

        Two rows with folds are paired by fold, after averaging over the seeds of a fold. Times have the noise of both rows.
        """
        one, other = (each.values(measure, learned=True) for each in (row, base))
        if not one.size or not other.size:
            return None
        ours, theirs = by_fold(row, measure), by_fold(base, measure)
        if folds := sorted(ours.keys() & theirs.keys()):
            return stats.folds([ours[fold] - theirs[fold] for fold in folds], _ratio(row, len(folds)))
        return stats.difference(one, other, *self.pair(row, base, measure))

    def pair(self, row: Row, base: Row, measure: Measure) -> tuple[Noise | None, Noise | None]:
        """The noise of two rows, of their own runs alone for what is no accuracy."""
        if measure in _POOLED:
            return self.seeds(row, measure), self.seeds(base, measure)
        values = {name: each.values(measure, learned=True) for name, each in (("row", row), ("base", base))}
        found = stats.pool(values, dict.fromkeys(values, ""))
        return found["row"], found["base"]

    def dunnett(self, rows: Sequence[Row], base: Row) -> dict[str, Estimate]:
        """Test accuracy of every row that learned minus one base's, with simultaneous intervals over all of them."""
        usable = [row for row in rows if row.values("test", learned=True).size]
        against = base.values("test", learned=True)
        if not against.size:
            return {}
        folded = {row.name: self.difference(row, base, "test") for row in usable if by_fold(row, "test")}
        plain = [row for row in usable if row.name not in folded]
        values, noises = [row.values("test", learned=True) for row in plain], [self.seeds(row, "test") for row in plain]
        found = stats.dunnett(values, against, noises, self.seeds(base, "test"))
        both = dict(zip((row.name for row in plain), found, strict=True)) | folded
        return {name: one for name, one in both.items() if one is not None}

    def _variance(self, row: Row, split: Split) -> float | None:
        if (key := (_runs(row), split)) not in self._images:
            correct = row.correct(split) if all(run.learned for run in row.runs) else None
            enough = correct is not None and len(correct) > 1
            self._images[key] = stats.image_variance(correct) if correct is not None and enough else None
        return self._images[key]


def statistics(table: Table) -> dict[str, Statistics]:
    """What is concluded of every row of a table, by `study/variant`."""
    noises = Noises(table.setting)
    bases = {base.name: base for row in table.rows if (base := table.base(row)) is not None}
    differences: dict[str, Estimate] = {}
    for base in bases.values():
        differences |= noises.dunnett([row for row in table.rows if row.base == base.name], base)
    found = {}
    for row in table.rows:
        judged = [_published(row, split, table.setting, noises) for split in ("val", "test")]
        (predicted, verdict, why), (predicted_test, test_verdict, test_why) = judged
        found[row.name] = Statistics(
            val=_mean(row, "val", noises),
            test=_mean(row, "test", noises),
            predicted=predicted,
            verdict=verdict,
            why=why,
            predicted_test=predicted_test,
            test_verdict=test_verdict,
            test_why=test_why,
            difference=differences.get(row.name),
            image_noise=_image_noise(row, table.base(row)),
            size_verdict=_size(row)[0],
            size_why=_size(row)[1],
        )
    return found


def by_fold(row: Row, measure: Measure) -> dict[int, float]:
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


def failed(row: Row) -> str:
    """How a row's runs ended where no run learned ("3 of 3 runs stayed at chance"), else empty."""
    if not row.runs or any(run.learned for run in row.runs):
        return ""
    at_chance = sum(run.record.outcome == "chance" for run in row.runs)
    parts = [(at_chance, "stayed at chance"), (len(row.runs) - at_chance, "diverged")]
    return " and ".join(f"{count} of {len(row.runs)} runs {how}" for count, how in parts if count)


def _mean(row: Row, split: Split, noises: Noises) -> Estimate | None:
    folds = by_fold(row, split)
    if len(folds) > 1:
        return stats.folds([folds[fold] for fold in sorted(folds)], _ratio(row, len(folds)))
    learned, every = row.values(split, learned=True), row.values(split)
    if learned.size:
        return stats.mean(learned, noises.seeds(row, split))
    return stats.mean(every, None) if every.size else None


def _ratio(row: Row, seen: int) -> float:
    """Images of a fold over those outside of it, by the declared number of folds, else by those that were run."""
    declared = row.spec.data.folds
    return 1 / (max(2, declared or seen) - 1)


def _published(row: Row, split: Split, setting: Setting, noises: Noises) -> tuple[Estimate | None, Verdict, str]:
    """Where one more run is expected, and the published number against it, in the declared setting alone.

    Published numbers are of the fixed split, so a row with folds has neither.
    """
    if by_fold(row, split):
        return None, "", ""
    values, paper = row.values(split, learned=True), row.published
    images = noises.images(row, split)
    found = stats.prediction(values, noises.seeds(row, split), images) if values.size else None
    found = None if found is None or found.half is None else found
    bound = paper.accuracy_at_most if split == "val" and paper.accuracy is None else None
    published = bound if bound is not None else paper.accuracy if split == "val" else paper.test_accuracy
    if published is None or setting.changes:
        return found, "", ""
    if how := failed(row):
        level = chance(row) + LEARNED
        verdict: Verdict = "consistent" if bound is not None or published < level else "ours below"
        return found, verdict, f"published {published:g}; {how}"
    if found is None or found.low is None or found.high is None or found.half is None:
        why = "no finished run" if not row.runs else f"n = {len(row.runs)}, and nothing tells the spread over seeds"
        return None, "undecided", why
    at_most = "at most " if bound is not None else ""
    why = f"published {at_most}{published:g}, one more run is expected in {found.low:.2f} to {found.high:.2f} (n = {found.n})"
    if improving := sum(run.improving for run in row.runs):
        why += f"; {improving} of {len(row.runs)} runs still improved at the limit of epochs"
    if found.low > published:
        return found, "ours above", why
    if found.high < published and bound is None:
        return found, "ours below", why
    n = stats.runs_to_exclude(abs(published - found.estimate), found.estimate, noises.seeds(row, split), images)
    tell = "no number of seeds" if n is None else f"{n} seeds"
    return found, "consistent", f"{why}; {tell} would tell the two apart"


def _image_noise(row: Row, base: Row | None) -> float | None:
    ours, theirs = row.correct("test"), base.correct("test") if base is not None else None
    if ours is None or theirs is None or min(len(ours), len(theirs)) < 2 or ours.shape[1] != theirs.shape[1]:
        return None
    return 100 * stats.Z * stats.image_error(ours, theirs)


def _size(row: Row) -> tuple[Literal["fits", "differs", ""], str]:
    """Whether our model has the published size, within one unit of its last digit."""
    published, mib = row.published.size, row.size
    if published is None or mib is None:
        return "", ""
    unit = size_unit(published, mib)
    if unit is None:
        return "differs", f"ours has {mib:.3f} MiB" + (f"; {row.note}" if row.note else "")
    return "fits", f"ours has {mib:.3f} MiB" + ("" if unit == "MiB" else f", printed in {unit}")


def _runs(row: Row) -> str:
    """The same for rows of two studies that share their runs."""
    return " ".join(run.record.run_id for run in row.runs) or row.name
