"""What the options of `repro tabulate` say: metrics, a baseline, and conditions on the rows of a table."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro.errors import InputError, unknown

_METRIC = re.compile(r"(?:metrics\.)?(?P<name>.+?)(?::(?P<pick>last|max|min|at=-?\d+))?(?P<lower>:min)?")
_TERM = re.compile(r"(?P<column>.+?)\s*(?P<sign>[=!<>]=|[=<>])\s*(?P<quote>['\"]?)(?P<value>.*)(?P=quote)")
_AND = re.compile(r"\s+and\s+(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", re.IGNORECASE)
_SIGNS = {"=": operator.eq, "==": operator.eq, "!=": operator.ne,
          "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}  # fmt: skip


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
        made[label] = Metric(one["name"], pick, pick == "min" or bool(one["lower"]), label)
    if not made or len(made) < len(found):
        raise InputError(f"--metric {text!r}: names no metric, or one twice (example: val_acc:max,test_loss:last:min)")
    return tuple(made.values())


def pairs(text: str) -> dict[str, str]:
    """What `--baseline` names: `params.model=resnet18,params.lr=0.1`; a value may hold commas."""
    terms = [term.partition("=") for term in re.split(r",(?=[^,=]+=)", text) if term.strip()]
    if any(not sign for _, sign, _ in terms):
        raise InputError(f"--baseline {text!r}: names no value (example: params.model=resnet18)")
    return {name.strip(): value.strip() for name, _, value in terms}


def kept(frame: pd.DataFrame, where: str, columns: Collection[str]) -> pd.DataFrame:
    """The rows that meet `column sign value [and ...]`; all of them where nothing is asked."""
    for term in _AND.split(where.strip()) if where.strip() else ():
        frame = frame[_meets(frame, term, columns)]
    return frame


def _meets(frame: pd.DataFrame, term: str, columns: Collection[str]) -> pd.Series:
    """Which rows meet `column sign value`; nothing of it is run as code."""
    if (found := _TERM.fullmatch(term.strip())) is None:
        raise InputError(f"--where {term!r}: is no condition (example: n >= 3 and params.model = 'resnet18')")
    if found["column"] not in columns:
        raise unknown("column of --where", found["column"], columns)
    column, compare = frame[found["column"]], _SIGNS[found["sign"]]
    try:
        return compare(pd.to_numeric(column, errors="coerce"), float(found["value"]))
    except ValueError:
        if compare in {operator.eq, operator.ne}:
            return compare(column.astype(str), found["value"])
        raise InputError(f"--where {term!r}: {found['sign']} takes a number, got {found['value']!r}") from None
