"""Runs as jobs of Slurm: `sbatch` takes them and `squeue` says how they stand; neither needs Slurm's accounting.

A job is a script that holds the job lines of its runs; Slurm keeps it, so a job that is requeued is the same job. On its
node executors/batch.py trains the runs one after the other. Journals, checkpoints, logs and the ledger of each job
(`runs/slurm/<id>.log` and `.json`) lie in the folder of the runs, which all nodes share.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from repro.errors import ReproError
from repro.execution.executors.batch import Ledger
from repro.execution.executors.entries import Entry
from repro.execution.job import Exit, Job
from repro.execution.process import command

FOLDER = "slurm"
_AT_A_TIME = 100
_WARNING_SECONDS = 60  # before its time limit a job is told, at least
_SECONDS = 60.0  # that a command of Slurm may take
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
_ENDED |= {"REVOKED", "TIMEOUT", ""}  # "": Slurm does not know it any more
_FAILED = {"BOOT_FAIL", "COMPLETED", "FAILED", "OUT_OF_MEMORY"}  # the others were stopped, and can be tried again


class Submitted:
    """A run in a job; several may share one."""

    def __init__(self, slurm: Slurm, job: str, key: str) -> None:
        self._slurm, self._job, self._key = slurm, job, key
        self._ledger = slurm.folder / f"{job}.json"
        self._log = slurm.folder / f"{job}.log"

    @property
    def id(self) -> str:
        """The job's number and the run's key."""
        return f"{self._job}/{self._key}"

    def exit(self) -> int | None:
        """None while the job waits, runs or is requeued."""
        if self._end()[0] not in {None, Exit.STOPPED}:
            return self._end()[0]
        state = self._slurm.state(self._job)
        if state not in _ENDED:
            return None
        code, _ = self._end()  # as it was at the job's end
        return code if code is not None else Exit.FAILED if state in _FAILED else Exit.STOPPED

    def stop(self) -> None:
        """Cancels the job: its run leaves a checkpoint."""
        _call("scancel", self._job)

    def kill(self) -> None:
        """Cancels the job; its other runs are submitted again."""
        self.stop()

    def last_words(self, lines: int = 1) -> str:
        """The last lines that the run wrote, else those of the job, else how Slurm says that it ended."""
        _, words = self._end()
        if not words and self._log.is_file():
            words = self._log.read_text(errors="replace").strip()
        words = words or f"job {self._job} ended with state {self._slurm.state(self._job) or 'unknown'}"
        return "\n".join(words.splitlines()[-lines:])

    def _end(self) -> tuple[int | None, str]:
        return Ledger.read(self._ledger).ends.get(self._key, (None, ""))


class Slurm:
    """Jobs of Slurm, submitted from a machine that has its commands."""

    outlives = True
    poll_seconds = 2.0

    def __init__(self, entry: Entry, runs: Path, at_a_time: int | None = None) -> None:
        """`runs`: the folder of the journals, which all nodes share."""
        self.folder = runs.absolute() / FOLDER
        self.together = entry.runs_per_job
        self._entry, self.slots = entry, at_a_time or _AT_A_TIME
        self._states: dict[str, str] = {}
        self._asked: float | None = None
        self._answered = False

    def expect(self, runs: int) -> None:
        """Nothing: Slurm starts what is submitted."""

    def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Submits one job for all of them."""
        if not jobs:
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        name = f"{jobs[0].study}/{jobs[0].spec.run_name(jobs[0].variant)}{more}"
        words = ["sbatch", "--parsable", f"--job-name={name}"]
        log = str(self.folder).replace("%", "%%")  # of which sbatch would make a number or a name
        words += [f"--output={log}/%j.log", "--open-mode=append", "--requeue"]
        options = self._options(jobs[0], len(jobs))
        words += [f"--signal=B:USR2@{_WARNING_SECONDS}", *options, *self._entry.options]
        batch = command("repro.execution.executors.batch", str(self.folder), str(self._entry.timeouts))
        lines = ["#!/bin/bash", *self._entry.setup, f"exec {shlex.join(batch)} <<'JOBS'", *(job.dump() for job in jobs)]
        try:
            said = _call(*words, script="\n".join([*lines, "JOBS", ""]))
        except ReproError as error:
            asked = " ".join([*options, *self._entry.options])
            raise ReproError(f"{error} (asked for with {asked}; executors.toml changes it)") from None
        number = said.strip().partition(";")[0]
        self._asked = None
        return [Submitted(self, number, job.folder.name) for job in jobs]

    def _options(self, job: Job, runs: int) -> list[str]:
        """What is asked for a job of so many runs like this one."""
        entry = self._entry
        given = {
            "partition": entry.partition,
            "account": entry.account,
            "gres": entry.gres or (None if job.device == "cpu" else "gpu:1"),
            "cpus-per-task": job.threads,
            "mem": f"{entry.memory_gb * 1000:.0f}M" if entry.memory_gb else None,
            "time": entry.minutes * runs if entry.minutes else None,
        }
        return [f"--{name}={value}" for name, value in given.items() if value is not None]

    def attach(self, id: str) -> Submitted | None:
        """A run whose job waits, runs or is requeued."""
        submitted = self.submitted(id)
        return submitted if submitted.exit() is None else None

    def submitted(self, id: str) -> Submitted:
        """A run that was submitted, whatever has become of it."""
        number, _, key = id.partition("/")
        return Submitted(self, number, key)

    def state(self, job: str) -> str:
        """How a job stands, in Slurm's word; "" for one that Slurm does not know, UNKNOWN while it does not answer."""
        if self._asked is None or time.monotonic() - self._asked >= self.poll_seconds:
            self._answered = False
            with contextlib.suppress(ReproError):  # its controller restarts, or is busy; or there is no Slurm here
                said = _call("squeue", "--me", "--noheader", "--states=all", "--format=%i %T")
                self._states = dict(line.split() for line in said.splitlines() if line.strip())
                self._answered = True
            self._asked = time.monotonic()
        return self._states.get(job, "" if self._answered else "UNKNOWN")

    def close(self) -> None:
        """Nothing: its jobs go on."""


def _call(*words: str, script: str | None = None) -> str:
    """What a command of Slurm answers.

    Raises:
        ReproError: it fails, or does not answer.
    """
    try:
        done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise ReproError(f"{words[0]}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ReproError(f"{words[0]}: {said[-1].removeprefix(f'{words[0]}: ')}")
    return done.stdout
