"""Tidy frames and what is shown of them: a row a variant (or a run, an epoch, a claim), a column a quantity.

    Table + Statistics ─► study_frame() ─► Sheet: the frame, the columns shown of it, caption and notes ─► sheets, figures

A quantity is declared once, in `_record`; what a reader sees of it is a `Column`. Accuracies are in percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from repro import grids
from repro.published import Published
from repro.reporting import verdicts
from repro.reporting.frame import REFERENCE, Row
from repro.reporting.join import Table
from repro.reporting.sheets import Column, Sheet, number
from repro.reporting.verdicts import Judgement, Statistics
from repro.rows import RunRow
from repro.spec import RunSpec, flatten

CONTRACT = (
    "study", "variant", "title", "n", "val_mean", "val_sd", "val_low", "val_high", "published_val", "predicted_low",
    "predicted_high", "verdict", "test_mean", "test_sd", "published_test", "test_verdict", "test_diff", "test_diff_low",
    "test_diff_high", "test_diff_p", "base", "best_epoch", "published_epoch", "epoch_seconds", "published_seconds",
    "size_mib", "published_size", "size_verdict", "parameters", "multiply_adds", "precision", "hardware", "changed", "outcome",
)  # fmt: skip
"""The columns of `tables/<study>.csv`; behind them stand the fields that the study's `grid` and `zip` vary."""
PAPER = ("title", "n", "val", "published_val", "verdict", "test", "test_diff", "size_mib", "times_smaller")
"""The columns that fit one column of a paper."""
BRIEF = ("title", "n", "val", "published_val", "verdict", "test", "best_epoch", "size_mib", "outcome")
"""The columns of a sweep's table and of a summary."""
VERDICT = "Verdict: whether the published accuracy lies in the 95% prediction interval of one more run."
NO_INTERVAL = "without an interval, since the spread over seeds is unknown"
_IMAGES = {"data.augmentation", "data.normalisation", "data.image_size"}
_TAKEN = {"claims", "audit", "runs", "epochs"}  # names of a report's other tables


def study_frame(table: Table) -> pd.DataFrame:
    """The rows of a study, unrounded: the columns of `CONTRACT` and those that only views and figures need."""
    found = verdicts.statistics(table)
    return pd.DataFrame([_record(table, row, found[row.name]) for row in table.rows])


def _record(table: Table, row: Row, found: Statistics) -> dict[str, Any]:
    paper, base, whole = row.published, table.base(row), table.whole
    flat = flatten(row.spec)
    how = verdicts.failures(row)
    left_out = f"{how}; left out of n and of all means" if how and any(run.learned for run in row.runs) else ""
    return {
        "study": row.study,
        "variant": row.variant,
        "title": row.title,
        "n": sum(run.learned for run in row.runs) or len(row.runs),
        **_parts("val", found.val, "mean", "sd", "low", "high"),
        "published_val": paper.accuracy if paper.bound is None else paper.bound,
        **_parts("predicted", found.on_val.predicted, "low", "high"),
        "verdict": found.on_val.verdict,
        **_parts("test", found.test, "mean", "sd", "low", "high"),
        "published_test": paper.test_accuracy,
        "test_verdict": found.on_test.verdict,
        "test_diff": None if found.difference is None else found.difference.estimate,
        **_parts("test_diff", found.difference, "low", "high", "p"),
        "base": row.base if base is not None else None,
        "best_epoch": _mean(row.values("best_epoch", learned=bool(row.values("best_epoch", learned=True).size))),
        "published_epoch": paper.epochs,
        "epoch_seconds": _mean(row.values("epoch_seconds")),
        "published_seconds": paper.epoch_seconds,
        "size_mib": row.size,
        "published_size": paper.size,
        "size_verdict": found.size_verdict,
        "parameters": row.metric("parameters"),
        "multiply_adds": row.metric("multiply_adds"),
        "precision": row.spec.training.precision,
        "hardware": "; ".join(sorted({run.record.hardware for run in row.runs})),
        "changed": _changed(table, row),
        "outcome": outcome(row),
        # what views and figures need besides
        "at_most": paper.bound is not None,
        "base_title": None if base is None else base.title,
        "times_smaller": whole / row.size if whole and row.size else None,
        "size_zip_mib": row.metric("model_size_mib"),
        "image_noise": found.image_noise,
        "folded": found.difference is not None and found.difference.folded,
        "axis": flat.get(table.study.axis or ""),
        **{name: grids.text(flat[name]) if name in flat else "" for name in table.study.fields},
        "notes": [note for note in (row.note, _said_otherwise(paper), left_out, *_reasons(found)) if note]
        if row.runs
        else [],
        "verdicts": [
            f"{row.title}, {where}: {one.verdict}; {one.why}"
            for where, one in _judged(found)
            if one.verdict not in {"", "undecided"}
        ],
    }


