"""Many runs on one machine: what is missing is trained, one process a run, one run a core.

    plan -> what the store and the journals already have -> workers -> journals -> publisher -> store

The sweep reads the workers' journals and yields what happens; it neither prints nor trains.
"""

from __future__ import annotations

import queue
import signal
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from repro import journal
from repro.errors import ReproError
from repro.execution import beat, environment, folders, limits, plans
from repro.execution.events import Ended, Event, Failed, Finished, Notice, Planned, Step, Waiting
from repro.execution.following import Followed
from repro.execution.job import Exit, Job
from repro.execution.process import Process
from repro.records import RunResult
from repro.studies import Plan, PlannedRun

if TYPE_CHECKING:
    from repro.execution.publisher import Publisher
    from repro.tracking.models import Which

_POLL_SECONDS = 0.05
_CHECKPOINT_SECONDS = 1.2  # what a stopped worker may take to write its checkpoint
_STOP_SECONDS = (
    1.3  # after which the sweep is at its end; with the interpreter's own end two seconds, on a busy machine too
)


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
    experiment: str | None = None
    """Name of MLflow's experiment; None is that of the environment, else the project's."""
    models: Which = "none"
    """Which finished runs get a model in MLflow: the best seed of each variant, all, or none."""
    checkpoint_seconds: float = 30.0
    patience_seconds: float = 60.0
    """How long to wait for the tracking store at the end, from its last progress."""


@dataclass
class _State:
    todo: deque[PlannedRun]
    active: list[Followed] = field(default_factory=list)
    waiting: list[PlannedRun] = field(default_factory=list)
    failed: list[PlannedRun] = field(default_factory=list)
    retried: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Split:
    reused: tuple[PlannedRun, ...]
    trains: tuple[PlannedRun, ...]
    damaged: tuple[tuple[PlannedRun, str], ...]
    """Runs whose journal cannot be read, and why."""


