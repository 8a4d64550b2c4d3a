"""What is published of a study's rows: the numbers printed for them, and claims in words as comparisons of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repro.validation import Strict

TEXT = ("accuracy", "epochs", "epoch_seconds", "size")
"""The numbers that a paper's text may print otherwise than its table."""


class Published(Strict):
    """What the paper prints for a variant. Accuracies in percent, times in seconds per epoch, size in MiB as printed."""

    accuracy: float | None = Field(None, ge=0, le=100)
    """The best validation accuracy, in percent."""
    accuracy_at_most: float | None = Field(None, ge=0, le=100)
    """An upper bound in percent, where no number was published."""
    test_accuracy: float | None = Field(None, ge=0, le=100)
    """The test accuracy, in percent."""
    epochs: int | None = Field(None, ge=1)
    """The epoch of the best validation accuracy."""
    epoch_seconds: float | None = Field(None, gt=0)
    """Seconds per epoch."""
    size: float | None = Field(None, gt=0)
    """Size of the saved weights in MiB."""
    reading: bool = False
    """Whether the publication leaves open which network was trained; its size is then not checked."""
    text: Mapping[str, float] = Field(default_factory=dict)
    """What the running text says where it differs from the table: `accuracy`, `epochs`, `epoch_seconds` or `size`."""

    @property
    def bound(self) -> float | None:
        """The upper bound of the validation accuracy, where the accuracy itself was not published."""
        return self.accuracy_at_most if self.accuracy is None else None

    @model_validator(mode="before")
    @classmethod
    def _with_a_point(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if str(name).isdecimal():  # {accuracy: 74,1}
                raise ValueError(f"published: {name} has no value; a decimal comma? (allowed: 74.1)")
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


_Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
_Rows = Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
_Pairs = Annotated[tuple[Annotated[tuple[str, str], Field(strict=False)], ...], Field(strict=False, min_length=1)]
Metric: TypeAlias = Literal["val", "test", "gap", "size", "best_epoch", "epoch_seconds", "training_seconds"]
"""val: best validation accuracy; test: test accuracy of the same weights; gap: training minus validation accuracy at the
best epoch, in points; training_seconds: seconds per epoch times best epoch."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One comparison: the metric of `first` minus that of `second`, against a margin."""

    first: str
    second: str
    margin: float


class Ratio(Strict):
    """The saved model of one row is at least `times` as large as that of another."""

    of: str
    to: str
    times: float = Field(gt=0)


class Ends(Strict):
    """Every run of the rows ends in one of these ways."""

    rows: _Names
    outcomes: Annotated[tuple[Literal["finished", "diverged", "chance"], ...], Field(strict=False, min_length=1)]


class Claim(Strict):
    """A sentence that runs can confirm or contradict: all of, or any of, some contrasts of rows.

    Exactly one of the forms is given: `all` and `any` hold pairs (first, second); `best` is one row against each of `than`;
    `ordered` is every row against the one before it, and the last against the first.
    """

    says: str = Field(min_length=1)
    """The claim in words."""
    section: str = ""
    """The section of the paper; empty for your own claim."""
    metric: Metric = "test"
    """What is compared: `test`, `val`, `gap`, `size`, `best_epoch`, `epoch_seconds` or `training_seconds`."""
    direction: Literal["higher", "lower", "alike"] = "higher"
    """`higher`, `lower` or `alike`: the first row relative to the second; alike means closer than the margin."""
    margin: float = 0.0
    """The least lead of the first row, in the metric's unit; -1 allows it to be up to one point behind."""
    slack: float = Field(0.0, ge=0)
    """Of `ordered`: by how much a row may fall behind the one before it."""
    all: _Pairs | None = None
    """Pairs of rows (first, second); the claim must hold for every pair."""
    any: _Pairs | None = None
    """Pairs of rows; the claim must hold for at least one pair."""
    best: str | None = None
    """One row, which is compared with each of `than`."""
    than: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The rows that `best` is compared with."""
    ordered: _Rows | None = None
    """Rows, each of which is compared with the one before it, and the last with the first."""
    ratio: Ratio | None = None
    """`{of, to, times}`: the saved model of one row is so many times as large as that of another."""
    ends: Ends | None = None
    """`{rows, outcomes}`: every run of the rows ends as `finished`, `chance` or `diverged`; needs three runs per row."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in ("all", "any", "best", "ordered", "ratio", "ends") if getattr(self, name) is not None]
        if len(given) != 1:
            got = ", ".join(given) or "none"
            raise ValueError(f"claim {self.says!r}: got {got} (allowed: one of all, any, best, ordered, ratio, ends)")
        if (self.best is not None) != bool(self.than):
            raise ValueError(f"claim {self.says!r}: best and than are given together (best: one row, than: the others)")
        if bad := [name for name in self.rows if name.count("/") != 1]:
            example = "reproducibility/squeezenet_bn"
            raise ValueError(f"claim {self.says!r}: {bad[0]!r} is not a row, study/variant (example: {example})")
        if same := [one.first for one in self.contrasts if one.first == one.second]:
            raise ValueError(f"claim {self.says!r}: {same[0]} is compared with itself (allowed: two different rows)")
        if self.direction == "alike" and self.margin <= 0:
            raise ValueError(
                f"claim {self.says!r}: margin: got {self.margin:g} (allowed: above 0 where rows are alike)"
            )
        return self

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Every comparison that the claim is made of."""
        if self.ordered is not None:
            steps = [Contrast(after, before, self.margin - self.slack) for before, after in pairwise(self.ordered)]
            ends = [Contrast(self.ordered[-1], self.ordered[0], self.margin)] if self.slack and len(steps) > 1 else []
            return (*steps, *ends)
        pairs = self.all or self.any or [(self.best, other) for other in self.than if self.best]
        return tuple(Contrast(str(first), second, self.margin) for first, second in pairs)

    @property
    def rows(self) -> tuple[str, ...]:
        """Every row that the claim names, those that it is about first."""
        named = [one.first for one in self.contrasts] + [one.second for one in self.contrasts]
        named += [self.ratio.to, self.ratio.of] if self.ratio else []
        return tuple(dict.fromkeys([*named, *(self.ends.rows if self.ends else ())]))

    @property
    def about(self) -> frozenset[str]:
        """The rows that the claim is about, without those which they are only compared with."""
        named = {one.first for one in self.contrasts} | set(self.ends.rows if self.ends else ())
        return frozenset(named | ({self.ratio.to} if self.ratio else set()))


class Protocol(Strict):
    """How published accuracies are said to have come about."""

    seeds: int = Field(ge=1)
    """Number of runs that each accuracy is said to average."""
    images: int = Field(ge=1)
    """Number of images that each accuracy is measured on."""


class Claimed(Strict):
    """What is published about some rows beside the numbers of each."""

    claims: Mapping[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")], Claim] = Field(default_factory=dict)
    """Claims that are tested on the runs; rows are `study/variant`."""
    protocol: Protocol | None = None
    """How the published accuracies were obtained; used by `repro audit`."""

    @property
    def claimed(self) -> tuple[tuple[str, str], ...]:
        """Every claim's slug with each of its rows."""
        return tuple((slug, name) for slug, claim in self.claims.items() for name in claim.rows)


class Written(Strict):
    """One inconsistency of the published numbers, in words; `audit` computes its numbers and tests its conditions."""

    kind: str = Field(min_length=1)
    where: _Names
    says: str = Field(min_length=1)
    """The sentence, with `{name}` or `{name:.1f}` for each of `numbers`."""
    numbers: Mapping[str, str] = Field(default_factory=dict)
    """Name -> a number, `study/variant.field`, an earlier name, or two of them with ` + `, ` - `, ` * ` or ` / ` between."""
    holds: _Names
    """Comparisons such as `text < table`, all of which must hold, else there is no finding."""


class Paper(Claimed):
    """What one paper says in words, and what does not fit together in it."""

    paper: str = Field(min_length=1)
    parity: float = Field(1.0, ge=0)
    """Points by which a network may be behind and still match another."""
    findings: Mapping[str, Written] = Field(default_factory=dict)
