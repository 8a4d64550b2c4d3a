"""The commands that write for a report: `compare` and `audit`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import click

from repro.cli import options
from repro.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from repro.reporting.audit import Finding
    from repro.reporting.beside import Beside
    from repro.reporting.statements import Paper
    from repro.rows import Contents, RunRow
    from repro.tracking.writer import Writer

    Samples: TypeAlias = tuple[NDArray[np.uint8], Sequence[str]]

_Value = TypeVar("_Value")


@click.command()
@click.option("--study", default="all", show_default=True, help="Studies of the store, comma-separated, or all.")
@click.option(
    "--out",
    type=options.Folder(),
    default="report",
    show_default=True,
    help="Folder for tables, figures and index.html.",
)
@click.option("--setting", default=None, help="Id of a setting.  [default: each study's latest that has runs]")
@click.option("--figures", type=bool, default=True, show_default=True, help="Draw the figures, too.")
@click.option("--ui-url", default=None, help="Address of `mlflow ui`, to link the runs to.")
@options.data_dir()
@options.tracking_uri()
def compare(
    study: str,
    out: str,
    setting: str | None,
    figures: bool,
    ui_url: str | None,
    data_dir: str,
    tracking_uri: str | None,
) -> None:
    """Tables, curves, verdicts and one page, from what the store holds; nothing is trained.

    \b
    repro compare
    repro compare --study ablation,residual --out report --ui-url http://127.0.0.1:5000
    """
    from repro.reporting import report, statements
    from repro.tracking import reader
    from repro.tracking.names import Tag
    from repro.tracking.store import link

    slugs = None if study == "all" else list(dict.fromkeys(_slug(n.strip()) for n in study.split(",") if n.strip()))
    if slugs == []:
        raise InputError("--study names no study (allowed: all, or studies of the store, comma-separated)")
    paper = statements.load()
    contents = reader.read(
        tracking_uri, curves=lambda rows: report.keys_with_curves(rows, paper, slugs, with_figures=figures)
    )
    writer = _writer(tracking_uri) if figures or "MLFLOW_RUN_ID" in os.environ else None
    written = report.write(
        Path(out),
        contents,
        paper,
        studies=slugs,
        setting=setting,
        findings=_findings(paper),
        ui_url=link(ui_url or contents.uri) if (ui_url or contents.uri).startswith("http") else ui_url,
        with_figures=figures,
        beside=_beside(writer, _samples(contents, Path(data_dir))) if figures and writer else None,
    )
    click.echo(written.summary)
    click.echo(f"{len(written.paths)} files under {out}; look at {written.index}")
    if writer is not None and (run_id := writer.attached()) is not None:  # under `mlflow run`
        writer.log_files(run_id, {str(path.relative_to(out)): path for path in written.paths})
        if Tag.KIND not in writer.run(run_id).tags:  # else a sweep of the same `mlflow run` is described there
            writer.describe(run_id, written.summary)


@click.command()
def audit() -> None:
    """Hold the published numbers against each other and against the declared models; nothing is trained.

    \b
    repro audit
    """
    from repro.reporting import statements

    findings = _findings(statements.load())
    for finding in findings:
        click.echo(f"{finding.kind} ({', '.join(finding.where)}): {finding.sentence}")
    click.echo(f"{len(findings)} inconsistencies")


def _writer(tracking_uri: str | None) -> Writer:
    from repro.tracking.store import connect
    from repro.tracking.writer import Writer

    return Writer(connect(tracking_uri, create=False))


def _findings(paper: Paper) -> tuple[Finding, ...]:
    """What the audit finds."""
    from repro import studies
    from repro.reporting import built
    from repro.reporting.audit import audit as hold

    declared = [study for study in studies.declared() if study.study != "demo"]
    models = built.known()
    if models is None:  # a declaration was changed since, and `make docs` not run: they are built, which takes seconds
        from repro.training.catalogue import catalogue

        models = {(row.study, row.variant): row for row in catalogue(declared)}
    return hold(paper, declared, models)


def _slug(name: str) -> str:
    """The slug of a study that is named by its slug or by its YAML file."""
    from repro import studies

    if Path(name).suffix.lower() in {".yaml", ".yml"}:
        return studies.load(name).study
    return name


def _samples(contents: Contents, data_dir: Path, each: int = 10) -> Samples | None:
    """The first images of every class in the data set of the latest sweep, where its cache file lies here."""
    import math

    import numpy as np

    from repro.datasets import cache_of

    if not contents.sweeps:
        return None
    known = contents.sweeps[0].plan.known
    cache, total = cache_of(known.name, known.digest, data_dir), sum(known.images)
    if not cache.is_file() or cache.stat().st_size != known.size:
        return None
    raw = np.memmap(cache, dtype=np.uint8, mode="r")
    images = raw[: total * math.prod(known.shape)].reshape(total, *known.shape)
    labels = np.frombuffer(raw[images.size :].tobytes(), dtype=np.uint8 if known.label_bytes == 1 else "<i4")
    chosen = [index for label in range(min(len(known.classes), 20)) for index in np.flatnonzero(labels == label)[:each]]
    return np.array(images[chosen]), [known.classes[labels[index]] for index in chosen]


def _beside(writer: Writer, samples: Samples | None) -> Beside:
    """What figures need beside rows: artifacts of single runs, and images of the data set."""
    import json

    from repro.records import Architecture, Layer
    from repro.reporting.beside import Beside

    def artifact(name: str, parse: Callable[[bytes], _Value]) -> Callable[[RunRow], _Value | None]:
        def fetch(run: RunRow) -> _Value | None:
            content = writer.artifact(run.run_id, name)
            try:
                return None if content is None else parse(content)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"run {run.run_id}: its {name} cannot be read ({error})") from None

        return fetch

    def architecture(content: bytes) -> Architecture:
        fields = json.loads(content)
        layers = tuple(
            Layer(**{**layer, "input": tuple(layer["input"]), "output": tuple(layer["output"])})
            for layer in fields["layers"]
        )
        residual = tuple((module, kind, source) for module, kind, source in fields["residual"])
        return Architecture(**{**fields, "input": tuple(fields["input"]), "layers": layers, "residual": residual})

    def confusion(content: bytes) -> list[list[int]]:
        return [[int(count) for count in line.split(",")[1:]] for line in content.decode().splitlines()[1:]]

    return Beside(artifact("architecture.json", architecture), artifact("confusion.csv", confusion), samples)
