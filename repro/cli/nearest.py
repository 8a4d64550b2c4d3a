"""Why a run is new: the run that exists and has the most settings in common with it, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from repro.errors import few
from repro.spec import RunSpec, flatten

Existing: TypeAlias = Mapping[str, tuple[str, Mapping[str, str]]]
"""Key -> (name, settings as the store keeps them)."""

_SHOWN = 5


def existing(runs: Path, uri: str | None) -> Existing:
    """The runs in the journals below a folder, and the finished ones of a store where there is one."""
    from repro import journal
    from repro.tracking import reader, store
    from repro.tracking.entries import params

    found: dict[str, tuple[str, Mapping[str, str]]] = {}
    if not store.absent(uri):
        found |= {row.key: (f"{row.study}/{row.name}", row.params) for row in reader.read(uri, plans=False).runs}
    for known in journal.readable(runs):
        first = known.attempts[0]
        found[known.spec.key] = (f"{first.study}/{known.spec.run_name(first.variant)}", params(known))
    return found


def nearest(spec: RunSpec, runs: Existing) -> dict[str, Any] | None:
    """The nearest run: its key, its name, and field -> [its value, the new run's], None for a field that one lacks."""
    from repro.tracking.stored import param

    ours = {name: param(value) for name, value in flatten(spec).items()}

    def differs(theirs: Mapping[str, str]) -> dict[str, list[str | None]]:
        names = [*ours, *(name for name in theirs if name not in ours)]
        return {name: [theirs.get(name), ours.get(name)] for name in names if theirs.get(name) != ours.get(name)}

    if not runs:
        return None
    key = min(runs, key=lambda key: (len(differs(runs[key][1])), key))
    return {"key": key, "name": runs[key][0], "differs": differs(runs[key][1])}


def words(found: dict[str, Any] | None) -> str:
    """What `nearest` found, on one line."""
    if found is None:
        return "new: no run exists yet"
    told = [
        f"{name} {'-' if theirs is None else theirs} -> {'-' if ours is None else ours}"
        for name, (theirs, ours) in found["differs"].items()
    ]
    return f"new: differs from {found['key']} ({found['name']}) in {few(told, _SHOWN) or 'its version'}"
