"""A worker process as its owner holds it: started early, given its job when that is known, ended by its id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from repro.execution.job import Job

_PROJECT = Path(__file__).parent.parent.parent
# -P keeps the working folder from the front of the path, where its files would stand in for the standard library's. This
# code's tree goes before what is installed, a user's own modules in the working folder come last.
_START = """
import importlib, os, sys
module, tree = sys.argv[1:3]
if tree:
    sys.path.insert(next((at for at, place in enumerate(sys.path) if "-packages" in place), len(sys.path)), tree)
sys.path.append(os.getcwd())
del sys.argv[1:3]
sys.exit(importlib.import_module(module).main())
"""


def command(module: str, *words: str) -> list[str]:
    """Calls the `main` of a module of this code with this interpreter, whatever lies in the working folder."""
    tree = str(_PROJECT) if (_PROJECT / "pyproject.toml").is_file() else ""  # else this code is installed
    return [sys.executable, "-P", "-c", _START, module, tree, *words]


class Process:
    """A worker. It imports torch as soon as it starts, so that a sweep can look into the store meanwhile."""

    def __init__(self, threads: int) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs are counted as nvidia-smi counts them
        if env.get("CUBLAS_WORKSPACE_CONFIG") not in {
            ":4096:8",
            ":16:8",
        }:  # those with which a GPU repeats its products
            env["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._popen = subprocess.Popen(
            command("repro.execution.worker"),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=env,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the owner alone, which ends its workers in order
        )
        self.job: Job | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it works; negative where a signal ended it."""
        return self._popen.poll()

    def assign(self, job: Job) -> None:
        """Gives the worker its run; does not wait for one that is still starting, though a job may fill the pipe."""
        self.job = job
        threading.Thread(target=self._hand_over, args=(job.dump().encode() + b"\n",), daemon=True).start()

    def _hand_over(self, line: bytes) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it died, or was closed: its return code says so
            self._popen.stdin.write(line)
            self._popen.stdin.flush()

    def stop(self) -> None:
        """Asks the worker to leave a checkpoint and end."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the worker at once and waits for its end."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()
        self.close()
        self._log.close()

    def close(self) -> None:
        """Closes the pipe to a worker; one that has no job ends."""
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

    def last_words(self, lines: int = 1) -> str:
        """The last lines that the worker wrote."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").strip().splitlines()[-lines:])
