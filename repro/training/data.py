"""Images as one uint8 tensor, mapped from a verified cache file, and the three splits.

`prepare` makes sure of the cache file of a data set, `load` maps it: all workers of a machine share its pages. The file
holds the images (N, 32, 32, 3) and then the labels (N,), all uint8, and nothing else; its SHA-256 is the data set's
digest. Splits depend on labels and image numbers alone, never on a random generator, whose streams may change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import io
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.errors import InputError, ReproError, unknown
from repro.spec import DATASETS, DataSpec
from repro.training.torchvision_shim import import_torchvision

SIDE = 32
_PIXELS = SIDE * SIDE * 3
_TRAINING_IMAGES = 50_000
"""CIFAR-10's images from here on are the official test set."""
_NETWORK_SECONDS = 15.0

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Data:
    """One data set in memory with its splits; the tensors are shared and must not be written to."""

    images: Tensor
    """(N, 32, 32, 3) uint8."""
    labels: Tensor
    """(N,) int64."""
    train: Tensor
    """Numbers of the training images, ascending, int64; `val` and `test` likewise."""
    val: Tensor
    test: Tensor
    mean: Tensor
    """(3,) float32: mean of each channel over all pixels of the training split, pixels in 0..1."""
    std: Tensor
    """(3,) float32: their standard deviation (of the population, not the mean of per-image ones)."""
    classes: tuple[str, ...]


def prepare(dataset: str, data_dir: Path) -> Path:
    """Makes sure of the verified cache file of a data set in `data_dir`, and returns it.

    CIFAR-10 comes from torchvision's files in `data_dir`, downloaded where they are missing; digits from scikit-learn.

    Raises:
        InputError: an unknown data set, a folder that cannot be written, files that are missing and cannot be
            downloaded, or a file that is not the original one.
    """
    if dataset not in DATASETS:
        raise unknown("data set", dataset, DATASETS)
    digest = DATASETS[dataset].digest
    cache = data_dir / f"{dataset}-{digest[:16]}.u8"
    try:
        if _is_intact(cache, dataset):
            return cache
        data_dir.mkdir(parents=True, exist_ok=True)
        with _locked(data_dir):
            if not _is_intact(cache, dataset):
                images, labels = _cifar10(data_dir) if dataset == "cifar10" else _digits()
                _write(cache, images, labels, digest)
    except OSError as error:
        where = error.filename or data_dir
        raise InputError(
            f"{where}: cannot be written or read ({error.strerror}); give a writable folder with --data-dir"
        ) from None
    return cache


def load(cache: Path, spec: DataSpec) -> Data:
    """The data set of a cache file, mapped, verified against the digests of `spec`.

    Raises:
        InputError: the file is missing or is not the data set that the spec names.
    """
    try:
        size = cache.stat().st_size
        pixels = torch.from_file(str(cache), shared=False, size=size, dtype=torch.uint8)
    except (OSError, RuntimeError):
        raise InputError(f"{cache}: cannot be read; `repro data --dataset {spec.dataset}` builds it") from None
    found = hashlib.sha256(pixels.numpy().data).hexdigest()
    if found != spec.digest:
        raise InputError(
            f"{cache}: has SHA-256 {found[:16]}..., the run is declared on {spec.digest[:16]}... (data.digest);"
            f" delete the file, `repro data --dataset {spec.dataset}` builds it again"
        )
    count = size // (_PIXELS + 1)
    images = pixels[: count * _PIXELS].view(count, SIDE, SIDE, 3)
    labels = pixels[count * _PIXELS :].long()
    splits = _splits(spec.dataset, labels.tolist())
    found = hashlib.sha256(b"".join(split.astype("<i8").tobytes() for split in splits)).hexdigest()
    if found != spec.split_digest:
        raise InputError(
            f"data.split_digest: the splits of {spec.dataset} have {found[:16]}..., the run is declared on"
            f" {spec.split_digest[:16]}...; leave the key out to use these"
        )
    train, val, test = (torch.from_numpy(split) for split in splits)
    mean, std = _moments(images, train)
    return Data(images, labels, train, val, test, mean, std, DATASETS[spec.dataset].classes)


