"""What a sweep shows while it works: a table that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.progress_bar import ProgressBar
from rich.table import Table

from repro.cli.words import WIDE, counted, duration, time_left
from repro.execution.beat import Beat
from repro.execution.estimate import Estimate, Left
from repro.execution.events import (
    Ended,
    Epoch,
    Event,
    Failed,
    Finished,
    Notice,
    Planned,
    Started,
    Step,
    Stopping,
    Waiting,
)
from repro.execution.settings import Settings
from repro.records import EpochRecord, RunResult
from repro.studies import Plan, PlannedRun

_COLUMNS = ("run", "this epoch", "step", "images/s", "loss", "epoch", "last", "best", "elapsed")
_WIDE_COLUMNS = {"step", "images/s", "last"}
_SOON = 50
"""Seconds; less than these are announced as less than a minute."""
_NARROW_COLUMNS = 52
"""What the columns beside a run's name take on a narrow terminal."""


@dataclass
class _Line:
    """A run that is being trained."""

    run: PlannedRun
    began: float
    last: EpochRecord | None = None
    best: float = 0.0
    beat: Beat | None = None


class Progress:
    """Shows a sweep's events; counts the runs that did not come to their end, and those that the store lacks."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._plan = plan
        self._settings = settings
        self._console = Console()
        moves = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, refresh_per_second=4, transient=True) if moves else None
        self._active: dict[str, _Line] = {}
        self._estimate: Estimate | None = None
        self._trains = self._ended = 0
        self.failed = self.unpublished = 0

    def __enter__(self) -> Progress:
        """Starts the moving table, where there is a terminal."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.update("")
            self._live.stop()

    def show(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case Planned():
                settings = self._settings
                self._estimate = Estimate(event.trains, settings.runs, event.workers, settings.device, settings.threads)
                self._trains = len(event.trains)
                self._say(_announcement(event, self._estimate.left()))
            case Started(run, resumed):
                self._active[run.key] = _Line(run, time.monotonic())
                if self._estimate is not None:
                    self._estimate.started(run, resumed)
                if resumed or self._live is None:
                    self._say(f"{run.name}: resumes after epoch {resumed}" if resumed else f"{run.name}: starts")
            case Step(run, beat):
                if run.key in self._active:
                    self._active[run.key].beat = beat
            case Epoch(run, record):
                self._epoch(run, record)
            case Ended(run, result):
                self._remove(run)
                self._ended += 1
                self._say(_outcome(run, result) + ("" if self._live else f"; {self._left()}"))
            case Failed(run, message, again):
                if again:
                    self._active.pop(run.key, None)
                else:
                    self._remove(run)
                self._say(f"{run.name}: failed ({message}){'; retrying once' if again else ''}")
            case Waiting(run):
                self._say(f"{run.name}: being trained by another process; waiting for its result")
            case Notice(text):
                self._say(text)
            case Stopping():  # `mlflow run` writes its own lines into the table from now on
                self.__exit__()
                self._live = None
                self._say("stopping")
            case Finished():
                self.failed, self.unpublished = len(event.failed), event.unpublished
                self._finished(event)
        if self._live is not None:
            self._live.update(self._table())

    def _remove(self, run: PlannedRun) -> None:
        self._active.pop(run.key, None)
        if self._estimate is not None:
            self._estimate.ended(run, self._settings.runs / run.key)

    def _epoch(self, run: PlannedRun, record: EpochRecord) -> None:
        line = self._active.setdefault(run.key, _Line(run, time.monotonic()))
        line.last, line.beat = record, None
        line.best = max(line.best, record.val_accuracy)
        if self._estimate is not None:
            self._estimate.epoch(run, record)
        if self._live is None:
            self._say(
                f"{run.name}: epoch {record.epoch}/{run.spec.training.epochs}, loss {record.train_loss:.4f},"
                f" validation accuracy {record.val_accuracy:.2%}, {record.epoch_seconds:.1f} s"
            )

    def _table(self) -> RenderableType:
        """A line a run: fewer columns where the terminal is narrow, so that no word and no number is cut."""
        if not self._active:
            return self._left()
        wide = self._console.width >= WIDE
        names = [name for name in _COLUMNS if wide or name not in _WIDE_COLUMNS]
        table = Table(box=None, pad_edge=False, header_style="dim", caption=self._left())
        for name in names:
            left = name in {"run", "this epoch"}
            table.add_column(name, justify="left" if left else "right", no_wrap=name != "this epoch")
        for line in self._active.values():
            beat, last = line.beat, line.last
            step, steps = (beat.step, beat.steps) if beat else (0, 1)
            cells: dict[str, RenderableType] = {
                "run": line.run.name if wide else shortened(line.run.name, self._console.width - _NARROW_COLUMNS),
                "this epoch": ProgressBar(total=steps, completed=step, width=20 if wide else 10),
                "step": f"{step:,}/{steps:,}" if beat else "",
                "images/s": f"{beat.images_per_second:,.0f}" if beat else "",
                "loss": f"{beat.loss:.3f}" if beat else f"{last.train_loss:.3f}" if last else "",
                "epoch": f"{last.epoch if last else 0}/{line.run.spec.training.epochs}",
                "last": f"{last.val_accuracy:.2%}" if last else "",
                "best": f"{line.best:.2%}" if last else "",
                "elapsed": duration(time.monotonic() - line.began),
            }
            table.add_row(*(cells[name] for name in names))
        return table

    def _left(self) -> str:
        """How many runs are done, and how long the others take."""
        text = f"{self._ended} of {counted(self._trains, 'run')} done" if self._trains else ""
        left = self._estimate.left() if self._estimate is not None and self._ended < self._trains else None
        return text + (f", {_told(left)} left" if left is not None else "")

    def _finished(self, event: Finished) -> None:
        if event.table and self._live is not None:
            self._console.print(Markdown(event.table))
        elif event.table:
            self._say("\n" + event.table)
        took = duration(event.seconds)
        if not self._settings.wait:
            self._say(
                f"{self._plan.name}: submitted in {took}; `repro status` says how far the runs are, `repro sync` brings"
                " them into the store"
            )
            return
        end = f", sweep {event.parent}" if event.parent else ""
        if self._settings.offline:
            folder = shlex.quote(str(self._settings.runs))
            end = f"; publish with: repro sync{'' if folder == 'runs' else f' {folder}'}"
        self._say(f"{self._plan.name}: done in {took}{end}")

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._console.print(text, highlight=False, markup=False, soft_wrap="://" in text)  # a link stays whole
        else:
            try:
                click.echo(text)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                click.echo("repro: the output was closed by its reader; training continues", err=True)


def shortened(name: str, width: int) -> str:
    """A run's name in so many characters: its seed stays, the middle goes."""
    if len(name) <= width:
        return name
    head, _, seed = name.rpartition(" seed ")
    return f"{head[: max(1, width - len(seed) - 2)]}… {seed}"


def _told(left: Left) -> str:
    text = time_left(left.likely, left.most)
    return text + ("," if ", " in text else "")


def _announcement(event: Planned, left: Left | None) -> str:
    """What the sweep will do, how long that takes and how to make it shorter."""
    text = f"{event.name}: {counted(event.rows, 'row')}, {counted(len(event.reused) + len(event.trains), 'run')};"
    text += f" {len(event.reused)} reused, {len(event.trains)} to train"
    if not event.trains:
        return text
    text += f", {event.workers} concurrent" if event.workers > 1 else ", one at a time"
    if left is None:
        text += "; no comparable earlier run to estimate the time from"
    else:
        soon = left.most < _SOON  # starting the workers takes seconds of it, which earlier runs do not tell
        text += f"; {'less than a minute' if soon else _told(left).rstrip(',')}, estimated from earlier runs"
    epochs, seeds = event.trains[0].spec.training.epochs, {run.seed for run in event.trains}
    shorter = [f"--epochs {max(1, epochs // 5)}"] if epochs > 5 else []
    shorter += [f"--seeds {min(seeds)}"] if len(seeds) > 1 else []
    return text + (f" (shorter: {' '.join(shorter)})" if shorter else "")


def _outcome(run: PlannedRun, result: RunResult) -> str:
    said = {"finished": "", "diverged": ", diverged", "chance": ", stayed at chance"}[result.outcome]
    return (
        f"{run.name}: ended after {counted(result.epochs_run, 'epoch')}{said}; best validation accuracy"
        f" {result.best_val_accuracy:.2%} in epoch {result.best_epoch}, test accuracy {result.test_accuracy:.2%},"
        f" {result.model_size_legacy_mib:.2f} MiB"
    )
