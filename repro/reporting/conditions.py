"""What the options of `repro tabulate` say: metrics, a baseline, and conditions on the rows of a table."""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro.errors import InputError, unknown
from repro.reporting.folder import safe

_METRIC = re.compile(r"(?:metrics\.)?(?P<name>.+?)(?::(?P<pick>last|max|min|at=-?\d+))?(?P<lower>:min)?")
_TEXT = r"('[^']*')|(?<![\w.])([`\"]?)({})\2(?![\w.])"
"""A text in quotes, or one of some columns."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of a run: the last one of a metric, its largest or smallest, or that at a step (`at=20`)."""

    name: str
    pick: str
    lower: bool
    """Whether a lower value is better."""
    label: str
    """What its columns begin with."""

    @property
    def column(self) -> str:
        """Where the value stands in the frame of runs."""
        return f"metrics.{self.label}"

    def of(self, points: NDArray[np.float64]) -> float:
        """The value, nan without one, from points (n, 3)."""
        if self.pick.startswith("at="):
            there = points[points[:, 0] == int(self.pick[3:])]
            return float(there[there[:, 1].argmax(), 2]) if len(there) else math.nan
        finite = points[np.isfinite(points[:, 2]), 2]
        return float(getattr(finite, self.pick)()) if len(finite) else math.nan


def metrics(text: str) -> tuple[Metric, ...]:
    """What `--metric` names: `NAME[:last|max|min|at=STEP]`, comma-separated; `:min` at the end: lower is better."""
    found = [one for term in text.split(",") if (one := _METRIC.fullmatch(term.strip()))]
    named, made = Counter(one["name"] for one in found), {}
    for one in found:
        pick = one["pick"] or ("min" if one["lower"] else "last")
        label = one["name"] if named[one["name"]] == 1 else f"{one['name']}_{pick.replace('=', '_')}"
        made[safe(label)] = Metric(one["name"], pick, pick == "min" or bool(one["lower"]), label)
    if not made or len(made) < len(found):
        raise InputError(f"--metric {text!r}: names no metric, or one twice (example: val_acc:max,test_loss:last:min)")
    return tuple(made.values())


def pairs(text: str) -> dict[str, str]:
    """What `--baseline` names: `params.model=resnet18,params.lr=0.1`; a value may hold commas."""
    terms = [term.partition("=") for term in re.split(r",(?=[^,=]+=)", text) if term.strip()]
    if any(not sign for _, sign, _ in terms):
        raise InputError(f"--baseline {text!r}: names no value (example: params.model=resnet18)")
    return {name.strip(): value.strip() for name, _, value in terms}


def kept(frame: pd.DataFrame, where: str, columns: Sequence[str]) -> pd.DataFrame:
    """The rows that meet a condition of SQL on some columns, which is held to a copy of them in memory alone.

    A text that looks like a number is compared as one; a value that is missing meets no condition.
    """
    if not where.strip():
        return frame
    names = {name: f"c{place}" for place, name in enumerate(columns)}
    pattern = _TEXT.format("|".join(map(re.escape, sorted(names, key=len, reverse=True))))
    condition = re.sub(pattern, lambda found: found[1] or names[found[3]], where)
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        shown = frame[[*columns]].set_axis([*names.values()], axis=1)
        shown.to_sql("groups", copy, index_label="place", dtype=dict.fromkeys(shown, "NUMERIC"))
        try:
            found = copy.execute(f"SELECT place FROM groups WHERE ({condition})").fetchall()  # noqa: S608 - a copy in memory
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            said, _, name = str(error).partition("no such column: ")
            if name:
                raise InputError(f"{unknown('column of --where', name, columns)}; put text in quotes") from None
            raise InputError(f"--where {where!r}: {said} (example: n >= 3 and params.model = 'resnet18')") from None
    return frame[frame.index.isin([place for (place,) in found])]
