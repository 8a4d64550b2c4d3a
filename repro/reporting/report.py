"""A report as a folder: `index.html`, every table in four forms under `tables/`, every figure in three under `figures/`.

`report.md` is the same in short: the answer, a picture, tables, claims.

Contents ─► join ─► verdicts, claims ─► sheets, pictures ─► page, files and a short summary
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd

from repro import studies as declared_studies
from repro.errors import unknown
from repro.published import Paper
from repro.reporting import audit, claims, evidence, folder, join, page, tables
from repro.reporting.audit import Finding
from repro.reporting.claims import DECISIONS, Judged
from repro.reporting.frame import Answer, Beside
from repro.reporting.headline import headline
from repro.reporting.join import Table
from repro.reporting.page import Section
from repro.reporting.sheets import Sheet, csv, latex, markdown, markdown_text
from repro.rows import Contents, RunRow, SweepRow
from repro.studies import Plan

if TYPE_CHECKING:
    from repro.reporting.pictures import Picture

SUMMARY_LIMIT = 8_000
"""Characters that MLflow keeps of a run's description."""
FEW = 5
"""More undecided claims than these are only counted in a summary."""
Preset: TypeAlias = Literal["paper", "full"]
Pair: TypeAlias = tuple[Table, pd.DataFrame]
"""A table with its frame."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a report consists of."""

    index: Path
    paths: tuple[Path, ...]
    answer: Answer
    summary: str
    """Markdown of at most `SUMMARY_LIMIT` characters."""
    sheets: tuple[Sheet, ...]
    """The tables of the studies."""
    facts: Mapping[str, str]
    """Counts of claims and runs, data and commits."""
    claims: tuple[str, ...]
    """A line each: the decided claims, and the others where they are few."""


def write(
    out: Path,
    contents: Contents,
    paper: Paper,
    *,
    studies: Sequence[str] | None = None,
    setting: str | None = None,
    ui_url: str | None = None,
    with_figures: bool = True,
    beside: Beside | None = None,
    columns: Sequence[str] | None = None,
    preset: Preset = "paper",
    processes: int = 1,
) -> Written:
    """Writes a report; what a former one left in the folder is replaced or removed.

    Args:
        out: the folder; made where it does not exist.
        contents: what the store holds.
        paper: the claims to judge.
        studies: slugs of the studies wanted; None for every study that was swept.
        setting: id of a setting; None for that of each study's latest sweep.
        ui_url: address of MLflow's pages, which runs are linked to.
        with_figures: whether figures are drawn.
        beside: what the report needs that no row holds.
        columns: names of the columns of the LaTeX tables; None for those of `preset`.
        preset: paper: a table that fits one column; full: all columns, over the whole page.
        processes: how many may draw figures at a time.

    Raises:
        InputError: an empty store, no such study, setting or column, a folder that cannot be written, or files in it
            that no report wrote.
    """
    known = [column.name for column in tables.STUDY_COLUMNS]
    for name in columns or ():
        if name not in known:
            raise unknown("column", name, known)
    found = join.tables(contents, studies, setting, beside)
    pairs = [(table, tables.study_frame(table)) for table in found]
    judged = claims.judge(paper, found)
    main = next((one for one in judged if one.section and one.slug == next(iter(paper.claims), None)), None)
    answer = headline(paper, found)
    declared = {study.study for study in declared_studies.declared()}
    mine = [table for table in found if table.study.study not in declared]
    own = [audit.of_table(table) for table in mine]
    over = paper.paper if len(mine) < len(found) else ", ".join(table.study.title for table in mine)
    findings = audit.findings(paper, [table.study.study for table in found], own)
    runs = evidence.runs_frame(found, ui_url)
    others = [table for table in found if table.answered and not table.printed] if len(found) > 1 else []
    answers = {table.study.study: told for table in others if (told := headline(paper, [table])).reference is not None}
    sections = [
        *_studies(pairs, answers, beside or Beside(), ui_url, with_figures),
        *_judged(judged, findings, runs, over),
    ]
    leading = _leading(answer) if with_figures else ()
    drawn = [one for section in sections for one in (*section.first, *section.pictures, *section.details)]
    drawn += leading
    folder.illustrate(out, drawn, processes)
    facts = {
        **({"The paper's main claim": f"{main.verdict}: {main.says}"} if main else {}),
        **({"Claims": _counted(judged)} if judged else {}),
        **{
            table.study.title: one.headline
            for table in others
            if (one := answers.get(table.study.study)) and one.headline != answer.headline
        },
        **({"Inconsistencies in the published numbers": str(len(findings))} if findings else {}),
        "Finished runs": f"{len(runs):,}",
        "Data": "; ".join(dict.fromkeys(table.setting.words for table in found)),
        "Commit": ", ".join(sorted(set(map(tables.commit_of, runs["record"])))) or "none",
    }
    wide: Literal["one column", "page"] = "one column" if columns is None and preset == "paper" else "page"
    chosen = columns or (tables.PAPER if preset == "paper" else known)
    files: dict[str, str | bytes] = {"index.html": page.page(over, answer, facts, sections, contents.notes, leading)}
    for table, frame in pairs:
        tex = latex(tables.study_sheet(table, frame, chosen), wide)
        files |= folder.forms(tables.study_sheet(table, frame), (*tables.CONTRACT, *table.study.fields), tex)
    for sheet in (
        sheet for section in sections for sheet in section.sheets if section.slug in {"claims", "audit", "runs"}
    ):
        columns_of = evidence.RUN_COLUMNS if sheet.slug == "runs" else list(sheet.frame.columns)
        files |= folder.forms(sheet, columns_of, latex(sheet))
    epochs = evidence.epochs_frame(runs)
    files["tables/epochs.csv"] = csv(epochs, list(epochs.columns))
    files["values.json"], files["values.tex"] = evidence.values([frame for _, frame in pairs], judged, answer)
    files["claims.json"] = evidence.claims_json(judged)
    brief = [tables.study_sheet(table, frame, tables.BRIEF) for table, frame in pairs]
    overview = [*leading, *(one for section in sections if section.slug == "overview" for one in section.first)]
    files["report.md"] = _markdown(over, answer, facts, brief, judged, overview)
    paths = folder.place(out, files, drawn)
    lines = _lines(judged)
    summary = _summary(answer, facts, lines, brief)
    return Written(out / "index.html", paths, answer, summary, tuple(brief), facts, lines)


