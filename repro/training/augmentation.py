"""Augmentation of training images: choices are drawn for a whole epoch first, and applied to each batch after.

A choice is one number: 0 leaves the image as it is; it says whether the image is mirrored, and by how many pixels it is
shifted in both directions.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_PAD = 4
_PLACES = (2 * _PAD + 1) ** 2


def generator(name: str) -> torch.Generator:
    """A generator that depends on `name` alone."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))


def draw(kind: str, seed: int, epoch: int, count: int) -> Tensor:
    """The choices of an epoch for `count` images, (count,) int64, by seed, epoch and `kind` alone: flip or crop_flip."""
    drawn = generator(f"{seed}:{kind}:{epoch}")
    mirrored = torch.randint(2, (count,), generator=drawn)
    return mirrored + 2 * torch.randint(_PLACES, (count,), generator=drawn) if kind == "crop_flip" else mirrored


def apply(images: Tensor, choices: Tensor) -> Tensor:
    """Images (N, H, W, 3) uint8 as the choices (N,) have them; what comes from beyond an edge is black."""
    height, width = images.shape[1:3]
    place = (choices // 2 + _PLACES // 2) % _PLACES
    down, right = place // (2 * _PAD + 1) - _PAD, place % (2 * _PAD + 1) - _PAD
    ys = torch.arange(height, device=images.device) + down[:, None]
    xs = torch.arange(width, device=images.device) + right[:, None]
    xs = torch.where((choices % 2 == 1)[:, None], width - 1 - xs, xs)
    inside = ((ys >= 0) & (ys < height))[:, :, None] & ((xs >= 0) & (xs < width))[:, None, :]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return images[each, ys.clamp(0, height - 1)[:, :, None], xs.clamp(0, width - 1)[:, None, :]] * inside[..., None]