def _parts(name: str, found: Any, *parts: str) -> dict[str, float | None]:
    names = {"mean": "estimate"}
    return {f"{name}_{part}": None if found is None else getattr(found, names.get(part, part)) for part in parts}


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _changed(table: Table, row: Row) -> str:
    """What differs from its kind of network by default and from the reference's optimizer, the table's setting left out."""
    reference = (table.setting.row(REFERENCE) if table.printed else table.base(row)) or table.rows[0]
    usual = flatten(RunSpec(model=row.spec.model.usual())) | dict(table.setting.values)
    usual |= {name: value for name, value in flatten(reference.spec).items() if name.startswith("optimizer.")}
    told = []
    for name, value in flatten(row.spec).items():
        group, _, setting = name.partition(".")
        if (
            (group in {"model", "optimizer", "training"} or name in _IMAGES)
            and value != usual.get(name)
            and (name in usual or group == "model" or row.spec.optimizer.name == "adabound")
        ):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            told.append(f"{'optimizer' if setting == 'name' else setting.replace('_', ' ')} {shown}")
    return "; ".join(told)


def outcome(row: Row) -> str:
    """How a row's runs ended where not all of them are simply finished."""
    ends = [
        f"{n} {word}" for word in ("diverged", "chance") if (n := sum(run.record.outcome == word for run in row.runs))
    ]
    if still := sum(run.improving for run in row.runs):
        ends.append("epoch limit" if still == len(row.runs) else f"{still} epoch limit")
    if row.missing:
        total = len(row.runs) + len(row.missing)
        ends.append(f"{len(row.runs)} of {total} runs" if row.runs else "no run yet")
    return ", ".join(ends)


def _said_otherwise(paper: Published) -> str:
    names = {"accuracy": "accuracy", "epochs": "epochs", "epoch_seconds": "seconds per epoch", "size": "size"}
    said = ", ".join(f"{names[name]} {value:g}" for name, value in paper.text.items())
    return f"the paper's text gives other values: {said}" if said else ""


def _judged(found: Statistics) -> tuple[tuple[str, Judgement], ...]:
    return ("validation", found.on_val), ("test", found.on_test)


def _reasons(found: Statistics) -> list[str]:
    """Why nothing is decided."""
    return list(
        dict.fromkeys(f"undecided: {one.why}" for _, one in _judged(found) if one.verdict == "undecided" and one.why)
    )


# What is shown of a frame


def size(value: Any) -> str:
    """A size in MiB to two decimals, a small one to four."""
    return number(2 if pd.isna(value) or value >= 0.1 else 4)(value)


def epoch(value: Any) -> str:
    """A mean of epochs to one decimal; a whole one as such."""
    return number(1)(value).removesuffix(".0")


def probability(p: Any) -> str:
    """A p value to three decimals."""
    return "< 0.001" if p < 0.0005 else number(3)(p)


