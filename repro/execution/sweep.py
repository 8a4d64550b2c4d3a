"""Many runs on one machine: what is missing is trained, one process a run, one run a core.

    plan -> what the store and the journals already have -> workers -> journals -> publisher -> store

The sweep reads the workers' journals and yields what happens; it neither prints nor trains.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from repro import journal
from repro.errors import InputError, ReproError
from repro.execution import environment, estimate
from repro.execution.events import Ended, Epoch, Event, Failed, Finished, Notice, Planned, Started, Waiting
from repro.execution.job import Exit, Job
from repro.execution.process import Process
from repro.records import EpochRecord, RunResult
from repro.studies import Plan, PlannedRun

if TYPE_CHECKING:
    from repro.execution.publisher import Publisher

_POLL_SECONDS = 0.05
_CHECKPOINT_SECONDS = 1.2  # what a stopped worker may take to write its checkpoint
_STOP_SECONDS = 1.7  # after which the sweep is at its end, two seconds with the interpreter's own end


class Interrupted(ReproError):
    """The sweep was told to stop; its runs can be resumed."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sweep trains; nothing here changes what comes out of a run."""

    cache: Path
    runs: Path = Path("runs")
    device: str = "cpu"
    workers: int | None = None
    """Runs at a time; None is one a core (one on a GPU)."""
    threads: int = 1
    deterministic: bool = True
    fresh: bool = False
    """Train again what is already there; the former journals are kept beside."""
    offline: bool = False
    """Train with the journals alone, without MLflow."""
    uri: str | None = None
    checkpoint_seconds: float = 30.0
    patience_seconds: float = 60.0
    """How long to wait for the tracking store at the end."""


@dataclass
class _Active:
    """A run that is being trained, and how much of its journal was told."""

    run: PlannedRun
    process: Process
    told: int = 0
    size: int = 0
    started: bool = False


@dataclass
class _State:
    todo: deque[PlannedRun]
    active: list[_Active] = field(default_factory=list)
    waiting: list[PlannedRun] = field(default_factory=list)
    failed: list[PlannedRun] = field(default_factory=list)
    retried: set[str] = field(default_factory=set)


