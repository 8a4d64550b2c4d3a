"""The numbers that a paper prints, by row, with what is declared and known of each row's model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from repro import studies as declared_studies
from repro.errors import unknown
from repro.published import Published
from repro.reporting.statements import Metric, Paper
from repro.reporting.stats import sampling_error
from repro.spec import flatten, resolve
from repro.studies import Study


class Model(Protocol):
    """What a declared architecture is known to be, whatever it was trained on."""

    @property
    def parameters(self) -> int:
        """Trainable parameters."""

    @property
    def size_legacy_mib(self) -> float:
        """MiB of the state dict in torch's format before 1.6."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image."""


class Printed:
    """All that is printed; rows are named `study/variant`."""

    def __init__(self, paper: Paper, studies: Sequence[Study], models: Mapping[tuple[str, str], Model]) -> None:
        """Resolves every declared row once; see `audit.audit` for the arguments."""
        self.paper = paper
        self.studies = {study.study: study for study in studies}
        self.rows: dict[str, Published] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.models: dict[str, Model] = {f"{study}/{variant}": model for (study, variant), model in models.items()}
        for study in studies:
            for slug, variant in study.variants.items():
                name = f"{study.study}/{slug}"
                self.rows[name] = variant.published
                self.settings[name] = flatten(resolve(declared_studies.settings(study, slug), name))

    def row(self, name: str) -> Published:
        """What is printed for a row.

        Raises:
            InputError: no study declares it.
        """
        if name not in self.rows:
            raise unknown("row", name, self.rows)
        return self.rows[name]

    def value(self, name: str, metric: Metric) -> float | None:
        """One printed number of a row, or what follows from two of them; None where it is not printed."""
        row = self.row(name)
        match metric:
            case "accuracy":
                return row.accuracy
            case "size":
                return row.size
            case "epoch_seconds":
                return row.epoch_seconds
            case "training_seconds":
                return None if row.epochs is None or row.epoch_seconds is None else row.epochs * row.epoch_seconds
            case "gap":
                return None

    def setting(self, name: str, setting: str) -> Any:
        """A declared setting of a row by its dotted name; None for one that its model does not have."""
        self.row(name)
        return self.settings[name].get(setting)

    def differing(self, first: str, second: str) -> set[str]:
        """The settings in which two rows are declared differently; none where they are one experiment."""
        one, other = self.settings[first], self.settings[second]
        return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}

    def error(self, accuracy: float, other: float) -> float:
        """Standard error, in points, of the difference of two accuracies in percent, each counted on its own images."""
        return 100 * math.hypot(*(sampling_error(one / 100, self.paper.protocol.images) for one in (accuracy, other)))
