"""torchvision from PyPI beside a torch that is built for the CPU alone.

PyPI's torchvision links against CUDA, so beside a CPU build of torch its compiled operators cannot be loaded. torchvision
means to work without them, but while it is imported it attaches shape functions to two of them, `nms` and `qnms`, and
dies with "operator torchvision::nms does not exist". Declaring those two first, without any kernel, lets the import
through: data sets, models and tensor transforms work; non-maximum suppression, which nothing here uses, does not.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch


def import_torchvision() -> ModuleType:
    """The torchvision package, with the two operators declared where its own library of them cannot be loaded.

    Where torchvision is whole, or has been imported already, this is a plain import.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    if "torchvision" not in sys.modules and not hasattr(torch.ops.torchvision, "nms") and not _operators_load():
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    return importlib.import_module("torchvision")


def _operators_load() -> bool:
    """Whether torchvision's compiled operators can be loaded, by loading them as its import is about to do."""
    package = find_spec("torchvision")
    for folder in (package and package.submodule_search_locations) or ():
        for path in Path(folder).glob("_C*.so"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(path)  # type: ignore[no-untyped-call]
                return True
    return False
