"""A study as a sheet: its rows over their seeds, each published number beside ours, with its verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from repro.reporting import stats
from repro.reporting.join import REFERENCE, Row, Table, describe, metric
from repro.reporting.measures import difference as paired_difference
from repro.reporting.sheets import Cell, Column, Raw, Sheet, trimmed
from repro.reporting.stats import Estimate
from repro.reporting.verdicts import Verdict, verdicts
from repro.rows import RunRow

_COLUMNS = (
    Column("", kind="name"),
    Column("n"),
    Column("mean ± sd", "Validation (%)"),
    Column("95% interval", "Validation (%)"),
    Column("published", "Validation (%)"),
    Column("95% of one run", "Validation (%)"),
    Column("verdict", "Validation (%)", "verdict"),
    Column("mean ± sd", "Test (%)"),
    Column("published", "Test (%)"),
    Column("95% of one run", "Test (%)"),
    Column("verdict", "Test (%)", "verdict"),
    Column("pairs", "Test minus base"),
    Column("points", "Test minus base"),
    Column("95% interval", "Test minus base"),
    Column("p (Holm)", "Test minus base"),
    Column("base", "Test minus base", "name"),
    Column("ours", "Best epoch"),
    Column("published", "Best epoch"),
    Column("ours", "Seconds an epoch"),
    Column("published", "Seconds an epoch"),
    Column("legacy", "Size (MiB)"),
    Column("zip", "Size (MiB)"),
    Column("published", "Size (MiB)"),
    Column("verdict", "Size (MiB)", "verdict"),
    Column("× smaller", "Size (MiB)"),
    Column("parameters", "Model"),
    Column("million MACs", "Model"),
    Column("outcome", "", "name"),
)
_BRIEF = (0, 1, 2, 4, 6, 7, 16, 18, 20, 27)


def over_runs(row: Row, name: str, scale: float = 1.0) -> Estimate | None:
    """A final metric over a row's runs; None where no run has it."""
    values = [scale * value for run in row.runs if (value := metric(run, name)) is not None]
    return stats.mean(values) if values else None


def differences(table: Table) -> dict[str, Estimate]:
    """`study/variant` -> its test accuracy minus its base's in points, p Holm-corrected over the table.

    Rows that stand for themselves, and those without a seed in common with their base, are left out.
    """
    found: dict[str, Estimate] = {}
    for row in table.rows:
        base = table.bases.get(row.against or "")
        if base is not None and (one := paired_difference(row, base, "accuracy")[0]) is not None:
            found[row.name] = one
    tested = {name: one.p for name, one in found.items() if one.p is not None}
    corrected = dict(zip(tested, stats.holm(list(tested.values())), strict=True))
    return {name: replace(one, p=corrected.get(name)) for name, one in found.items()}


def study_sheet(table: Table, *, brief: bool = False) -> Sheet:
    """A study as the paper prints it, each published number beside ours; `brief` keeps what a short table needs.

    Sizes are divided into AlexNet's of the same setting: that of its runs, or the published one where it has none.
    """
    held: dict[str, dict[str, Verdict]] = {}
    for one in verdicts(table):
        held.setdefault(one.row, {})[one.number] = one
    compared = differences(table)
    notes: list[str] = []
    rows, records = [], []
    for row in table.rows:
        marks = []
        for note in (*filter(None, (row.note, _said_otherwise(row))), *_undecided(row, held.get(row.name, {}))):
            if note not in notes:
                notes.append(note)
            marks.append(f" [{notes.index(note) + 1}]")
        full = _cells(table, row, held.get(row.name, {}), compared.get(row.name), "".join(marks))
        rows.append(tuple(full[i] for i in _BRIEF) if brief else full)
        records.append(_record(table, row, held.get(row.name, {}), compared.get(row.name)))
    footnotes = [f"[{place}] {note}" for place, note in enumerate(notes, 1)]
    if not brief:
        footnotes += _explained(table)
    number = table.study.table
    return trimmed(
        Sheet(
            slug=f"table{'' if number is None else number}_{table.study.study}",
            title=table.study.title if number is None else f"Table {number}. {table.study.title}",
            header=_header(table, verdicts=bool(held), differences=bool(compared) and not brief),
            columns=tuple(_COLUMNS[i] for i in _BRIEF) if brief else _COLUMNS,
            rows=tuple(rows),
            footnotes=(*footnotes, *table.notes),
            records=tuple(records),
        )
    )