def pair(middle: str, spread: str, digits: int = 2) -> Callable[[Mapping[str, Any]], str]:
    """The text of a mean with its standard deviation."""

    def shown(row: Mapping[str, Any]) -> str:
        mean, sd = number(digits)(row[middle]), number(digits)(row[spread])
        return f"{mean} ± {sd}" if mean and sd else mean

    return shown


def interval(name: str, digits: int = 2, *, sign: bool = False) -> Callable[[Mapping[str, Any]], str]:
    """The text of the limits of an interval, the columns `<name>_low` and `<name>_high`."""

    def shown(row: Mapping[str, Any]) -> str:
        low, high = (number(digits, sign=sign)(row[f"{name}_{end}"]) for end in ("low", "high"))
        return f"{low} to {high}" if low and high else ""

    return shown


def difference(name: str, digits: int = 2) -> Callable[[Mapping[str, Any]], str]:
    """The text of a difference, the column `name`, with its interval."""
    limits = interval(name, digits, sign=True)
    return lambda row: number(digits, sign=True)(row[name]) + (f" ({limits(row)})" if limits(row) else "")


def cell(name: str, form: Callable[[Any], str] = str) -> Callable[[Mapping[str, Any]], str]:
    """The text of one column's value; empty where there is none."""
    return lambda row: "" if row[name] is None or row[name] is pd.NA else form(row[name])


def _published(row: Mapping[str, Any]) -> str:
    return "≤ " * bool(row["at_most"] and number()(row["published_val"])) + number()(row["published_val"])


STUDY_COLUMNS = (
    Column("title", "", lambda row: row["title"] + row["marks"], kind="name"),
    Column("n", "n", cell("n")),
    Column("val", "mean ± sd", pair("val_mean", "val_sd"), "Validation (%)", short="val. (%)"),
    Column("published_val", "published", _published, "Validation (%)", short="publ."),
    Column("predicted", "95% prediction", interval("predicted"), "Validation (%)"),
    Column("verdict", "verdict", cell("verdict"), "Validation (%)", kind="verdict", short="verdict"),
    Column("test", "mean ± sd", pair("test_mean", "test_sd"), "Test (%)", short="test (%)"),
    Column("published_test", "published", cell("published_test", number()), "Test (%)", short="publ. test"),
    Column("test_verdict", "verdict", cell("test_verdict"), "Test (%)", kind="verdict", short="verdict (test)"),
    Column("test_diff", "points (95%)", difference("test_diff"), "Test minus base", short="diff."),
    Column("image_noise", "± other images", cell("image_noise", number(2)), "Test minus base", short="± images"),
    Column("test_diff_p", "p", cell("test_diff_p", probability), "Test minus base"),
    Column("base", "base", cell("base_title"), "Test minus base", kind="name"),
    Column("best_epoch", "ours", cell("best_epoch", epoch), "Best epoch", short="best epoch"),
    Column("published_epoch", "published", cell("published_epoch", number(0)), "Best epoch"),
    Column("epoch_seconds", "ours", cell("epoch_seconds", number(2)), "Seconds per epoch", short="s/epoch"),
    Column("published_seconds", "published", cell("published_seconds", number(2)), "Seconds per epoch"),
    Column("size_mib", "MiB", cell("size_mib", size), "Size", short="MiB"),
    Column("published_size", "published", cell("published_size", number(None)), "Size"),
    Column("size_verdict", "verdict", cell("size_verdict"), "Size", kind="verdict"),
    Column("times_smaller", "× smaller", cell("times_smaller", number(1)), "Size", short="×"),
    Column("size_zip_mib", "MiB, zip format", cell("size_zip_mib", number(3)), "Size"),
    Column("parameters", "parameters", cell("parameters", number(0)), ""),
    Column("multiply_adds", "million MACs", cell("multiply_adds", number(2, scale=1e-6)), ""),
    Column("changed", "changed", cell("changed"), "", kind="prose"),
    Column("outcome", "outcome", cell("outcome"), "", kind="name", short="outcome"),
)  # fmt: skip
"""Every column that a table of a study can show."""
ON_PAGE = tuple(
    column.name
    for column in STUDY_COLUMNS
    if column.name not in {"predicted", "test_diff_p", "base", "size_verdict", "size_zip_mib", "multiply_adds"}
)


