"""Any experiment as a table: its runs in groups, each metric's mean over seeds, differences from a baseline.

    runs (the columns of mlflow.search_runs) ─► tabulate() ─► Groups: a row a group, and warnings ─► write()

Nothing here knows a study, a paper or a store.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro.errors import InputError, few, unknown
from repro.reporting import evidence, folder, page, stats
from repro.reporting.conditions import Metric, kept
from repro.reporting.frame import Answer
from repro.reporting.sheets import Column, Sheet, csv, latex, markdown, markdown_text, number
from repro.reporting.tables import cell, difference, interval, pair, probability

Histories = Callable[[Sequence[str], Collection[str]], Mapping[str, Mapping[str, NDArray[np.float64]]]]
"""Run ids and names of metrics -> run id -> metric -> (n, 3): step, time, value."""
PARTS = {"mean": "estimate", "sd": "sd", "low": "low", "high": "high",
         "diff": "estimate", "diff_low": "low", "diff_high": "high", "diff_p": "p"}  # fmt: skip
"""The columns of a metric in `tables/groups.csv`, each behind its name, and the field of its estimate or difference."""
_COMMIT, _PARENT = "tags.mlflow.source.git.commit", "tags.mlflow.parentRunId"
_CURVES, _THIN, _LINES, _ROWS = 7, 20, 60, 1000  # groups and runs of a figure, lines of a forest plot, runs on the page


@dataclass(frozen=True)
class Groups:
    """A row a group, and all that is shown beside it."""

    by: tuple[str, ...]
    metrics: tuple[Metric, ...]
    frame: pd.DataFrame
    """The columns of the CSV; and `label`, and `<metric>_base` with the label of the base, empty without one."""
    runs: pd.DataFrame
    """A row a run that counts: --by, `label`, `seed`, `run_id`, `run_name`, `status`, and each metric's column."""
    digits: Mapping[str, int]
    header: str
    warnings: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """The columns of `tables/groups.csv`."""
        return [*self.by, "n", *(f"{metric.label}_{part}" for metric in self.metrics for part in PARTS)]

    @property
    def ranked(self) -> list[str]:
        """The labels, the best of the first metric first."""
        first = self.metrics[0]
        return list(self.frame.sort_values(f"{first.label}_mean", ascending=first.lower, kind="stable")["label"])

    def sheet(self, *, brief: bool = False) -> Sheet:
        """The table; `brief` leaves out the intervals of means and the p values."""
        columns = [*self._names, Column("n", "n", cell("n"))]
        for name, digits in self.digits.items():
            shown = [
                Column(name, "mean ± sd", pair(f"{name}_mean", f"{name}_sd", digits), name, short=name),
                Column(f"{name}_low", "95% interval", interval(name, digits), name),
                Column(f"{name}_diff", "difference (95%)", difference(f"{name}_diff", digits), name),
                Column(f"{name}_p", "p", cell(f"{name}_diff_p", probability), name),
            ]
            columns += shown[::2] if brief else shown
        return Sheet("groups", "Groups", self.header, tuple(columns), self.frame, self.warnings)

    def runs_sheet(self) -> Sheet:
        """The runs that count."""
        columns = [Column("run_id", "run", lambda row: str(row["run_id"])[:8], kind="name", url="url"), *self._names]
        columns += [Column(name, name, cell(name), kind="name") for name in ("seed", "run_name")]
        columns += [Column(m.column, m.label, cell(m.column, number(self.digits[m.label]))) for m in self.metrics]
        more = f"; the first {_ROWS:,}, all are in tables/runs.csv" * (len(self.runs) > _ROWS)
        return Sheet("runs", "Runs", f"{len(self.runs):,} runs{more}.", tuple(columns), self.runs[:_ROWS], ())

    @property
    def _names(self) -> list[Column]:
        return [Column(name, name.partition(".")[2] or name, cell(name), kind="name") for name in self.by]


