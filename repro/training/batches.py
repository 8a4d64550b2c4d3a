"""The images of a run on its device: in which order an epoch sees them, and what the network is given of them."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.spec import RunSpec
from repro.training import augmentation
from repro.training.data import Data


class Batches:
    """A data set on a device, batch by batch, normalized by its training split, in the type that the network computes in."""

    def __init__(self, spec: RunSpec, data: Data, device: torch.device, dtype: torch.dtype) -> None:
        self._seed, self._size, self.device, self._dtype = spec.seed, spec.training.batch_size, device, dtype
        self._augmentation = spec.data.augmentation
        self._train, self._shape = data.train, data.images.shape[1:]
        self._images = data.images.flatten(1).to(device)
        self._labels = data.labels.to(device)
        # Whole images as rows: operations on rows of three channels would spend their time between the rows.
        pixels = data.images[0].numel() // 3
        self._scale = (1 / (255 * data.std.double())).float().repeat(pixels).to(device)
        self._shift = (-data.mean.double() / data.std.double()).float().repeat(pixels).to(device)
        images = len(data.train)
        if images % self._size == 1 and 1 < self._size < images:
            images -= 1  # one image alone cannot be batch-normalized
        self.images = images
        """Training images that an epoch uses."""
        self.steps = -(-images // self._size)
        """Batches of an epoch."""

    def of_epoch(self, epoch: int) -> tuple[Tensor, ...]:
        """The image numbers of each step of an epoch, in an order that depends on seed and epoch alone.

        With augmentation an image's choice times the number of all images is added: one number says both.
        """
        order = torch.randperm(len(self._train), generator=augmentation.generator(f"{self._seed}:order:{epoch}"))
        numbers = self._train[order]
        if self._augmentation != "none":
            numbers = numbers + len(self._labels) * augmentation.draw(
                self._augmentation, self._seed, epoch, len(numbers)
            )
        return torch.split(numbers[: self.images].to(self.device), self._size)

    def load(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), normalized, channels last, and labels (N,)."""
        choices, numbers = None, indices
        if self._augmentation != "none":
            choices, numbers = indices // len(self._labels), indices % len(self._labels)
        pixels = self._images.index_select(0, numbers)
        if choices is not None:
            pixels = augmentation.apply(pixels.view(-1, *self._shape), choices).flatten(1)
        rows = torch.addcmul(self._shift, pixels.float(), self._scale)
        images = rows.view(-1, *self._shape).permute(0, 3, 1, 2)  # as it lies in memory: channels last
        return images.to(self._dtype), self._labels.index_select(0, numbers)
