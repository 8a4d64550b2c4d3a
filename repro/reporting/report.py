"""A report as a folder: `index.html`, every table in four forms under `tables/`, every figure twice under `figures/`.

    Contents ─► join, claims ─► sheets, pictures ─► files and a short summary

What the store holds beside rows (architectures, confusion matrices) comes through the functions of `Beside`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repro.errors import InputError
from repro.reporting import claims, join
from repro.reporting.audit import Finding
from repro.reporting.beside import Beside
from repro.reporting.claims import Judged
from repro.reporting.evidence import answer, audit_sheet, claims_sheet, runs_sheet
from repro.reporting.join import Table
from repro.reporting.page import Answer, Picture, Section, page
from repro.reporting.sheets import FORMS, as_markdown, markdown_text
from repro.reporting.statements import Paper
from repro.reporting.tables import commit_of, study_sheet
from repro.rows import Contents, RunRow, SweepRow
from repro.studies import Plan

LISTED = "files.txt"
"""The list of a report's files, by which the next one in its folder knows what to remove."""
SUMMARY_LIMIT = 8_000
"""Characters that MLflow keeps of a run's description."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a report consists of."""

    index: Path
    paths: tuple[Path, ...]
    answer: Answer
    summary: str
    """Markdown of at most `SUMMARY_LIMIT` characters."""


def write(
    out: Path,
    contents: Contents,
    paper: Paper,
    *,
    studies: Sequence[str] | None = None,
    setting: str | None = None,
    findings: Sequence[Finding] | None = None,
    ui_url: str | None = None,
    with_figures: bool = True,
    beside: Beside | None = None,
) -> Written:
    """Writes a report; a file that stood there is replaced whole, so an interrupted report leaves no half file.

    What a former report left in the folder and this one does not have is removed.

    Args:
        out: the folder; made where it does not exist.
        contents: what the store holds.
        paper: the claims to judge.
        studies: slugs of the studies wanted; None for every study that was swept.
        setting: id of a setting; None for that of each study's latest sweep.
        findings: of the audit, of which those are told that concern the studies wanted; None leaves it out.
        ui_url: address of MLflow's pages, which runs are linked to.
        with_figures: whether figures are drawn.
        beside: what figures need that no row holds.

    Raises:
        InputError: an empty store, no such study or setting, or a folder that cannot be written.
    """
    tables = join.tables(contents, studies, setting)
    runs = {run.run_id: run for table in tables for row in table.rows for run in row.runs}
    judged = claims.judge(paper, contents, setting)
    of_studies = {table.study.study for table in tables}
    concerned = [
        one
        for one in judged
        if runs.keys() & set(one.run_ids)
        or of_studies & {name.partition("/")[0] for name in paper.claims[one.slug].test.rows}
    ]
    found = answer(concerned, paper, join.scopes(contents), tables)
    shown = {table.study.study: study_sheet(table) for table in tables}
    claimed = (claims_sheet(concerned, judged, paper),) if concerned else ()
    ran = runs_sheet(tables, ui_url)
    told = [
        one for one in findings or () if studies is None or {row.partition("/")[0] for row in one.where} & {*studies}
    ]
    audited = () if findings is None else (audit_sheet(told, len(findings), paper),)
    pictures = _pictures(tables, beside or Beside(), found.run) if with_figures else {}
    sections = [Section("claims", "Claims", "", claimed)] if claimed else []
    if overall := pictures.get("", ((), ()))[0]:
        sections.append(Section("figures", "Figures", "", (), overall))
    for table in tables:
        study, slug = table.study, table.study.study
        own = pictures.get(slug, ((), ()))
        sections.append(Section(f"study-{slug}", study.title, study.question, (shown[slug],), *own))
    if audited:
        sections.append(Section("audit", "Audit of the published numbers", "", audited))
    sections.append(Section("runs", "Runs", "", (ran,)))
    facts = {
        **({"Claims": _counted(concerned)} if concerned else {}),
        **({"Inconsistencies of the published numbers": _in_these(len(told), len(findings or ()))} if audited else {}),
        "Finished runs": f"{len(runs):,}",
        "Data": "; ".join(dict.fromkeys(join.describe(table.setting) for table in tables)),
        "Commit": ", ".join(sorted({commit_of(run) for run in runs.values()})) or "none",
    }
    sheets = [*shown.values(), *claimed, *audited, ran]
    paths = [_put(out / "tables" / f"{_safe(s.slug)}.{end}", form(s)) for s in sheets for end, form in FORMS.items()]
    for picture in (picture for section in sections for picture in (*section.pictures, *section.details)):
        for end, data in (("png", picture.png), ("svg", picture.svg)):
            paths.append(_put(out / "figures" / f"{_safe(picture.slug)}.{end}", data))
    index = _put(out / "index.html", page(f"Reproduction of: {paper.paper}", found, facts, sections, contents.notes))
    paths.insert(0, index)
    _clear(out, paths)
    paths.append(_put(out / LISTED, "".join(f"{path.relative_to(out).as_posix()}\n" for path in paths)))
    return Written(index, tuple(paths), found, _summary(found, facts, tables))


