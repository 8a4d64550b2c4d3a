"""Images as one uint8 tensor, mapped from a verified cache file, the three splits, and augmentation.

All workers of a machine share the pages of the file, which `prepare` makes and `repro.datasets` describes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from repro import datasets
from repro.datasets import DATASETS, DataSpec
from repro.errors import InputError
from repro.training.splits import folded, split_digest, splits


@dataclass(frozen=True, slots=True)
class Data:
    """One data set in memory with its splits; the tensors are shared and must not be written to."""

    images: Tensor
    """(N, side, side, 3) uint8."""
    labels: Tensor
    """(N,) int64."""
    train: Tensor
    """Numbers of the training images, ascending, int64; `val` and `test` likewise."""
    val: Tensor
    test: Tensor
    mean: Tensor
    """(3,) float32: mean of each channel over all pixels of the training split, pixels in 0..1; 0 without normalization."""
    std: Tensor
    """(3,) float32: their standard deviation (of the population, not the mean of per-image ones), or 1."""
    classes: tuple[str, ...]

    @property
    def largest_class(self) -> float:
        """The best accuracy on validation of a network that answers the same whatever it sees, 0 to 1."""
        return int(torch.bincount(self.labels[self.val]).max()) / len(self.val)


def load(cache: Path, spec: DataSpec) -> Data:
    """The data set of a cache file, mapped, verified against the digests of `spec`.

    Raises:
        InputError: the file is missing or is not the data set that the spec names.
    """
    again = f"`repro data --dataset {spec.dataset}`"
    if spec.dataset.startswith(datasets.FOLDER):
        again = "`repro data --dataset imagefolder:PATH` with its folder"
    try:
        size = cache.stat().st_size
        raw = torch.from_file(str(cache), shared=False, size=size, dtype=torch.uint8)
    except (OSError, RuntimeError):
        raise InputError(f"{cache}: cannot be read; {again} builds it") from None
    known = datasets.known(spec.dataset, spec.digest, cache.parent)
    if known is None and spec.dataset not in DATASETS:
        raise InputError(f"{cache.with_suffix('.json')}: is missing, or belongs to another data set; {again} builds it")
    expected = spec.digest if known is None else known.content or known.digest
    found = hashlib.sha256(raw.numpy().data).hexdigest()
    if known is None or found != expected:
        raise InputError(
            f"{cache}: has SHA-256 {found[:16]}..., the run needs {expected[:16]}... (data.digest);"
            f" delete the file, {again} builds it again"
        )
    count = sum(known.images)
    images = raw[: count * math.prod(known.shape)].view(count, *known.shape)
    labels = np.frombuffer(raw.numpy(), known.label_type, offset=images.numel()).astype(np.int64)
    name = datasets.kind_of(spec.dataset)
    train, val, test = splits(name, known.official, labels)
    found = split_digest((train, val, test))
    if found != spec.split_digest:
        raise InputError(
            f"data.split_digest: the splits of {spec.dataset} have {found[:16]}..., the run needs"
            f" {spec.split_digest[:16]}...; leave the key out to use these"
        )
    if spec.folds is not None and spec.fold is not None:
        train, val = folded(name, train, val, labels, spec.folds, spec.fold)
    of_train, of_val, of_test = map(torch.from_numpy, (train, val, test))
    mean, std = torch.zeros(3), torch.ones(3)
    if spec.normalisation == "channel":
        mean, std = _moments(images, of_train)
    return Data(images, torch.from_numpy(labels), of_train, of_val, of_test, mean, std, known.classes)


def _moments(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the training split, exact up to the final rounding.

    A channel that is the same everywhere has the deviation 1, so that it is normalised to zeros.
    """
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
    return torch.tensor(mean), torch.tensor([one or 1.0 for one in std])
