"""The commands that write for a report: `compare`, `audit` and `tabulate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli import options
from repro.cli.words import counted, echo_json, echo_line, listed
from repro.errors import InputError

if TYPE_CHECKING:
    from repro.api import Samples
    from repro.reporting.report import Preset
    from repro.reporting.sheets import Sheet
    from repro.rows import Contents


@click.command()
@click.option("--study", default="all", show_default=True, help="Studies in the store, comma-separated, or all.")
@click.option(
    "--out",
    type=options.Folder(),
    default="report",
    show_default=True,
    help="Folder for tables, figures and index.html.",
)
@click.option("--setting", default=None, help="Id of a setting.  [default: each study's latest with finished runs]")
@options.switch("--figures", True, "Also draw figures.")
@click.option("--ui-url", default=None, help="Address of `mlflow ui`, for links to the runs.")
@click.option("--columns", default=None, help="Columns of the LaTeX tables, comma-separated.  [default: by --preset]")
@click.option(
    "--preset", type=options.Choice(["paper", "full"]), default="paper", show_default=True,
    help="LaTeX tables for one column of a paper, or with every column.",
)  # fmt: skip
@options.as_json
@options.data_dir
@options.tracking_uri
def compare(
    study: str,
    out: str,
    setting: str | None,
    figures: bool,
    ui_url: str | None,
    columns: str | None,
    preset: Preset,
    as_json: bool,
    data_dir: str,
    tracking_uri: str | None,
) -> None:
    """Write tables, figures and a page of results. Uses the finished runs in the store; nothing is trained.

    \b
    repro compare
    repro compare --study ablation,residual --ui-url http://127.0.0.1:5000
    """
    from repro import api
    from repro.execution import environment
    from repro.reporting import claims, join, report
    from repro.reporting.tables import VERDICT
    from repro.tracking import reader
    from repro.tracking.credentials import link
    from repro.tracking.names import Tag

    slugs = None if study == "all" else [_slug(name) for name in dict.fromkeys(listed(study))]
    if slugs == []:
        raise InputError("--study names no study (allowed: all, or studies of the store, comma-separated)")
    if ui_url and not ui_url.startswith(("http://", "https://")):
        raise InputError(f"--ui-url {ui_url!r}: is not an address (example: http://127.0.0.1:5000)")
    contents = reader.read(tracking_uri, curves=lambda found: join.keys(found, slugs))
    writer = cache(lambda: api.writer(tracking_uri))
    written = report.write(
        Path(out),
        contents,
        claims.load(),
        studies=slugs,
        setting=setting,
        ui_url=link(ui_url or contents.uri) if (ui_url or contents.uri).startswith("http") else None,
        with_figures=figures,
        beside=api.beside(writer, _samples(contents, Path(data_dir)) if figures else None),
        columns=None if columns is None else listed(columns),
        preset=preset,
        processes=environment.cores(),
    )
    if as_json:
        files = [str(path) for path in written.paths]
        echo_json({"summary": written.summary, "index": str(written.index), "files": files})
    elif sys.stdout.isatty():
        _show(written.answer.headline, written.answer.why, written.sheets)
        judged = any((sheet.frame["verdict"] != "").any() for sheet in written.sheets)
        counts = [f"{name}: {value}" for name, value in written.facts.items() if name not in {"Data", "Commit"}]
        click.echo("\n".join([*([VERDICT] if judged else []), *written.claims, *counts, ""]))
    else:
        click.echo(written.summary)
    if not as_json:
        click.echo(f"{len(written.paths)} files under {out}; open {written.index}")
    if "MLFLOW_RUN_ID" in os.environ and (run_id := writer().attached()) is not None:  # under `mlflow run`
        root = written.index.parent
        writer().log_files(run_id, {str(path.relative_to(root)): path for path in written.paths})
        if Tag.KIND not in writer().run(run_id).tags:  # else a sweep of the same `mlflow run` is described there
            writer().describe(run_id, written.summary, f"compare {study}")


@click.command()
@options.as_json
@options.switch("--details", False, "Also show where each finding is, and the printed and computed values.")
@click.option("--study", default=None, help="A study of your own (YAML) to check.  [default: the paper]")
@options.data_dir
def audit(as_json: bool, details: bool, study: str | None, data_dir: str) -> None:
    """Check the published numbers for inconsistencies. Compares them with each other and with the declared models.

    \b
    repro audit
    repro audit --details
    repro audit --study my_study.yaml
    """
    from repro import built, studies
    from repro.reporting import audit, claims
    from repro.reporting.join import paper_studies

    own = None if study is None else studies.load(study)
    printed = own is None or own.study in paper_studies()
    models = built.known() if printed else None
    if models is None:  # of a study of one's own, or of declarations that were changed: built here, in seconds
        from repro.cli import prepared
        from repro.training.catalogue import catalogue

        data = prepared.needed(own.data if own is not None else {}, Path(data_dir))
        rows = catalogue(studies.declared() if own is None else [own], data)
        models = {(row.study, row.variant): row for row in rows}
    audited = [audit.of_own(own, models)] if own is not None and not printed else []
    findings = audit.findings(claims.load(), None if own is None else [own.study], audited, models)
    if as_json:
        echo_json(findings)
        return
    for place, finding in enumerate(findings, 1):
        echo_line(f"{place:2}. {finding.kind}: {finding.sentence}")
        if details:
            echo_line(
                f"    where: {', '.join(finding.where)}; printed: {finding.printed}; computed: {finding.computed}"
            )
    click.echo(counted(len(findings), "finding"))


@click.command()
@options.experiment
@click.option("--by", required=True, help="Columns to group by, comma-separated: params.model,params.lr.")
@click.option(
    "--metric", required=True, help="NAME[:last|max|min|at=STEP], comma-separated; :min means lower is better."
)
@click.option("--seed", default=None, help="Column with the seed of a run: params.seed.")
@click.option("--baseline", default="", help="Group to compare with: params.model=resnet18; other columns are matched.")
@options.switch("--paired", False, "Compare runs with the same seed.")
@click.option(
    "--filter", "condition", default="", help="Runs to read, in MLflow's search syntax: params.data = 'cifar10'."
)
@click.option("--where", default="", help="Rows of the table: n >= 3 and val_acc_mean > 0.9.")
@click.option(
    "--out", type=options.Folder(), default=None, help="Folder for tables, figures and index.html.  [default: none]"
)
@options.as_json
@options.tracking_uri
def tabulate(
    experiment: str | None, by: str, metric: str, seed: str | None, baseline: str, paired: bool, condition: str, where: str,
    out: str | None, as_json: bool, tracking_uri: str | None,
) -> None:  # fmt: skip
    """Summarize the runs of any MLflow experiment. Shows means over seeds with intervals, whatever code logged the runs.

    \b
    repro tabulate --by params.lr --seed params.seed --metric val_acc:max
    repro tabulate --by params.model --metric loss:min --baseline params.model=vit
    """
    from repro.execution import environment
    from repro.reporting import conditions, tabulate
    from repro.reporting.sheets import markdown
    from repro.tracking import experiment as experiments

    wanted = conditions.metrics(metric)
    found = experiments.read(tracking_uri, experiment, condition)
    groups = tabulate.tabulate(
        found.runs, found.histories, by=listed(by), wanted=wanted, seed=seed,
        baseline=conditions.pairs(baseline), paired=paired, where=where, every="status" in condition,
    )  # fmt: skip
    paths = tabulate.write(Path(out), groups, found.name, found.histories, environment.cores()) if out else ()
    if as_json:
        shown = groups.frame[groups.columns].astype(object).where(groups.frame[groups.columns].notna(), None)
        echo_json({"groups": shown.to_dict("records"), "warnings": groups.warnings, "files": [*map(str, paths)]})
        return
    if sys.stdout.isatty():
        _show("", groups.header, [groups.sheet(brief=True)])
    else:
        click.echo(markdown(groups.sheet(brief=True)))
    if out:
        click.echo(f"{len(paths)} files under {out}; open {Path(out) / 'index.html'}")


_FIRST = ("title", "val", "n", "verdict", "published_val", "test", "size_mib", "outcome", "best_epoch")
_TITLE = 24  # characters that a title keeps on a narrow terminal


def _show(headline: str, why: str, sheets: Sequence[Sheet]) -> None:
    """The answer and the tables on a terminal; where it is narrow, fewer columns and no cut word or number."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if headline:
        console.print(f"{headline}\n", style="bold")
    console.print(f"{why}\n")
    for sheet in sheets:
        columns, rows = sheet.cells
        widths = [max(map(len, [column.alone, *(row[place] for row in rows)])) for place, column in enumerate(columns)]
        longest = max(len(word) for row in rows for word in row[0].split())
        widths[0] = min(widths[0], max(longest, _TITLE))  # a title may go on in the next line
        kept: list[int] = []
        order = {column: _FIRST.index(column.name) if column.name in _FIRST else 0 for column in columns}
        for place in sorted(range(len(columns)), key=lambda place: order[columns[place]]):
            if sum(widths[one] + 2 for one in (*kept, place)) <= console.width + 2 or not kept:
                kept.append(place)
        table = Table(title=sheet.title, title_justify="left", box=None, pad_edge=False, header_style="dim")
        for place in sorted(kept):
            number = columns[place].kind == "number"
            table.add_column(
                columns[place].alone,
                justify="right" if number else "left",
                no_wrap=place > 0,
                overflow="fold",
                min_width=widths[place] if place else None,
            )
        for row in rows:
            table.add_row(*(row[place] for place in sorted(kept)))
        console.print(table)
        for note in sheet.notes:
            console.print(note, style="dim")
        console.print()


def _slug(name: str) -> str:
    """The slug of a study that is named by its slug or by its YAML file."""
    from repro import studies

    if Path(name).suffix.lower() in {".yaml", ".yml"}:
        return studies.load(name).study
    return name


def _samples(contents: Contents, data_dir: Path, each: int = 10) -> Samples | None:
    """The first images of every class in the data set of the latest sweep, where its cache file lies here."""
    import numpy as np

    from repro.datasets import whole

    if not contents.sweeps:
        return None
    known = contents.sweeps[0].plan.known
    if (cache := whole(known, data_dir)) is None:
        return None
    images = np.memmap(cache, np.uint8, mode="r", shape=(sum(known.images), *known.shape))
    labels = np.fromfile(cache, known.label_type, offset=images.size)
    chosen = [index for label in range(min(len(known.classes), 20)) for index in np.flatnonzero(labels == label)[:each]]
    return np.array(images[chosen]), [known.classes[labels[index]] for index in chosen]
