"""Rewrites what is generated in the README and docs/: python docs/generate.py; with --check it only says what is stale.

A generated part lies between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function below. No number in the
documents is typed by hand.
"""

from __future__ import annotations

import re
import sys
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


def where_time_goes() -> str:
    """The profile of a step."""
    from benchmarks import record, report

    return report.where_time_goes(record.read())


def history() -> str:
    """How many times faster than the usual loop, by record."""
    from benchmarks import record, report

    return report.history(record.read())


def store_scale() -> str:
    """How long it takes to read a large store."""
    from benchmarks import record, store_scale

    return store_scale.markdown(record.read(store_scale.RECORD))


def results() -> str:
    """The tables that `compare` wrote of the runs on CIFAR-10, as they lie in results/: in float32 and in bfloat16."""
    tables = sorted((ROOT / "results").glob("**/table*.md"), key=lambda path: (len(path.parts), path))
    return "\n".join(table.read_text().strip() + "\n" for table in tables)


GENERATED: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (commands, studies, models, names, speed, where_time_goes, history, store_scale, results)
}


def built_models() -> str:
    """What the audit knows of the declared models: `experiments/claims/models.json`."""
    from repro.reporting import built

    return built.text({(row.study, row.variant): row for row in _catalogue()})


def main() -> int:
    """Rewrites every document, or with --check returns 1 where one is stale."""
    from repro.reporting import built

    fresh_texts = {built.FILE: built_models()}
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
