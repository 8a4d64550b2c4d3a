"""The declared models as they were built and saved once: `experiments/claims/models.json`, which `make docs` writes.

To build and save every declared network takes seconds and torch; an audit needs three numbers of each. They stand with a
digest of the declarations, and are not taken where those were changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from repro.studies import DECLARATIONS

FILE = DECLARATIONS / "claims" / "models.json"


class Model(Protocol):
    """What a declared architecture is known to be, whatever it was trained on."""

    @property
    def parameters(self) -> int:
        """Trainable parameters."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image."""

    @property
    def size_legacy_mib(self) -> float:
        """MiB of the state dict in torch's format before 1.6."""


@dataclass(frozen=True, slots=True)
class Built:
    """What an audit needs of a model."""

    parameters: int
    multiply_adds: int
    size_legacy_mib: float


def known(path: Path = FILE) -> dict[tuple[str, str], Model] | None:
    """(study, variant) -> its model; None where the declarations are no longer those that the file was made from."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stored.get("declarations") != _digest():
        return None
    return {(study, variant): Built(*numbers) for study, variant, *numbers in stored["models"]}


def text(models: Mapping[tuple[str, str], Model]) -> str:
    """The file's content, a model a line."""
    lines = [
        json.dumps([*row, model.parameters, model.multiply_adds, round(model.size_legacy_mib, 6)])
        for row, model in models.items()
    ]
    return f'{{"declarations": "{_digest()}", "models": [\n' + ",\n".join(lines) + "\n]}\n"


def _digest() -> str:
    files = sorted(DECLARATIONS.glob("*.yaml"))
    return hashlib.sha256(b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)).hexdigest()