def _leading(answer: Answer) -> tuple[Picture, ...]:
    """The picture beside the answer."""
    from repro.reporting import pictures  # matplotlib takes half a second, which tables alone need not wait for

    return tuple(pictures.of_answer(answer))


def _studies(
    pairs: Sequence[Pair], answers: Mapping[str, Answer], beside: Beside, ui_url: str | None, with_figures: bool
) -> Iterator[Section]:
    """All studies in one picture, the parts of the page that are about one study, and size and data."""
    every: list[Picture] = []
    if with_figures:
        from repro.reporting import pictures

        every = list(pictures.overall(pairs, beside))
    if above := tuple(one for one in every if one.slug == "forest"):
        yield Section("overview", "All studies", first=above)
    for table, frame in pairs:
        own = list(pictures.of_study(table, frame)) if with_figures else []
        records = [run.record for row in table.rows for run in row.runs]
        answer = answers.get(table.study.study)
        yield Section(
            slug=f"study-{table.study.study}",
            heading=table.study.title,
            text=f"{table.study.question} {answer.headline}. {answer.why}" if answer else table.study.question,
            url=evidence.compare_url(ui_url, records) if ui_url and records else "",
            first=tuple(one for one in own if one.slug.endswith("-forest")),
            sheets=(tables.study_sheet(table, frame),),
            folded=tuple(line for lines in frame["verdicts"] for line in lines),
            summary="How the verdicts were reached",
            pictures=tuple(one for one in own if not one.slug.endswith("-forest")),
            details=tuple(pictures.of_variants(table, beside)) if with_figures else (),
        )
    if below := tuple(one for one in every if one.slug != "forest"):
        yield Section("figures", "Size and data", pictures=below)


def _judged(judged: Sequence[Judged], findings: Sequence[Finding], runs: pd.DataFrame, paper: str) -> Iterator[Section]:
    """Claims, audit and runs; those without content are left out."""
    if judged:
        decided = [one for one in judged if one.verdict != "undecided"]
        folded = tuple(f"{one.says}: {one.why}" for one in judged if one.verdict == "undecided")
        told = (evidence.claims_sheet(decided, paper),) if decided else ()
        yield Section("claims", "Claims", sheets=told, folded=folded, summary=f"{len(folded)} undecided")
    if findings:
        yield Section("audit", "Audit of the published numbers", sheets=(evidence.audit_sheet(findings, paper),))
    yield Section("runs", "Runs", sheets=(evidence.runs_sheet(runs),))