def study_sheet(table: Table, frame: pd.DataFrame, chosen: Sequence[str] = ON_PAGE) -> Sheet:
    """A study as the paper prints it, each published number beside ours."""
    number_ = table.study.table
    notes: list[str] = []
    marks = []
    for given in frame["notes"]:
        notes += [note for note in given if note not in notes]
        marks.append("".join(f" [{notes.index(note) + 1}]" for note in dict.fromkeys(given)))
    left_out = {"changed"} if table.study.fields and chosen is ON_PAGE else set()  # the fields' columns tell it
    several_bases = frame.loc[frame["test_diff"].notna(), "base"].nunique() > 1
    shown = {*chosen} - left_out | ({"base"} if several_bases and chosen is ON_PAGE else set())
    columns = [column for column in STUDY_COLUMNS if column.name in shown]
    first = int("title" in chosen)
    fields = [Column(name, name.rpartition(".")[2].replace("_", " "), cell(name)) for name in table.study.fields]
    return Sheet(
        slug=f"study_{table.study.study}" if table.study.study in _TAKEN else table.study.study,
        title=table.study.title if number_ is None else f"Table {number_}. {table.study.title}",
        header=_header(table, frame, [column.name for column in columns]),
        columns=(*columns[:first], *fields, *columns[first:]),
        frame=frame.assign(marks=marks),
        notes=(*(f"[{place}] {note}" for place, note in enumerate(notes, 1)), *table.notes),
    )


def _header(table: Table, frame: pd.DataFrame, shown: Sequence[str]) -> str:
    """Data, statistics, n and provenance in one line."""
    runs = [run.record for row in table.rows for run in row.runs]
    several, folded = frame["val_sd"].notna().any(), any(row.spec.data.fold is not None for row in table.rows)
    over = "folds, averaged over seeds" if folded else "runs"
    single = ["One run per row, so no sd."] if runs else []
    told = [f"Data: {table.setting.words}.", *([f"± sd over {over}."] if several else single)]
    if (frame["verdict"] != "").any():
        told.append(VERDICT)
    if "test_diff" in shown and frame["test_diff"].notna().any():
        bases = frame.loc[frame["test_diff"].notna(), "base_title"].unique()
        base = bases[0] if len(bases) == 1 else f"each row's base ({'; '.join(bases)})"
        told.append(f"Differences on test from {base}, {intervals(frame)}.")
    if "times_smaller" in shown and frame["times_smaller"].notna().any():
        told.append("× smaller: relative to AlexNet.")
    return " ".join([*told, provenance(runs)])


def intervals(rows: pd.DataFrame) -> str:
    """How the differences of some rows from their bases are shown."""
    if rows["folded"].any():
        return "paired by fold, each with its own 95% interval"
    if rows["test_diff_low"].notna().any():
        several = rows.loc[rows["test_diff_low"].notna(), "base"].nunique() > 1
        return f"with 95% intervals, simultaneous {'over the rows with one base' if several else 'within this table'}"
    return NO_INTERVAL


def provenance(runs: Iterable[RunRow]) -> str:
    """Commits and hardware of some runs."""
    runs = list(runs)
    if not runs:
        return "No finished run."
    commits = sorted({commit_of(run) for run in runs})
    hardware = sorted({run.hardware for run in runs})
    return f"Commit{'s' * (len(commits) > 1)} {', '.join(commits)}. Hardware: {'; '.join(hardware)}."


def commit_of(run: RunRow) -> str:
    """A run's commit in short, with uncommitted changes said."""
    return f"{run.commit[:9]}{' with uncommitted changes' if run.dirty else ''}"
