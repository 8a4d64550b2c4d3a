"""What a report rests on, as sheets: the claims with their verdicts, the audit of the published numbers, the runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from repro.datasets import DataSpec
from repro.records import RESULT_METRICS
from repro.reporting.audit import Finding
from repro.reporting.claims import Judged
from repro.reporting.join import Row, Scope, Table, comparable, describe, metric, scope_of
from repro.reporting.measures import difference
from repro.reporting.page import Answer
from repro.reporting.sheets import Cell, Column, Link, Raw, Sheet
from repro.reporting.statements import Paper, Parity
from repro.reporting.tables import interval, number, over_runs, provenance, signed
from repro.reporting.verdicts import ENOUGH, reduction
from repro.rows import RunRow
from repro.spec import changes


def claims_sheet(judged: Sequence[Judged], every: Sequence[Judged], paper: Paper) -> Sheet:
    """Claims with their verdicts and what they rest on; those of `every` that are not among them are named below."""
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
    others = "; ".join(one.says for one in every if one not in judged)
    notes = (f"Not asked by these studies: {others}",) if others else ()
    return Sheet("claims", "What the runs say of each claim", header, columns, rows, notes, records)


def audit_sheet(findings: Sequence[Finding], total: int, paper: Paper) -> Sheet:
    """What does not fit together in the published numbers themselves: some of `total` findings."""
    columns = (Column("kind", kind="name"), Column("finding", kind="prose"), Column("where", kind="prose"))
    rows = tuple((one.kind, one.sentence, _few(one.where)) for one in findings)
    some = len(rows) < total
    count, others = (f"{len(rows)} of {total}", "; the others concern no study of this report") if some else (total, "")
    found = f"{count} inconsistencies, found by general checks over the printed numbers"
    header = f"{paper.paper}: {found}{others}. No run is needed."
    records: tuple[dict[str, Raw], ...] = tuple(
        {
            "kind": one.kind,
            "finding": one.sentence,
            "where": " ".join(one.where),
            "printed": one.printed,
            "computed": one.computed,
        }
        for one in findings
    )
    return Sheet("audit", "What does not fit together", header, columns, rows, (), records)


def answer(judged: Sequence[Judged], paper: Paper, every: Sequence[Scope], tables: Sequence[Table]) -> Answer:
    """Whether SqueezeNet matches AlexNet, by our own claim of parity, and how much smaller it is.

    Where that is none of the claims judged, the most accurate row of the tables in one setting.
    """
    parities = {
        slug: one.test for slug, one in paper.claims.items() if isinstance(one.test, Parity) and not one.section
    }
    claim = next((one for one in judged if one.slug in parities), None)
    if claim is None:
        return _most_accurate(tables)
    step = claim.steps[0] if claim.steps else None
    if step is None or step.difference is None or claim.verdict == "undecided":
        return Answer("Not yet decided: does SqueezeNet match AlexNet?", f"{claim.why} ({claim.setting}).")
    scope = scope_of(every, claim.setting_id)
    ours, reference = (scope.row(name) for name in (step.first, step.second))
    assert ours is not None  # a difference was computed of both
    assert reference is not None
    times = reduction(ours, reference)
    smaller = "" if times is None else f" at {times:.1f}× smaller"
    verb = "matches" if claim.verdict == "supported" else "does not match"
    others = [change for change in changes(scope.setting) if not change.startswith("data.")]
    dataset = scope.setting["data.dataset"]
    where = "" if dataset == DataSpec().dataset else f" on {dataset}"
    where += f" with {', '.join(others)}" if others else ""
    why = (
        f"{ours.title}, chosen on validation, differs from {reference.title} by {signed(step.difference.estimate)} points"
        f" of test accuracy (95% interval {interval(step.difference, sign=True)}, n = {step.difference.n}). Parity asks for"
        f" a lower limit of at least −{parities[claim.slug].margin:g}. Data: {claim.setting}."
    )
    return Answer(f"SqueezeNet {verb} AlexNet{smaller}{where}", why, ours.runs[0].run_id)


def _most_accurate(tables: Sequence[Table]) -> Answer:
    known = [
        (found, row, table)
        for table in comparable(tables)
        for row in table.rows
        if (found := over_runs(row, "best_val_accuracy", 100)) is not None
    ]
    if not known:
        return Answer("No finished run yet", "The store holds the plans of these studies, and no result.")
    (found, row, table), *others = sorted(known, key=lambda one: -one[0].estimate)
    limits = "" if found.low is None else f"95% {interval(found)}, "
    why = (
        f"{row.title} has the highest validation accuracy, {found.estimate:.2f}% ({limits}n = {found.n})."
        f" Data: {describe(table.setting)}."
    )
    if not others:
        return Answer(f"{table.study.title}: {row.title} reaches {found.estimate:.2f}%", why, row.runs[0].run_id)
    second = others[0][1]
    ahead, _ = difference(row, second, "accuracy")
    if ahead is None or ahead.n < ENOUGH or ahead.low is None or ahead.low <= 0:
        told = "no seed in common" if ahead is None else f"{signed(ahead.estimate)} points, n = {ahead.n}"
        why += f" Not decided against {second.title}: {told} on test."
        return Answer(f"{table.study.title}: {row.title} is highest so far, undecided", why, row.runs[0].run_id)
    return Answer(f"{table.study.title}: {row.title} is most accurate", why, row.runs[0].run_id)


def runs_sheet(tables: Sequence[Table], ui_url: str | None) -> Sheet:
    """Every run behind the tables, each once, linked to MLflow's page of it where its address is known."""
    runs: dict[str, tuple[Row, RunRow]] = {}
    for row in (row for table in tables for row in table.rows):
        for run in row.runs:
            runs.setdefault(run.run_id, (row, run))
    columns = (
        Column("run", kind="name"),
        Column("study", kind="name"),
        Column("variant", kind="name"),
        Column("seed"),
        Column("validation (%)"),
        Column("test (%)"),
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
    return Sheet("runs", "The runs behind the tables", header, columns, tuple(rows), (), tuple(records))


def run_url(ui_url: str, run: RunRow) -> str:
    """MLflow's page of a run."""
    return f"{ui_url.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