def _counted(judged: Sequence[Judged]) -> str:
    numbers = Counter(one.verdict for one in judged)
    return ", ".join(f"{numbers[word]} {word}" for word in DECISIONS if numbers[word])


def _lines(judged: Sequence[Judged]) -> tuple[str, ...]:
    """What became of each claim, decided ones first; of many undecided ones none."""
    few = sum(one.verdict == "undecided" for one in judged) <= FEW
    told = sorted(judged, key=lambda one: DECISIONS.index(one.verdict))
    return tuple(f"{one.verdict}: {one.says}" for one in told if few or one.verdict != "undecided")


def swept(plan: Plan, runs: Sequence[RunRow]) -> tuple[str, dict[str, bytes], dict[str, float]]:
    """What a sweep came to: its studies' rows with those of `runs` that answer them.

    Returns:
        The short result table as Markdown, the forest plot of each study by file name (PNG), and metrics by name: how
        many runs it asked for and how many are finished, and the best variant's accuracies, as shares.
    """
    from repro.reporting import pictures  # matplotlib takes half a second

    contents = Contents("this sweep", (SweepRow("", "", 0, plan),), tuple(runs), ())
    pairs = [(table, tables.study_frame(table)) for table in join.tables(contents)]
    text = "\n".join(markdown(tables.study_sheet(table, frame, tables.BRIEF)) for table, frame in pairs)
    every = [one for table, frame in pairs for one in pictures.of_study(table, frame)]
    forests = {f"{one.slug}.png": replace(one, forms=("png",)) for one in every if one.slug.endswith("-forest")}
    keys = {run.key for run in runs}
    metrics = {
        "sweep_runs": float(len(plan.unique)),
        "sweep_finished": float(sum(run.key in keys for run in plan.unique)),
    }
    rows = pd.concat([frame for _, frame in pairs], ignore_index=True)
    if (accuracies := rows["val_mean"].astype(float)).notna().any():
        best = rows.loc[accuracies.idxmax()]
        metrics |= {
            "sweep_best_val_accuracy": best["val_mean"] / 100,
            "sweep_best_test_accuracy": best["test_mean"] / 100,
        }
    return text, {name: one.drawn()["png"] for name, one in forests.items()}, metrics


def _summary(answer: Answer, facts: Mapping[str, str], lines: Sequence[str], sheets: Sequence[Sheet]) -> str:
    parts = [f"**{markdown_text(answer.headline)}**\n\n{markdown_text(answer.why)}\n"]
    parts.append(_bullets(facts))
    if lines:
        parts.append("".join(f"- {markdown_text(line)}\n" for line in lines))
    parts += [markdown(sheet) for sheet in sheets]
    summary = ""
    for place, part in enumerate(parts):
        left = f"\n{len(parts) - place} more tables are among the artifacts, in index.html.\n"
        if len(summary) + len(part) + len(left) > SUMMARY_LIMIT:
            return (summary + left)[:SUMMARY_LIMIT]
        summary += part + "\n"
    return summary


def _markdown(
    over: str,
    answer: Answer,
    facts: Mapping[str, str],
    sheets: Sequence[Sheet],
    judged: Sequence[Judged],
    overview: Sequence[Picture],
) -> str:
    """The report in Markdown, without a limit of length."""
    parts = [f"# {markdown_text(answer.headline)}", markdown_text(answer.why), f"*{markdown_text(over)}*"]
    parts.append(_bullets(facts))
    parts += [f"![{markdown_text(one.alt)}](figures/{folder.safe(one.slug)}.svg)" for one in overview]
    parts += [markdown(sheet) for sheet in sheets]
    for verdict in DECISIONS:
        lines = [f"- {markdown_text(f'{one.says}: {one.why}')}" for one in judged if one.verdict == verdict]
        if lines:
            parts.append(f"## Claims: {verdict}\n\n" + "\n".join(lines) + "\n")
    parts.append("Figures, unrounded tables and the runs behind them: `index.html`, `tables/`, `figures/`.\n")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _bullets(facts: Mapping[str, str]) -> str:
    return "".join(f"- {name}: {markdown_text(value)}\n" for name, value in facts.items())