def _splits(dataset: str, labels: list[int]) -> tuple[NDArray[np.int64], ...]:
    """Stratified splits: images sorted by class, within a class by a hash, every k-th one is taken out of that row.

    digits: one in ten for validation, one in ten for test. cifar10: the official training set stays whole, the official
    test set is halved into validation and test.
    """
    first, every, second = (_TRAINING_IMAGES, 2, 1) if dataset == "cifar10" else (0, 10, 5)
    row = sorted(
        range(first, len(labels)), key=lambda i: (labels[i], hashlib.sha256(f"{dataset}:{i}".encode()).digest())
    )
    val, test = row[::every], row[second::every]
    train = set(range(len(labels))).difference(val, test)
    return tuple(np.array(sorted(split), dtype=np.int64) for split in (train, val, test))


def _moments(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the training split, exact up to the final rounding."""
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for part in torch.split(train, 2_000):  # small parts: a copy of the whole split would double the memory of a worker
        pixels = images[part]
        for channel in range(3):
            counts[channel] += torch.bincount(pixels[..., channel].reshape(-1), minlength=256)
    values = torch.arange(256)
    n = int(counts[0].sum())
    sums = [int(total) for total in (counts * values).sum(1)]
    squares = [int(total) for total in (counts * values**2).sum(1)]
    mean = [s / (255 * n) for s in sums]
    std = [(n * q - s * s) ** 0.5 / (255 * n) for s, q in zip(sums, squares, strict=True)]
    return torch.tensor(mean), torch.tensor(std)


def _is_intact(cache: Path, dataset: str) -> bool:
    known = DATASETS[dataset]
    if not cache.exists() or cache.stat().st_size != sum(known.images) * (_PIXELS + 1):
        return False
    with cache.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == known.digest


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder itself locked, so that two sweeps do not download into one file at the same time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders; the cache is renamed into place
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(cache: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8], digest: str) -> None:
    """Writes the cache file under a temporary name and renames it once it is on the disk and is what it must be."""
    raw = images.tobytes() + labels.tobytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != digest:
        raise ReproError(f"{cache.name}: the images built here have SHA-256 {found}, they must have {digest}")
    with tempfile.NamedTemporaryFile(dir=cache.parent, prefix=cache.name, suffix=".tmp", delete=False) as file:
        try:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(cache)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _digits() -> Arrays:
    """The 1,797 images of scikit-learn (8x8, values 0..16), each pixel repeated 4x4 times, scaled to 0..255, as grey RGB."""
    from sklearn.datasets import load_digits  # its import takes longer than all else here, and only digits need it

    bunch: Any = load_digits()
    small = bunch.images.astype(np.int64)
    grey = (small * 255 // 16).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3))), bunch.target.astype(np.uint8)


def _cifar10(data_dir: Path) -> Arrays:
    """CIFAR-10 by torchvision, official training set first; every file's MD5 is checked before it is unpickled."""
    torchvision = import_torchvision()
    cifar10 = torchvision.datasets.CIFAR10
    expected = dict([*cifar10.train_list, *cifar10.test_list, (cifar10.meta["filename"], cifar10.meta["md5"])])
    folder = data_dir / cifar10.base_folder
    _check(folder, expected)
    if missing := [name for name in expected if not (folder / name).exists()]:
        reason = _download(torchvision, data_dir)
        _check(folder, expected)
        missing = [name for name in missing if not (folder / name).exists()]
        if missing:
            raise InputError(
                f"{folder}: {', '.join(missing)} missing, and the download failed ({reason}); put the files of"
                f" {cifar10.filename} there, name the folder above it with --data-dir, or train on --dataset digits"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the age of the pickled arrays
        parts = [cifar10(str(data_dir), train=train) for train in (True, False)]
    return (
        np.concatenate([part.data for part in parts]),
        np.concatenate([np.array(part.targets, dtype=np.uint8) for part in parts]),
    )


def _check(folder: Path, expected: dict[str, str]) -> None:
    for name, md5 in expected.items():
        if not (path := folder / name).exists():
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            raise InputError(
                f"{path}: is corrupted (MD5 {found}, the original has {md5}); delete it for a new"
                " download, or put the original there"
            )


def _download(torchvision: Any, data_dir: Path) -> str:
    """Downloads and unpacks quietly; the reason where that failed, else ""."""
    cifar10 = torchvision.datasets.CIFAR10
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SECONDS)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            torchvision.datasets.utils.download_and_extract_archive(
                cifar10.url, str(data_dir), filename=cifar10.filename, md5=cifar10.tgz_md5
            )
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))
    finally:
        socket.setdefaulttimeout(timeout)
    return ""
