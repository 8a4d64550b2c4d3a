"""Which images of a data set are for training, validation and test.

Splits depend on labels and image numbers alone, never on a random generator, whose streams may change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.int64]


def splits(name: str, official: Sequence[int], labels: NDArray[Any]) -> tuple[Numbers, Numbers, Numbers]:
    """Numbers of the training, validation and test images, each ascending.

    Where the source tells three parts apart, they are these; of two the second is halved; a whole is divided 80/10/10.
    Halves and tenths are stratified.
    """
    every = np.arange(len(labels), dtype=np.int64)
    if len(official) == 3:
        train, val, test = np.split(every, np.cumsum(official)[:2])
        return train, val, test
    first, step, second = (official[0], 2, 1) if len(official) == 2 else (0, 10, 5)
    row = _by_class(name, labels, every[first:])
    val, test = row[::step], row[second::step]
    return np.setdiff1d(every, np.concatenate((val, test))), np.sort(val), np.sort(test)


def folded(
    name: str, train: Numbers, val: Numbers, labels: NDArray[Any], folds: int, fold: int
) -> tuple[Numbers, Numbers]:
    """The training and validation images of one of `folds` stratified folds over both."""
    row = _by_class(name, labels, np.sort(np.concatenate((train, val))))
    return np.setdiff1d(row, row[fold::folds]), np.sort(row[fold::folds])


def split_digest(parts: Sequence[Numbers]) -> str:
    """SHA-256 over index arrays as little-endian int64."""
    return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()


def _by_class(name: str, labels: NDArray[Any], numbers: Numbers) -> Numbers:
    """Image numbers sorted by class, within a class by a hash."""
    hashes = [int.from_bytes(hashlib.sha256(f"{name}:{i}".encode()).digest()[:8], "big") for i in numbers.tolist()]
    return numbers[np.lexsort((np.array(hashes, dtype=np.uint64), labels[numbers]))]
