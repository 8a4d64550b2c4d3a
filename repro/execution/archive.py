"""Finished runs in one file without their weights: what a report is made from, and what anybody can check.

The file is a zip: `runs/<key>/` with the journal and the small files of each finished run, `sweeps/` with the plans, and
`digests.json` with the SHA-256 of each of them. The same runs and plans give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

from repro import journal
from repro.errors import InputError
from repro.execution import disk, folders, plans
from repro.tracking.names import RUN_ARTIFACTS

DIGESTS = "digests.json"
_KEPT = {".jsonl", ".yaml", ".txt", ".json", ".csv", ".npz", ".patch"}  # of RUN_ARTIFACTS: no weights, no pictures
_MEMBER = re.compile(r"(runs/[0-9a-f]{16}(\.\d+)?|sweeps)/[\w][\w.-]*")
_TIME = (1980, 1, 1, 0, 0, 0)
_DAMAGED = (OSError, ValueError, LookupError, EOFError, RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error)


def write(out: Path, runs: Path, asked: Collection[str], pruned: Collection[str] = ()) -> tuple[int, int]:
    """Writes an archive of the finished runs below `runs` and of sweeps' plans, `asked` (as `studies.dump` writes them).

    What the file holds already stays in it, so that another machine can add to it: a run is replaced by the same run below
    `runs`, another run of that name gets the next free one (`<key>.1`), and a run is left out if the id of its journal
    is among `pruned`.

    Returns:
        How many runs and how many plans it holds.

    Raises:
        InputError: there is no finished run or no folder for the file, another file has that name, or the archive is damaged.
    """
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; create it, or choose another name")
    if out.exists() and not _ours(out):
        raise InputError(f"{out}: exists and is not an archive of runs; choose another name, or move it away")
    ended = [folder for folder in journal.find(runs) if folders.ended(folder)]
    with tempfile.TemporaryDirectory(prefix="repro-archive-") as folder:
        before = Path(folder)
        archived = unpack(out, before) if out.exists() else []
        asked = [*(plan for plan in archived if plan not in asked), *asked]
        finished: dict[str, Path] = {}
        names: dict[
            str, str
        ] = {}  # by the start of the last attempt: copies of a journal that went on apart differ there
        for one in (*journal.find(before / "runs"), *ended):
            if (known := journal.read(one)) is not None and known.id not in pruned:
                key = one.name.partition(".")[0]
                wanted = itertools.chain([one.name], (f"{key}.{number}" for number in itertools.count(1)))
                free = next(name for name in wanted if name not in finished)
                finished[names.setdefault(known.starts[-1], free)] = one
        if not finished:
            raise InputError(f"{runs}: has no finished run to archive; give the folder of the journals with --runs-dir")
        files = {
            f"runs/{run}/{name}": (folder / name).read_bytes()
            for run, folder in finished.items()
            for name in RUN_ARTIFACTS
            if Path(name).suffix in _KEPT and (folder / name).is_file()
        }
    files |= {f"{plans.FOLDER}/{number:04d}.json": plan.encode() for number, plan in enumerate(asked)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files[DIGESTS] = json.dumps(digests, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    disk.write(out, buffer.getvalue())
    return len(finished), len(asked)


def _ours(path: Path) -> bool:
    """Whether a file is an archive of runs, which another call may add to."""
    with contextlib.suppress(*_DAMAGED), zipfile.ZipFile(path) as opened:
        return DIGESTS in opened.namelist()
    return False


def unpack(archive: Path, folder: Path) -> list[str]:
    """Checks an archive and puts its runs into `folder`; returns its plans, the oldest first.

    Raises:
        InputError: it is no archive, or a file in it is missing, added or not as it was archived.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            files = {name: opened.read(name) for name in opened.namelist()}
        digests = json.loads(files.pop(DIGESTS))
        found = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    except _DAMAGED as error:
        raise InputError(
            f"{archive}: is not an archive of runs ({error}); `repro archive out.zip` writes one"
        ) from None
    if not isinstance(digests, dict) or found != digests:
        told = digests if isinstance(digests, dict) else {}
        wrong = next((name for name in sorted({*told, *found}) if found.get(name) != told.get(name)), DIGESTS)
        raise InputError(f"{archive}: {wrong} differs from what was archived; get the archive again")
    for name, content in files.items():
        if not _MEMBER.fullmatch(name):
            raise InputError(f"{archive}: {name!r} does not belong in an archive of runs")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [content.decode() for name, content in sorted(files.items()) if name.startswith(f"{plans.FOLDER}/")]
