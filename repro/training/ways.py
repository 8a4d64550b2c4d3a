"""How a step is computed: by the passes written out for a CPU, by plain autograd, or as a CUDA graph. Each is checked first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.errors import ReproError
from repro.records import Step
from repro.training import cpu, cuda, fast
from repro.training.batches import Batches


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is computed, and where it is by plain autograd, why."""

    step: Step
    reason: str = ""


def forward_on_cpu(network: nn.Module, batches: Batches) -> tuple[Callable[[Tensor], Tensor], Way]:
    """The passes of a network in training mode, where they cover all of it; else the network itself.

    Raises:
        ReproError: on images of the training split the passes compute something else than autograd.
    """
    if reason := fast.uncovered(network):
        return network, Way("autograd", reason)
    passes = fast.Passes(network)  # type: ignore[arg-type]
    first = torch.cat(batches.of_epoch(1))[: fast.TRIALS * fast.IMAGES]  # a batch may be of a few images
    trials = [indices for indices in torch.split(first, fast.IMAGES) if len(indices) > 1]
    with cpu.denormals_as_zero():
        differs = fast.difference(network, passes, (batches.load(indices) for indices in trials))
    if differs:
        raise ReproError(
            f"the fast step differs from autograd ({differs}), so nothing was trained: a fault of repro/training/fast or of"
            f" this build of torch ({torch.__version__})"
        )
    return passes, Way("fast")


def graphed(step: cuda.GraphedStep, batch: Tensor) -> Way:
    """Captures a step on its first batch."""
    reason = step.capture(batch)
    return Way("autograd", f"no CUDA graph: {reason}") if reason else Way("cuda graph")
