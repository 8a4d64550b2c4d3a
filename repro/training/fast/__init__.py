"""Passes written out for a CPU. They are used for a network of which every part is covered, and checked before they are."""

from repro.training.fast.check import IMAGES, TRIALS, difference
from repro.training.fast.coverage import before_norm, uncovered
from repro.training.fast.passes import Passes

__all__ = ["IMAGES", "TRIALS", "Passes", "before_norm", "difference", "uncovered"]
