"""What the peers train: the network in torch's own layout, and torchvision's data set behind a DataLoader."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from repro.datasets import DataSpec
from repro.networks import ModelSpec
from repro.training.data import load
from repro.training.models import build
from repro.training.prepare import prepare
from repro.training.torchvision_shim import import_torchvision

torchvision = import_torchvision()

STATISTICS = {
    "cifar10": (
        (0.4913996756076813, 0.4821584224700928, 0.44653090834617615),
        (0.24703222513198853, 0.24348512291908264, 0.26158782839775085),
    ),
    "digits": ((0.30370163917541504,) * 3, (0.3754793703556061,) * 3),
}
"""Mean and standard deviation of each channel over the training images, as such programs carry them along."""


def network(spec: ModelSpec) -> nn.Module:
    """The network as torch makes it, its filters contiguous; those of our own programs lie channels last."""
    return build(spec).to(memory_format=torch.contiguous_format)


class Digits(Dataset):
    """The embedded digits in torchvision's manner: an image and its label, transformed when they are asked for."""

    def __init__(self, root: Path, train: bool, transform: object) -> None:
        data = load(prepare("digits", root), DataSpec(dataset="digits"))
        numbers = data.train if train else data.val
        self.images, self.labels = data.images[numbers].numpy(), data.labels[numbers].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def datasets(name: str, root: Path) -> tuple[Dataset, Dataset]:
    """The training and the validation images (of CIFAR-10: half of its official test set)."""
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(*STATISTICS[name])]
    )
    if name == "digits":
        return Digits(root, train=True, transform=transform), Digits(root, train=False, transform=transform)
    cifar10 = torchvision.datasets.CIFAR10
    with redirect_stdout(io.StringIO()):  # it says that the files are there
        train = cifar10(root, train=True, transform=transform, download=True)
        test = cifar10(root, train=False, transform=transform, download=True)
    return train, Subset(test, range(0, len(test), 2))


def loaders(
    name: str, root: Path, batch_size: int, workers: int, order: Iterable[int] | None = None
) -> tuple[DataLoader, DataLoader]:
    """A DataLoader for each; `order` takes the place of shuffling, to compare with another program step by step."""
    train, val = datasets(name, root)
    keep = workers > 0
    return (
        DataLoader(
            train, batch_size, shuffle=order is None, sampler=order, num_workers=workers, persistent_workers=keep
        ),
        DataLoader(val, batch_size, num_workers=workers, persistent_workers=keep),
    )
