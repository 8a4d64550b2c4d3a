"""Programs under measurement: started, watched, and ended by the harness."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import Report, heard
from repro.errors import ReproError

ROOT = Path(__file__).parent.parent
_POLL_SECONDS = 2.0
_FIRST_LOOK_SECONDS = 0.2  # a program that ends before the second look was looked at, too
"""Between two looks at the memory: a look takes some milliseconds of one core, the same for all programs."""
_MEBI = 1024  # KiB, which smaps_rollup counts in


class Program:
    """A program of this package in a process and a folder of its own, with a tracking store there.

    Args:
        module: name in `benchmarks`.
        words: its command line.
        folder: where it runs.
        threads: how many it may compute on; None leaves torch its default, all cores.
    """

    def __init__(self, module: str, words: Sequence[str], folder: Path, threads: int | None = None) -> None:
        self.name = module
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._popen = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *words],
            cwd=folder,
            env=environment(folder, threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # so that its children can be found, and ended with it
        )
        self.peak_mib: float | None = None
        """Largest PSS of its processes together that was seen."""
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def listen(self) -> str:
        """The next thing that the program says to the harness.

        Raises:
            ReproError: it ended, with its last line.
        """
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if (said := heard(line)) is not None:
                return said
        self._popen.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ReproError(f"benchmarks.{self.name} ended with code {self._popen.returncode}: {last[0]}")

    def go(self) -> None:
        """Tells a program that waits for others to begin."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("go\n")
        self._popen.stdin.flush()

    def end(self) -> None:
        """Ends the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._over.set()
        self._watch.join()
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._errors.close()
        self._popen.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()

    def _look(self) -> None:
        pause = _FIRST_LOOK_SECONDS
        while not self._over.wait(pause):
            seen = session_pss_mib(self._popen.pid)
            if seen is not None:
                self.peak_mib = max(seen, self.peak_mib or 0.0)
            pause = _POLL_SECONDS


def environment(folder: Path, threads: int | None = None) -> dict[str, str]:
    """The environment of a process that computes in `folder`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")])),
    }
    if threads is not None:
        env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return env


@contextlib.contextmanager
def programs(
    module: str, words: Sequence[str], *, count: int = 1, threads: int | None = None
) -> Iterator[list[Program]]:
    """Some programs of one kind, each in a temporary folder, ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="repro-bench-") as folder:
        started: list[Program] = []
        try:
            for number in range(count):
                own = Path(folder) / str(number)
                own.mkdir()
                started.append(Program(module, words, own, threads))
            yield started
        finally:
            for program in started:
                program.end()


def timed(
    module: str, words: Sequence[str], *, count: int = 1, threads: int | None = None
) -> tuple[list[Report], list[float]]:
    """What the stopwatches of `count` programs side by side say, and the peak memory (PSS, MiB) of each.

    With several of them, measuring begins when all are ready, and each goes on until all are measured.
    """
    with programs(module, words, count=count, threads=threads) as started:
        for program in started:
            if program.listen() != "ready":
                raise ReproError(f"benchmarks.{module}: reported before it was ready")
        if count > 1 or module == "ours":
            for program in started:
                program.go()
        reports = [Report(**json.loads(program.listen())) for program in started]
    return reports, [round(program.peak_mib, 1) for program in started if program.peak_mib is not None]


def values(module: str, words: Sequence[str], *, threads: int | None = None) -> list[dict[str, Any]]:
    """The measurements that a program prints, a JSON object a line, until it says `done`."""
    with programs(module, words, threads=threads) as (program,):
        found = []
        while (line := program.listen()) != "done":
            found.append(json.loads(line))
    return found


def session_pss_mib(session: int) -> float | None:
    """PSS of all processes of a session in MiB; None where the system does not tell (only Linux does).

    The proportional set size counts a page that n processes share as 1/n of a page for each.
    """
    total = None
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # a process that has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                rollup = (stat.parent / "smaps_rollup").read_text()
                kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
                total = (total or 0.0) + kib / _MEBI
    return total


def wall(words: Sequence[str], folder: Path) -> float:
    """Seconds that a command takes.

    Raises:
        ReproError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise ReproError(f"{' '.join(words)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return seconds
