"""The commands that look at what is declared: `models` and `data`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from repro.cli import options
from repro.cli.words import WIDE, echo_json, echo_line


@click.command()
@click.option("--study", default="all", show_default=True, help="A declared study, a YAML file, or all.")
@options.data_dir
@options.as_json
def models(study: str, data_dir: str, as_json: bool) -> None:
    """List the declared variants and their sizes. Shows parameters, multiply-adds, saved and published size.

    \b
    repro models --study residual
    """
    from rich.console import Console
    from rich.table import Table

    from repro import studies
    from repro.cli import prepared
    from repro.training.catalogue import catalogue

    chosen = [one for one in studies.declared() if one.study != "demo"] if study == "all" else [studies.load(study)]
    own = chosen[0].data if study != "all" else {}
    rows = catalogue(chosen, prepared.needed(own, Path(data_dir)))
    if as_json:
        echo_json(rows)
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("study", "variant") if wide else ("variant",):
        table.add_column(name, overflow="fold")
    for name in ("parameters", "multiply-adds", *(("zip MiB", "legacy MiB") if wide else ("MiB",)), "published"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits")
    for row in rows:
        table.add_row(
            *((row.study,) if wide else ()),
            row.variant,
            f"{row.parameters:,}",
            f"{row.multiply_adds:,}",
            *((f"{row.size_mib:.3f}",) if wide else ()),
            f"{row.size_legacy_mib:.3f}",
            "" if row.published is None else f"{row.published:g}",
            {None: "", True: "yes", False: "no"}[row.fits],
        )
    console.print(table)
    for row in rows:
        if row.note and row.fits is not None:
            echo_line(f"{row.study}/{row.variant}: {row.note}")


@click.command()
@click.option("--dataset", default="cifar10", show_default=True, help=options.DATASET)
@options.data_dir
@click.option("--set", "overrides", default="", help="For a folder of images: data.image_size=64.")
def data(dataset: str, data_dir: str, overrides: str) -> None:
    """Download, verify and cache a data set. All runs on a machine share the cache file.

    \b
    repro data --dataset cifar10 --data-dir data
    repro data --dataset imagefolder:photos --set data.image_size=64
    """
    from repro import declarations
    from repro.cli import prepared
    from repro.errors import InputError
    from repro.training.prepare import prepare

    given = declarations.parse_overrides(overrides)
    if other := sorted(set(given) - {"data.image_size"}):
        raise InputError(f"set: {other[0]} cannot be set here (allowed: data.image_size)")
    with prepared.progress_bar("decoding") as told:
        cache = prepare(dataset, Path(data_dir), prepared.side(given), told)
    known = prepared.known(dataset, cache)
    train, val, test = known.images
    sizes = f"training {train:,}, validation {val:,}, test {test:,}"
    shape = "x".join(map(str, known.shape))
    click.echo(f"{cache}: {sum(known.images):,} images of {shape} ({sizes}), digest {known.digest}")
    if files := prepared.unreadable(known):
        click.echo(files)