def _undecided(row: Row, held: Mapping[str, Verdict]) -> list[str]:
    """Why nothing is decided of a row that has runs; of one without, its outcome says it."""
    whys = dict.fromkeys(one.why for one in held.values() if one.verdict == "undecided" and row.runs)
    return [f"undecided: {why}" for why in whys]


def _explained(table: Table) -> list[str]:
    """What the headings are too short to say."""
    size, of = _whole(table)
    lines = [
        "legacy and zip: the saved state dict in torch's format before 1.6, which the paper's sizes fit, and in today's"
    ]
    if size is not None:
        lines.append(f"× smaller: than AlexNet with {size:.2f} MiB ({of}), in the legacy format")
    return lines


def _said_otherwise(row: Row) -> str:
    """What the paper's text says of a row where its table says something else."""
    names = {"accuracy": "accuracy", "epochs": "epochs", "epoch_seconds": "seconds an epoch", "size": "size"}
    said = ", ".join(f"{names[name]} {value:g}" for name, value in row.published.text.items())
    return f"the paper's text says otherwise: {said}" if said else ""


def _header(table: Table, *, verdicts: bool, differences: bool) -> str:
    """What stands over a study's table: data and digest, statistics, n, commits, hardware, runs side by side."""
    counts = sorted({len(row.runs) for row in table.rows})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    methods = [n, stats.MEAN]
    methods += [f"verdicts: {stats.PREDICTION}"] * verdicts
    methods += [f"differences: {stats.PAIRED} over the table"] * differences
    origin = provenance(run for row in table.rows for run in row.runs)
    return f"Data: {describe(table.setting)}; setting {table.setting_id}. {'; '.join(methods)}. {origin}"


def provenance(runs: Iterable[RunRow]) -> str:
    """Commits, hardware and runs side by side of some runs, in two sentences."""
    runs = list(runs)
    if not runs:
        return "No finished run."
    commits = sorted({commit_of(run) for run in runs})
    hardware = sorted({f"{run.hardware}, {run.side_by_side} side by side" for run in runs})
    return f"Commit{'s' * (len(commits) > 1)} {', '.join(commits)}. Hardware: {'; '.join(hardware)}."


def commit_of(run: RunRow) -> str:
    """A run's commit in short, with what was not committed said."""
    return f"{run.commit[:9]}{' with uncommitted changes' if run.dirty else ''}"


def outcome_of(row: Row) -> str:
    """How a row's runs ended where not all of them are simply finished."""
    ends = [f"{n} {word}" for word in ("diverged", "chance") if (n := sum(run.outcome == word for run in row.runs))]
    if row.missing:
        ends.append(f"{len(row.runs)} of {len(row.runs) + len(row.missing)} seeds" if row.runs else "no run yet")
    return ", ".join(ends)


def _whole(table: Table) -> tuple[float | None, str]:
    """AlexNet's size in MiB, and where it comes from."""
    reference = table.bases.get(REFERENCE)
    if reference is None:
        return None, ""
    ours = over_runs(reference, "model_size_legacy_mib")
    return (reference.published.size, "as published") if ours is None else (ours.estimate, "ours")


def _reduction(table: Table, row: Row) -> float | None:
    size, (whole, _) = over_runs(row, "model_size_legacy_mib"), _whole(table)
    return whole / size.estimate if whole is not None and size is not None and size.estimate > 0 else None


def _cells(
    table: Table, row: Row, held: Mapping[str, Verdict], difference: Estimate | None, mark: str
) -> tuple[Cell, ...]:
    validation, test = over_runs(row, "best_val_accuracy", 100), over_runs(row, "test_accuracy", 100)
    verdict = {number: one.verdict for number, one in held.items()}
    paper = row.published
    at_most = f"≤ {paper.accuracy_at_most:.2f}" if paper.accuracy_at_most is not None else ""
    times = _reduction(table, row)
    return (
        f"{row.title}{mark}",
        str(len(row.runs)) if row.runs else "0",
        _spread(validation),
        interval(validation),
        _published(row, "accuracy", 2) or at_most,
        interval(_expected(held, "accuracy", "accuracy_at_most")),
        verdict.get("accuracy", verdict.get("accuracy_at_most", "")),
        _spread(test),
        _published(row, "test_accuracy", 2),
        interval(_expected(held, "test_accuracy")),
        verdict.get("test_accuracy", ""),
        "" if difference is None or difference.n == len(row.runs) else str(difference.n),
        "" if difference is None else signed(difference.estimate),
        interval(difference, sign=True),
        "" if difference is None or difference.p is None else _p(difference.p),
        "" if difference is None else table.bases[row.against or ""].title,
        _spread(over_runs(row, "best_epoch"), 1),
        _published(row, "epochs", 0),
        _spread(over_runs(row, "mean_epoch_seconds")),
        _published(row, "epoch_seconds", 2),
        _mean(row, "model_size_legacy_mib", 3),
        _mean(row, "model_size_mib", 3),
        _published(row, "size", None),
        verdict.get("size", ""),
        "" if times is None else f"{times:.1f}",
        _mean(row, "parameters", 0),
        _mean(row, "multiply_adds", 2, 1e-6),
        outcome_of(row),
    )