def tabulate(
    runs: pd.DataFrame | Sequence[Mapping[str, Any]], histories: Histories, *, by: Sequence[str],
    wanted: Sequence[Metric], seed: str | None = None, baseline: Mapping[str, str] | None = None, paired: bool = False,
    where: str = "", every: bool = False,
) -> Groups:  # fmt: skip
    """The groups of some runs, which are given newest first.

    Args:
        runs: a row a run: `run_id`, `status`, and `params.*`, `tags.*`, `metrics.*`, nested or not.
        histories: of the metrics whose value is not the last one.
        by: columns; runs that agree in them make a group.
        wanted: the values of a run.
        seed: the column in which the runs of a group differ; of two runs of a group with one seed, the newer counts.
        baseline: column of `by` -> value; each group is compared with the one that differs from it in these alone.
        paired: compare runs of one seed.
        where: conditions on the table's columns; other rows are left out, and change no number of those that are shown.
        every: runs that are not finished count, too.

    Raises:
        InputError: no such column, metric or value, a pairing without a seed, or no run that is left.
    """
    runs = runs if isinstance(runs, pd.DataFrame) else pd.json_normalize([*runs])
    if runs.empty:
        raise InputError("no runs found, or none that match --filter")
    settings = [name for name in runs if name.startswith(("params.", "tags.")) and ".mlflow." not in name]
    for name in filter(None, [*by, seed]):
        if name not in runs:
            raise unknown("column", name, settings)
    measured = [name.removeprefix("metrics.") for name in runs if name.startswith("metrics.")]
    for one in wanted:
        if one.name not in measured:
            name, colon, pick = one.name.rpartition(":")
            if colon and name in measured:
                raise unknown(f"value of {name}", pick, ["last", "max", "min", "at=STEP"])
            raise unknown("metric", one.name, measured)
    if not by or (paired and not (seed and baseline)):
        raise InputError("--by names no column" if not by else "--paired needs --seed and --baseline, too")
    warnings: list[str] = []
    if not every and (left := runs["status"] != "FINISHED").any():
        ends = runs["run_id"][left] + " " + runs["status"][left]
        warnings.append(f"{len(ends)} unfinished runs are left out (a --filter on status keeps them): {few(ends)}")
        runs = runs[~left]
    runs = _valued(runs, histories, wanted, warnings)
    runs[[*by]] = runs[[*by]].fillna("").astype(str)
    runs = runs.assign(label=_labels(runs, by), seed=runs[seed] if seed else None)
    runs = runs.sort_values([*by], key=_natural, kind="stable")
    if seed and (twice := runs.duplicated(["label", "seed"]) & runs["seed"].notna()).any():
        told = runs["label"] + ", seed " + runs["seed"].astype(str) + ": " + runs["run_id"]
        warnings.append(f"repeated seeds: the newest run counts; left out: {few(told[twice])}")
        runs = runs[~twice]
    warnings += _mixed(runs, by, seed)
    for name, value in (baseline or {}).items():
        if name not in by:
            raise unknown("column of --baseline", name, by)
        if value not in {*runs[name]}:
            raise unknown(f"value of {name}", value, runs[name].unique())
    frame, digits = _statistics(runs, [*by], wanted, baseline or {}, paired, warnings)
    how = {"last": "last value", "max": "maximum over steps", "min": "minimum over steps"}
    told = [f"{m.label}: {how.get(m.pick, 'at step ' + m.pick[3:])}" + ", lower is better" * m.lower for m in wanted]
    header = f"{'; '.join(told)}. ± sd over runs; intervals are 95%, from the sd pooled over groups."
    if baseline:
        test = "paired by seed, intervals and p by Bonferroni" if paired else "simultaneous intervals and p by Dunnett"
        header += f" Differences from {', '.join('='.join(one) for one in baseline.items())}: {test}."
    groups = Groups(tuple(by), tuple(wanted), frame, runs, digits, header, tuple(warnings))
    if (shown := kept(frame, where, groups.columns)).empty:
        raise InputError(f"--where {where}: no group is left")
    return replace(groups, frame=shown)


def _valued(runs: pd.DataFrame, histories: Histories, wanted: Sequence[Metric], warnings: list[str]) -> pd.DataFrame:
    """The runs that have a value, with a column a metric; nan where a value is missing or not finite."""
    names = dict.fromkeys(one.name for one in wanted if one.pick != "last")
    points = histories(runs["run_id"].tolist(), names) if names else {}
    made = pd.DataFrame(index=runs.index)
    for one in wanted:
        of_runs = [points[run][one.name] for run in runs["run_id"]] if one.pick != "last" else []
        made[one.column] = [*map(one.of, of_runs)] if of_runs else runs[f"metrics.{one.name}"].astype(float)
        if one.pick in {"max", "min"} and (broken := sum(not np.isfinite(found[:, 2]).all() for found in of_runs)):
            warnings.append(f"{one.label}: points that are not finite are skipped in {broken} runs")
    made = made.where(np.isfinite(made))
    nothing = made.isna().all(axis=1)
    parents = runs["run_id"].isin(runs[_PARENT]) if _PARENT in runs else False
    said = {m.column: m.label + f" at step {m.pick[3:]}" * m.pick.startswith("at=") for m in wanted}
    left_out = {"all metrics": nothing & ~parents} | {said[name]: made[name].isna() & ~nothing for name in said}
    for name, missing in left_out.items():
        if missing.any():
            warnings.append(f"{name}: missing or not finite; left out there: {few(runs['run_id'][missing])}")
    if nothing.all():
        raise InputError(f"no run has a value of {', '.join(said.values())}; {'; '.join(warnings)}")
    return runs.assign(**made)[~nothing]


