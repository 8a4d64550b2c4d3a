"""Locks between processes: by `flock` on files, which the kernel frees however a holder ends, so none is ever stale.

Where a file system has no `flock`, two processes get one lock there at the same time, or it is mounted so that other
machines do not see its locks, a lock is a file that is made exclusively, `NAME.claim`: it names its owner, who touches it twice
a minute. It is taken over when its owner is known to be gone, or has been silent for ten minutes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from repro import owner

_MISSING = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What a file system without locks answers."""
_BEAT_SECONDS = 30.0
_SILENT_SECONDS = 600.0
_PAUSE_SECONDS = 0.05
_OTHER = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
_LOCAL = re.compile(r"[ ,](localflock|local_lock=(flock|all))[ ,\n]")
"""Options of a mount (Lustre, NFS) whose locks no other machine sees."""
_MOUNTS = Path("/proc/self/mountinfo")
_tested: dict[int, bool] = {}
"""Device -> whether `flock` works there."""


def claim(path: Path) -> IO[bytes] | None:
    """The lock on a file, which is made for it, held until the returned one is closed; None where another process holds it.

    Raises:
        OSError: the file cannot be made.
    """
    if not _works(path.parent):
        return _Claimed(path) if _made(_file(path)) else None
    for pause in (0.01, 0.05, 0):  # `held` takes the lock for a moment when it looks
        file = path.open("ab")
        with contextlib.suppress(FileNotFoundError):
            if _taken(file, fcntl.LOCK_EX | fcntl.LOCK_NB) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file  # else the folder was set aside in between, and its lock with it
        file.close()
        time.sleep(pause)
    return None


def held(path: Path) -> bool:
    """Whether some process holds the lock on a file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not _works(path.parent):
                return _file(path).exists() and not _stale(_file(path))
            return not _taken(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def alone(path: Path, mode: str = "ab") -> Iterator[None]:
    """Waits for the lock on a file, and holds it inside.

    Raises:
        OSError: the file cannot be opened in that mode.
    """
    with path.open(mode) as file:
        if _works(path.parent):
            _taken(file, fcntl.LOCK_EX)
            yield
            return
        while (lock := claim(path)) is None:
            time.sleep(_PAUSE_SECONDS)
        with lock:
            yield


def _taken(file: IO[bytes], how: int) -> bool:
    """Whether the lock was to be had."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _MISSING:
            raise
    return True  # or there are none, in a folder that can only be read


def _works(folder: Path) -> bool:
    """Whether `flock` keeps other processes from a lock in this folder; tried once for each file system.

    Those of this machine are tried, for those of others the mount's options are read. In a folder that cannot be written
    nobody trains, and what is to be had is taken.
    """
    device = folder.stat().st_dev
    if device not in _tested:
        _tested[device] = not _local(device) and _excludes(folder)
    return _tested[device]


def _local(device: int) -> bool:
    """Whether a file system is mounted with locks that other machines do not see."""
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = _MOUNTS.read_text(errors="replace").splitlines(keepends=True) if _MOUNTS.is_file() else []
    return any(line.split()[2] == number and _LOCAL.search(line) for line in lines)


def _excludes(folder: Path) -> bool:
    """Whether a second process is kept from a lock that this one has."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            words = [sys.executable, "-I", "-S", "-c", _OTHER, f"/proc/{os.getpid()}/fd/{file.fileno()}"]
            return subprocess.run(words, capture_output=True, check=False).returncode != 0
        except OSError as error:
            return error.errno not in _MISSING
    return True


class _Claimed(io.BufferedWriter):
    """A file whose claim is ours until it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._claim = _file(path)
        self._content = self._claim.read_bytes()
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._claim)

    def close(self) -> None:
        """Closes the file and gives the claim back."""
        if self.closed:
            return
        super().close()
        self._closed.set()
        with contextlib.suppress(FileNotFoundError):
            if self._claim.read_bytes() == self._content:  # else it was taken over while this process slept
                self._claim.unlink()


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.claim")


def _made(claim: Path) -> bool:
    """Makes a claim of this process; whether nobody else has it."""
    said = {"owner": owner.me(), "job": os.environ.get("SLURM_JOB_ID", ""), "id": uuid.uuid4().hex}
    for _ in range(2):
        with contextlib.suppress(FileExistsError), claim.open("xb") as file:
            file.write(json.dumps(said).encode())
            return True
        if not _stale(claim) or not _cleared(claim):
            return False
    return False


def _stale(claim: Path) -> bool:
    """Whether the owner of a claim is known to be gone, or silent for too long."""
    try:
        silent, raw = time.time() - claim.stat().st_mtime, claim.read_bytes()
    except FileNotFoundError:
        return True  # it was given back meanwhile
    if silent > _SILENT_SECONDS:
        return True
    try:
        said = json.loads(raw)
        alive = owner.alive(said["owner"])
        job = said["job"]
    except (ValueError, KeyError, TypeError):
        return False  # it is being written
    if alive is None and job:  # on another node: a job that was requeued does not run there any more
        return bool(job == os.environ.get("SLURM_JOB_ID"))
    return alive is False


def _cleared(claim: Path) -> bool:
    """Removes a stale claim, one process at a time, so that nobody removes the claim of another one who was faster."""
    guard = claim.with_suffix(".taking")
    try:
        guard.open("xb").close()
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - guard.stat().st_mtime > _SILENT_SECONDS:  # who made it was killed in between
                guard.unlink()
        return False
    try:
        if _stale(claim):
            claim.unlink(missing_ok=True)
        return True
    finally:
        guard.unlink(missing_ok=True)
