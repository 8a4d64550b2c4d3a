"""Statistics over seeds: arrays in, small frozen values out. The only home of scipy.

Every interval is a 95% one by Student's t over independent seeds. With one seed there is none, nor where all values are
equal: accuracies are counts, so that happens by chance, and tells nothing of their spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit  # scipy.stats would take most of a second to import

LEVEL = 0.95
_ROUNDING = 1e-9  # differences of equal accuracies, in shares or percent, are equal up to this
MEAN = "mean over seeds, sample standard deviation, 95% t interval"
PAIRED = "mean difference paired by seed, 95% t interval; p by Student's t, Holm-corrected"
PREDICTION = "95% prediction interval of one new run on images of its own"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number over n values, with the limits of its interval; None where n does not allow one."""

    estimate: float
    low: float | None
    high: float | None
    n: int
    method: str
    sd: float | None = None
    """Sample standard deviation of the values (ddof 1)."""
    p: float | None = None
    """Of no difference, two-sided; before `holm`."""


def mean(values: ArrayLike) -> Estimate:
    """Mean of n >= 1 values, their standard deviation and the t interval of the mean."""
    array = _checked(values)
    centre, sd = float(array.mean()), _sd(array)
    half = _t(array.size) * sd / math.sqrt(array.size) if sd else None
    return Estimate(centre, _minus(centre, half), _plus(centre, half), array.size, MEAN, sd)


def paired(values: ArrayLike, base: ArrayLike) -> Estimate:
    """Mean of values - base, two arrays of one length n >= 1 whose places are the same seeds, with its p value."""
    differences = _checked(values) - _checked(base)
    found = mean(differences)
    p = None
    if found.sd:
        t = found.estimate / (found.sd / math.sqrt(found.n))
        p = 2 * float(stdtr(found.n - 1, -abs(t)))
    return Estimate(found.estimate, found.low, found.high, found.n, PAIRED, found.sd, p)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p values corrected for their number by Holm's step-down method, in the order given."""
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = running
    return tuple(corrected)


def prediction(accuracies: ArrayLike, images: int, of: float = math.inf) -> Estimate:
    """Where one new run's accuracy is to be expected, by n accuracies in 0..1, each over the same number of images.

    The new run differs from the mean of ours, p, in two ways. Its seed: for a spread s over seeds, s^2 (1 + 1/n), of
    which Student's t takes account. Its images: ours are one set, whatever the seed, so their sampling error p (1 - p) /
    images does not average out, and the new run's set has as much again; less where both are drawn from one finite set,
    by the correction 1 - images / of (Cochran 1977, section 2.6), which halves it for halves. The two are independent:

        half-width^2 = (t(0.975, n - 1) s)^2 (1 + 1/n) + 1.96^2 * 2 p (1 - p) / images * (1 - images / of)

    In simulation it covers 95% where one of the two terms dominates; where they are alike it is a little wide (97.7% at
    n = 3), since quantiles of two distributions are added in quadrature.

    Args:
        accuracies: shares in 0..1, one a seed.
        images: how many images each accuracy is measured on, ours and the new run's.
        of: size of the set that both are drawn from, each without replacement.
    """
    array = _checked(accuracies)
    p, sd = float(array.mean()), _sd(array)
    if sd is None:
        return Estimate(p, None, None, array.size, PREDICTION)
    seeds = (_t(array.size) * sd) ** 2 * (1 + 1 / array.size)
    sampling = float(ndtri(0.5 + LEVEL / 2)) ** 2 * 2 * p * (1 - p) / images * (1 - images / of)
    half = math.sqrt(seeds + sampling)
    return Estimate(p, p - half, p + half, array.size, PREDICTION, sd)


def in_percent(found: Estimate) -> Estimate:
    """An estimate of shares in 0..1 as one in percent."""
    low, high, sd = (None if value is None else 100 * value for value in (found.low, found.high, found.sd))
    return replace(found, estimate=100 * found.estimate, low=low, high=high, sd=sd)


def sampling_error(accuracy: float, images: int) -> float:
    """Standard error of a share in 0..1 that was counted on so many images."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"expected a list of at least one finite number, got {array!r}")
    return array


def _sd(array: NDArray[np.float64]) -> float | None:
    if array.size < 2:
        return None
    return 0.0 if np.ptp(array) <= _ROUNDING else float(array.std(ddof=1))


def _t(n: int) -> float:
    return float(stdtrit(n - 1, 0.5 + LEVEL / 2))


def _minus(centre: float, half: float | None) -> float | None:
    return None if half is None else centre - half


def _plus(centre: float, half: float | None) -> float | None:
    return None if half is None else centre + half
