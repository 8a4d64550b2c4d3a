"""The commands that look after journals: `status`, `archive`, `sync`, which brings them into the store, and `prune`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli import options
from repro.cli.words import counted, echo_json, echo_line, listed, time_left
from repro.errors import InputError, unknown

if TYPE_CHECKING:
    from repro.tracking.models import Which

_PRUNED_STATES = ("stopped", "failed", "ended", "broken")


@click.command()
@options.runs_dir
@options.as_json
def status(runs_dir: str, as_json: bool) -> None:
    """Show the progress of each run. Reads only the journals: state, epochs, accuracy, time left, and where it is trained.

    \b
    repro status
    repro status --runs-dir /mnt/cluster/runs --json
    """
    from repro.execution import status as states

    if not Path(runs_dir).is_dir():
        raise InputError(
            f"{runs_dir}: no such folder; runs are stored in ./runs, or in the --runs-dir they were trained with"
        )
    found = states.read(Path(runs_dir))
    if as_json:
        echo_json(found)
        return
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        best = "" if one.best_val_accuracy is None else f", best validation accuracy {one.best_val_accuracy:.2%}"
        left = ""
        if one.seconds_left is not None and one.likely_seconds_left is not None:
            left = f", {time_left(one.likely_seconds_left, one.seconds_left)} left"
        where = f", on {one.host} (process {one.pid})" if one.state == "running" else ""
        where += f", job {one.job}" if one.job and one.state in {"running", "waiting"} else ""
        said = f": {one.message}" if one.message else ""
        echo_line(
            f"{one.key}  {one.name:{width}}  {one.state:8}  epoch {one.epoch}/{one.epochs}{best}{left}{where}{said}"
        )
    counts = {state: sum(one.state == state for one in found) for state in states.STATES}
    click.echo(f"{counted(len(found), 'run')}: " + ", ".join(f"{number} {state}" for state, number in counts.items()))


@click.command()
@click.argument("out", type=options.Folder())
@options.runs_dir
def archive(out: str, runs_dir: str) -> None:
    """Write all finished runs to one zip file. It holds no weights, but anyone can make the same report from it.

    If the file exists, the runs are added to it: runs in it that are not in --runs-dir stay, unless they were pruned
    there. A run with the settings of another one is kept beside it, as KEY.1. It contains each run's journal, settings,
    environment and predictions, the plans of the sweeps, and a digest of every file. `repro sync out.zip` verifies it and
    imports it into a store.

    \b
    repro archive results/runs.zip
    """
    from repro.execution import archive, plans
    from repro.execution.prune import marks

    runs = Path(runs_dir)
    count, asked = archive.write(Path(out), runs, plans.kept(runs), marks(runs))
    size = Path(out).stat().st_size / 2**20
    click.echo(
        f"{out}: {counted(count, 'run')} and the plans of {counted(asked, 'sweep')},"
        f" {size:.2f} MiB; `repro sync {out}` imports it"
    )


@click.command()
@click.argument("folder", type=options.Folder(), required=False)
@options.data_dir
@options.experiment
@options.models
@options.runs_dir
@options.tracking_uri
def sync(
    folder: str | None, data_dir: str, experiment: str | None, models: Which, runs_dir: str, tracking_uri: str | None
) -> None:
    """Publish journals to the store. Use it after --offline, after a server was away, or for a file of `repro archive`.

    FOLDER is --runs-dir unless another folder or a file is given. Can be repeated: no point is stored twice, and each keeps
    the time at which it was recorded. Runs that `repro prune` removed, from --runs-dir or from the folder itself, are not
    restored. A finished run of an earlier version gets its predictions.npz from its weights if its data set is in --data-dir.

    \b
    repro sync
    repro sync /mnt/cluster/runs --tracking-uri http://127.0.0.1:5000
    repro sync results/runs.zip
    """
    from repro import journal
    from repro.cli.brought import bring
    from repro.execution import plans
    from repro.execution.archive import unpack
    from repro.execution.prune import marks
    from repro.tracking.writer import Writer

    folder = folder or runs_dir
    with tempfile.TemporaryDirectory(prefix="repro-sync-") as unpacked:
        if Path(folder).is_file():
            journals, asked = Path(unpacked) / "runs", unpack(Path(folder), Path(unpacked))
        elif Path(folder).is_dir():
            journals, asked = Path(folder), plans.kept(Path(folder))
        else:
            raise InputError(
                f"{folder}: no such folder or archive (a folder has one folder per run, each with a {journal.NAME})"
            )
        writer = Writer.opened(tracking_uri, click.echo, experiment or None)
        writer.unpacked = Path(folder).is_file()
        bring(writer, journals, asked, Path(data_dir), models, marks(Path(runs_dir), journals))


@click.command()
@click.argument("run", nargs=-1)
@click.option("--states", default="", help=f"All runs in these states, comma-separated: {', '.join(_PRUNED_STATES)}.")
@options.switch("--apply", False, "Remove the runs instead of only listing them.")
@options.runs_dir
@options.tracking_uri
def prune(run: tuple[str, ...], states: str, apply: bool, runs_dir: str, tracking_uri: str | None) -> None:
    """Remove runs by key or state. Removes their folders and their runs in the store; without --apply, only lists them.

    If a run's journal is broken, only its folder is removed. `repro sync` does not restore a pruned run from a copy of its
    journal; the same settings can be trained again. In MLflow the runs are marked as deleted: `mlflow gc` frees their
    space, `mlflow runs restore` restores them.

    \b
    repro prune 0f3c9a
    repro prune --states failed,stopped --apply
    """
    from repro.execution import prune as pruning
    from repro.execution import status

    wanted = listed(states)
    if wrong := [state for state in wanted if state not in _PRUNED_STATES]:
        raise unknown("state", wrong[0], _PRUNED_STATES)
    if not run and not wanted:
        raise InputError("prune: no run was given (allowed: keys, or --states failed,stopped)")
    runs = Path(runs_dir)
    chosen = pruning.chosen(status.read(runs), run, wanted)
    sizes = {
        one.key: sum(file.stat().st_size for file in (runs / one.key).rglob("*") if file.is_file()) for one in chosen
    }
    forget = _forgetting(tracking_uri) if apply and chosen else None
    deleted = 0
    for one in chosen:
        if forget is not None:
            deleted += pruning.prune(runs / one.key, forget)
        click.echo(
            f"{one.key}  {one.name}  {one.state}  epoch {one.epoch}/{one.epochs}  {sizes[one.key] / 2**20:.2f} MiB"
        )
    total = f"{counted(len(chosen), 'run')}, {sum(sizes.values()) / 2**20:.2f} MiB"
    if not apply:
        click.echo(f"{total}; nothing was removed without --apply")
        return
    click.echo(f"{total} removed, {counted(deleted, 'run')} deleted in the store")


def _forgetting(tracking_uri: str | None) -> Callable[[str], int]:
    """Deletes the runs of a journal in the store, which is not created for that, and returns how many."""
    from repro.tracking import api, store

    if store.absent(tracking_uri):
        return lambda _: 0
    opened = store.connect(tracking_uri, create=False)
    return lambda id: api.forget(opened, id)
