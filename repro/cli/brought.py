"""What `repro sync` brings into a store: journals as runs, and the sweeps that asked for them as their parents."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import click

from repro import datasets, journal, studies
from repro.cli.words import counted
from repro.errors import ReproError
from repro.execution import predictions
from repro.execution.publisher import conclude
from repro.journal import Journal
from repro.rows import Contents, RunRow, SweepRow
from repro.studies import Plan
from repro.tracking import models, reader
from repro.tracking.failures import TrackingError
from repro.tracking.reap import gone
from repro.tracking.sweeps import Status
from repro.tracking.writer import FORKED, Writer


def bring(
    writer: Writer, folder: Path, asked: Iterable[str], data_dir: Path, which: models.Which, pruned: Collection[str]
) -> None:
    """Publishes the journals below a folder, makes the sweeps of the plans that the store lacks, and says what was done.

    Args:
        writer: the store.
        folder: of the runs.
        asked: the plans of their sweeps, as `studies.dump` writes them, the oldest first.
        data_dir: the data sets.
        which: the runs that get a model.
        pruned: ids of the journals that are passed over.

    Raises:
        ReproError: some journal could not be published; the others were.
        TrackingError: the store is away.
    """
    plans = [studies.restore(text, "sweep.json") for text in asked]
    for plan in plans:
        writer.explain(plan)
    brought = _Brought(writer, data_dir, reader.read(writer.store.uri) if plans else None)
    brought.read(folder, pruned)
    left = dict(brought.journals)
    for plan in plans:
        sweep = brought.sweep(plan)
        for run in plan.unique:
            brought.publish(left.pop(run.key, ()), sweep)
    for journals in left.values():
        brought.publish(journals, None)
    due = brought.due()
    ships = bool(brought.with_model) and which != "none"
    rows = reader.read(writer.store.uri, plans=False).runs if due or ships else ()
    if ships:
        for line in models.ship(writer, rows, brought.with_model, folder, which):
            click.echo(line)
    for one in due:
        brought.conclude(one, rows)
    click.echo(brought.summary(due))
    if brought.broken:
        raise ReproError(f"{counted(brought.broken, 'journal')} could not be published; see the lines above")


class _Brought:
    """What is brought into a store: each run as a child of the sweep of the first plan that asks for it."""

    def __init__(self, writer: Writer, data_dir: Path, contents: Contents | None) -> None:
        self.writer, self.data_dir = writer, data_dir
        self.journals: dict[str, list[Journal]] = {}  # by the key of their run
        self.finished: dict[str, str] = {}  # key -> run id of what the store has
        self.stored: dict[str, SweepRow] = {}  # by plan, as `asked`; one that was stopped only where there is no other
        self.asked: dict[str, SweepRow] = {}  # the sweeps of this call
        self.new: set[str] = set()  # run ids of the sweeps that are made
        self.with_model: set[str] = set()
        self.runs = self.created = self.points = self.files = self.broken = self.passed = 0
        self.former, self.latest = "", 0
        if contents is not None:
            self.finished = {row.key: row.run_id for row in reversed(contents.runs)}
            ordered = sorted(contents.sweeps, key=lambda one: (not _stopped(one), one.finished, one.started_ms))
            self.stored = {studies.dump(sweep.plan): sweep for sweep in ordered}

    def read(self, folder: Path, pruned: Collection[str]) -> None:
        """Reads the journals below a folder, but those whose id is among `pruned`."""
        for one in journal.find(folder):
            with self._alone(one):
                if (known := journal.read(one)) is None:
                    continue
                if known.id in pruned:
                    self.passed += 1
                else:
                    self.journals.setdefault(known.spec.key, []).append(known)

    def sweep(self, plan: Plan) -> str | None:
        """Run id of a plan's sweep, which is made where the store has none; None where no journal is of that plan.

        It starts with its first journal, and after the sweep of the plan before: reports go by the latest.
        """
        content, keys = studies.dump(plan), [run.key for run in plan.unique]
        journals = [known.entries for key in keys for known in self.journals.get(key, ())]
        if content not in self.stored and journals:
            start = max(self.latest + 1, min(entries[0].time_ms for entries in journals))
            reused = {key: self.finished[key] for key in keys if key in self.finished}
            run_id = self.writer.open_sweep(plan, reused=reused, start_ms=start)
            self.writer.close_sweep(run_id, "KILLED", {}, ended_ms=self._ended(plan))  # until its runs are there
            self.stored[content] = SweepRow(run_id, self.writer.store.experiment_id, start, plan, "KILLED")
            self.new.add(run_id)
        if (sweep := self.stored.get(content)) is None:
            return None
        self.asked[content], self.latest = sweep, max(self.latest, sweep.started_ms)
        return sweep.run_id

    def publish(self, journals: Iterable[Journal], parent: str | None) -> None:
        """Publishes the journals of one key, as children of a sweep where they have none."""
        for known in journals:
            folder, data = known.folder, known.spec.data
            with self._alone(folder):
                if journal.held(folder):
                    continue  # its own sweep publishes it
                cache = datasets.cache_of(data.dataset, data.digest, self.data_dir)
                if predictions.lacking(known) and cache.is_file():
                    predictions.backfill(known, cache)
                # a journal without an end or a word of why it stopped is one whose worker was killed
                done = self.writer.publish(folder, parent=parent, state="killed" if gone(known) else "running")
                if done.forked:
                    click.echo(f"{folder}: {FORKED}{done.run_id}")
                self.runs, self.created = self.runs + 1, self.created + done.created
                self.points, self.files = self.points + done.points, self.files + done.files
                self.former = ""
                if known.result is not None:
                    self.finished[known.spec.key] = done.run_id
                if (folder / models.PROGRAM).is_file():
                    self.with_model.add(known.spec.key)

    def due(self) -> list[SweepRow]:
        """The sweeps that were stopped and of which more runs are finished now."""
        return [
            sweep
            for sweep in self.asked.values()
            if _stopped(sweep) and sum(run.key in self.finished for run in sweep.plan.unique) > sweep.finished
        ]

    def conclude(self, sweep: SweepRow, rows: Sequence[RunRow]) -> None:
        """Ends a sweep with the table of its finished runs, `rows` being those of the store."""
        whole = {run.key for run in sweep.plan.unique} <= {row.key for row in rows}
        status: Status = "FINISHED" if whole else "FAILED" if sweep.status == "FAILED" else "KILLED"
        reused = json.loads(self.writer.artifact(sweep.run_id, "reused.json") or b"{}")
        conclude(self.writer, sweep.plan, sweep.run_id, status, rows, reused, self._ended(sweep.plan))

    def _ended(self, plan: Plan) -> int | None:
        """When the last of a plan's journals was written to, in ms since 1970; None where none is brought in."""
        journals = (known.entries for run in plan.unique for known in self.journals.get(run.key, ()))
        return max((entries[-1].time_ms for entries in journals), default=None)

    def summary(self, concluded: Collection[SweepRow]) -> str:
        """What was brought in, in a line."""
        new = f" ({self.created} new)" if self.created else ""
        line = f"{counted(self.runs, 'run')}{new} up to date in the store, {counted(self.points, 'point')} added"
        line += f", {counted(self.files, 'lost file')} restored" if self.files else ""
        line += f", {counted(len(self.new), 'sweep')} added" if self.new else ""
        updated = sum(sweep.run_id not in self.new for sweep in concluded)
        line += f", {counted(updated, 'sweep')} updated" if updated else ""
        return line + (f"; {counted(self.passed, 'run')} skipped, removed by `repro prune`" if self.passed else "")

    @contextlib.contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Says what is wrong with one journal, so that the others go on."""
        try:
            yield
        except (ReproError, OSError) as error:
            if isinstance(error, TrackingError) and str(error) == self.former:
                raise  # it is not this journal, but the store
            self.former = str(error)
            self.broken += 1
            click.echo(f"{folder}: {error}", err=True)


def _stopped(sweep: SweepRow) -> bool:
    return sweep.status in {"KILLED", "FAILED"}
