"""What a report rests on, as sheets: the claims with their verdicts, the audit of the published numbers, the runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from repro.records import RESULT_METRICS
from repro.reporting.claims import Judged
from repro.reporting.join import Table, metric
from repro.reporting.sheets import Cell, Column, Link, Raw, Sheet
from repro.reporting.statements import Paper
from repro.reporting.tables import number, provenance
from repro.rows import RunRow


def claims_sheet(judged: Sequence[Judged], paper: Paper) -> Sheet:
    """Every claim with its verdict and what it rests on."""
    columns = (
        Column("claim", kind="prose"),
        Column("section", kind="name"),
        Column("verdict", kind="verdict"),
        Column("why", kind="prose"),
        Column("runs"),
    )
    rows = tuple((one.says, one.section or "ours", one.verdict, one.why, str(len(one.run_ids))) for one in judged)
    settings = list(dict.fromkeys(f"{one.setting}; setting {one.setting_id}" for one in judged))
    header = (
        f"{paper.paper}. Judged by our runs: differences paired by seed with their 95% t interval, accuracies on test,"
        f" selected on validation. Data: {' / '.join(settings)}."
    )
    records: tuple[dict[str, Raw], ...] = tuple(
        {
            "claim": one.slug,
            "says": one.says,
            "section": one.section,
            "verdict": one.verdict,
            "why": one.why,
            "setting": one.setting_id,
            "n_runs": len(one.run_ids),
            "run_ids": " ".join(one.run_ids),
        }
        for one in judged
    )
    return Sheet("claims", "Claims", header, columns, rows, (), records)


def runs_sheet(tables: Sequence[Table], ui_url: str | None) -> Sheet:
    """Every run behind the tables, each once, linked to MLflow's page of it where its address is known."""
    runs = {run.run_id: (row, run) for table in tables for row in table.rows for run in row.runs}
    columns = (
        Column("run", kind="name"),
        Column("study", kind="name"),
        Column("variant", kind="name"),
        Column("seed"),
        Column("best validation accuracy (%)"),
        Column("test accuracy (%)"),
        Column("best epoch"),
        Column("epochs"),
        Column("seconds an epoch"),
        Column("outcome", kind="name"),
        Column("started (UTC)", kind="name"),
        Column("commit", kind="name"),
        Column("key", kind="name"),
    )
    rows: list[tuple[Cell, ...]] = []
    records: list[dict[str, Raw]] = []
    for row, run in runs.values():
        link = Link(run.run_id[:8], run_url(ui_url, run)) if ui_url else run.run_id[:8]
        started = datetime.fromtimestamp(run.started_ms / 1000, UTC)
        shown = (("best_val_accuracy", 100, 2), ("test_accuracy", 100, 2), ("best_epoch", 1, 0), ("epochs_run", 1, 0))
        cells = [
            number(metric(run, name), digits, scale) for name, scale, digits in (*shown, ("mean_epoch_seconds", 1, 2))
        ]
        rows.append(
            (link, row.study, row.variant, str(run.seed), *cells, run.outcome, f"{started:%Y-%m-%d %H:%M}",
             run.commit[:9] + "+" * run.dirty, run.key)
        )  # fmt: skip
        records.append(
            {
                "run_id": run.run_id,
                "key": run.key,
                "study": row.study,
                "variant": row.variant,
                "seed": run.seed,
                "outcome": run.outcome,
                **{name: metric(run, name) for name in RESULT_METRICS},
                "commit": run.commit,
                "dirty": str(run.dirty).lower(),
                "hardware": run.hardware,
                "side_by_side": run.side_by_side,
                "started_ms": run.started_ms,
                "ended_ms": run.ended_ms,
            }
        )
    header = f"{len(rows)} finished runs, each once though it may stand in several tables. "
    header += provenance(run for _, run in runs.values())
    return Sheet("runs", "Runs", header, columns, tuple(rows), (), tuple(records))


def run_url(ui_url: str, run: RunRow) -> str:
    """MLflow's page of a run."""
    return f"{ui_url.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
