"""The numbers that a paper prints for a variant, and what can be told from how they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repro.validation import Strict


class Published(Strict):
    """What the paper prints for a variant. Accuracies in percent, times in seconds an epoch, size in MiB as printed."""

    accuracy: float | None = Field(None, ge=0, le=100)
    """The tables' accuracy, read as the best validation accuracy."""
    accuracy_at_most: float | None = Field(None, ge=0, le=100)
    """A bound that the text gives in place of a number."""
    test_accuracy: float | None = Field(None, ge=0, le=100)
    epochs: int | None = Field(None, ge=1)
    """Printed as epochs until convergence, read as the epoch of the best validation accuracy."""
    epoch_seconds: float | None = Field(None, gt=0)
    size: float | None = Field(None, gt=0)
    text: Mapping[str, float] = Field(default_factory=dict)
    """What the running text says of the same row where it differs: accuracy, epochs, epoch_seconds or size."""

    @model_validator(mode="before")
    @classmethod
    def _with_a_point(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if str(name).isdecimal():  # {accuracy: 74,1}
                raise ValueError(f"published: {name} stands alone, as after a decimal comma (allowed: 74.1)")
        return given

    @field_validator("accuracy", "accuracy_at_most", "test_accuracy")
    @classmethod
    def _in_percent(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and 0 < value < 1:
            raise ValueError(
                f"published.{info.field_name}: {value:g} looks like a share (allowed: percent, as {100 * value:g})"
            )
        return value


def size_unit(published: float, mib: float) -> str | None:
    """The unit in which a printed size is that of a model of so many MiB, or None where it is in none.

    Sizes are printed to two decimals at least, final zeros left out. In MiB the last digit may be off by one: the bytes
    beside the weights depend on names and versions. Thousands of KiB are a second chance, so there every digit is met.
    """
    digits = max(2, decimals(published))
    if abs(mib - published) <= 10.0**-digits:
        return "MiB"
    return "thousands of KiB" if round(mib * 1.024, digits) == published else None


def decimals(printed: float) -> int:
    """How many decimals a number was printed with, trailing zeros not counted."""
    return len(f"{printed!r}".partition(".")[2].rstrip("0"))
