"""From a data set's files to its cache file and manifest, which `repro.datasets` describes; no torch is imported here.

Splits depend on labels and image numbers alone, never on a random generator, whose streams may change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from repro import datasets, locks
from repro.datasets import FOLDER, KnownData
from repro.errors import InputError, ReproError
from repro.validation import expanded

Numbers: TypeAlias = NDArray[np.int64]
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


def prepare(dataset: str, data_dir: Path, side: int = 32, told: Told | None = None) -> Path:
    """Makes sure of the verified cache file of a data set in `data_dir`, and returns it; its manifest lies beside it.

    Args:
        dataset: a name of `datasets.NAMES`, or `imagefolder:PATH`.
        data_dir: the folder of the data sets; what torchvision downloads is also there.
        side: height and width of the images of a folder; other data sets have 32.
        told: is told of the progress of a folder's conversion.

    Raises:
        InputError: an unknown data set, a folder that cannot be written, files that are missing and cannot be
            downloaded, or that are not what they must be.
    """
    name = datasets.named(dataset)
    if side != 32 and not name.startswith(FOLDER):
        raise InputError(f"data.image_size: {name} has images of 32x32, got {side}")
    try:
        if name.startswith(FOLDER):
            from repro.training import imagefolder

            source = expanded(dataset.partition(":")[2]).absolute()
            return imagefolder.prepare(name, source, data_dir, side, told)
        if (cache := _intact(name, data_dir)) is not None:
            return cache
        data_dir.mkdir(parents=True, exist_ok=True)
        with locks.alone(data_dir / LOCK):  # two sweeps do not download into one file at the same time
            return _intact(name, data_dir) or _build(name, data_dir)
    except OSError as error:
        where = error.filename or data_dir
        raise InputError(
            f"{where}: cannot be written or read ({error.strerror}); give a writable folder with --data-dir"
        ) from None


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


def _intact(name: str, folder: Path) -> Path | None:
    """The cache file of a data set where it is there, byte for byte."""
    constant = datasets.DATASETS.get(name)
    for known in [constant] if constant is not None else datasets.prepared(folder, name):
        cache = datasets.cache_of(name, known.digest, folder)
        if cache.exists() and cache.stat().st_size == known.size:
            with cache.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == known.digest:
                    return cache
    return None


def _build(name: str, folder: Path) -> Path:
    from repro.training.readers import READERS  # torchvision takes a second to import

    read = READERS[name](folder)
    raw = read.images.tobytes() + label_bytes(read.labels, len(read.classes))
    digest = hashlib.sha256(raw).hexdigest()
    constant = datasets.DATASETS.get(name)
    if constant is not None and constant.digest != digest:
        raise ReproError(f"{name}: the images built here have SHA-256 {digest}, they must have {constant.digest}")
    cache = datasets.cache_of(name, digest, folder)
    write(cache, raw)
    if constant is None:
        known = describe(name, read.labels, read.classes, read.official, digest=digest, source=str(folder.absolute()))
        write(cache.with_suffix(".json"), known.model_dump_json(indent=1).encode())
    return cache


def _by_class(name: str, labels: NDArray[Any], numbers: Numbers) -> Numbers:
    """Image numbers sorted by class, within a class by a hash."""
    hashes = [int.from_bytes(hashlib.sha256(f"{name}:{i}".encode()).digest()[:8], "big") for i in numbers.tolist()]
    return numbers[np.lexsort((np.array(hashes, dtype=np.uint64), labels[numbers]))]
