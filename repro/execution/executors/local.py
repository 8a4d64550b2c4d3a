"""Runs on this machine, each in a process of its own that is started before its job is known."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from repro.execution.job import Job
from repro.execution.process import command, variables


class Process:
    """A worker. It imports torch as soon as it starts, so that a sweep can look into the store meanwhile."""

    def __init__(self, threads: int) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._popen = subprocess.Popen(
            command("repro.execution.worker"),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=variables(threads),
            # a Ctrl-C in the terminal reaches the owner alone, which ends its workers in order; not a session of its own,
            # of which Linux makes a scheduling group that gets its whole share however `nice` the sweep is
            process_group=0,
        )
        self.pid = self._popen.pid
        self.id = str(self.pid)

    def assign(self, job: Job) -> None:
        """Gives the worker its run; does not wait for one that is still starting, though a job may fill the pipe."""
        threading.Thread(target=self._hand_over, args=(job.dump().encode() + b"\n",), daemon=True).start()

    def _hand_over(self, line: bytes) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it died, or was closed: its return code says so
            self._popen.stdin.write(line)
            self._popen.stdin.flush()

    def exit(self) -> int | None:
        """None while it works; negative where a signal ended it."""
        code = self._popen.poll()
        if code is not None:
            self._close()
        return code

    def stop(self) -> None:
        """Asks the worker to leave a checkpoint and end."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the worker at once and waits for its end."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()
        self._close()
        self._log.close()

    def _close(self) -> None:
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

    def last_words(self, lines: int = 1) -> str:
        """The last lines that the worker wrote."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").strip().splitlines()[-lines:])


class Local:
    """One process a run, as many at a time as there are workers."""

    outlives = False
    together = 1
    poll_seconds = 0.05

    def __init__(self, workers: int, threads: int) -> None:
        self.slots, self._threads = workers, threads
        self._spare: list[Process] = []

    def expect(self, runs: int) -> None:
        """Starts processes for the first of so many runs, and ends those that are too many."""
        wanted = min(runs, self.slots)
        while len(self._spare) > wanted:
            self._spare.pop().kill()
        while len(self._spare) < wanted:
            self._spare.append(Process(self._threads))

    def submit(self, jobs: Sequence[Job]) -> list[Process]:
        """Gives each job a process."""
        processes = [self._spare.pop() if self._spare else Process(self._threads) for _ in jobs]
        for process, job in zip(processes, jobs, strict=True):
            process.assign(job)
        return processes

    def attach(self, id: str) -> None:
        """Nothing: a worker ends with its sweep."""

    def close(self) -> None:
        """Ends the processes that got no job."""
        self.expect(0)