def _mixed(runs: pd.DataFrame, by: Sequence[str], seed: str | None) -> Iterator[str]:
    """What runs of one group do not share, and commits and digests of data that not all runs share."""
    others = [name for name in runs if (name.startswith("params.") or name == "data") and name not in {*by, seed}]
    several = runs.groupby("label", sort=False)[others].nunique(dropna=False) > 1
    for name in others:
        if len(found := several.index[several[name]]):
            held = runs[name][runs["label"] == found[0]].fillna("unset").unique()
            yield f"{name} differs between runs of one group, in {few(found)}: {few(held)}"
    commits = runs[_COMMIT].dropna().str[:9].unique() if _COMMIT in runs else []
    if len(commits) > 1:
        yield f"runs of several commits: {few(commits)}"
    data = sorted({one for text in runs.get("data", pd.Series(dtype=str)).dropna() for one in text.split(", ")})
    for name, n in Counter(one.rpartition(" ")[0] for one in data).items():
        if n > 1:
            yield f"data set {name} has several digests: {few(one for one in data if one.rpartition(' ')[0] == name)}"


def _statistics(
    runs: pd.DataFrame, by: list[str], wanted: Sequence[Metric], baseline: Mapping[str, str], paired: bool,
    warnings: list[str],
) -> tuple[pd.DataFrame, dict[str, int]]:  # fmt: skip
    """The table's frame, and the decimals that each metric is shown with."""
    grouped = runs.groupby("label", sort=False)
    frame = grouped[by].first().assign(n=grouped.size()).reset_index()
    others = [name for name in by if name not in baseline] if baseline else []
    family = dict(zip(frame["label"], _labels(frame, others), strict=True))
    bases = dict(zip(frame["label"], _labels(frame.assign(**baseline), by if baseline else []), strict=True))
    if lacking := sorted({*bases.values()} - {"", *bases}):
        warnings.append(f"the baseline {few(lacking)} has no run; nothing is compared with it")
    digits: dict[str, int] = {}
    for metric in wanted:
        name, measured = metric.label, runs[runs[metric.column].notna()]
        of = measured.groupby("label", sort=False)[metric.column].agg(list).to_dict()
        noise = stats.pool(of, family)
        means = {label: stats.mean(found, noise[label]) for label, found in of.items()}
        differences: dict[str, stats.Estimate] = {}
        for base in dict.fromkeys(base for base in bases.values() if base in of):
            rows = [label for label in of if bases[label] == base and label != base]
            if paired:
                seeds = measured.dropna(subset=["seed"]).pivot(index="seed", columns="label", values=metric.column)
                seeds = seeds.reindex(columns=[*of])  # a group may have no run with a seed
                both = {row: seeds[[row, base]].dropna() for row in rows}
                for row in (row for row in rows if len(both[row])):
                    ours, theirs = both[row][row].to_numpy(), both[row][base].to_numpy()
                    differences[row] = stats.paired(ours, theirs, len(rows))
                if lost := [row for row in rows if len(both[row]) < max(len(of[row]), len(of[base]))]:
                    warnings.append(f"{name}: runs whose seed the other group lacks are left out ({base}, {few(lost)})")
            else:
                tested = stats.dunnett([of[row] for row in rows], of[base], [noise[row] for row in rows], noise[base])
                differences |= dict(zip(rows, tested, strict=True))
        for part, field in PARTS.items():
            found = differences if part.startswith("diff") else means
            shown = [getattr(found.get(label), field, None) for label in frame["label"]]
            frame[f"{name}_{part}"] = pd.Series(shown, dtype=float)
        frame[f"{name}_base"] = [bases[label] if label in differences else "" for label in frame["label"]]
        spread = float(np.nanmax([frame[f"{name}_sd"].median(), abs(frame[f"{name}_mean"]).max() / 1e4, 1e-9]))
        digits[name] = max(1 - math.floor(math.log10(spread)), 0)
    return frame, digits


