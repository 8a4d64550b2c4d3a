"""Networks whose code is not the project's are tried on a few images before anything is trained.

python -m repro.training.trial < specs        (a JSON list; ends with code 2 and one line where a network does not fit)
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.errors import InputError, shown
from repro.spec import RunSpec
from repro.training import models


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
    """Builds a network and computes a step of it, as training would.

    Raises:
        InputError: it cannot be built, or does not make logits (N, classes) of images (N, 3, input_size, input_size).
    """
    side, images = spec.model.input_size, min(2, spec.training.batch_size)
    network = models.build(spec.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = torch.bfloat16 if spec.training.precision == "bf16" else torch.float32
    for parameter in models.multiplied(network) if dtype is torch.bfloat16 else ():
        parameter.data = parameter.data.to(dtype)
    what = f"model: {spec.model.network} on {images} images of {side}x{side} in {spec.training.precision}"
    for training in (False, True):
        try:
            logits = network.train(training)(torch.zeros(images, 3, side, side, dtype=dtype))
        except Exception as error:
            raise InputError(f"{what}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}") from None
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            raise InputError(f"{what}: returned {type(logits).__name__}{_of(logits)} (allowed: a tensor of logits)")
        if logits.shape != (images, spec.model.classes):
            raise InputError(
                f"{what}: returned the shape {tuple(logits.shape)} (allowed: {(images, spec.model.classes)}, a logit a class)"
            )
    try:
        torch.autograd.backward(F.cross_entropy(logits.float(), torch.zeros(images, dtype=torch.int64)))
    except RuntimeError as error:
        raise InputError(f"{what}: has no gradient ({' '.join(str(error).split())[:200]})") from None


def _of(value: object) -> str:
    return f" of {value.dtype}" if isinstance(value, Tensor) else f" {shown(value)}" if value is None else ""
