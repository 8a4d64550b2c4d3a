"""Variants of a study from the values of fields: every combination of some (`grid`), others side by side (`zip`).

grid: {model.dropout: [0.2, 0.5], optimizer.final_lr: [0.01, 0.1]}     four variants
zip: {model.first_kernel: [3, 5], model.first_stride: [1, 2]}          two; with the grid above, eight
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from repro.errors import shown

MOST = 10_000
"""Runs that one plan may have."""
LONGEST = 80
"""Characters that the name of a study or variant may have."""


def expand(grid: Any, zipped: Any) -> dict[str, dict[str, Any]]:
    """The variants that `grid` and `zip` of a study ask for: slug -> title and settings.

    Raises:
        ValueError: what is given is not fields with lists of values, or more than `MOST` variants: one line.
    """
    columns, rows = _lists(grid, "grid"), _lists(zipped, "zip")
    if len({len(values) for values in rows.values()}) > 1:
        lengths = ", ".join(f"{len(values)} of {name}" for name, values in rows.items())
        raise ValueError(f"zip: its lists must have equal lengths (got {lengths})")
    if both := sorted(set(columns) & set(rows)):
        raise ValueError(f"zip: {both[0]} is also in grid; give it once")
    count = math.prod(map(len, columns.values())) * (len(next(iter(rows.values()))) if rows else 1)
    if count > MOST:
        raise ValueError(f"grid: has {count:,} variants (allowed: at most {MOST:,})")
    variants: dict[str, dict[str, Any]] = {}
    for values in _combinations(columns, rows):
        slug = _slug(values)
        while slug in variants or len(slug) > LONGEST:
            slug = f"row_{len(variants) + 1}" if not slug.startswith("row_") else f"{slug}_"
        title = ", ".join(f"{name.rpartition('.')[2]} {text(value)}" for name, value in values.items())
        variants[slug] = {"title": title, "set": values}
    return variants


def _lists(given: Any, where: str) -> dict[str, list[Any]]:
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{where}: got {shown(given)} (allowed: fields with lists of values, for example model.dropout: [0.2, 0.5])"
        )
    for name, values in given.items():
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{where}.{name}: got {shown(values)} (allowed: a list of values, for example [0.2, 0.5])")
        if where == "grid" and (twice := [value for place, value in enumerate(values) if value in values[:place]]):
            raise ValueError(f"{where}.{name}: {shown(twice[0])} is given twice (allowed: each value once)")
    return {str(name): list(values) for name, values in given.items()}


def _combinations(columns: Mapping[str, list[Any]], rows: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    if not columns and not rows:
        return
    side_by_side = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)] or [{}]
    for row, values in itertools.product(side_by_side, itertools.product(*columns.values())):
        yield row | dict(zip(columns, values, strict=True))


def _slug(values: Mapping[str, Any]) -> str:
    words = [f"{name.rpartition('.')[2]}_{text(value)}" for name, value in values.items()]
    return re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()).strip("_") or "row_1"


def text(value: Any) -> str:
    """A value as a title or a cell shows it: the members of a list with plus signs between them."""
    return "+".join(map(text, value)) or "none" if isinstance(value, list) else str(value)
