"""Rewrites what is generated in the README and docs/: python docs/generate.py; with --check it only says what is stale.

A generated part lies between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function below. No number in the
documents is typed by hand.
"""

from __future__ import annotations

import csv
import re
import statistics
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.testing import CliRunner

if TYPE_CHECKING:
    from repro.training.catalogue import ModelRow

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


@cache
def _catalogue() -> tuple[ModelRow, ...]:
    from repro import studies
    from repro.training.catalogue import catalogue

    return catalogue([study for study in studies.declared() if study.study != "demo"])


def commands() -> str:
    """The help of every command."""
    from repro.cli import cli

    context = click.Context(cli, info_name="repro")
    parts = []
    for name in ["", *cli.list_commands(context)]:
        words = [name, "--help"] if name else ["--help"]
        shown = CliRunner().invoke(cli, words, prog_name="repro", terminal_width=100).output
        parts.append(f"### repro {name}".rstrip() + f"\n\n```\n{shown.rstrip()}\n```\n")
    return "\n".join(parts)


def studies() -> str:
    """The declared studies, one a line."""
    from repro import studies

    rows = ["| study | paper | variants | question |", "| --- | --- | ---: | --- |"]
    for study in studies.declared():
        where = f"Table {study.table}" if study.table else f"section {study.section}" if study.section else ""
        rows.append(f"| `{study.study}` | {where} | {len(study.variants)} | {study.question} |")
    return "\n".join(rows) + "\n"


def models() -> str:
    """Parameters and sizes of every declared variant, beside the published size."""
    rows = [
        "| study | variant | parameters | multiply-adds | MiB | published | fits |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in _catalogue():
        published = "" if row.published is None else f"{row.published:g}"
        fits = {None: "", True: "yes", False: "no"}[row.fits]
        cells = [row.study, row.title, f"{row.parameters:,}", f"{row.multiply_adds:,}", f"{row.size_legacy_mib:.3f}"]
        rows.append(f"| {' | '.join([*cells, published, fits])} |")
    return "\n".join(rows) + "\n"


def names() -> str:
    """Every param, metric, tag and artifact in MLflow."""
    from repro.tracking import names as tracked

    return tracked.markdown()


def speed() -> str:
    """The benchmark's latest figures beside what is required of them."""
    from benchmarks import record, report

    return report.markdown(record.read())


def speed_summary() -> str:
    """How many times faster than the usual loop, in a row."""
    from benchmarks import record, report

    return report.summary(record.read())


def where_time_goes() -> str:
    """The profile of a step."""
    from benchmarks import record, report

    return report.where_time_goes(record.read())


def products_by_layer() -> str:
    """Single layers, by torch's ways and this project's."""
    from benchmarks import record, report

    return report.products_by_layer(record.read())


def history() -> str:
    """How many times faster than the usual loop, by record."""
    from benchmarks import record, report

    return report.history(record.read())


def store_scale() -> str:
    """How long it takes to read a large store."""
    from benchmarks import record, store_scale

    return store_scale.markdown(record.read(store_scale.RECORD))


def results() -> str:
    """What the runs on CIFAR-10 gave, from the tables that `compare` wrote into results/."""
    lines = [
        "| | precision | epochs | n | validation (%) | test (%) | published (%) | verdict | MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for path in sorted((ROOT / "results").glob("**/tables/*.csv"), key=lambda path: (len(path.parts), path)):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        if not rows or "n" not in rows[0] or path.stem in {"runs", "claims"}:
            continue
        setting = (
            path.with_suffix(".md").read_text().partition(". ")[0].partition(";")[0]
        )  # further on it names other ones
        epochs = re.search(r"training\.epochs=(\d+)", setting)
        for row in rows:
            if row["n"] != "0":
                row = {_RENAMED.get(name, name): value for name, value in row.items()}
                precision = row.get("precision") or ("bf16" if "training.precision=bf16" in setting else "fp32")
                cells = [row["title"], precision, epochs[1] if epochs else "at most 100", row["n"]]
                cells += [_percent(row[f"{name}_mean"], row[f"{name}_sd"]) for name in ("val", "test")]
                cells += [row["published_val"], row["verdict"], f"{float(row['size_mib']):.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_RENAMED = {  # columns of tables that an earlier version wrote
    "val_accuracy_mean": "val_mean",
    "val_accuracy_sd": "val_sd",
    "test_accuracy_mean": "test_mean",
    "test_accuracy_sd": "test_sd",
    "published_accuracy": "published_val",
    "verdict_accuracy": "verdict",
    "model_size_legacy_mib": "size_mib",
}


def time_of_ablation() -> str:
    """How long the six runs of `mlflow run . -e ablation -P fire=removed` take at most, by the benchmark."""
    from benchmarks import record, report

    records = record.read()
    found = report.rates(report.newest(records, "throughput")[1], "ours", "squeezenet_bn")
    if not found:
        return ""
    machine = records[-1]["machine"]["hardware"]
    rate = statistics.median(found.values())
    hours = 6 * 100 * report.EPOCH_IMAGES / rate / 3600
    return (
        "`mlflow run . -e ablation -P fire=removed` trains two variants with three seeds. On\n"
        f"{machine}, where SqueezeNet with batch normalization trains on {rate:,.0f} images per second, all six take at\n"
        f"most {hours:.1f} hours, less with early stopping; with `-P seeds=0 -P epochs=20`, {4 * hours:.0f} minutes.\n"
    )


def _percent(mean: str, sd: str) -> str:
    """A mean with its standard deviation, to two decimals."""
    return f"{float(mean):.2f}" + (f" ± {float(sd):.2f}" if sd else "")


GENERATED: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        commands,
        studies,
        models,
        names,
        speed,
        speed_summary,
        where_time_goes,
        products_by_layer,
        history,
        store_scale,
        results,
        time_of_ablation,
    )
}


def built_models() -> str:
    """What the audit knows of the declared models: `experiments/claims/models.json`."""
    from repro.reporting import built

    return built.text({(row.study, row.variant): row for row in _catalogue()})


def badges() -> str:
    """Licence, Python and what CI runs, as one picture: `docs/images/badges.svg`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = {"licence": project["license"], "Python": project["requires-python"].replace(">=", "≥ "), "CI": ".ci/run"}
    parts, x = [], 0
    for name, value in told.items():
        split, width = 8 * len(name) + 12, 8 * (len(name) + len(value)) + 24
        parts.append(f'<rect x="{x}" width="{width}" height="20" rx="3" fill="#555"/>')
        parts.append(f'<rect x="{x + split}" width="{width - split}" height="20" rx="3" fill="#2a7f62"/>')
        parts.append(f'<text x="{x + 6}" y="14">{name}</text><text x="{x + split + 6}" y="14">{value}</text>')
        x += width + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x}" height="20" font-family="Verdana,sans-serif" font-size="12"'
        f' fill="#fff">\n{chr(10).join(parts)}\n</svg>\n'
    )


def main() -> int:
    """Rewrites every document, or with --check returns 1 where one is stale."""
    from repro.reporting import built

    fresh_texts = {built.FILE: built_models(), ROOT / "docs/images/badges.svg": badges()}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        fresh_texts[path] = MARKED.sub(
            lambda m: f"<!-- generated: {m[1]} -->\n{GENERATED[m[1]]()}<!-- end -->", path.read_text()
        )
    stale = []
    for path, fresh in fresh_texts.items():
        if not path.is_file() or fresh != path.read_text():
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(fresh)
    for path in stale:
        click.echo(f"{path.relative_to(ROOT)}: {'is stale, run `make docs`' if '--check' in sys.argv else 'rewritten'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
