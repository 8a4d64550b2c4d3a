"""The command that removes runs: `prune`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from repro.cli import options
from repro.errors import InputError

_STATES = ("stopped", "failed", "ended", "broken")


@click.command()
@click.argument("run", nargs=-1)
@click.option("--states", default="", help=f"All runs in these states, comma-separated: {', '.join(_STATES)}.")
@options.switch("--apply", False, "Remove the runs instead of only listing them.")
@options.runs_dir()
@options.tracking_uri()
def prune(run: tuple[str, ...], states: str, apply: bool, runs_dir: str, tracking_uri: str | None) -> None:
    """Remove runs by key or state. Removes their folders and their runs in the store; without --apply, only lists them.

    `repro sync` does not restore a pruned run from a copy of its journal; the same settings can be trained again. In
    MLflow the runs are marked as deleted: `mlflow gc` frees their space, `mlflow runs restore` restores them.

    \b
    repro prune 0f3c9a
    repro prune --states failed,stopped --apply
    """
    from repro.cli.progress import counted
    from repro.errors import unknown
    from repro.execution import prune as pruning
    from repro.execution import status

    wanted = [state.strip() for state in states.split(",") if state.strip()]
    if wrong := [state for state in wanted if state not in _STATES]:
        raise unknown("state", wrong[0], _STATES)
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
        click.echo(f"{total}; nothing was removed; add --apply to remove them")
        return
    click.echo(f"{total} removed, {counted(deleted, 'run')} deleted in the store")


def _forgetting(tracking_uri: str | None) -> Callable[[str], int]:
    """Deletes the runs of a journal in the store, which is not created for that, and returns how many."""
    from repro.tracking import api, store

    if store.absent(tracking_uri):
        return lambda _: 0
    opened = store.connect(tracking_uri, create=False)
    return lambda id: api.forget(opened, id)
