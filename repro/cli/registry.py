"""The command that hands a model on: `register`."""

from __future__ import annotations

import click

from repro.cli import options
from repro.errors import InputError


@click.command()
@click.option("--study", required=True, help="A study in the store.")
@click.option(
    "--variant", default="all", show_default=True, help="A variant of the study, or all for the best of them."
)
@click.option("--alias", default="champion", show_default=True, help="Alias to assign to the registered version.")
@click.option("--name", default=None, help="Name of the registered model.  [default: the study's]")
@options.tracking_uri()
def register(study: str, variant: str, alias: str, name: str | None, tracking_uri: str | None) -> None:
    """Register the best model of a study in MLflow. It is that of the run with the best validation accuracy.

    \b
    repro register --study best --alias champion
    mlflow models serve -m models:/best@champion --env-manager local
    """
    from repro.errors import unknown
    from repro.tracking import models, reader
    from repro.tracking.store import connect
    from repro.tracking.writer import Writer

    contents = reader.read(tracking_uri, studies=[study])
    planned = [run for sweep in contents.sweeps for run in sweep.plan.runs if run.study == study]
    if not planned:
        raise InputError(f"--study {study!r}: the store {contents.uri} has no sweep of it; train it first")
    variants = {run.variant for run in planned}
    if variant not in {"all", *variants}:
        raise unknown("variant", variant, variants)
    keys = {run.key for run in planned if variant in {"all", run.variant}}
    rows = [row for row in contents.runs if row.key in keys and "best_val_accuracy" in row.metrics]
    if not rows:
        raise InputError(f"--study {study!r}: it has no finished run yet; rerun the command that trains it")
    best = max(rows, key=lambda row: (row.metrics["best_val_accuracy"], -row.seed))
    version, new = models.register(Writer(connect(tracking_uri)), best, name or study, alias)
    click.echo(
        f"{name or study} version {version}{'' if new else ' (already registered)'}, alias {alias}: {best.variant} seed"
        f" {best.seed}, validation accuracy {best.metrics['best_val_accuracy']:.2%}, run {best.run_id}"
    )
    click.echo(f"serve it: mlflow models serve -m 'models:/{name or study}@{alias}' --env-manager local")
