"""Networks whose code is not the project's are tried on a few images before anything is trained.

python -m repro.training.trial < specs        (a JSON list; ends with code 2 and one line where a network does not fit)
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor, nn

from repro.errors import InputError, shown
from repro.spec import RunSpec
from repro.training.data import Data
from repro.training.loop import Training


def main() -> int:
    """Tries the specs on standard input; the result is an exit code."""
    try:
        for fields in json.load(sys.stdin):
            trial(RunSpec.model_validate(fields))
    except InputError as error:
        print(error, file=sys.stderr)  # noqa: T201 - whoever started this process reads it
        return error.exit_code
    return 0


def trial(spec: RunSpec) -> None:
    """Builds a network, and trains it for an epoch of one step, as a run would.

    Raises:
        InputError: it cannot be built, or does not make logits (N, classes) of images (N, 3, input_size, input_size), or
            cannot be trained.
    """
    side, images = spec.model.input_size, min(2, spec.training.batch_size)
    what = f"model: {spec.model.network} on {images} images of {side}x{side} in {spec.training.precision}"
    once = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": 1, "batch_size": images})})
    dtype = torch.float32 if spec.training.precision == "fp32" else torch.bfloat16
    example = torch.zeros(images, 3, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    try:
        training = Training(once, _black(images, side))
        for mode in (True, False):
            _check(training.module.train(mode), example, (images, spec.model.classes), what)
        for _ in training:
            training.snapshot()
    except InputError:
        raise
    except Exception as error:
        hint = "" if spec.training.precision == "fp32" else "; in bf16 only Conv2d and Linear take bfloat16"
        raise InputError(f"{what}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}{hint}") from None


def _black(images: int, side: int) -> Data:
    """Black images of one class, the same in every split."""
    numbers = torch.arange(images)
    pixels, labels = torch.zeros(images, side, side, 3, dtype=torch.uint8), torch.zeros_like(numbers)
    return Data(pixels, labels, numbers, numbers, numbers, torch.zeros(3), torch.ones(3), ("black", "white"))


def _check(network: nn.Module, images: Tensor, shape: tuple[int, int], what: str) -> None:
    logits = network(images)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise InputError(f"{what}: returned {type(logits).__name__}{_of(logits)} (allowed: a tensor of logits)")
    if logits.shape != shape:
        raise InputError(f"{what}: returned the shape {tuple(logits.shape)} (allowed: {shape}, one logit per class)")
    if network.training and not logits.requires_grad:
        raise InputError(f"{what}: has no gradient")


def _of(value: object) -> str:
    return f" of {value.dtype}" if isinstance(value, Tensor) else f" {shown(value)}" if value is None else ""
