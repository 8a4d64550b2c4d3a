r"""What a report rests on: runs, their epochs, claims and the audit as frames and sheets; every number that a text may cite.

A number's key stands in `values.json`, and in `values.tex` for \repro{residual_2_removed.val}:

    <variant>.<quantity>, <study>/<variant>.<quantity>, claims.<slug>.<verdict, statistic, n ...>, headline

A variant's short key is left out where two studies of the report have a variant of that name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import quote

import pandas as pd

from repro.published import Metric
from repro.records import EPOCH_METRICS
from repro.reporting.audit import Finding
from repro.reporting.claims import DECISIONS, Judged
from repro.reporting.frame import Answer, Row, Run
from repro.reporting.join import Table
from repro.reporting.sheets import Column, Sheet, latex_text, number, records
from repro.reporting.tables import cell, epoch, probability, provenance, size
from repro.rows import RunRow
from repro.spec import flatten

RUN_COLUMNS = (
    "study", "variant", "dataset", "precision", "epochs_max", "seed", "fold", "key", "run_id", "val_accuracy",
    "test_accuracy", "best_epoch", "epochs_run", "epoch_seconds", "outcome", "commit", "setting", "hardware", "concurrent",
    "size_mib", "weights_digest",
)  # fmt: skip
"""The columns of `tables/runs.csv`."""
_FIELDS = {"dataset": "data.dataset", "precision": "training.precision", "epochs_max": "training.epochs"}
_MEASURES: Mapping[str, Metric] = {
    "val_accuracy": "val", "test_accuracy": "test", "best_epoch": "best_epoch", "epoch_seconds": "epoch_seconds",
    "size_mib": "size",
}  # fmt: skip
_OF_RUN, _OF_EPOCH = ("study", "variant", "seed", "fold", "run_id"), ("epoch", *EPOCH_METRICS)
_CLAIMS = (
    "says", "section", "verdict", "why", "n", "needed", "slug", "statistic", "low", "high", "unit", "margin", "setting",
    "run_ids",
)  # fmt: skip
_TWO, _WHOLE, _SIGNED = number(2), number(0), number(sign=True)
_QUANTITIES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "val": ("val_mean", _TWO), "val_sd": ("val_sd", _TWO), "val_low": ("val_low", _TWO), "val_high": ("val_high", _TWO),
    "n": ("n", _WHOLE), "published": ("published_val", number(None)), "predicted_low": ("predicted_low", _TWO),
    "predicted_high": ("predicted_high", _TWO), "verdict": ("verdict", str), "test": ("test_mean", _TWO),
    "test_sd": ("test_sd", _TWO), "test_verdict": ("test_verdict", str), "diff": ("test_diff", _SIGNED),
    "diff_low": ("test_diff_low", _SIGNED), "diff_high": ("test_diff_high", _SIGNED),
    "diff_p": ("test_diff_p", probability), "diff_images": ("image_noise", _TWO),
    "base": ("base_title", str), "size": ("size_mib", size),
    "size_verdict": ("size_verdict", str), "smaller": ("times_smaller", number(1)), "parameters": ("parameters", _WHOLE),
    "multiply_adds": ("multiply_adds", _WHOLE), "best_epoch": ("best_epoch", epoch),
    "epoch_seconds": ("epoch_seconds", _TWO), "title": ("title", str), "changed": ("changed", str),
}  # fmt: skip
"""Quantity of a variant -> the frame's column and how a text shows it."""
_TEX = r"""% Written by `repro compare`. Cite a number as \repro{key}; the keys are those of values.json.
\providecommand{\repro}[1]{%
  \ifcsname repro:#1\endcsname\csname repro:#1\endcsname\else
  \PackageError{repro}{unknown key '#1'}{The keys are in values.json.}\fi}
"""


def runs_frame(tables: Sequence[Table], ui_url: str | None = None) -> pd.DataFrame:
    """A row a run, each once, those of the rows that others are compared with included."""
    placed = [(table, row) for table in tables for row in table.rows]
    placed += [(table, base) for table, row in placed if (base := table.base(row)) is not None]
    found: dict[str, dict[str, Any]] = {}
    for table, row in placed:
        for run in row.runs:
            if run.record.run_id not in found:
                found[run.record.run_id] = _run(table.setting.id, row, run, ui_url)
    return pd.DataFrame(list(found.values()), columns=[*RUN_COLUMNS, "url", "dirty", "record"])


