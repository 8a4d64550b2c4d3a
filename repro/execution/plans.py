"""The plans of sweeps beside the journals: `sweeps/` in the folder of all runs, a file for each plan.

So the folder alone says what was asked, and `repro sync` makes the sweeps that a store does not have.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from repro import journal, studies
from repro.execution import disk
from repro.studies import Plan

FOLDER = "sweeps"


def keep(runs: Path, plan: Plan) -> None:
    """Writes a plan, or the time at which it was last asked for."""
    content = studies.dump(plan).encode()
    path = runs / FOLDER / f"{hashlib.sha256(content).hexdigest()[:16]}.json"
    path.parent.mkdir(exist_ok=True)
    disk.write(path, content)


def kept(runs: Path) -> list[str]:
    """The plans of which a run is finished (as `studies.dump` writes them), the one that was asked for last at the end.

    Raises:
        InputError: a file is not a plan.
    """
    finished = {known.folder.name[:16] for known in journal.readable(runs) if known.result is not None}
    files = sorted((runs / FOLDER).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    plans = [(path, path.read_text(encoding="utf-8", errors="replace")) for path in files]
    return [text for path, text in plans if finished & {run.key for run in studies.restore(text, str(path)).runs}]
