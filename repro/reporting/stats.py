"""Statistics of repeated runs: arrays in, small frozen values out. The only home of scipy.

    pool (noise over seeds) ─► mean, difference, dunnett (over seeds) and prediction (over seeds and images)

Every interval is a 95% one. Runs of one seed share the order of their images and nothing else: runs are independent samples.
Where the noise is unknown (no row has two runs, or all values are equal) there is no interval and no p value. Values and
noise are in one unit, whatever it is; docs/statistics.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtri, fdtrc, ndtr, stdtr, stdtrit  # scipy.stats takes a second to import

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
FEWEST = 4
"""Degrees of freedom that the noise of a family needs to stand on its own."""
Z = 1.959964
_ROUNDING = 1e-9
_OUTLIER = 0.01  # level of the F test by which a row has noise of its own

MEAN = "mean, 95% t interval with the pooled standard deviation over seeds"
DIFFERENCE = "difference of means, 95% t interval of two independent samples with the pooled standard deviation"
DUNNETT = "difference from the base, simultaneous 95% intervals and adjusted p by Dunnett's test"
PREDICTION = "95% prediction interval of one new run on its own sample of images"
BINOMIAL = f"{PREDICTION}; no predictions kept, so images vary by p(1 - p)"
PAIRED = "mean of the differences between runs of one seed, 95% t intervals and p by Bonferroni for all rows together"
FOLDS = "mean over folds after averaging over seeds, 95% t interval"
HELD_OUT = f"{FOLDS} with Nadeau and Bengio's corrected variance"


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of one run over seeds, above 0, and its degrees of freedom."""

    sd: float
    df: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; None for what n or the noise does not allow."""

    estimate: float
    low: float | None
    high: float | None
    n: int
    """Values behind the estimate; of a difference, the smaller of both numbers of runs."""
    method: str
    sd: float | None = None
    """Sample standard deviation of the values themselves (ddof 1); None with n = 1 and for a difference."""
    p: float | None = None
    """Two-sided p value of no difference."""
    error: float | None = None
    """Standard error of the estimate over seeds."""
    df: float = math.inf
    """Degrees of freedom of `error`."""

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def folded(self) -> bool:
        """Whether it is a mean over folds, whose number n is."""
        return self.method.startswith(FOLDS)

    def p_beyond(self, margin: float, sign: int = 1) -> float:
        """One-sided p value: small where the estimate is clearly above the margin (sign -1: below). 1 without an error."""
        return 1.0 if not self.error else float(stdtr(self.df, sign * (margin - self.estimate) / self.error))


@dataclass(frozen=True, slots=True)
class Images:
    """The images that an accuracy is counted on, a sample of a finite set."""

    count: int
    """m, of our accuracies and of the new run's."""
    of: float = math.inf
    """M, the size of the set that both samples are drawn from."""
    variance: float | None = None
    """v as `image_variance` gives it; None takes p (1 - p), which is too large."""
    whole: float = 1.0
    """The accuracy of a run without errors: 100 for percent."""

    def half(self, accuracy: float) -> float:
        """1.96 standard deviations of the difference of two samples, for one and the same network."""
        share = accuracy / self.whole
        v = share * (1 - share) if self.variance is None else self.variance
        return self.whole * Z * math.sqrt(max(0.0, 2 * v / self.count * (1 - self.count / self.of)))


def pool(values: Mapping[str, ArrayLike], families: Mapping[str, str]) -> dict[str, Noise | None]:
    """The noise over seeds of every row, pooled over the rows of its family.

    A family with fewer than `FEWEST` degrees of freedom takes the noise pooled over all rows. A row whose variance is
    larger than that of the rows it would be pooled with, by an F test at 1%, has its own, and no part in that of the other
    rows with two runs. It has one in that of single runs, which could be as noisy. None: no row has two runs, or all values
    are equal.

    Args:
        values: row -> its values, one a run, at least one.
        families: row -> the name of its family.
    """
    spread = {name: _spread(_checked(one)) for name, one in values.items()}
    everywhere = _pooled(spread)
    found: dict[str, Noise | None] = {}
    for family in {families[name] for name in values}:
        members = {name: spread[name] for name in values if families[name] == family}
        (common, own), every = _pooled(members), _noise(members.values())
        if common is None or common.df < FEWEST:
            (common, own), every = everywhere, _noise(spread.values())
        found |= {name: own.get(name, common) if df else every for name, (_, df) in members.items()}
    return {name: found[name] for name in values}


def mean(values: ArrayLike, noise: Noise | None) -> Estimate:
    """Mean of n >= 1 values, with the interval that the pooled noise gives it."""
    array = _checked(values)
    error = None if noise is None else noise.sd / math.sqrt(array.size)
    squares, df = _spread(array)
    sd = math.sqrt(squares / df) if df else None
    return _estimate(float(array.mean()), error, noise.df if noise else 0, array.size, MEAN, sd)


