"""A study as its YAML file declares it: one question, its variants, and the numbers published for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from repro import grids
from repro.published import Claimed, Published
from repro.spec import Value
from repro.validation import Strict

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=grids.LONGEST)]


class Variant(Strict):
    """One row of a study."""

    title: str = Field(min_length=1)
    """Its label in the table."""
    base: str | None = None
    """The variant that it is based on, if that is not the study's base."""
    set: Mapping[str, Any] = Field(default_factory=dict)
    """Dotted settings that differ from the base's."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Labels by which entry points select variants, such as `fire: removed`."""
    published: Published = Published()
    """The numbers published for this row."""
    note: str = ""
    """Shown beside the row: why a published number cannot be met, or what in the declaration is an interpretation."""


class Elsewhere(Strict):
    """A model that others published on the same data set, for the figure of accuracy against size."""

    title: str = Field(min_length=1)
    """Its label in the figure."""
    year: int = Field(ge=1950, le=2100)
    """The year of its publication, shown beside the title."""
    parameters: int = Field(ge=1)
    """Its weights in float32 take four bytes each."""
    accuracy: float = Field(gt=1, le=100)
    """Test accuracy in percent."""


class Study(Claimed):
    """One question and its variants, in the order of the paper's table."""

    study: Slug
    """Its name, for commands and files: lower-case letters, digits and underscores."""
    title: str = Field(min_length=1)
    """The heading of its table."""
    question: str = Field(min_length=1)
    """The question that its table answers."""
    section: str = ""
    """The section of the paper that reports it."""
    table: int | None = None
    """The number of the paper's table; absent if only the text reports it."""
    base: str | None = None
    """Base of the variants that name none: a variant of this study, or `study/variant`."""
    against: str | None = None
    """The variant that all rows are compared with, if it is not their base: of this study, or `study/variant`."""
    axis: str | None = None
    """The swept hyperparameter as a dotted name, if the study sweeps one."""
    include_base: bool = True
    """Whether your own study trains its base and shows it as the first row, if it is not one of its variants."""
    dataset: str | None = Field(None, min_length=1)
    """The data set of its runs and published numbers, as `--dataset` takes it; cifar10 if absent."""
    image_size: int | None = Field(None, ge=8, le=1024)
    """Height and width to which the images of an `imagefolder:` are scaled; 32 if absent."""
    folds: int | None = Field(None, ge=2, le=1000)
    """Number of folds of a cross-validation: each row is trained once for each fold and seed."""
    grid: Mapping[str, Any] = Field(default_factory=dict)
    """Fields with lists of values: every combination is a variant, and every field a column of the table."""
    zip: Mapping[str, Any] = Field(default_factory=dict)
    """Fields with lists of equal length, combined element by element; each is combined with every point of the grid."""
    elsewhere: Annotated[tuple[Elsewhere, ...], Field(strict=False)] = ()
    """Other published models on the same data set, shown only in the figure of accuracy against size."""
    variants: Mapping[Slug, Variant] = Field(min_length=1)
    """Its rows by name; optional with `grid` or `zip`."""

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not ({"grid", "zip"} & set(given)):
            return given
        named = given.get("variants", {})
        made = grids.expand(given.get("grid", {}), given.get("zip", {}))
        if not isinstance(named, Mapping) or made.keys() <= named.keys():  # a stored study has them all, in order
            return given
        return {**given, "variants": made | dict(named)}

    @property
    def data(self) -> dict[str, Value]:
        """What it declares of its data, by dotted name."""
        declared = {"data.dataset": self.dataset, "data.image_size": self.image_size, "data.folds": self.folds}
        return {name: value for name, value in declared.items() if value is not None}

    @property
    def fields(self) -> tuple[str, ...]:
        """The dotted names that `grid` and `zip` vary."""
        return (*self.zip, *self.grid)

    def labels(self, name: str) -> list[str]:
        """The values of label `name` in this study, in order of appearance."""
        return list(dict.fromkeys(variant.labels[name] for variant in self.variants.values() if name in variant.labels))
