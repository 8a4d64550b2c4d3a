"""Journals that a test changes by hand: what a changed line's checksum would be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repro.journal import sealed


def records(path: Path) -> list[dict[str, Any]]:
    """The records of a journal's file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Puts records into a journal's file, each with the checksum of what it holds now."""
    stripped = ({name: value for name, value in one.items() if name != "crc32"} for one in records)
    path.write_bytes(b"".join(map(sealed, stripped)))


def replace(path: Path, before: str, after: str) -> None:
    """Replaces text in a journal's file, as if it had been recorded so."""
    path.write_text(path.read_text().replace(before, after))
    write(path, records(path))
