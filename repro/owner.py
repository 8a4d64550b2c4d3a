"""Whose run is it: the process that may still write to it, told apart from a later one with the same pid."""

from __future__ import annotations

import json
import os
import platform
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_MACHINE_ID = Path("/etc/machine-id")


def me() -> str:
    """This process, as the tag `repro.owner` holds it."""
    return json.dumps({**_machine(), "pid": os.getpid(), "started": _started(os.getpid())}, sort_keys=True)


def alive(owner: str | None) -> bool | None:
    """Whether the process of an owner tag still runs; None where that cannot be told from here.

    None for a tag of another machine or of another container's processes, for a process that is hidden from this user, and
    for a tag that cannot be read: such a run is left alone.
    """
    here = _machine()
    try:
        fields = json.loads(owner or "")
        pid = int(fields["pid"])
        theirs = {"machine": here["machine"], **fields}  # which tags of earlier versions do not name
        if any(not isinstance(theirs[name], str) for name in here):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    if (theirs["host"], theirs["machine"]) != (here["host"], here["machine"]):
        return None
    if theirs["boot"] != here["boot"]:
        return False
    if theirs["pids"] != here["pids"]:
        return None
    started = _started(pid)
    if started is None:
        return None if _answers(pid) else False
    return bool(started == fields.get("started"))


@cache
def _machine() -> dict[str, str]:
    """Host, its boot, and the namespace that its pids are counted in; several machines may be called the same."""
    boot, pids = _PROC / "sys/kernel/random/boot_id", _PROC / "self/ns/pid"
    return {
        "host": platform.node(),
        "machine": _MACHINE_ID.read_text().strip() if _MACHINE_ID.is_file() else "",
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pids": str(pids.readlink()) if pids.is_symlink() else "",
    }


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot; "" for one that has ended, None where /proc has none."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = stat[stat.rindex(")") + 2 :].split()  # the command's name may hold spaces and brackets
    return "" if state == "Z" else fields[18]


def _answers(pid: int) -> bool:
    """Whether there is a process that /proc does not show: that of another user (option `hidepid`), or there is no /proc."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