def write(out: Path, groups: Groups, experiment: str, histories: Histories, processes: int = 1) -> tuple[Path, ...]:
    """Writes the report of an experiment into a folder, as `report.write` does; returns the files' paths."""
    best, metric = groups.ranked, groups.metrics[0]
    row = groups.frame[groups.frame["label"] == best[0]].iloc[0]
    reached = pair(f"{metric.label}_mean", f"{metric.label}_sd", groups.digits[metric.label])(row)
    why = f"The {'lowest' if metric.lower else 'highest'} mean of {len(best):,} groups; n = {row['n']}."
    if base := row[f"{metric.label}_base"]:
        why += f" Against {base}: {difference(f'{metric.label}_diff', groups.digits[metric.label])(row)}."
    answer = Answer(f"{best[0]} has the best {metric.label}: {reached}", why)
    drawn = tuple(_pictures(groups, best[:_CURVES], histories))
    folder.illustrate(out, drawn, processes)
    sheet, brief = groups.sheet(), groups.sheet(brief=True)
    sections = [page.Section("groups", "Groups", sheets=(sheet,), pictures=drawn)]
    sections += [page.Section("runs", "Runs", sheets=(groups.runs_sheet(),))]
    facts = {"Experiment": experiment, "Runs": f"{len(groups.runs):,}", "Groups": f"{len(best):,}"}
    shown = "\n\n".join(f"![{markdown_text(one.alt)}](figures/{folder.safe(one.slug)}.svg)" for one in drawn)
    told = f"# {markdown_text(answer.headline)}\n\n{markdown_text(why)}\n\n{shown}\n\n"
    every = dict.fromkeys([*groups.by, "seed", "run_id", "run_name", "status", *(one.column for one in groups.metrics)])
    files: dict[str, str | bytes] = {
        "index.html": page.page("MLflow experiment", answer, facts, sections),
        "report.md": told + markdown(sheet),
        **folder.forms(sheet, groups.columns, latex(brief, "one column" if len(brief.cells[0]) < 8 else "page")),
        "tables/runs.csv": csv(groups.runs, [*every]),
    }
    files["values.json"], files["values.tex"] = evidence.texts(*_cited(groups, answer.headline))
    return folder.place(out, files, drawn)


def _cited(groups: Groups, headline: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that a text may cite and how it shows them, by `<values of --by>.<metric>_<part>`."""
    raw, shown = {"headline": headline}, {"headline": headline}
    forms = {"n": str} | {f"{name}_{part}": probability if part == "diff_p" else number(digits, sign=part[:4] == "diff")
                          for name, digits in groups.digits.items() for part in PARTS}  # fmt: skip
    for place, row in enumerate(groups.frame.to_dict("records")):
        group = re.sub(r"[^\w.=+/-]+", "_", "/".join(row[column] for column in groups.by), flags=re.ASCII)
        group += f"_{place}" * (f"{group}.n" in raw)  # two whose values differ in other signs alone
        for name, form in forms.items():
            if not pd.isna(row[name]):
                key = f"{group}.{folder.safe(name)}"
                raw[key], shown[key] = row[name], form(row[name])
    return raw, shown


def _pictures(groups: Groups, best: Sequence[str], histories: Histories) -> Iterator[Any]:
    """Forest plots of the differences, and curves of the best groups."""
    from repro.reporting import pictures

    for metric in groups.metrics:
        yield from pictures.of_groups(groups.frame, metric.label, metric.lower, _LINES)
    runs, names = groups.runs.groupby("label").head(_THIN), dict.fromkeys(metric.name for metric in groups.metrics)
    ids = {label: runs["run_id"][runs["label"] == label].tolist() for label in best}
    points = histories([run for several in ids.values() for run in several], names)
    some = f"; the {len(best)} groups with the best {groups.metrics[0].label}" * (len(best) < len(groups.frame))
    for name in names:
        yield from pictures.over_steps(name, {label: [points[run][name] for run in ids[label]] for label in best}, some)


def _labels(frame: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """`model=resnet18, lr=0.1`; empty without columns."""
    parts = [(name.partition(".")[2] or name) + "=" + frame[name] for name in by]
    return parts[0].str.cat(parts[1:], sep=", ") if parts else pd.Series("", index=frame.index)


def _natural(column: pd.Series) -> pd.Series:
    """Numbers by their size, where all are numbers."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column