def sweep(plan: Plan, settings: Settings) -> Iterator[Event]:
    """Trains what is missing of a plan, and yields what happens.

    Raises:
        Interrupted: SIGINT or SIGTERM came; every run is stopped with a checkpoint, and marked KILLED.
        ReproError: the store cannot be reached at the start, or the folder of the runs cannot be written.
    """
    began = time.monotonic()
    _writable(settings.runs)
    workers = settings.workers or (environment.cores() // settings.threads or 1 if settings.device == "cpu" else 1)
    open_runs = [run for run in plan.unique if settings.fresh or not _ended(settings.runs / run.key)]
    spare = [Process(settings.threads) for _ in range(min(workers, len(open_runs)))]
    try:
        yield from _Sweep(plan, settings, workers, spare, began).work()
    finally:
        for process in spare:
            process.kill()


class _Sweep:
    def __init__(self, plan: Plan, settings: Settings, workers: int, spare: list[Process], began: float) -> None:
        self.plan, self.settings, self.workers, self.spare, self.began = plan, settings, workers, spare, began
        self.notices: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.publisher: Publisher | None = None
        self.stopping = False
        self.env = environment.gather(
            device=settings.device,
            threads=settings.threads,
            side_by_side=max(1, len(spare)),
            deterministic=settings.deterministic,
        )

    def work(self) -> Iterator[Event]:
        """The sweep from its plan to its table."""
        with self._signals():
            reused, trains = self._split()
            yield Planned(
                name=self.plan.name,
                trains=tuple(trains),
                reused=tuple(reused),
                rows=len(self.plan.runs),
                workers=self.workers,
                seconds=estimate.seconds([run.spec for run in trains], self.settings.runs, self.workers),
            )
            state = _State(deque(trains))
            if self.publisher is not None:
                self.publisher.start()
            try:
                yield from self._train(state)
            except GeneratorExit:
                self._stop(state)
                raise
            yield from self._finish(state)

    def _split(self) -> tuple[list[PlannedRun], list[PlannedRun]]:
        """The runs that are there already, and those to train."""
        unique = self.plan.unique
        folders = {run.key: self.settings.runs / run.key for run in unique}
        stored: dict[str, str] = {}
        if not self.settings.offline:  # nothing of MLflow is imported without need
            from repro.execution.publisher import Publisher
            from repro.tracking.reap import reap
            from repro.tracking.store import connect
            from repro.tracking.writer import Writer

            writer = Writer(connect(self.settings.uri))
            for closed in reap(writer, self.settings.runs):
                self.notices.put(str(closed))
            if not self.settings.fresh:
                stored = writer.finished([run.key for run in unique])
            self.publisher = Publisher(writer, self.plan, stored, self.env, self.notices.put)
        if self.settings.fresh:
            for folder in folders.values():
                _set_aside(folder)
        local = {run.key for run in unique if _ended(folders[run.key])}
        if self.publisher is not None:
            for key in local - set(stored):
                self.publisher.note(folders[key])
        there = local | set(stored)
        return [run for run in unique if run.key in there], [run for run in unique if run.key not in there]

    def _train(self, state: _State) -> Iterator[Event]:
        while state.todo or state.active or state.waiting:
            yield from self._notices()
            if self.stopping:
                self._stop(state)
                raise Interrupted("stopped; the runs that were training can be resumed by the same command")
            while state.todo and len(state.active) < self.workers:
                yield from self._start(state.todo.popleft(), state)
            for active in list(state.active):
                code = active.process.returncode  # before its journal is read: what it wrote is then complete
                yield from self._tell(active)
                if code is not None:
                    state.active.remove(active)
                    active.process.close()
                    yield from self._ended(active, code, state)
            for run in list(state.waiting):
                if not journal.held(self.settings.runs / run.key):
                    state.waiting.remove(run)
                    state.todo.append(run)  # it is at its end there, or was given up and can be resumed here
            time.sleep(_POLL_SECONDS)

    def _start(self, run: PlannedRun, state: _State) -> Iterator[Event]:
        folder = self.settings.runs / run.key
        if journal.held(folder):
            state.waiting.append(run)
            yield Waiting(run)
            return
        process = self.spare.pop() if self.spare else Process(self.settings.threads)
        process.assign(
            Job(
                spec=run.spec,
                study=run.study,
                variant=run.variant,
                folder=folder.absolute(),
                cache=self.settings.cache.absolute(),
                environment=self.env,
                diff=environment.code().diff,
                checkpoint_seconds=self.settings.checkpoint_seconds,
            )
        )
        known = journal.read(folder)
        state.active.append(_Active(run, process, told=len(known.entries) if known else 0))

    def _tell(self, active: _Active) -> Iterator[Event]:
        """Yields what is new in the journal of a run."""
        folder = self.settings.runs / active.run.key
        file = folder / journal.NAME
        size = file.stat().st_size if file.exists() else 0
        if size == active.size:
            return
        active.size = size
        known = journal.read(folder)
        fresh = known.entries[active.told :] if known is not None else ()
        active.told += len(fresh)
        for entry in fresh:
            match entry.record:
                case journal.Attempt():
                    active.started = True
                    yield Started(active.run, entry.record.resumed_epoch)
                case EpochRecord():
                    yield Epoch(active.run, entry.record)
                case journal.Difference(epoch, metric, recorded, retrained):
                    yield Notice(
                        f"{active.run.name}: epoch {epoch} was trained again and its {metric} is {retrained!r}, not"
                        f" {recorded!r} as recorded: this machine does not repeat the run bit for bit"
                    )
                case RunResult():
                    yield Ended(active.run, entry.record)
                case journal.Stop():
                    pass  # the process's end says it
        if fresh and self.publisher is not None:
            self.publisher.note(folder)

    def _ended(self, active: _Active, code: int, state: _State) -> Iterator[Event]:
        """What the end of a worker's process means for its run."""
        run, folder = active.run, self.settings.runs / active.run.key
        known = journal.read(folder)
        if known is not None and known.result is not None:
            if not active.started:  # another process finished it between our look and the worker's
                yield Ended(run, known.result)
            if self.publisher is not None:
                self.publisher.note(folder)
            return
        if code == Exit.BUSY:
            state.waiting.append(run)
            yield Waiting(run)
            return
        if code == Exit.STOPPED and self.stopping:
            state.todo.appendleft(run)
            return
        message = (
            f"killed by {signal.Signals(-code).name}"
            if code < 0
            else active.process.last_words() or f"exit code {code}"
        )
        again = run.key not in state.retried
        if again:
            state.retried.add(run.key)
            state.todo.appendleft(run)
        else:
            state.failed.append(run)
            if self.publisher is not None and known is not None:
                self.publisher.note(folder, "failed")
        yield Failed(run, message if again else f"{message}\n{active.process.last_words(12)}".strip(), again)

    def _stop(self, state: _State) -> None:
        """Ends all workers, within two seconds, and marks their runs KILLED."""
        began = time.monotonic()
        for active in state.active:
            active.process.stop()
        while any(active.process.returncode is None for active in state.active):
            if time.monotonic() > began + _CHECKPOINT_SECONDS:
                break  # its former checkpoint stands
            time.sleep(0.01)
        for active in state.active:
            active.process.kill()
            folder = self.settings.runs / active.run.key
            if self.publisher is not None and journal.read(folder) is not None:
                self.publisher.note(folder, "killed")
        if self.publisher is not None:
            self.publisher.close(began + _STOP_SECONDS - time.monotonic(), killed=True)

    def _finish(self, state: _State) -> Iterator[Event]:
        parent, unpublished, table = None, 0, ""
        if self.publisher is not None:
            unpublished = self.publisher.close(self.settings.patience_seconds)
            parent = self.publisher.parent
            if parent is not None and not unpublished:
                table = self.publisher.conclude("FAILED" if state.failed else "FINISHED")
        yield from self._notices()
        yield Finished(parent, tuple(state.failed), unpublished, time.monotonic() - self.began, table)

    def _notices(self) -> Iterator[Notice]:
        while not self.notices.empty():
            yield Notice(self.notices.get())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(_number: int, _frame: FrameType | None) -> None:
            self.stopping = True

        former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


def _ended(folder: Path) -> bool:
    known = journal.read(folder)
    return known is not None and known.result is not None


def _set_aside(folder: Path) -> None:
    """Keeps the journal of a run that is at its end and is trained afresh, under the next free name beside it."""
    if not _ended(folder):
        return
    lock = journal.claim(folder)
    if lock is None:
        return  # its process is about to end
    with lock:
        number = 1
        while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(kept)


def _writable(runs: Path) -> None:
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{runs}: cannot be made ({error.strerror}); choose another folder with --runs-dir") from None
    if not os.access(runs, os.W_OK | os.X_OK):
        raise InputError(f"{runs}: cannot be written; choose another folder with --runs-dir")
