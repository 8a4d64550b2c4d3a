"""What a report shows that no row holds, fetched from the store run by run, only where it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repro.records import Architecture
from repro.rows import RunRow


def _nothing(_: RunRow) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Beside:
    """What figures need that no row holds; a function that answers None leaves its figure out."""

    architecture: Callable[[RunRow], Architecture | None] = _nothing
    """The run's `architecture.json`."""
    confusion: Callable[[RunRow], Sequence[Sequence[int]] | None] = _nothing
    """The run's `confusion.csv`: rows are the true classes."""
    samples: tuple[NDArray[np.uint8], Sequence[str]] | None = None
    """Images (n, 32, 32, 3) of the data set with the names of their classes."""
