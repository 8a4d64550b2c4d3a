"""Why a run is new: the run that exists and has the most settings in common with it, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.errors import few
from repro.spec import RunSpec, flatten

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Nearest:
    """The runs that exist, in journals or in the store: key -> (name, settings as the store keeps them)."""

    runs: Mapping[str, tuple[str, Mapping[str, str]]]

    @classmethod
    def of(cls, runs: Path, uri: str | None) -> Nearest:
        """The journals below a folder, and the finished runs of a store where there is one."""
        from repro import journal
        from repro.tracking import reader, store
        from repro.tracking.entries import params

        found: dict[str, tuple[str, Mapping[str, str]]] = {}
        if not store.absent(uri):
            found |= {
                row.key: (f"{row.study}/{row.variant} seed {row.seed}", row.params)
                for row in reader.read(uri, plans=False).runs
            }
        for known in journal.readable(runs):
            first = known.attempts[0]
            found[known.spec.key] = (f"{first.study}/{known.spec.run_name(first.variant)}", params(known))
        return cls(found)

    def to(self, spec: RunSpec) -> dict[str, Any] | None:
        """The nearest run: its key, its name, and field -> [its value, the new run's], None for a field that one lacks."""
        from repro.tracking.stored import param

        ours = {name: param(value) for name, value in flatten(spec).items()}

        def differs(theirs: Mapping[str, str]) -> dict[str, list[str | None]]:
            names = [*ours, *(name for name in theirs if name not in ours)]
            return {name: [theirs.get(name), ours.get(name)] for name in names if theirs.get(name) != ours.get(name)}

        if not self.runs:
            return None
        key = min(self.runs, key=lambda key: (len(differs(self.runs[key][1])), key))
        return {"key": key, "name": self.runs[key][0], "differs": differs(self.runs[key][1])}

    def words(self, spec: RunSpec) -> str:
        """The same on one line."""
        found = self.to(spec)
        if found is None:
            return "new: no run exists yet"
        told = [
            f"{name} {'-' if theirs is None else theirs} -> {'-' if ours is None else ours}"
            for name, (theirs, ours) in found["differs"].items()
        ]
        return f"new: differs from {found['key']} ({found['name']}) in {few(told, _SHOWN) or 'its version'}"