def difference(
    first: ArrayLike, second: ArrayLike, noise: Noise | None, other: Noise | None = None, tests: int = 1
) -> Estimate:
    """Mean of `first` minus mean of `second`, two independent samples, as one of so many tests, by Bonferroni.

    Args:
        first: n >= 1 values.
        second: m >= 1 values.
        noise: of both, or of `first` where `other` is given.
        other: the noise of `second`; where it is another one, Welch's standard error and degrees of freedom apply.
        tests: how many such differences stand together.
    """
    one, two = _checked(first), _checked(second)
    centre, n, other = float(one.mean() - two.mean()), min(one.size, two.size), other or noise
    if noise is None or other is None:
        return _estimate(centre, None, 0, n, DIFFERENCE)
    ours, theirs = noise.sd**2 / one.size, other.sd**2 / two.size
    welch = (ours + theirs) ** 2 / (ours**2 / noise.df + theirs**2 / other.df)
    return _estimate(
        centre, math.sqrt(ours + theirs), noise.df if noise == other else welch, n, DIFFERENCE, tests=tests
    )


def dunnett(
    rows: Sequence[ArrayLike], base: ArrayLike, noises: Sequence[Noise | None], noise: Noise | None
) -> tuple[Estimate, ...]:
    """Every row minus one base: simultaneous intervals and adjusted p values (Dunnett 1955).

    As `scipy.stats.dunnett`, but with the pooled noise, which also serves rows of a single run, and integrated on a grid:
    exact to 0.0005, without random numbers and within milliseconds. For one row this is the two-sample t interval.

    Args:
        rows: the rows' values.
        base: the base's values.
        noises: the rows' noise.
        noise: the base's noise.
    """
    plain = tuple(difference(row, base, own, noise) for row, own in zip(rows, noises, strict=True))
    tests = sum(bool(one.error) for one in plain)
    if noise is None or tests < 2:
        return plain
    errors, alike = np.unique([one.error for one in plain if one.error], return_counts=True)
    load = noise.sd / math.sqrt(_checked(base).size) / errors  # the base is the part that all differences share
    shared = np.linspace(-6, 6, 61)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(32)
    density = np.exp(-(shared[:, 0] ** 2) / 2) / np.exp(-(shared**2) / 2).sum()

    def inside(limit: float, df: float) -> float:
        """Probability that no row is further than `limit` standard errors off, where none differs from the base."""
        scale = np.sqrt(chdtri(df, (1 + nodes) / 2) / df)[:, None, None]
        within = [ndtr((sign * limit * scale - load * shared) / np.sqrt(1 - load**2)) for sign in (1, -1)]
        return float(weights / 2 @ ((within[0] - within[1]) ** alike).prod(axis=2) @ density)

    def limit(df: float) -> float:
        low, high = (float(stdtrit(df, 1 - TAIL / number)) for number in (1, tests))  # Bonferroni's is wider
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (low, middle) if inside(middle, df) > LEVEL else (middle, high)
        return high

    def adjusted(one: Estimate) -> Estimate:
        if not one.error:
            return one
        half, p = limits[one.df] * one.error, 1 - inside(abs(one.estimate) / one.error, one.df)
        return replace(one, low=one.estimate - half, high=one.estimate + half, method=DUNNETT, p=min(1.0, max(0.0, p)))

    limits = {df: limit(df) for df in {one.df for one in plain if one.error}}
    return tuple(map(adjusted, plain))


def paired(first: ArrayLike, second: ArrayLike, tests: int = 1) -> Estimate:
    """Mean of the differences of n >= 1 pairs, as one of so many tests, by Bonferroni; no interval where they are equal.

    Args:
        first: (n,) values.
        second: (n,) the value that belongs to each.
        tests: how many such estimates stand together.
    """
    array = _checked(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))
    squares, df = _spread(array)
    error = math.sqrt(squares / df / array.size) if squares else None
    return _estimate(float(array.mean()), error, df, array.size, PAIRED, tests=tests)


def prediction(values: ArrayLike, noise: Noise | None, images: Images) -> Estimate:
    """Where the accuracy of one new run is expected, by n >= 1 of ours, each over the same images.

    The new run has a seed of its own and a sample of images of its own, so for noise s with nu degrees of freedom

        half-width^2 = (t(0.975, nu) s)^2 (1 + 1/n) + 1.96^2 * 2 v/m * (1 - m/M)
    """
    array = _checked(values)
    found = replace(mean(array, noise), method=BINOMIAL if images.variance is None else PREDICTION, p=None)
    if found.half is None:
        return found
    half = math.hypot(found.half * math.sqrt(array.size + 1), images.half(found.estimate))
    return replace(found, low=found.estimate - half, high=found.estimate + half)


