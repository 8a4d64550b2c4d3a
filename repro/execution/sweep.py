"""Many runs: what is missing is given to an executor, and followed by its journals.

    plan -> what the store and the journals already have -> executor -> journals -> publisher -> store

The sweep reads the workers' journals and yields what happens; it neither prints nor trains.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from repro import journal
from repro.errors import ReproError
from repro.execution import beat, environment, folders, limits, plans, prune, signals, submission
from repro.execution.events import Ended, Event, Failed, Finished, Notice, Planned, Step, Stopping, Waiting
from repro.execution.executors import Executor
from repro.execution.executors.local import Local
from repro.execution.executors.slurm import Slurm
from repro.execution.following import Followed, why
from repro.execution.job import Exit
from repro.execution.settings import Settings
from repro.execution.submission import Submission
from repro.records import RunResult
from repro.studies import Plan, PlannedRun

if TYPE_CHECKING:
    from repro.execution.publisher import Publisher

_LEFT = {
    False: "rerun the same command to resume the runs that were training",
    True: "its jobs continue; rerun the same command to follow them",
}
_POLL_SECONDS = 0.05
_CHECKPOINT_SECONDS = 6.0  # what a stopped worker may take to write its checkpoint; containers are killed after ten
_STOP_SECONDS = 2.0  # what the store is given of it, and at least half of that once all workers have ended


class Interrupted(ReproError):
    """The sweep was told to stop; its runs can be resumed."""

    exit_code = 130


def sweep(plan: Plan, settings: Settings) -> Generator[Event, None, None]:
    """Trains what is missing of a plan, and yields what happens.

    Raises:
        Interrupted: SIGINT or SIGTERM came; every run is stopped with a checkpoint, and marked KILLED.
        ReproError: the store cannot be reached at the start, or the folder of the runs cannot be written.
    """
    folders.writable(settings.runs)
    plans.keep(settings.runs, plan)
    prune.keep_away(settings.runs, [run.key for run in plan.unique])
    executor: Executor
    if settings.executor is not None:
        executor = Slurm(settings.executor, settings.runs, settings.workers)
    else:
        cores = environment.cores() // settings.threads
        executor = Local(settings.workers or limits.side_by_side(plan.unique, cores, settings.device), settings.threads)
    runs = [run for run in plan.unique if settings.fresh or not folders.ended(settings.runs / run.key, damaged=False)]
    try:
        executor.expect(len(runs))  # they start while the store is looked for
        side_by_side = 1 if executor.outlives else max(1, min(executor.slots, len(runs)))
        yield from _Sweep(plan, settings, executor, side_by_side).work()
    finally:
        executor.close()


class _Sweep:
    def __init__(self, plan: Plan, settings: Settings, executor: Executor, side_by_side: int) -> None:
        self.plan, self.settings, self.executor, self.began = plan, settings, executor, time.monotonic()
        self.todo: deque[PlannedRun] = deque()
        self.active: list[Followed] = []
        self.waiting: list[PlannedRun] = []
        self.failed: list[PlannedRun] = []
        self.retried: dict[str, int] = {}  # key -> epochs that it had when it was tried again
        self.notices: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.publisher: Publisher | None = None
        self.room = executor.slots  # less while the executor takes no more
        self.refused: set[str] = set()
        self.stopping = False
        self.connecting = True
        self.env = environment.gather(
            device=settings.device,
            threads=settings.threads,
            side_by_side=side_by_side,
            deterministic=settings.deterministic,
        )
        self.states = {(self.env.commit, self.env.diff_digest)}
        if problem := environment.code().problem:
            self.notices.put(f"git cannot identify this code, and the runs record that: {problem}")

    def work(self) -> Iterator[Event]:
        """The sweep from its plan to its table."""
        with signals.caught(self._ask):
            try:
                damaged = self._look()
            except KeyboardInterrupt:
                raise Interrupted("stopped before anything was trained") from None
            self.connecting = False
            self.executor.expect(len(self.todo))
            left = damaged.keys() | {run.key for run in self.todo}
            try:
                yield Planned(
                    name=self.plan.name,
                    trains=tuple(self.todo),
                    reused=tuple(run for run in self.plan.unique if run.key not in left),
                    rows=len({(run.study, run.variant) for run in self.plan.runs}),
                    workers=min(self.executor.slots, max(1, len(self.todo))),
                )
                yield from self._notices()
                yield from (self._lost(run, damaged[run.key]) for run in self.plan.unique if run.key in damaged)
                if not self.settings.wait:
                    yield from self._submit()
                    return
                if self.publisher is not None:
                    yield Notice(self.publisher.link)
                    self.publisher.start()
                yield from self._train()
                yield from self._finish()
            except BaseException as error:  # whatever it is, nothing is left training
                late = ", ".join(run.name for run in self._stop())
                if isinstance(error, Interrupted) and late:
                    raise Interrupted(
                        f"{error}, from their last checkpoints; no new one was written in time for {late}"
                    ) from None
                raise

    def _look(self) -> dict[str, str]:
        """Finds what is to train; returns the keys of the runs whose journal cannot be read, and why."""
        unique, settings = self.plan.unique, self.settings
        stored = {} if settings.offline else self._connect()
        former = folders.over(plans.fresh_since(settings.runs, self.plan) if settings.fresh else 0)
        aside = [folders.set_aside(self._folder(run), former) for run in unique if settings.fresh]
        ended, damaged = folders.look(self._folder(run) for run in unique if run.key not in stored)
        if self.publisher is not None:
            for folder in (*aside, *ended.values()):
                if folder is not None and folders.ended(folder, damaged=False):  # it may not be published yet
                    self.publisher.note(folder)
            self.publisher.journals = frozenset(ended)
        self.todo.extend(run for run in unique if run.key not in {**stored, **ended, **damaged})
        reused = (self._folder(run) for run in unique if run.key in {**stored, **ended})
        if other := folders.of_other_code(reused, self.env.training):
            self.notices.put(other)
        return damaged

    def _connect(self) -> dict[str, str]:
        """Opens the store, closes what is dead there, and returns key -> run id of the finished runs."""
        from repro.execution.publisher import Publisher  # nothing of MLflow is imported without need
        from repro.tracking.failures import TrackingError
        from repro.tracking.reap import reap
        from repro.tracking.writer import Writer

        try:
            writer = Writer.opened(self.settings.uri, self.notices.put, self.settings.experiment)
            for closed in reap(writer, self.settings.runs):
                self.notices.put(str(closed))
            stored = {} if self.settings.fresh else writer.finished([run.key for run in self.plan.unique])
        except TrackingError as error:
            raise ReproError(f"{error}; or train with --offline true, and `repro sync` later") from None
        self.publisher = Publisher(
            writer, self.plan, stored, self.env, self.notices.put, runs=self.settings.runs, models=self.settings.models
        )
        return stored

    def _train(self) -> Iterator[Event]:
        while self.todo or self.active or self.waiting:
            yield from self._notices()
            if self.stopping and (self.todo or self.waiting or not all(one.ended for one in self.active)):
                yield Stopping()
                raise Interrupted(f"stopped; {_LEFT[self.executor.outlives]}")
            while self.todo and len(self.active) < self.room:
                yield from self._start()
            for active in list(self.active):
                try:
                    yield from self._follow(active)
                except (ReproError, OSError) as error:  # its journal is damaged, or cannot be read: it fails alone
                    active.handle.kill()
                    self.active = [other for other in self.active if other is not active]
                    yield self._lost(active.run, str(error))
            waiting, self.waiting = self.waiting, []
            for run in waiting:  # what is not held is at its end there, or was given up and can be resumed here
                (self.waiting if journal.held(self._folder(run)) else self.todo).append(run)
            self._pause()

    def _start(self) -> Iterator[Event]:
        """Gives the next runs to the executor."""
        chosen: list[tuple[PlannedRun, int]] = []
        while self.todo and len(chosen) < min(self.executor.together, self.room - len(self.active)):
            run = self.todo.popleft()
            folder = self._folder(run)
            try:
                sent = submission.read(folder)
                former = self.executor.attach(sent.id) if sent is not None else None
                if former is None and journal.held(folder):
                    self.waiting.append(run)
                    yield Waiting(run)
                    continue
                known = journal.read(folder)
                told = 0 if known is None else len(known.entries)
                if former is not None:  # an earlier sweep has submitted it, and its job is not at its end
                    self.active.append(Followed(run, folder, former, told))
                    yield Notice(f"{run.name}: continues as job {former.id}")
                elif known is not None and known.result is not None:  # it came to its end elsewhere while it waited
                    yield self._elsewhere(run, known.result)
                else:
                    chosen.append((run, told))
            except ReproError as error:  # its journal was damaged meanwhile
                yield self._lost(run, str(error))
        jobs = [self.settings.job(run, self.env.side_by_side) for run, _ in chosen]
        try:
            handles = self.executor.submit(jobs)
        except ReproError as error:
            if not (self.active and self.settings.wait):
                raise
            self.todo.extendleft(run for run, _ in reversed(chosen))
            self.room = len(self.active)
            if str(error) not in self.refused:
                self.refused.add(str(error))
                yield Notice(f"{error}; asked again each time a job has ended")
            return
        self.room = self.executor.slots
        for (run, told), handle in zip(chosen, handles, strict=True):
            self.active.append(Followed(run, self._folder(run), handle, told))
            sent = Submission.of(run, handle.id, self.env, told) if self.executor.outlives else None
            submission.write(self._folder(run), sent)
            if sent is not None:
                yield Notice(f"{run.name}: submitted as job {sent.id}")

    def _submit(self) -> Iterator[Event]:
        """Submits everything, and leaves it."""
        while self.todo:
            yield from self._start()
            self.active.clear()
        yield from self._notices()
        yield Finished(None, tuple(self.failed), 0, time.monotonic() - self.began, "")

    def _follow(self, active: Followed) -> Iterator[Event]:
        """Yields what has become of a run that was submitted."""
        code = active.handle.exit()  # before its journal is read: what it wrote is then complete
        told = active.told
        yield from active.news(self.states)
        if active.told > told and self.publisher is not None:
            self.publisher.note(active.folder)
        if code is None and (seen := beat.read(active.folder)) not in (None, active.beat):
            active.beat = seen
            yield Step(active.run, seen)
        if code is not None:
            self.active.remove(active)
            yield from self._ended(active, code)

    def _ended(self, active: Followed, code: int) -> Iterator[Event]:
        """What the end of a job means for its run."""
        run, known = active.run, journal.read(active.folder)
        if known is not None and known.result is not None:
            if not active.ended:  # between our look and the worker's
                yield self._elsewhere(run, known.result)
            return
        if code == Exit.BUSY:
            self.waiting.append(run)
            yield Waiting(run)
            return
        message, words = why(active.handle, code)
        epochs = len(known.epochs) if known is not None else 0
        further = code == Exit.STOPPED and epochs > self.retried.get(run.key, -1)
        if code != Exit.REFUSED and (further or run.key not in self.retried):
            self.retried[run.key] = epochs
            self.todo.appendleft(run)
            yield Failed(run, message, again=True)
            return
        if self.publisher is not None:
            self.publisher.note(active.folder, "failed", message)
        yield self._lost(run, message if words in {"", message} else f"{message}\n{words}")

    def _lost(self, run: PlannedRun, message: str) -> Failed:
        """A run that is not tried again."""
        self.failed.append(run)
        return Failed(run, message, again=False)

    def _elsewhere(self, run: PlannedRun, result: RunResult) -> Ended:
        """A run that another process has brought to its end."""
        if self.publisher is not None:
            self.publisher.note(self._folder(run))
        return Ended(run, result)

    def _stop(self) -> list[PlannedRun]:
        """Ends all workers and marks their runs KILLED; jobs that outlive the sweep go on.

        Returns:
            The runs whose workers did not end in time for a checkpoint.
        """
        began = time.monotonic()
        ends = [] if self.executor.outlives else self.active
        for active in ends:
            active.handle.stop()
        while (late := [active.run for active in ends if active.handle.exit() is None]) and (
            time.monotonic() < began + _CHECKPOINT_SECONDS
        ):
            time.sleep(0.01)
        for active in ends:
            active.handle.kill()
            if self.publisher is not None and not journal.held(active.folder):  # else another sweep trains it
                self.publisher.note(active.folder, "killed")
        if self.publisher is not None:
            self.publisher.close("KILLED", max(_STOP_SECONDS / 2, began + _STOP_SECONDS - time.monotonic()))
        return late

    def _finish(self) -> Iterator[Event]:
        parent, unpublished, table = None, 0, ""
        if self.publisher is not None:
            unpublished = self.publisher.close(
                "FAILED" if self.failed else "FINISHED", self.settings.patience_seconds, lambda: self.stopping
            )
            yield from self._notices()
            if self.stopping and not self.publisher.closed:
                raise Interrupted(
                    f"stopped; {unpublished} runs are missing from the store, `repro sync` publishes them"
                )
            parent, table = self.publisher.parent, self.publisher.table
            yield Notice(self.publisher.link)
        if self.settings.fresh and not self.failed:
            plans.refreshed(self.settings.runs, self.plan)
        yield Finished(parent, tuple(self.failed), unpublished, time.monotonic() - self.began, table)
        if self.publisher is not None and not self.publisher.closed and not unpublished:
            raise ReproError(
                "the store was unavailable at the end: it has all runs but not the table; rerun the same command to add it"
            )

    def _folder(self, run: PlannedRun) -> Path:
        return self.settings.runs / run.key

    def _pause(self) -> None:
        until = time.monotonic() + self.executor.poll_seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))

    def _notices(self) -> Iterator[Notice]:
        while not self.notices.empty():
            yield Notice(self.notices.get())

    def _ask(self) -> None:
        """A signal came."""
        self.stopping = True
        if self.connecting:  # to a store that may take its time; nothing is training yet
            raise KeyboardInterrupt
