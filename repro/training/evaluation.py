"""What a network gets right on a split: loss, accuracy and the predicted class of every image."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from repro.records import Progress
from repro.training.batches import Batches
from repro.training.data import Data

Predictions: TypeAlias = dict[str, NDArray[np.unsignedinteger]]
"""Classes as arrays `val_predicted`, `val_true`, `test_predicted` and `test_true`, each (images of the split,), in the order
of the split."""

_BATCH = 250


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss and share of correct answers over the images of a split."""

    loss: float
    accuracy: float
    predicted: Tensor
    """(N,) int64, on the CPU."""

    def confusion(self, labels: Tensor, classes: int) -> tuple[tuple[int, ...], ...]:
        """How many images of a class (row) were taken for which (column); `labels` are the (N,) true classes."""
        counts = torch.bincount(labels * classes + self.predicted, minlength=classes * classes)
        return tuple(tuple(row) for row in counts.view(classes, classes).tolist())


def evaluate(
    module: nn.Module, source: Batches, numbers: Tensor, between: Progress
) -> Generator[Progress, None, Evaluation]:
    """Evaluates the images `numbers`, and yields `between` after each batch but the last. Draws from no generator."""
    batches = torch.split(numbers.to(source.device), _BATCH)
    total = torch.zeros(2, dtype=torch.float64, device=source.device)
    predicted = []
    module.eval()
    for position, indices in enumerate(batches, start=1):
        with torch.inference_mode():
            images, labels = source.load(indices)
            logits = module(images).float()
            total += sums(F.cross_entropy(logits, labels, reduction="sum"), logits, labels)
            predicted.append(logits.argmax(1))
        if position < len(batches):
            yield between
    loss, accuracy = (total / len(numbers)).tolist()
    return Evaluation(loss, accuracy, torch.cat(predicted).cpu())


def sums(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """(2,) float64: the summed loss and the number of correct answers."""
    return torch.stack((loss.double(), (logits.argmax(1) == labels).sum().double()))


def predictions(data: Data, val: Evaluation, test: Evaluation) -> Predictions:
    """What a run keeps of its evaluations on both splits."""
    small = np.uint8 if len(data.classes) <= 256 else np.uint16
    kept: Predictions = {}
    for name, indices, evaluation in (("val", data.val, val), ("test", data.test, test)):
        kept[f"{name}_predicted"] = evaluation.predicted.numpy().astype(small)
        kept[f"{name}_true"] = data.labels[indices].numpy().astype(small)
    return kept