def image_variance(correct: ArrayLike) -> float:
    """Variance over images of an image's probability to be classified correctly, without bias, at least 0.

    Args:
        correct: (n, m) booleans, n >= 2 runs of one row on the same m images.
    """
    runs = np.asarray(correct, dtype=np.float64)
    return max(0.0, float(runs.mean(axis=0).var(ddof=1)) - _within(runs))


def image_error(first: ArrayLike, second: ArrayLike) -> float:
    """Standard error that other images would add to a difference of two mean accuracies in 0..1 on the same m images.

    Args:
        first: (n, m) booleans, n >= 2 runs of one row.
        second: the same of another row, with any n >= 2.
    """
    one, two = (np.asarray(correct, dtype=np.float64) for correct in (first, second))
    between = float((one.mean(axis=0) - two.mean(axis=0)).var(ddof=1)) - _within(one) - _within(two)
    return math.sqrt(max(0.0, between) / one.shape[1])


def folds(values: ArrayLike, ratio: float = 0.0) -> Estimate:
    """Mean over k >= 2 folds after averaging over seeds: its variance is s^2 (1/k + ratio), with k - 1 degrees of freedom.

    Args:
        values: (k,) or (seeds, k) values or differences, one a fold.
        ratio: for accuracies on held-out folds, whose training sets overlap: images of the held-out fold over those of its
            training set (Nadeau and Bengio 2003). 0 for accuracies on images that are in no fold.
    """
    array = _checked(np.atleast_2d(values).mean(axis=0))
    squares, df = _spread(array)
    error = math.sqrt(squares / df * (1 / array.size + ratio)) if squares else None
    sd = math.sqrt(squares / df) if df else None
    return _estimate(float(array.mean()), error, df, array.size, HELD_OUT if ratio else FOLDS, sd)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p values adjusted for their number by Holm's step-down method, in the order given."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.minimum(1.0, np.arange(len(order), 0, -1) * np.asarray(p_values, dtype=np.float64)[order])
    return tuple(np.maximum.accumulate(stepped)[np.argsort(order)].tolist())


def _within(runs: NDArray[np.float64]) -> float:
    """Mean over images of the variance of the mean of n runs, without bias."""
    if runs.ndim != 2 or len(runs) < 2:
        raise ValueError(f"expected at least two runs, (n, images), got shape {runs.shape}")
    return float(runs.var(axis=0, ddof=1).mean()) / len(runs)


def _pooled(spread: Mapping[str, tuple[float, int]]) -> tuple[Noise | None, dict[str, Noise | None]]:
    """The noise of some rows with (sum of squares, degrees of freedom), and that of the rows which have their own."""
    common = {name: one for name, one in spread.items() if one[1] > 0}
    own: dict[str, Noise | None] = {}
    while len(common) > 1:
        squares, df = np.array(list(common.values()), dtype=np.float64).T
        rest, others = _without_each(squares), _without_each(df)
        with np.errstate(divide="ignore", invalid="ignore"):  # p of the F test that a row's variance is not larger
            p = np.where(rest > 0, fdtrc(df, others, squares / df / (rest / others)), 1.0)
        if p.min() * len(p) >= _OUTLIER:  # Bonferroni, since the most extreme of the rows is looked at
            break
        name = list(common)[int(p.argmin())]
        own[name] = _noise([common.pop(name)])
    return _noise(common.values()), own


def _without_each(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of all the others, for every value; exact where those are 0."""
    before, behind = values[:-1].cumsum(), values[:0:-1].cumsum()[::-1]
    return np.asarray(np.append(0, before) + np.append(behind, 0))


def _noise(spreads: Iterable[tuple[float, int]]) -> Noise | None:
    """That of all values with these sums of squares and degrees of freedom; None where nothing varies."""
    squares, df = (sum(parts) for parts in zip((0.0, 0), *spreads, strict=True))
    return Noise(math.sqrt(squares / df), int(df)) if squares else None


def _spread(array: NDArray[np.float64]) -> tuple[float, int]:
    """Sum of squares around the mean, 0 for values that are equal up to rounding, and degrees of freedom."""
    equal = np.ptp(array) <= _ROUNDING
    return 0.0 if equal else float(((array - array.mean()) ** 2).sum()), array.size - 1


def _estimate(
    centre: float, error: float | None, df: float, n: int, method: str, sd: float | None = None, tests: int = 1
) -> Estimate:
    if error is None:
        return Estimate(centre, None, None, n, method, sd)
    half = float(stdtrit(df, 1 - TAIL / tests)) * error
    p = min(1.0, 2 * tests * float(stdtr(df, -abs(centre) / error)))
    return Estimate(centre, centre - half, centre + half, n, method, sd, p, error, df)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"expected a list of at least one finite number, got {array!r}")
    return array
