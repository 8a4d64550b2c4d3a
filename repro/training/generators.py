"""The generators that a run may draw from: torch's, on the CPU and on its device, Python's and numpy's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    """Seeds all of them with a run's seed."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def states(device: torch.device) -> dict[str, Any]:
    """Where they stand, as tensors, numbers, strings and lists."""
    return {
        "generator": torch.get_rng_state(),
        "cuda_generator": None if device.type == "cpu" else torch.cuda.get_rng_state(device),
        "python_generator": random.getstate(),
        "numpy_generator": [one.tolist() if isinstance(one, np.ndarray) else one for one in np.random.get_state()],
    }


def of_host(states: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of `states` those that no device follows: a captured step would draw the same from them each time."""
    host = states["generator"].tolist() if states["cuda_generator"] is not None else None
    return host, states["python_generator"], states["numpy_generator"]


def restore(states: Mapping[str, Any], device: torch.device) -> None:
    """Sets them to what `states` gave. Snapshots of former versions have torch's alone."""
    torch.set_rng_state(states["generator"].cpu())
    if device.type != "cpu" and states["cuda_generator"] is not None:
        torch.cuda.set_rng_state(states["cuda_generator"].cpu(), device)
    if "python_generator" in states:
        random.setstate(states["python_generator"])
        np.random.set_state(tuple(states["numpy_generator"]))
