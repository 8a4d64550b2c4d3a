"""The commands that train: a part of the paper, all of it, or any study; and `plan`, which only says what they would do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from repro.cli import options
from repro.cli.words import counted, echo_json, echo_line, listed
from repro.errors import ReproError

if TYPE_CHECKING:
    from repro.studies import Plan


@click.command()
@options.training(dataset="digits", seeds="0", epochs=8)
@options.running
def demo(**asked: Any) -> None:
    """Run the whole pipeline on the embedded digits. Trains both networks, an ablation and a residual variant.

    \b
    repro demo
    """
    _train(_plan("demo", asked), asked)


@click.command()
@options.training()
@options.running
def paper(**asked: Any) -> None:
    """Train every declared study. They cover everything that the paper reports, and what it left for later.

    \b
    repro paper --seeds 0
    """
    _train(_plan_of_paper(asked), asked)


@click.command()
@click.option("--model", default="all", show_default=True, help="alexnet, squeezenet or all.")
@click.option("--batchnorm", default="both", show_default=True, help="on, off or both.")
@options.training()
@options.running
def reproducibility(model: str, batchnorm: str, **asked: Any) -> None:
    """Train AlexNet and SqueezeNet (Table 1). Each is trained with and without batch normalization.

    \b
    repro reproducibility --model squeezenet --batchnorm on
    """
    _train(_plan("reproducibility", asked, {"model": model, "batchnorm": batchnorm}), asked)


@click.command()
@click.option("--fire", default="all", show_default=True, help="added, removed or all.")
@click.option("--batchnorm", default="both", show_default=True, help="on, off or both.")
@options.training()
@options.running
def ablation(fire: str, batchnorm: str, **asked: Any) -> None:
    """Train the ablation of Fire modules (Table 2). Modules are added or removed; options select the rows.

    \b
    repro ablation --fire removed
    repro ablation --fire added --batchnorm on --seeds 0-4
    """
    _train(_plan("ablation", asked, {"fire": fire, "batchnorm": batchnorm}), asked)


@click.command()
@click.option("--study", required=True, help="A declared study, or a YAML file of your own.")
@click.option("--variant", default="all", show_default=True, help="Variants of the study, comma-separated, or all.")
@options.training()
@options.running
def experiment(study: str, variant: str, **asked: Any) -> None:
    """Train any study, or a YAML file of your own. Studies: residual, squeeze_ratio, first_kernel, learning_rate and others.

    \b
    repro experiment --study residual --variant residual_2_removed
    repro experiment --study my_study.yaml --dataset digits --epochs 5
    """
    _train(_plan(study, asked, variants=variant), asked)


@click.command()
@click.option("--study", default="all", show_default=True, help="A declared study, a YAML file, or all.")
@click.option("--variant", default="all", show_default=True, help="Variants of the study, comma-separated, or all.")
@options.training()
@options.data_dir
@options.switch("--explain", False, "For each new run, show which settings differ from the nearest existing run.")
@options.as_json
@options.runs_dir
@options.tracking_uri
def plan(
    study: str, variant: str, explain: bool, as_json: bool, runs_dir: str, tracking_uri: str | None, **asked: Any
) -> None:
    """List the runs of a study and train nothing. Shows the key of each run, and whether it is finished.

    \b
    repro plan --study ablation --seeds 0
    repro plan --study my_study.yaml --explain
    """
    from pathlib import Path

    from repro import journal
    from repro.cli.nearest import existing, nearest, words

    wanted = _plan_of_paper(asked) if study == "all" else _plan(study, asked, variants=variant)
    stored = _finished([run.key for run in wanted.unique], tracking_uri)
    others = existing(Path(runs_dir), tracking_uri) if explain else None
    width = max(len(f"{run.study}/{run.variant}") for run in wanted.runs)
    finished = set(stored)
    rows, lines = [], []
    for run in wanted.runs:
        known = journal.read(Path(runs_dir) / run.key)
        done = "" if known is None else f"  {counted(len(known.epochs), 'epoch')} so far"
        if run.key in stored:
            done = f"  finished, run {stored[run.key]}"
        elif known is not None and known.result is not None:
            finished.add(run.key)
            done = "  finished, in its journal alone"
        lines.append(f"{run.key}  {f'{run.study}/{run.variant}':{width}}  {run.spec.run_name('').strip()}{done}")
        row: dict[str, Any] = {
            "key": run.key,
            "study": run.study,
            "variant": run.variant,
            "seed": run.seed,
            "fold": run.spec.data.fold,
            "epochs": 0 if known is None else len(known.epochs),
            "finished": run.key in finished,
            "run_id": stored.get(run.key),
        }
        rows.append(row)
        if others is not None and known is None and run.key not in finished:
            row["nearest"] = nearest(run.spec, others)
            lines.append(f"    {words(row['nearest'])}")
    if as_json:
        echo_json(rows)
        return
    for line in lines:
        echo_line(line)
    left = len(wanted.unique) - len(finished)
    variants = {(run.study, run.variant) for run in wanted.runs}
    rows_and_runs = f"{counted(len(variants), 'row')}, {counted(len(wanted.unique), 'run')}"
    click.echo(f"{rows_and_runs}, {left} still to be trained")


def _finished(keys: Sequence[str], uri: str | None) -> dict[str, str]:
    """Key -> id of the finished runs of the store, which is not created for that."""
    from repro.tracking import store

    if store.absent(uri):
        return {}
    from repro.tracking.writer import Writer

    return Writer(store.connect(uri, create=False)).finished(keys)


def _plan(name: str, asked: dict[str, Any], labels: dict[str, str] | None = None, variants: str = "all") -> Plan:
    from repro import studies

    study = studies.load(name)
    return options.make_plan([(study, studies.select(study, labels, listed(variants)))], asked)


def _plan_of_paper(asked: dict[str, Any]) -> Plan:
    from repro import studies

    chosen = [(study, studies.select(study)) for study in studies.declared() if study.study != "demo"]
    return options.make_plan(chosen, asked, name="paper")


def _train(wanted: Plan, asked: dict[str, Any]) -> None:
    from repro.cli.progress import Progress
    from repro.execution.sweep import sweep

    settings = options.make_settings(asked, wanted)
    if settings.device != "cpu" and settings.executor is None:  # torch knows whether it is there; a CPU needs no torch
        from repro.training.cuda import find_device

        find_device(settings.device)
    with Progress(wanted, settings) as progress, closing(sweep(wanted, settings)) as events:
        for event in events:
            progress.show(event)
    if progress.failed:
        of_all = f"{progress.failed} of {counted(len(wanted.unique), 'run')}"
        raise ReproError(f"{of_all} failed; rerun the same command to retry them")
    if progress.unpublished:
        missing = "1 run is" if progress.unpublished == 1 else f"{progress.unpublished} runs are"
        raise ReproError(f"{missing} missing from the tracking store; publish them with: repro sync")
