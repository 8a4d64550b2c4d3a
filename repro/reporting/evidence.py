"""What a report rests on, as frames and sheets: claims, the audit, runs and their epochs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd

from repro.reporting.frame import Finding, Judged, Row, Run, Table
from repro.reporting.sheets import Column, Sheet
from repro.reporting.tables import cell, number, provenance
from repro.rows import RunRow
from repro.spec import flatten

RUN_COLUMNS = (
    "study", "variant", "dataset", "precision", "epochs_max", "seed", "fold", "key", "run_id", "val_accuracy",
    "test_accuracy", "best_epoch", "epochs_run", "epoch_seconds", "outcome", "commit", "setting", "hardware", "concurrent",
    "size_mib", "weights_digest",
)  # fmt: skip
"""The columns of `tables/runs.csv`."""
_RUN_PARAMS = {"dataset": "data.dataset", "precision": "training.precision", "epochs_max": "training.epochs"}


def runs_frame(tables: Sequence[Table], ui_url: str | None = None) -> pd.DataFrame:
    """A row a run, each once, those of the rows that others are compared with included."""
    placed = [(table.setting.id, row) for table in tables for row in table.rows]
    placed += [
        (table.setting.id, base) for table in tables for row in table.rows if (base := table.base(row)) is not None
    ]
    found: dict[str, dict[str, Any]] = {}
    for setting, row in placed:
        for run in row.runs:
            if run.record.run_id not in found:
                found[run.record.run_id] = _run(setting, row, run, ui_url)
    columns = [*RUN_COLUMNS, "url", "dirty", "record"]
    return pd.DataFrame(list(found.values()), columns=columns)


def _run(setting: str, row: Row, run: Run, ui_url: str | None) -> dict[str, Any]:
    flat = flatten(run.spec)
    return {
        "study": row.study,
        "variant": row.variant,
        **{name: flat[setting] for name, setting in _RUN_PARAMS.items()},
        "seed": run.seed,
        "fold": run.fold,
        "key": run.record.key,
        "run_id": run.record.run_id,
        "val_accuracy": run.value("val"),
        "test_accuracy": run.value("test"),
        "best_epoch": run.metric("best_epoch"),
        "epochs_run": run.metric("epochs_run"),
        "epoch_seconds": run.metric("mean_epoch_seconds"),
        "outcome": run.record.outcome,
        "commit": run.record.commit + "+dirty" * run.record.dirty,
        "url": None if ui_url is None else run_url(ui_url, run.record),
        "setting": setting,
        "hardware": run.record.hardware,
        "concurrent": run.record.side_by_side,
        "size_mib": run.metric("model_size_legacy_mib"),
        "weights_digest": run.beside.weights(run.record),
        "dirty": run.record.dirty,
        "record": run.record,
    }


def epochs_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """A row an epoch of every run of `runs_frame` whose curve is known; accuracies in percent."""
    parts = []
    for run in runs.itertuples():
        if (curve := run.record.curve) is not None:
            named = {
                "study": run.study,
                "variant": run.variant,
                "seed": run.seed,
                "fold": run.fold,
                "run_id": run.run_id,
            }
            series = {
                name: getattr(curve, name) * (100 if name.endswith("accuracy") else 1)
                for name in ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "epoch_seconds")
            }
            parts.append(pd.DataFrame(named | series, index=range(len(curve.epoch))))
    names = ["study", "variant", "seed", "fold", "run_id", "epoch", "train_loss", "train_accuracy", "val_loss"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*names, "val_accuracy", "epoch_seconds"])


def run_url(ui_url: str, run: RunRow) -> str:
    """MLflow's page of a run."""
    return f"{ui_url.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def compare_url(ui_url: str, runs: Iterable[RunRow]) -> str:
    """MLflow's page that compares some runs of one experiment."""
    listed = list(runs)
    ids, experiments = (quote(json.dumps(one)) for one in (
        [run.run_id for run in listed], sorted({run.experiment_id for run in listed})
    ))  # fmt: skip
    return f"{ui_url.rstrip('/')}/#/compare-runs?runs={ids}&experiments={experiments}"


def claims_sheet(judged: Sequence[Judged], paper: str) -> Sheet:
    """Claims with their verdicts and what they rest on, decided ones first."""
    names = ("claim", "section", "verdict", "why", "n", "needed")
    order = {"supported": 0, "not supported": 1, "undecided": 2}
    frame = pd.DataFrame(
        [
            {
                "claim": one.says,
                "section": one.section or "ours",
                "verdict": one.verdict,
                "why": one.why,
                "n": one.n,
                "needed": one.needed,
                "slug": one.slug,
                "statistic": one.statistic,
                "low": one.low,
                "high": one.high,
                "unit": one.unit.strip(),
                "margin": one.margin,
                "setting": one.setting.id,
                "run_ids": " ".join(one.run_ids),
            }
            for one in sorted(judged, key=lambda one: order[one.verdict])
        ],
        columns=[*names, "slug", "statistic", "low", "high", "unit", "margin", "setting", "run_ids"],
    )
    kinds = {"claim": "prose", "why": "prose", "section": "name", "verdict": "verdict", "needed": "name"}
    heads = {"n": "runs", "needed": "runs needed"}
    columns = tuple(Column(name, heads.get(name, name), cell(name), kind=kinds.get(name, "number")) for name in names)
    settings = " / ".join(dict.fromkeys(f"{one.setting.words}; setting {one.setting.id}" for one in judged))
    header = f"{paper}. Accuracies on test, models selected on validation. Data: {settings}."
    return Sheet("claims", "Claims", header, columns, frame, ())


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
        Column("finding", "finding", cell("finding"), kind="prose"),
        Column("where", "where", cell("where"), kind="prose"),
    )
    header = f"{paper}: found by checks over the printed numbers; no run is needed."
    return Sheet("audit", "Inconsistencies in the published numbers", header, columns, frame, ())


def runs_sheet(frame: pd.DataFrame) -> Sheet:
    """Every run behind the tables, linked to MLflow's page of it where its address is known."""
    columns = (
        Column("run_id", "run", lambda row: str(row["run_id"])[:8], kind="name", url="url"),
        Column("study", "study", cell("study"), kind="name"),
        Column("variant", "variant", cell("variant"), kind="name"),
        Column("fold", "fold", cell("fold", number(0))),
        Column("seed", "seed", cell("seed")),
        Column("val_accuracy", "validation (%)", cell("val_accuracy", number())),
        Column("test_accuracy", "test (%)", cell("test_accuracy", number())),
        Column("best_epoch", "best epoch", cell("best_epoch", number(0))),
        Column("epochs_run", "epochs", cell("epochs_run", number(0))),
        Column("epoch_seconds", "seconds an epoch", cell("epoch_seconds", number())),
        Column("precision", "precision", cell("precision"), kind="name"),
        Column("concurrent", "concurrent", cell("concurrent")),
        Column("outcome", "outcome", cell("outcome"), kind="name"),
        Column("commit", "commit", lambda row: str(row["commit"])[:9] + "+" * bool(row["dirty"]), kind="name"),
        Column("key", "key", cell("key"), kind="name"),
    )
    header = f"{len(frame):,} finished run{'s' * (len(frame) != 1)}, each listed once. {provenance(frame['record'])}"
    return Sheet("runs", "Runs", header, columns, frame, ())
