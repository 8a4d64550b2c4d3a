"""The classes that a finished run's best weights predict: `predictions.npz` beside its journal.

Four arrays of (images,) uint8 (uint16 above 256 classes): `val_predicted`, `val_true`, `test_predicted`, `test_true`, in the
order of the splits. They tell which images a model gets right, which no accuracy does.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from repro.execution import disk

if TYPE_CHECKING:
    from repro.journal import Journal

NAME = "predictions.npz"


def write(folder: Path, predictions: Mapping[str, NDArray[np.unsignedinteger]]) -> None:
    """Writes the file in one step; the same predictions give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **predictions)
    disk.write(folder / NAME, buffer.getvalue())


def lacking(known: Journal) -> bool:
    """Whether a finished run has its weights but no predictions, as runs of earlier versions."""
    ended = known.result is not None and known.result.best_epoch > 0
    return ended and (known.folder / "model.pt").is_file() and not (known.folder / NAME).is_file()


def backfill(known: Journal, cache: Path) -> None:
    """Computes the predictions of a finished run from its weights; `cache` is the verified file of its data set."""
    import torch

    from repro.training.data import load
    from repro.training.loop import Training

    training = Training(known.spec, load(cache, known.spec.data))
    state = torch.load(known.folder / "model.pt", map_location="cpu", weights_only=True)
    write(known.folder, training.predict(state))