def _run(setting: str, row: Row, run: Run, ui_url: str | None) -> dict[str, Any]:
    record, flat = run.record, flatten(run.spec)
    return {
        "study": row.study, "variant": row.variant, "setting": setting, "seed": run.seed, "fold": run.fold,
        **{name: flat[field] for name, field in _FIELDS.items()},
        **{name: run.value(measure) for name, measure in _MEASURES.items()},
        "epochs_run": run.metric("epochs_run"), "key": record.key, "run_id": record.run_id, "outcome": record.outcome,
        "commit": record.commit + "+dirty" * record.dirty, "hardware": record.hardware, "dirty": record.dirty,
        "concurrent": record.side_by_side, "weights_digest": run.beside.weights(record), "record": record,
        "url": None if ui_url is None else f"{ui_url.rstrip('/')}/#/experiments/{record.experiment_id}/runs/{record.run_id}",
    }  # fmt: skip


def epochs_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """A row an epoch of every run of `runs_frame` whose curve is known; accuracies in percent."""
    parts = [pd.DataFrame(columns=[*_OF_RUN, *_OF_EPOCH])]
    for run in runs.to_dict("records"):
        if (curve := run["record"].curve) is not None:
            named, series = {name: run[name] for name in _OF_RUN}, {name: getattr(curve, name) for name in _OF_EPOCH}
            parts.append(pd.DataFrame(named | series, index=range(len(curve.epoch))))
    epochs = pd.concat(parts[1:] or parts)
    return epochs.assign(train_accuracy=epochs["train_accuracy"] * 100, val_accuracy=epochs["val_accuracy"] * 100)


def compare_url(ui_url: str, runs: Iterable[RunRow]) -> str:
    """MLflow's page that compares some runs of one experiment."""
    listed = list(runs)
    ids, experiments = (quote(json.dumps(one)) for one in (
        [run.run_id for run in listed], sorted({run.experiment_id for run in listed})
    ))  # fmt: skip
    return f"{ui_url.rstrip('/')}/#/compare-runs?runs={ids}&experiments={experiments}"


def runs_sheet(frame: pd.DataFrame) -> Sheet:
    """Every run behind the tables, linked to MLflow's page of it where its address is known."""
    columns = (
        Column("run_id", "run", lambda row: str(row["run_id"])[:8], kind="name", url="url"),
        *(Column(name, name, cell(name), kind="name") for name in ("study", "variant")),
        Column("fold", "fold", cell("fold", _WHOLE)),
        Column("seed", "seed", cell("seed")),
        Column("val_accuracy", "validation (%)", cell("val_accuracy", _TWO)),
        Column("test_accuracy", "test (%)", cell("test_accuracy", _TWO)),
        Column("best_epoch", "best epoch", cell("best_epoch", _WHOLE)),
        Column("epochs_run", "epochs", cell("epochs_run", _WHOLE)),
        Column("epoch_seconds", "seconds per epoch", cell("epoch_seconds", _TWO)),
        Column("precision", "precision", cell("precision"), kind="name"),
        Column("concurrent", "concurrent", cell("concurrent")),
        Column("outcome", "outcome", cell("outcome"), kind="name"),
        Column("commit", "commit", lambda row: str(row["commit"])[:9] + "+" * bool(row["dirty"]), kind="name"),
        Column("key", "key", cell("key"), kind="name"),
    )
    header = f"{len(frame):,} finished run{'s' * (len(frame) != 1)}, each listed once. {provenance(frame['record'])}"
    return Sheet("runs", "Runs", header, columns, frame, ())


def claims_frame(judged: Sequence[Judged]) -> pd.DataFrame:
    """A row a claim with its verdict and what it rests on, decided ones first."""
    rows = [_claim(one) | {"run_ids": " ".join(run.record.run_id for run in one.runs)} for one in judged]
    rows.sort(key=lambda row: DECISIONS.index(row["verdict"]))
    frame = pd.DataFrame(rows, columns=[*_CLAIMS]).rename(columns={"says": "claim"})
    return frame.assign(section=frame["section"].replace("", "ours"))