def _clear(out: Path, paths: Sequence[Path]) -> None:
    """Removes the tables and figures that the former report in `out` had and this one has not."""
    former = (
        (out / LISTED).read_text(encoding="utf-8", errors="replace").splitlines() if (out / LISTED).is_file() else []
    )
    for name in former:
        if re.fullmatch(r"(tables|figures)/[A-Za-z0-9_-]+\.[a-z]+", name) and out / name not in paths:
            (out / name).unlink(missing_ok=True)


def _in_these(count: int, total: int) -> str:
    return f"{total} found" + f", {count} of them in these studies" * (count < total)


def _counted(judged: Sequence[Judged]) -> str:
    numbers = Counter(one.verdict for one in judged)
    return ", ".join(f"{numbers[word]} {word}" for word in ("supported", "not supported", "undecided") if numbers[word])


def keys_with_curves(
    contents: Contents, paper: Paper, studies: Sequence[str] | None = None, *, with_figures: bool = True
) -> set[str]:
    """Keys of the runs whose curves a report draws, those of the studies wanted, or judges a claim by."""
    scopes = join.scopes(contents)
    rows = {
        name for one in paper.claims.values() if getattr(one.test, "metric", None) == "gap" for name in one.test.rows
    }
    judged = (row for scope in scopes for name in rows if (row := scope.row(name)) is not None)
    keys = {run.key for row in judged for run in row.runs}
    if with_figures:
        planned = (run for sweep in contents.sweeps for run in sweep.plan.runs)
        keys |= {run.key for run in planned if studies is None or run.study in studies}
    return keys


def sweep_table(plan: Plan, runs: Sequence[RunRow]) -> str:
    """The short result table of a sweep as Markdown: its studies' rows with those of `runs` that answer them."""
    contents = Contents("this sweep", (SweepRow("", "", 0, plan),), tuple(runs), ())
    return "\n".join(as_markdown(study_sheet(table, brief=True)) for table in join.tables(contents))


def _summary(found: Answer, facts: dict[str, str], tables: Sequence[Table]) -> str:
    parts = [f"**{markdown_text(found.headline)}**\n\n{markdown_text(found.why)}\n"]
    parts.append("".join(f"- {name}: {markdown_text(value)}\n" for name, value in facts.items()))
    parts += [as_markdown(study_sheet(table, brief=True)) for table in tables]
    summary = ""
    for place, part in enumerate(parts):
        left = f"\n{len(parts) - place} more tables are among the artifacts, in index.html.\n"
        if len(summary) + len(part) + len(left) > SUMMARY_LIMIT:
            return (summary + left)[:SUMMARY_LIMIT]
        summary += part + "\n"
    return summary


def _safe(slug: str) -> str:
    """A file's name from a slug that may come from a store."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", slug)


def _put(path: Path, content: str | bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from None
    finally:
        with suppress(OSError):
            part.unlink()
    return path


def _pictures(
    tables: Sequence[Table], beside: Beside, best: str | None
) -> dict[str, tuple[tuple[Picture, ...], tuple[Picture, ...]]]:
    """Study -> its figures, shown and folded away; "" -> those over all studies."""
    from repro.reporting import pictures  # matplotlib takes half a second to load, which tables alone need not wait for

    found = {table.study.study: pictures.of_study(table, beside) for table in tables}
    return found | {"": (tuple(pictures.overall(tables, beside, best)), ())}