def _expected(held: Mapping[str, Verdict], *numbers: str) -> Estimate | None:
    """Where one new run is expected, for the first of some published numbers that there is."""
    return next((held[number].ours for number in numbers if number in held), None)


def _record(table: Table, row: Row, held: Mapping[str, Verdict], difference: Estimate | None) -> dict[str, Raw]:
    """The row for machines: unrounded, accuracies in percent."""
    record: dict[str, Raw] = {"study": row.study, "variant": row.variant, "title": row.title, "n": len(row.runs)}
    for name, ours, scale in (
        ("val_accuracy", "best_val_accuracy", 100),
        ("test_accuracy", "test_accuracy", 100),
        ("best_epoch", "best_epoch", 1),
        ("epoch_seconds", "mean_epoch_seconds", 1),
    ):
        found = over_runs(row, ours, scale)
        for part, key in (("estimate", "mean"), ("sd", "sd"), ("low", "low"), ("high", "high")):
            record[f"{name}_{key}"] = None if found is None else getattr(found, part)
    for name in ("accuracy", "accuracy_at_most", "test_accuracy", "epochs", "epoch_seconds", "size"):
        record[f"published_{name}"] = getattr(row.published, name)
    for number in ("accuracy", "accuracy_at_most", "test_accuracy", "size"):
        one = held.get(number)
        record[f"verdict_{number}"] = None if one is None else one.verdict
        record[f"why_{number}"] = None if one is None else one.why
        if number != "size":
            expected = _expected(held, number)
            record[f"one_run_{number}_low"] = None if expected is None else expected.low
            record[f"one_run_{number}_high"] = None if expected is None else expected.high
    for name in ("model_size_legacy_mib", "model_size_mib", "parameters", "multiply_adds"):
        found = over_runs(row, name)
        record[name] = None if found is None else found.estimate
    record["times_smaller_than_alexnet"] = _reduction(table, row)
    record["base"] = row.against
    for part, key in (("estimate", "mean"), ("low", "low"), ("high", "high"), ("p", "p_holm"), ("n", "n")):
        record[f"difference_{key}"] = None if difference is None else getattr(difference, part)
    return record | {
        "outcomes": " ".join(run.outcome for run in row.runs),
        "missing_seeds": " ".join(map(str, row.missing)),
        "note": row.note,
        "dataset": str(table.setting["data.dataset"]),
        "data_digest": str(table.setting["data.digest"]),
        "setting": table.setting_id,
        "seeds": " ".join(str(run.seed) for run in row.runs),
        "commits": " ".join(sorted({run.commit + "+dirty" * run.dirty for run in row.runs})),
        "hardware": "; ".join(sorted({run.hardware for run in row.runs})),
        "side_by_side": " ".join(sorted({str(run.side_by_side) for run in row.runs})),
        "run_ids": " ".join(run.run_id for run in row.runs),
    }


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """A number with its thousands apart, or nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{scale * value:,.{digits}f}"


def _mean(row: Row, name: str, digits: int, scale: float = 1.0) -> str:
    found = over_runs(row, name, scale)
    return number(None if found is None else found.estimate, digits)


def _spread(found: Estimate | None, digits: int = 2) -> str:
    if found is None:
        return ""
    return number(found.estimate, digits) + ("" if found.sd is None else f" ± {found.sd:.{digits}f}")


def interval(found: Estimate | None, *, sign: bool = False) -> str:
    """The limits of an interval, or why there is none."""
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"n = {found.n}" if found.sd is None else "all equal"
    return " to ".join(signed(value) if sign else _minus(f"{value:.2f}") for value in (found.low, found.high))


def signed(value: float) -> str:
    """A difference with its sign."""
    text = f"{value:+.2f}"
    return _minus(text) if float(text) else text[1:]


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _published(row: Row, name: str, digits: int | None) -> str:
    value = getattr(row.published, name)
    return "" if value is None else f"{value:g}" if digits is None else f"{value:.{digits}f}"
