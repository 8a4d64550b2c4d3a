"""How a cache file and its manifest are written, which `repro.datasets` describes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro import datasets
from repro.datasets import KnownData
from repro.training.splits import split_digest, splits

LOCK = ".lock"
"""Name of the file in the folder of data sets that is locked while one is prepared."""
Told: TypeAlias = Callable[[int, int], None]
"""Is told how many images are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader found, in the order of the cache."""

    images: NDArray[np.uint8]
    """(N, 32, 32, 3)."""
    labels: NDArray[Any]
    """(N,), integers from 0."""
    classes: Sequence[str]
    official: tuple[int, ...]
    """As `KnownData.official`."""


def describe(
    name: str, labels: NDArray[Any], classes: Sequence[str], official: tuple[int, ...], **more: Any
) -> KnownData:
    """What is known of a data set with these labels, its splits among it."""
    parts = splits(datasets.kind_of(name), official, labels)
    counts = np.bincount(labels[np.concatenate(parts[:2])].astype(np.int64), minlength=len(classes))
    return KnownData(
        name=name,
        classes=tuple(classes),
        official=official,
        split_digest=split_digest(parts),
        images=(len(parts[0]), len(parts[1]), len(parts[2])),
        smallest=int(counts.min()),
        **more,
    )


def label_bytes(labels: NDArray[Any], classes: int) -> bytes:
    """Labels as they stand in a cache file."""
    return labels.astype(np.uint8 if classes <= 256 else "<i4").tobytes()


def write(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it once it is on the disk."""
    with temporary(path) as file:
        file.write(content)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Any]:
    """A file that gets the name `path` at the end, once it is on the disk, and is removed where anything fails."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