def claims_sheet(judged: Sequence[Judged], paper: str) -> Sheet:
    """The claims as a reader sees them."""
    columns = (
        Column("claim", "claim", cell("claim"), kind="prose"),
        Column("section", "section", cell("section"), kind="name"),
        Column("verdict", "verdict", cell("verdict"), kind="verdict"),
        Column("why", "why", cell("why"), kind="prose"),
        Column("n", "runs", cell("n")),
        Column("needed", "runs needed", cell("needed"), kind="name"),
    )
    settings = " / ".join(dict.fromkeys(f"{one.setting.words}; setting {one.setting.id}" for one in judged))
    measured = (
        "Accuracies on test, models selected on validation. Each interval, over seeds, is for one difference alone."
    )
    header = f"{paper}. {measured} Data: {settings}."
    return Sheet("claims", "Claims", header, columns, claims_frame(judged), ())


def claims_json(judged: Sequence[Judged]) -> str:
    """`claims.json`: every claim with its verdict, the numbers it rests on, and the runs with weights and commits."""
    found = []
    for one in judged:
        runs = [
            {"run_id": run.record.run_id, "weights": run.beside.weights(run.record), "commit": run.record.commit}
            for run in one.runs
        ]
        plain = _claim(one)
        found.append({"claim": plain.pop("slug"), **plain, "runs": runs})
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _claim(one: Judged) -> dict[str, Any]:
    """A claim's fields, its setting by its id, without its runs."""
    plain = {field.name: getattr(one, field.name) for field in fields(one) if field.name != "runs"}
    return plain | {"setting": one.setting.id}


def audit_sheet(findings: Sequence[Finding], paper: str) -> Sheet:
    """Inconsistencies of the published numbers themselves."""
    frame = pd.DataFrame(
        [
            {"number": place, "kind": one.kind, "finding": one.sentence, "where": ", ".join(one.where),
             "printed": one.printed, "computed": one.computed}
            for place, one in enumerate(findings, 1)
        ]
    )  # fmt: skip
    columns = (
        Column("number", "", cell("number")),
        Column("kind", "kind", cell("kind"), kind="name"),
        *(Column(name, name, cell(name), kind="prose") for name in ("finding", "where")),
    )
    header = f"{paper}: found by checks of the published numbers of these studies; `repro audit` lists all."
    return Sheet("audit", "Inconsistencies in the published numbers", header, columns, frame, ())


def values(frames: Sequence[pd.DataFrame], judged: Sequence[Judged], answer: Answer) -> tuple[str, str]:
    """`values.json`, unrounded, and `values.tex`, rounded as the tables are."""
    found: list[tuple[str, Any, Callable[[Any], str]]] = [("headline", answer.headline, str)]
    rows = [row for frame in frames for row in records(frame)]
    named = Counter(row["variant"] for row in rows)
    for row in rows:
        keys = [f"{row['study']}/{row['variant']}", *([row["variant"]] if named[row["variant"]] == 1 else [])]
        for quantity, (column, form) in _QUANTITIES.items():
            found += [(f"{key}.{quantity}", row[column], form) for key in keys]
    for one in judged:
        for name in ("verdict", "statistic", "low", "high", "margin", "n", "needed"):
            form = str if name in {"verdict", "n", "needed"} else _TWO
            found.append((f"claims.{one.slug}.{name}", getattr(one, name), form))
    known = [(key, value, form) for key, value, form in found if value not in {None, ""}]
    return texts({key: value for key, value, _ in known}, {key: form(value) for key, value, form in known})


def texts(raw: Mapping[str, Any], shown: Mapping[str, str]) -> tuple[str, str]:
    """`values.json` and `values.tex`, from values and their texts by key."""
    lines = "".join(
        f"\\expandafter\\def\\csname repro:{key}\\endcsname{{{latex_text(text)}}}\n" for key, text in shown.items()
    )
    return json.dumps(raw, indent=1, ensure_ascii=False) + "\n", _TEX + lines
