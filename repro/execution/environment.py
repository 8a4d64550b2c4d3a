"""What a run is computed with: code, versions, machine. A worker gathers its own, for the code may change in a sweep."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from repro.execution import limits
from repro.records import Environment
from repro.tracking.credentials import link

_PROJECT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Code:
    """The state of the code: commit, and what is not committed."""

    commit: str
    diff: str
    """The uncommitted changes of tracked files, and the names of untracked code and declarations; "" where there are none."""
    problem: str = ""
    """Why git did not tell them, in its own words."""
    branch: str = ""
    repository: str = ""
    """URL of the remote `origin`, without credentials."""


@functools.cache
def code(project: Path = _PROJECT) -> Code:
    """The commit of this code, as it is at the first call; "unknown" where it does not lie in a repository of its own."""
    if not (project / ".git").exists():
        return Code("unknown", "")
    commit = "unknown"
    try:
        commit = _git(project, "rev-parse", "HEAD").strip()
        diff = _git(project, "diff", "--no-color", "--no-ext-diff", "HEAD")
        untracked = _git(project, "ls-files", "--others", "--exclude-standard", "--", "*.py", "repro", "experiments")
    except (OSError, subprocess.SubprocessError) as error:
        problem = " ".join(str(getattr(error, "stderr", None) or error).split())
        return Code(commit, f"uncommitted changes could not be read: {problem}\n", problem)
    branch = remote = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # no branch is checked out, or there is no remote
        branch = _git(project, "branch", "--show-current").strip()
        remote = _git(project, "remote", "get-url", "origin").strip()
        remote = link(remote) if "://" in remote else remote  # git@host:path names a login that is no secret
    return Code(commit, diff + "".join(f"untracked: {name}\n" for name in untracked.splitlines()), "", branch, remote)


def state(commit: str, diff_digest: str) -> str:
    """A state of the code in words."""
    return f"{commit[:12]} with{'' if diff_digest else 'out'} uncommitted changes"


def gather(*, device: str, threads: int, side_by_side: int, deterministic: bool) -> Environment:
    """The environment of runs that start now in processes of this interpreter."""
    here = code()
    return Environment(
        commit=here.commit,
        branch=here.branch,
        repository=here.repository,
        dirty=bool(here.diff),
        diff_digest=hashlib.sha256(here.diff.encode()).hexdigest() if here.diff else "",
        python=platform.python_version(),
        packages=packages(),
        platform=platform.platform(),
        hardware=_processor() if device == "cpu" else _gpu(device),
        host=platform.node(),
        device=device,
        threads=threads,
        side_by_side=side_by_side,
        deterministic=deterministic,
        training=training(),
    )


@functools.cache
def training() -> str:
    """SHA-256 over names and contents of the modules of `repro.training`, as they are at the first call."""
    folder, found = _PROJECT / "repro" / "training", hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


@functools.cache
def packages() -> dict[str, str]:
    """Version of every package installed, by name, as they are at the first call."""
    return dict(sorted((dist.name, dist.version) for dist in metadata.distributions() if dist.name))


def cores() -> int:
    """Processors that this process may use: those it may run on, and no more than a container's quota pays for."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(limits.cpus() or allowed)))


def _processor() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = named[0] if named else model
    return f"{model}, {cores()} core{'s' if cores() > 1 else ''}"


def _gpu(device: str) -> str:
    index = device.partition(":")[2] or "0"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]  # numbers or UUIDs
    if visible[0] and int(index) < len(visible):
        index = visible[int(index)]  # torch counts those alone, nvidia-smi all of the machine
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return _said("nvidia-smi", f"--id={index}", "--query-gpu=name", "--format=csv,noheader").strip() or device
    return device


def _git(project: Path, *words: str) -> str:
    return _said("git", "-C", str(project), *words)


def _said(*command: str) -> str:
    """What a command prints; an error where there is none of that name, it fails, or it takes too long."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=True)
    return done.stdout
