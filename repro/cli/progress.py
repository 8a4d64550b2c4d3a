"""What a sweep shows while it works: a table that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType

import click
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.table import Table

from repro.execution.events import Ended, Epoch, Event, Failed, Finished, Notice, Planned, Started, Waiting
from repro.records import EpochRecord, RunResult
from repro.studies import Plan, PlannedRun


@dataclass
class _Line:
    """A run that is being trained."""

    run: PlannedRun
    resumed: int
    began: float
    last: EpochRecord | None = None
    best: float = 0.0


class Progress:
    """Shows a sweep's events; counts the runs that did not come to their end, and those that the store lacks."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4, transient=True) if sys.stdout.isatty() else None
        self._active: dict[str, _Line] = {}
        self._planned: Planned | None = None
        self._ended = 0
        self._began = time.monotonic()
        self.failed = self.unpublished = 0

    def __enter__(self) -> Progress:
        """Starts the moving table, where there is a terminal."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case Planned():
                self._planned = event
                self._say(_announcement(event))
            case Started(run, resumed):
                self._active[run.key] = _Line(run, resumed, time.monotonic())
                if resumed or self._live is None:
                    self._say(f"{run.name}: goes on after epoch {resumed}" if resumed else f"{run.name}: starts")
            case Epoch(run, record):
                self._epoch(run, record)
            case Ended(run, result):
                self._active.pop(run.key, None)
                self._ended += 1
                self._say(_outcome(run, result) + ("" if self._live else f"; {self._left()}"))
            case Failed(run, message, again):
                self._active.pop(run.key, None)
                self._say(f"{run.name}: failed ({message}){'; it is tried once more' if again else ''}")
            case Waiting(run):
                self._say(f"{run.name}: being trained by another process; waiting for its result")
            case Notice(text):
                self._say(text)
            case Finished():
                self.failed, self.unpublished = len(event.failed), event.unpublished
                self._finished(event)
        if self._live is not None:
            self._live.update(self._table())

    def _epoch(self, run: PlannedRun, record: EpochRecord) -> None:
        line = self._active.setdefault(run.key, _Line(run, 0, time.monotonic()))
        line.last = record
        line.best = max(line.best, record.val_accuracy)
        if self._live is None:
            self._say(
                f"{run.name}: epoch {record.epoch}/{run.spec.training.epochs}, loss {record.train_loss:.4f},"
                f" validation accuracy {record.val_accuracy:.2%}, {record.epoch_seconds:.1f} s"
            )

    def _table(self) -> Table | str:
        if not self._active:
            return self._left()
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (
            ("run", "left"),
            ("epoch", "right"),
            ("validation", "right"),
            ("best", "right"),
            ("left", "right"),
        ):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for line in self._active.values():
            budget = line.run.spec.training.epochs
            if line.last is None:
                table.add_row(line.run.name, f"0/{budget}", "", "", "")
                continue
            left = (budget - line.last.epoch) * line.last.epoch_seconds
            table.add_row(
                line.run.name,
                f"{line.last.epoch}/{budget}",
                f"{line.last.val_accuracy:.2%}",
                f"{line.best:.2%}",
                f"at most {duration(left)}",
            )
        table.caption = self._left()
        return table

    def _left(self) -> str:
        """How many runs are done, and the most time that the others take."""
        if self._planned is None:
            return ""
        total = len(self._planned.trains)
        text = f"{self._ended} of {total} runs done"
        if self._ended and self._ended < total:
            spent = time.monotonic() - self._began
            text += f", about {duration(spent / self._ended * (total - self._ended))} left"
        return text

    def _finished(self, event: Finished) -> None:
        if event.table and self._live is not None:
            self._console.print(Markdown(event.table))
        elif event.table:
            self._say("\n" + event.table)
        self._say(
            f"{self._plan.name}: done in {duration(event.seconds)}"
            + (f", sweep {event.parent}" if event.parent else "")
        )

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            click.echo(text)


def duration(seconds: float) -> str:
    """A length of time as people say it: 8 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """A count with its noun: 1 row, 2 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _announcement(event: Planned) -> str:
    """What the sweep will do, how long that takes and how to make it shorter."""
    text = f"{event.name}: {counted(event.rows, 'row')}; reused {len(event.reused)}, trains {len(event.trains)}"
    if not event.trains:
        return text
    text += f", {event.workers} concurrent" if event.workers > 1 else ", one at a time"
    if event.seconds is None:
        text += "; no earlier run here to estimate the time from"
    else:
        text += f"; at most {duration(event.seconds)} by earlier runs here"
    epochs, seeds = event.trains[0].spec.training.epochs, {run.seed for run in event.trains}
    shorter = [f"--epochs {max(1, epochs // 5)}"] if epochs > 5 else []
    shorter += [f"--seeds {min(seeds)}"] if len(seeds) > 1 else []
    return text + (f" (shorter: {' '.join(shorter)})" if shorter else "")


def _outcome(run: PlannedRun, result: RunResult) -> str:
    said = {"finished": "", "diverged": ", diverged", "chance": ", never left chance"}[result.outcome]
    return (
        f"{run.name}: ended after {result.epochs_run} epochs{said}; best validation accuracy {result.best_val_accuracy:.2%}"
        f" in epoch {result.best_epoch}, test accuracy {result.test_accuracy:.2%}, {result.model_size_legacy_mib:.2f} MiB"
    )
