"""How many runs would decide a comparison, if the means and the noise stay as they are."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from repro.reporting.stats import Estimate, Images, Noise, difference, dunnett, prediction

MOST = 1000
"""Runs up to which is looked."""


def runs_to_tell(distance: float, noise: Noise | None, other: Noise | None = None, tests: int = 1) -> int | None:
    """The fewest runs of either row whose difference has a half-width below `distance`; None: unknown, or over `MOST`.

    Args:
        distance: from the difference to what it is told apart from.
        noise: of one row.
        other: of the other row, where it is another one.
        tests: comparisons among which the difference stands, by Bonferroni: the first step of Holm's correction.
    """
    two = other or noise
    return _fewest(lambda n: difference(np.zeros(n), np.zeros(n), _known(noise, n), _known(two, n), tests), distance)


def runs_to_lead(distance: float, rows: int, noise: Noise | None, other: Noise | None) -> int | None:
    """The fewest runs of every row whose interval by `dunnett` is narrower than `distance` to each side, as `runs_to_tell`.

    Args:
        distance: from the difference to what it is told apart from.
        rows: how many are compared with the base.
        noise: of the rows.
        other: of the base.
    """
    return _fewest(
        lambda n: dunnett([np.zeros(n)] * rows, np.zeros(n), [_known(noise, n)] * rows, _known(other, n))[0], distance
    )


def runs_to_exclude(distance: float, accuracy: float, noise: Noise | None, images: Images) -> int | None:
    """The fewest runs whose `prediction` is narrower than `distance` to each side; None: unknown noise, or no such number."""
    return _fewest(lambda n: prediction(np.full(n, accuracy), _known(noise, n), images), distance)


def _fewest(found: Callable[[int], Estimate], distance: float) -> int | None:
    n = bisect_left(range(MOST + 1), True, lo=2, key=lambda n: (found(n).half or math.inf) < distance)
    return n if n <= MOST else None


def _known(noise: Noise | None, n: int) -> Noise | None:
    """The same noise, known at least as well as n runs of one row tell it."""
    return noise and Noise(noise.sd, max(noise.df, n - 1))