def sweep(plan: Plan, settings: Settings) -> Generator[Event, None, None]:
    """Trains what is missing of a plan, and yields what happens.

    Raises:
        Interrupted: SIGINT or SIGTERM came; every run is stopped with a checkpoint, and marked KILLED.
        ReproError: the store cannot be reached at the start, or the folder of the runs cannot be written.
    """
    began = time.monotonic()
    folders.writable(settings.runs)
    plans.keep(settings.runs, plan)
    workers = settings.workers or limits.side_by_side(
        plan.unique, environment.cores() // settings.threads, settings.device
    )
    open_runs = [
        run for run in plan.unique if settings.fresh or not folders.ended(settings.runs / run.key, damaged=False)
    ]
    spare: list[Process] = []
    try:
        spare += (Process(settings.threads) for _ in range(min(workers, len(open_runs))))
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
        self.connecting = True
        self.env = environment.gather(
            device=settings.device,
            threads=settings.threads,
            side_by_side=max(1, len(spare)),
            deterministic=settings.deterministic,
        )
        self.states = {(self.env.commit, self.env.diff_digest)}
        if problem := environment.code().problem:
            self.notices.put(f"git does not tell which code this is, the runs record that: {problem}")

    def work(self) -> Iterator[Event]:
        """The sweep from its plan to its table."""
        with self._signals():
            try:
                split = self._split()
            except KeyboardInterrupt:
                raise Interrupted("stopped before anything was trained") from None
            self.connecting = False
            while len(self.spare) > len(split.trains):
                self.spare.pop().kill()
            state = _State(deque(split.trains), failed=[run for run, _ in split.damaged])
            try:
                yield Planned(
                    name=self.plan.name,
                    trains=split.trains,
                    reused=split.reused,
                    rows=len(self.plan.runs),
                    workers=self.workers,
                )
                if self.publisher is not None:
                    yield Notice(f"runs in MLflow: {self.publisher.link}")
                for run, message in split.damaged:
                    yield Failed(run, message, again=False)
                if self.publisher is not None:
                    self.publisher.start()
                yield from self._train(state)
                yield from self._finish(state)
            except BaseException:  # whatever it is, nothing is left training
                self._stop(state)
                raise

    def _split(self) -> _Split:
        """What is there already, what is to train, and what stands in the way."""
        unique = self.plan.unique
        places = {run.key: self.settings.runs / run.key for run in unique}
        stored = {} if self.settings.offline else self._connect()
        aside = [
            kept
            for folder in places.values()
            if self.settings.fresh and (kept := folders.set_aside(folder)) is not None
        ]
        local, damaged = set(), []
        for run in unique:
            if run.key in stored:
                continue
            try:
                if folders.ended(places[run.key]):
                    local.add(run.key)
            except ReproError as error:
                damaged.append((run, f"{error}; --fresh true sets it aside"))
        if self.publisher is not None:
            ends = (kept for kept in aside if folders.ended(kept, damaged=False))  # it may not be published yet
            for folder in (*ends, *(places[key] for key in local)):
                self.publisher.note(folder)
            self.publisher.journals = frozenset(local)
        there = local | set(stored)
        blocked = {run.key for run, _ in damaged}
        return _Split(
            reused=tuple(run for run in unique if run.key in there),
            trains=tuple(run for run in unique if run.key not in there | blocked),
            damaged=tuple(damaged),
        )

    def _connect(self) -> dict[str, str]:
        """Opens the store, closes what is dead there, and returns key -> run id of the finished runs."""
        from repro.execution.publisher import Publisher, draw  # nothing of MLflow is imported without need
        from repro.tracking.reap import reap
        from repro.tracking.store import TrackingError
        from repro.tracking.writer import Writer

        try:
            writer = Writer.opened(self.settings.uri, self.notices.put, self.settings.experiment)
            for closed in reap(writer, self.settings.runs, draw):
                self.notices.put(str(closed))
            stored = {} if self.settings.fresh else writer.finished([run.key for run in self.plan.unique])
        except TrackingError as error:
            raise ReproError(f"{error}; or train with --offline true, and `repro sync` later") from None
        self.publisher = Publisher(
            writer, self.plan, stored, self.env, self.notices.put, runs=self.settings.runs, models=self.settings.models
        )
        return stored

    def _train(self, state: _State) -> Iterator[Event]:
        while state.todo or state.active or state.waiting:
            yield from self._notices()
            if self.stopping and (state.todo or state.waiting or not all(one.ended for one in state.active)):
                raise Interrupted("stopped; the runs that were training can be resumed by the same command")
            while state.todo and len(state.active) < self.workers:
                run = state.todo.popleft()
                try:
                    yield from self._start(run, state)
                except ReproError as error:  # its journal was damaged meanwhile
                    state.failed.append(run)
                    yield Failed(run, str(error), again=False)
            for active in list(state.active):
                try:
                    yield from self._follow(active, state)
                except (ReproError, OSError) as error:  # the same, or its folder cannot be read: it fails alone
                    active.process.kill()
                    state.active = [other for other in state.active if other is not active]
                    state.failed.append(active.run)
                    yield Failed(active.run, str(error), again=False)
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
        known = journal.read(folder)
        if known is not None and known.result is not None:  # it came to its end elsewhere while it waited
            yield from self._elsewhere(run, known.result)
            return
        process = self.spare.pop() if self.spare else Process(self.settings.threads)
        state.active.append(Followed(run, folder, process, told=len(known.entries) if known else 0))
        process.assign(
            Job(
                spec=run.spec,
                study=run.study,
                variant=run.variant,
                folder=folder.absolute(),
                cache=self.settings.cache.absolute(),
                device=self.settings.device,
                threads=self.settings.threads,
                side_by_side=self.env.side_by_side,
                deterministic=self.settings.deterministic,
                checkpoint_seconds=self.settings.checkpoint_seconds,
                export=self.settings.models != "none",
            )
        )

    def _follow(self, active: Followed, state: _State) -> Iterator[Event]:
        """Yields what has become of a run that is being trained."""
        code = active.process.returncode  # before its journal is read: what it wrote is then complete
        yield from self._tell(active)
        if code is None and (seen := beat.read(self.settings.runs / active.run.key)) not in (None, active.beat):
            active.beat = seen
            yield Step(active.run, seen)
        if code is not None:
            state.active.remove(active)
            active.process.close()
            yield from self._ended(active, code, state)

    def _elsewhere(self, run: PlannedRun, result: RunResult) -> Iterator[Event]:
        """A run that another process has brought to its end."""
        if self.publisher is not None:
            self.publisher.note(self.settings.runs / run.key)
        yield Ended(run, result)

    def _tell(self, active: Followed) -> Iterator[Event]:
        """Yields what is new in the journal of a run."""
        told = active.told
        yield from active.news(self.states)
        if active.told > told and self.publisher is not None:
            self.publisher.note(active.folder)

    def _ended(self, active: Followed, code: int, state: _State) -> Iterator[Event]:
        """What the end of a worker's process means for its run."""
        run, folder = active.run, self.settings.runs / active.run.key
        known = journal.read(folder)
        if known is not None and known.result is not None:
            if not active.ended:  # between our look and the worker's
                yield from self._elsewhere(run, known.result)
            return
        if code == Exit.BUSY:
            state.waiting.append(run)
            yield Waiting(run)
            return
        words = active.process.last_words(12)
        message = words.rpartition("\n")[2] or f"exit code {code}"
        if code < 0:
            message = f"killed by {next((one.name for one in signal.Signals if one == -code), f'signal {-code}')}"
        elif code == Exit.STOPPED:
            message = "somebody stopped its process"
        again = run.key not in state.retried and code != Exit.REFUSED
        if again:
            state.retried.add(run.key)
            state.todo.appendleft(run)
        else:
            state.failed.append(run)
            if self.publisher is not None:
                self.publisher.note(folder, "failed", message)
        yield Failed(run, message if again or words in {"", message} else f"{message}\n{words}", again)

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
            if self.publisher is not None and not journal.held(folder):  # else another sweep was faster, and trains it
                self.publisher.note(folder, "killed")
        if self.publisher is not None:
            self.publisher.close("KILLED", began + _STOP_SECONDS - time.monotonic())

    def _finish(self, state: _State) -> Iterator[Event]:
        parent, unpublished, table = None, 0, ""
        if self.publisher is not None:
            unpublished = self.publisher.close(
                "FAILED" if state.failed else "FINISHED", self.settings.patience_seconds, lambda: self.stopping
            )
            yield from self._notices()
            if self.stopping and not self.publisher.closed:
                raise Interrupted(f"stopped; the store lacks {unpublished} runs, `repro sync` brings them in")
            parent, table = self.publisher.parent, self.publisher.table
            yield Notice(f"runs in MLflow: {self.publisher.link}")
        yield Finished(parent, tuple(state.failed), unpublished, time.monotonic() - self.began, table)
        if self.publisher is not None and not self.publisher.closed and not unpublished:
            raise ReproError(
                "the store was away at the end: it has all runs, but not the table; the same command adds it"
            )

    def _notices(self) -> Iterator[Notice]:
        while not self.notices.empty():
            yield Notice(self.notices.get())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(_number: int, _frame: FrameType | None) -> None:
            self.stopping = True
            if self.connecting:  # to a store that may take its time; nothing is training yet
                raise KeyboardInterrupt

        wanted = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup the terminal may be closed
            wanted.append(signal.SIGHUP)
        former = {number: signal.signal(number, ask) for number in wanted}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
