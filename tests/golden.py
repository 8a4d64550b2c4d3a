"""Golden files: what a function of rows must give, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path


def held_against(path: Path, content: str) -> None:
    """The content is that of the file; with REPRO_REWRITE_GOLDEN=1 it becomes so: read the difference before committing."""
    if os.environ.get("REPRO_REWRITE_GOLDEN"):
        path.write_bytes(content.encode())
    assert content.encode() == path.read_bytes(), f"{path} differs; if it should, set REPRO_REWRITE_GOLDEN=1"
