"""What a paper says in words, as data: `experiments/claims/*.yaml`.

A statement is a sentence of the paper put as a test of a few general kinds over rows (`study/variant`). The same test is
applied twice: to our runs (`claims`) and to the paper's own printed numbers (`audit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from repro import declarations
from repro.errors import InputError
from repro.spec import Names, Value
from repro.studies import DECLARATIONS, Slug
from repro.validation import Strict, validated

Metric: TypeAlias = Literal["accuracy", "size", "epoch_seconds", "training_seconds", "gap"]
"""accuracy in percent; gap: training minus validation accuracy at the best epoch, in points; size in MiB; training_seconds:
seconds an epoch times best epoch."""

_AtLeastOne = Annotated[Names, Field(min_length=1)]
_Pair = Annotated[tuple[str, str], Field(strict=False)]


class Compare(Strict):
    """In every pair the first row's metric is higher (or lower) than the second's."""

    name: Literal["compare"]
    metric: Metric
    first: Literal["higher", "lower"]
    pairs: Annotated[tuple[_Pair, ...], Field(strict=False, min_length=1)]

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the test needs."""
        return tuple(dict.fromkeys(row for pair in self.pairs for row in pair))


class Alike(Strict):
    """In every pair the rows' metrics are less than `margin` apart."""

    name: Literal["alike"]
    metric: Metric
    margin: float = Field(gt=0)
    pairs: Annotated[tuple[_Pair, ...], Field(strict=False, min_length=1)]

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the test needs."""
        return tuple(dict.fromkeys(row for pair in self.pairs for row in pair))


class Ordered(Strict):
    """The metric rises (or falls) along the rows."""

    name: Literal["ordered"]
    metric: Metric
    direction: Literal["rising", "falling"]
    rows: Annotated[Names, Field(min_length=2)]


class Best(Strict):
    """One row has the highest (or lowest) metric of all."""

    name: Literal["best"]
    metric: Metric
    extreme: Literal["highest", "lowest"] = "highest"
    row: str
    others: _AtLeastOne

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the test needs."""
        return (self.row, *self.others)


class Parity(Strict):
    """The row that is best on validation is, on test, no more than `margin` points below another row."""

    name: Literal["parity"]
    among: _AtLeastOne
    against: str
    margin: float = Field(1.0, ge=0, le=100)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the test needs."""
        return (*self.among, self.against)


class Ratio(Strict):
    """One row's metric is at least `times` another's; `times` as the paper prints it."""

    name: Literal["ratio"]
    metric: Metric
    of: str
    to: str
    times: float = Field(gt=0)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the test needs."""
        return (self.of, self.to)


class Ends(Strict):
    """Every run of the rows ends in one of these ways."""

    name: Literal["ends"]
    rows: _AtLeastOne
    outcomes: Annotated[tuple[Literal["finished", "diverged", "chance"], ...], Field(strict=False, min_length=1)]


class About(Strict):
    """Every row's metric is `value`, give or take `within`."""

    name: Literal["about"]
    metric: Metric
    rows: _AtLeastOne
    value: float
    within: float = Field(ge=0)


class Uses(Strict):
    """Every row is declared with this value of a setting, or with a list of `count` values."""

    name: Literal["uses"]
    rows: _AtLeastOne
    setting: str
    value: Value = None
    count: int | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.value is None) == (self.count is None):
            raise ValueError("test.value: either value or count is required, not both")
        return self


class Together(Strict):
    """One model has this accuracy and is this many times smaller than the row it is compared with."""

    name: Literal["together"]
    accuracy: float = Field(ge=0, le=100)
    reduction: float = Field(gt=0)
    against: str

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the test needs."""
        return (self.against,)


class Claim(Strict):
    """A sentence that runs can confirm or contradict."""

    says: str = Field(min_length=1)
    """The sentence in our words."""
    section: str = ""
    """Where the paper says it; empty for a question of our own, which the paper's numbers do not answer."""
    test: Compare | Alike | Ordered | Best | Parity | Ratio | Ends = Field(discriminator="name")


class Statement(Strict):
    """A sentence that the printed numbers and the declarations alone confirm or contradict."""

    says: str = Field(min_length=1)
    section: str
    test: Compare | Ordered | Best | Ratio | About | Uses | Together = Field(discriminator="name")


class Protocol(Strict):
    """How the paper says that its numbers came about."""

    seeds: int = Field(ge=1)
    """Runs that each accuracy is said to be a mean of."""
    images: int = Field(ge=1)
    """Images that one accuracy is counted on."""


class Paper(Strict):
    """All that one paper says in words."""

    paper: str = Field(min_length=1)
    protocol: Protocol
    claims: Mapping[Slug, Claim] = Field(default_factory=dict)
    statements: Mapping[Slug, Statement] = Field(default_factory=dict)


def load(path: Path | None = None) -> Paper:
    """The statements in a YAML file; without one, those of the paper that the declared studies follow.

    Raises:
        InputError: broken YAML, or a declaration that is not valid: one line naming file and key.
    """
    path = path or DECLARATIONS / "claims" / "paper.yaml"
    paper = validated(Paper, declarations.read(path), str(path))
    named = {slug: claim.test.rows for slug, claim in paper.claims.items()}
    named |= {slug: statement.test.rows for slug, statement in paper.statements.items()}
    for slug, rows in named.items():
        if bad := [row for row in rows if row.count("/") != 1]:
            raise InputError(f"{path}: {slug}: {bad[0]!r} is not a row (example: reproducibility/squeezenet_bn)")
    return paper
