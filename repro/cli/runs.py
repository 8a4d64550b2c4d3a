"""The commands that look after single runs and the store: `show`, `verify`, `reap`, `register`."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli import options
from repro.cli.words import counted, echo_json, echo_line, echo_markdown
from repro.errors import InputError, ReproError, unknown

if TYPE_CHECKING:
    from repro.journal import Journal
    from repro.tracking.writer import Writer

_FEWEST_DIGITS = 4  # by which a run may be named


@click.command()
@click.argument("run", nargs=-1)
@options.switch("--packages", False, "Also show the versions of installed packages.")
@options.as_json
@options.runs_dir
@options.tracking_uri
def show(run: tuple[str, ...], packages: bool, as_json: bool, runs_dir: str, tracking_uri: str | None) -> None:
    """Show a run, or how two runs differ. Give MLflow's run id or the key, or the first digits of either.

    Settings that differ from the defaults come first. The id of a sweep shows its table.

    \b
    repro show 0f3c9a         one run: settings, environment, result
    repro show 0f3c9a 77aa01  two runs: what differs
    """
    if not 1 <= len(run) <= 2:
        raise InputError(
            f"show takes one run or two, got {len(run)} (example: repro show 0f3c9a, the first digits of a run id or of"
            " a key, as `repro status` lists them)"
        )
    recorded = _Recorded(Path(runs_dir), tracking_uri)
    named = [recorded.whole(one) for one in run]
    if len(named) == 1 and (told := recorded.sweep(named[0])) is not None:
        echo_json({"summary": told}) if as_json else echo_markdown(told)
        return
    journals = [recorded.journal(one) for one in named]
    facts = [_facts(one, packages or as_json or len(named) == 2) for one in journals]
    if as_json:
        echo_json(facts[0] if len(facts) == 1 else facts)
        return
    told_of = facts[0]
    if len(facts) == 2:
        both = [(name, *(str(one.get(name, "-")) for one in facts)) for name in facts[0] | facts[1]]
        told_of = {name: f"{one}  |  {other}" for name, one, other in both if one != other}
    if not told_of:
        click.echo("the two runs do not differ")
    for name, value in told_of.items():
        echo_line(f"{name:{max(map(len, told_of))}}  {value}")


@click.command()
@click.argument("run")
@click.option("--epochs", type=int, default=None, help="Verify only the first epochs.  [default: the whole run]")
@options.data_dir
@options.runs_dir
@options.tracking_uri
def verify(run: str, epochs: int | None, data_dir: str, runs_dir: str, tracking_uri: str | None) -> int:
    """Retrain a run and check that it is bit-identical. The exit code is 1 if it is not.

    \b
    repro verify 0f3c9a --epochs 2
    """
    from repro.cli import prepared
    from repro.execution.verify import Verification
    from repro.execution.verify import verify as train_again

    recorded = _Recorded(Path(runs_dir), tracking_uri)
    run = recorded.whole(run)
    known = recorded.journal(run)
    stored = recorded.otherwise(run, known)
    for line in stored:
        click.echo(line)
    cache = prepared.cache_of(known.spec.data, Path(data_dir))
    for record in train_again(known, cache, epochs):
        if not isinstance(record, Verification):
            click.echo(
                f"epoch {record.epoch}: validation accuracy {record.val_accuracy:.2%}, {record.epoch_seconds:.1f} s"
            )
            continue
        for line in record.differences:
            click.echo(line)
        for what, before, here in record.environment:
            click.echo(f"environment: {what} was {before}, is {here}")
        if not record.differences and not stored:
            what = counted(record.epochs, "epoch") + (" and the final weights" if record.complete else "")
            click.echo(f"bit-identical: {what}")
            return 0
        click.echo("not bit-identical")
    return 1


@click.command()
@options.runs_dir
@options.tracking_uri
def reap(runs_dir: str, tracking_uri: str | None) -> None:
    """Close runs in the store whose process is gone. Every sweep does this when it starts.

    \b
    repro reap
    """
    from repro.tracking import reap as reaping
    from repro.tracking.writer import Writer

    closed = reaping.reap(Writer.opened(tracking_uri, click.echo), Path(runs_dir))
    for line in closed:
        click.echo(line)
    left = sum(bool(one.problem) for one in closed)
    click.echo(f"{counted(len(closed) - left, 'run')} closed")
    if left:
        raise ReproError(f"{counted(left, 'run')} could not be closed; see the lines above")


@click.command()
@click.option("--study", required=True, help="A study in the store.")
@click.option(
    "--variant", default="all", show_default=True, help="A variant of the study, or all for the best of them."
)
@click.option("--alias", default="champion", show_default=True, help="Alias to assign to the registered version.")
@click.option("--setting", default=None, help="Id of a setting.  [default: the study's latest with finished runs]")
@click.option("--name", default=None, help="Name of the registered model.  [default: the study's]")
@options.tracking_uri
def register(
    study: str, variant: str, alias: str, setting: str | None, name: str | None, tracking_uri: str | None
) -> None:
    """Register the best model of a study in MLflow. It is that of the run with the best validation accuracy.

    Only runs of one setting (data and training) compete: the one that `repro compare` shows.

    \b
    repro register --study best --alias champion
    mlflow models serve -m models:/best@champion --env-manager local
    """
    from repro.reporting import join
    from repro.tracking import models, reader
    from repro.tracking.store import connect
    from repro.tracking.writer import Writer

    (table,) = join.tables(reader.read(tracking_uri), [study], setting)
    variants = {row.variant for row in table.rows}
    if variant not in {"all", *variants}:
        raise unknown("variant", variant, variants)
    rows = [run.record for row in table.rows if variant in {"all", row.variant} for run in row.runs]
    rows = [row for row in rows if "best_val_accuracy" in row.metrics]
    if not rows:
        raise InputError(f"--study {study!r}: it has no finished run yet; rerun the command that trains it")
    best = max(rows, key=lambda row: (row.metrics["best_val_accuracy"], -row.seed))
    words = table.setting.words
    version, new = models.register(Writer(connect(tracking_uri)), best, name or study, alias, words)
    click.echo(
        f"{name or study} version {version}{'' if new else ' (already registered)'}, alias {alias}: {best.variant} seed"
        f" {best.seed}, validation accuracy {best.metrics['best_val_accuracy']:.2%} on {words}, run {best.run_id}"
    )
    click.echo(f"serve it: mlflow models serve -m 'models:/{name or study}@{alias}' --env-manager local")


class _Recorded:
    """The runs that are recorded in a folder of journals and in a store, which is opened once, where it is needed."""

    def __init__(self, runs: Path, uri: str | None) -> None:
        self._runs, self._uri = runs, uri

    @cached_property
    def _store(self) -> Writer:
        from repro.tracking.store import connect
        from repro.tracking.writer import Writer

        return Writer(connect(self._uri, create=False))

    def whole(self, run: str) -> str:
        """The folder's name or the run id that begins with `run`, or whose key does; `run` itself where there is none."""
        if self._here(run) or not re.fullmatch(f"[0-9a-f]{{{_FEWEST_DIGITS},31}}", run):
            return run
        from repro import journal

        found = [folder.name for folder in journal.find(self._runs) if folder.name.startswith(run)]
        found = found or self._store.beginning(run)
        if len(found) > 1:
            raise InputError(f"{run} matches {len(found)} runs ({', '.join(found[:5])}); give more digits")
        return found[0] if found else run

    def sweep(self, run: str) -> str | None:
        """What a sweep's run in the store says of itself, its table once it is at its end; None for any other run."""
        if self._here(run):
            return None
        from repro.tracking.names import Tag

        tags = self._store.run(run).tags
        return tags.get(Tag.NOTE, "") if tags.get(Tag.KIND) == "sweep" else None

    def journal(self, run: str) -> Journal:
        """The journal of a run, by its key in the folder of journals or by its id in the store.

        A run that is not at its end has no journal in the store: it is looked for in its folder.
        """
        from repro import journal

        if self._here(run):
            known = journal.read(self._runs / run)
        elif (content := self._store.artifact(run, journal.NAME)) is not None:
            known = journal.of(Path(run), content)
        else:
            from repro.tracking.entries import journal_of

            known = journal_of(self._store.run(run).tags, self._runs)
            if known is None:
                raise InputError(f"{run}: its {journal.NAME} is neither in the store nor in --runs-dir")
        if known is None:
            raise InputError(f"{run}: its journal has no complete record")
        return known

    def otherwise(self, run: str, known: Journal) -> tuple[str, ...]:
        """What the store says of a run otherwise than its journal; nothing where the journal alone was asked for."""
        if self._here(run) or known.result is None:
            return ()  # one that is not at its end may not be published as far as its journal is written
        from repro.execution.verify import in_store
        from repro.tracking import api

        with self._store.store.errors():
            points = api.histories(self._store.store, [run])[run]
        return tuple(in_store(known, points, self._store.run(run).metrics))

    def _here(self, run: str) -> bool:
        from repro import journal  # the help of a command needs none of this

        return (self._runs / run / journal.NAME).is_file()


def _facts(known: Journal, with_packages: bool) -> dict[str, Any]:
    """What a journal says of its run, by name; settings that are not the defaults first."""
    from dataclasses import asdict

    from repro.spec import flatten

    attempt, last = known.attempts[0], known.attempts[-1]
    environment = asdict(last.environment)
    packages = environment.pop("packages")
    facts: dict[str, Any] = {
        "study": attempt.study,
        "variant": attempt.variant,
        "key": known.spec.key,
        "journal": known.id,
        **flatten(known.spec, exclude_defaults=True),
        **flatten(known.spec),
        **environment,
        "attempts": len(known.attempts),
        "epochs": len(known.epochs),
    }
    if known.result is not None:
        result = asdict(known.result)
        result.pop("confusion")
        facts |= result
    return facts | ({f"package {name}": version for name, version in packages.items()} if with_packages else {})
