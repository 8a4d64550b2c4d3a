"""The plans of sweeps beside the journals: `sweeps/` in the folder of all runs, a file for each plan.

So the folder alone says what was asked, and `repro sync` makes the sweeps that a store does not have.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from repro import journal, studies
from repro.execution import disk
from repro.studies import Plan

FOLDER = "sweeps"


def keep(runs: Path, plan: Plan) -> None:
    """Writes a plan, or the time at which it was last asked for."""
    path, content = _file(runs, plan)
    path.parent.mkdir(exist_ok=True)
    disk.write(path, content)


def fresh_since(runs: Path, plan: Plan) -> int:
    """When the sweep with --fresh that is not at its end yet was first started, in milliseconds since 1970: now if none is."""
    mark = _file(runs, plan)[0].with_suffix(".fresh")
    if not mark.exists():
        disk.write(mark, str(time.time_ns() // 1_000_000).encode())
    return int(mark.read_text())


def refreshed(runs: Path, plan: Plan) -> None:
    """Ends a sweep with --fresh: the next one retrains everything again."""
    _file(runs, plan)[0].with_suffix(".fresh").unlink(missing_ok=True)


def kept(runs: Path) -> list[str]:
    """The plans of which a run is finished (as `studies.dump` writes them), the one that was asked for last at the end.

    Raises:
        InputError: a file is not a plan.
    """
    finished = {known.folder.name[:16] for known in journal.readable(runs) if known.result is not None}
    files = sorted((runs / FOLDER).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    plans = [(path, path.read_text(encoding="utf-8", errors="replace")) for path in files]
    return [text for path, text in plans if finished & {run.key for run in studies.restore(text, str(path)).runs}]


def _file(runs: Path, plan: Plan) -> tuple[Path, bytes]:
    """Where a plan is kept, and as what."""
    content = studies.dump(plan).encode()
    return runs / FOLDER / f"{hashlib.sha256(content).hexdigest()[:16]}.json", content
