"""The commands that look at what is declared: `models` and `data`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from repro.cli import options

if TYPE_CHECKING:
    from repro.training.catalogue import ModelRow


@click.command()
@click.option("--study", default="all", show_default=True, help="A declared study, a YAML file, or all.")
@options.as_json()
def models(study: str, as_json: bool) -> None:
    """Every declared variant: parameters, multiply-adds, saved size in both of torch's formats, the published size.

    \b
    repro models --study residual
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from repro import studies
    from repro.training.catalogue import catalogue

    chosen = [one for one in studies.declared() if one.study != "demo"] if study == "all" else [studies.load(study)]
    rows = catalogue(chosen)
    if as_json:
        options.echo_json([asdict(row) for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("study", "variant"):
        table.add_column(name)
    for name in ("parameters", "multiply-adds", "zip MiB", "legacy MiB", "published", "difference"):
        table.add_column(name, justify="right")
    table.add_column("fits")
    for row in rows:
        table.add_row(
            row.study,
            row.variant,
            f"{row.parameters:,}",
            f"{row.multiply_adds:,}",
            f"{row.size_mib:.3f}",
            f"{row.size_legacy_mib:.3f}",
            "" if row.published is None else f"{row.published:g}",
            "" if row.difference is None else f"{row.difference:+.3f}",
            _fits(row),
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _fits(row: ModelRow) -> str:
    """Whether the model has the published size, and why not."""
    if row.fits is None:
        return ""
    return ("yes" if row.fits else "no") + (f": {row.note}" if row.note else "")


@click.command()
@click.option("--dataset", default="cifar10", show_default=True, help=options.DATASET)
@options.data_dir()
@click.option("--set", "overrides", default="", help="data.image_size=64: side of the images of a folder.")
def data(dataset: str, data_dir: str, overrides: str) -> None:
    """Get a data set, check it, and write the cache file that all runs of a machine share.

    \b
    repro data --dataset cifar10 --data-dir data
    repro data --dataset imagefolder:photos --set data.image_size=64
    """
    from pathlib import Path

    from repro import declarations
    from repro.cli import prepared
    from repro.errors import InputError
    from repro.training.prepare import prepare

    given = declarations.parse_overrides(overrides)
    if other := sorted(set(given) - {"data.image_size"}):
        raise InputError(f"set: {other[0]} is not set here (allowed: data.image_size)")
    with prepared.progress_bar("decoding") as told:
        cache = prepare(dataset, Path(data_dir), prepared.side(given), told)
    known = prepared.known(dataset, cache)
    sizes = ", ".join(
        f"{name} {count:,}" for name, count in zip(("training", "validation", "test"), known.images, strict=True)
    )
    shape = "x".join(map(str, known.shape))
    click.echo(f"{cache}: {sum(known.images):,} images of {shape} ({sizes}), digest {known.digest}")
    if files := prepared.unreadable(known):
        click.echo(files)
