r"""Every number that a text may cite, by a key: `values.json`, and `values.tex` for \repro{residual_2_removed.val}.

    <variant>.<quantity>, <study>/<variant>.<quantity>, claims.<slug>.<verdict, statistic, n ...>, headline

A variant's short key is left out where two studies of the report have a variant of that name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from repro.reporting.frame import Answer, Judged, Run
from repro.reporting.sheets import latex_text
from repro.reporting.tables import number, probability

_TWO, _WHOLE = number(2), number(0)
QUANTITIES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "val": ("val_mean", _TWO), "val_sd": ("val_sd", _TWO), "val_low": ("val_low", _TWO), "val_high": ("val_high", _TWO),
    "n": ("n", _WHOLE), "published": ("published_val", number(None)), "predicted_low": ("predicted_low", _TWO),
    "predicted_high": ("predicted_high", _TWO), "verdict": ("verdict", str), "test": ("test_mean", _TWO),
    "test_sd": ("test_sd", _TWO), "test_verdict": ("test_verdict", str), "diff": ("test_diff", number(sign=True)),
    "diff_low": ("test_diff_low", number(sign=True)), "diff_high": ("test_diff_high", number(sign=True)),
    "diff_p": ("test_diff_p", probability), "base": ("base_title", str), "size": ("size_mib", _TWO),
    "size_verdict": ("size_verdict", str), "smaller": ("times_smaller", number(1)), "parameters": ("parameters", _WHOLE),
    "multiply_adds": ("multiply_adds", _WHOLE), "best_epoch": ("best_epoch", number(1)),
    "epoch_seconds": ("epoch_seconds", _TWO), "title": ("title", str), "changed": ("changed", str),
}  # fmt: skip
"""Quantity of a variant -> the frame's column and how a text shows it."""
_TEX = r"""% Written by `repro compare`. Cite a number as \repro{key}; the keys are those of values.json.
\providecommand{\repro}[1]{%
  \ifcsname repro:#1\endcsname\csname repro:#1\endcsname\else
  \PackageError{repro}{unknown key '#1'}{The keys are in values.json.}\fi}
"""


def values(frames: Sequence[pd.DataFrame], judged: Sequence[Judged], answer: Answer) -> tuple[str, str]:
    """`values.json`, unrounded, and `values.tex`, rounded as the tables are."""
    raw: dict[str, Any] = {"headline": answer.headline}
    shown: dict[str, str] = {"headline": answer.headline}
    rows = [row for frame in frames for row in frame.astype(object).where(frame.notna(), None).to_dict("records")]
    named = Counter(row["variant"] for row in rows)
    for row in rows:
        keys = [f"{row['study']}/{row['variant']}", *([row["variant"]] if named[row["variant"]] == 1 else [])]
        for quantity, (column, form) in QUANTITIES.items():
            if row[column] not in {None, ""}:
                for key in keys:
                    raw[f"{key}.{quantity}"], shown[f"{key}.{quantity}"] = row[column], form(row[column])
    for one in judged:
        for name in ("verdict", "statistic", "low", "high", "margin", "n", "needed"):
            value = getattr(one, name)
            if value not in {None, ""}:
                key = f"claims.{one.slug}.{name}"
                raw[key], shown[key] = (
                    value,
                    value if isinstance(value, str) else number(None if name == "n" else 2)(value),
                )
    return texts(raw, shown)


def texts(raw: Mapping[str, Any], shown: Mapping[str, str]) -> tuple[str, str]:
    """`values.json` and `values.tex`, from values and their texts by key."""
    lines = "".join(
        f"\\expandafter\\def\\csname repro:{key}\\endcsname{{{latex_text(text)}}}\n" for key, text in shown.items()
    )
    return json.dumps(raw, indent=1, ensure_ascii=False) + "\n", _TEX + lines


def claims(judged: Sequence[Judged]) -> str:
    """`claims.json`: every claim with its verdict, the numbers it rests on, and the runs with weights and commits."""
    return json.dumps([_claim(one) for one in judged], indent=1, ensure_ascii=False) + "\n"


def _claim(one: Judged) -> dict[str, Any]:
    rows = [row for name in one.rows if (row := one.setting.row(name)) is not None]
    runs: dict[str, Run] = {run.record.run_id: run for row in rows for run in row.runs}
    used = [runs[run_id] for run_id in one.run_ids if run_id in runs]
    return {
        "claim": one.slug,
        "says": one.says,
        "section": one.section,
        "verdict": one.verdict,
        "why": one.why,
        "statistic": one.statistic,
        "low": one.low,
        "high": one.high,
        "unit": one.unit.strip(),
        "margin": one.margin,
        "n": one.n,
        "needed": one.needed,
        "setting": one.setting.id,
        "runs": [
            {"run_id": run.record.run_id, "weights": run.beside.weights(run.record), "commit": run.record.commit}
            for run in used
        ],
    }
