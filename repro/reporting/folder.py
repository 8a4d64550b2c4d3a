"""A report's folder: which of its files a report may replace, and which figures of a former one still hold."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import InputError, few
from repro.reporting import page
from repro.reporting.sheets import Sheet, csv, markdown

if TYPE_CHECKING:
    from repro.reporting.pictures import Picture

LISTED = "files.txt"
"""The list of a report's files, by which the next one in its folder knows what it may replace and remove."""
MARK = "# Files of a report. The next `repro compare` into this folder replaces or removes them, and no others."
_OWN = re.compile(
    r"(index\.html|report\.md|files\.txt|values\.(tex|json)|claims\.json|(tables|figures)/[A-Za-z0-9_-]+\.[a-z]+)"
)
_LONGEST = 200
_FORMER = b'<p class="kicker">Reproduction of: '  # stands in the page of every report of an earlier version


def safe(slug: str) -> str:
    """A file's name from a slug that may come from a store, cut where no file could be called so."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", slug)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}_{zlib.crc32(slug.encode()):08x}"


def forms(sheet: Sheet, columns: Sequence[str], tex: str) -> dict[str, str | bytes]:
    """A table's files by their names: these columns of its frame as CSV, the sheet as Markdown and HTML, its LaTeX."""
    name = f"tables/{safe(sheet.slug)}"
    return {
        f"{name}.csv": csv(sheet.frame, columns),
        f"{name}.md": markdown(sheet),
        f"{name}.tex": tex,
        f"{name}.html": page.table(sheet),
    }


def illustrate(out: Path, drawn: Sequence[Picture], processes: int) -> None:
    """Fills in the files of every picture: those of a former report in the folder that still hold, the others drawn."""
    if not drawn:
        return
    from repro.reporting import pictures  # matplotlib takes half a second, which tables alone need not wait for

    kept = _kept(out)
    for one in drawn:
        one.files.update(kept(_figure(one), one.key, one.forms))
    pictures.draw(drawn, processes)


def place(out: Path, files: Mapping[str, str | bytes], drawn: Sequence[Picture]) -> tuple[Path, ...]:
    """Writes files and pictures into a folder in which only those of a former report may be replaced; returns their paths.

    A file of a former report is replaced whole, and removed where this one does not have it; other files are not
    touched. The list names the files of both reports until the new one is whole, so that a next report knows them all.

    Raises:
        InputError: a folder that cannot be written, or files in it that no report wrote.
    """
    for one in drawn:
        files = {**files, **{f"{_figure(one)}.{form}": data for form, data in one.files.items()}}
    former = _former(out)
    foreign = sorted(name for name in [*files, LISTED] if name not in former and (out / name).exists())
    if foreign:
        raise InputError(
            f"{out}: contains {few(foreign)}, not written by a report; choose another folder with --out, or"
            " move these files"
        )
    _list(out, [*files, *sorted(former - {*files, LISTED})])
    paths = [_put(out / name, content) for name, content in files.items()]
    for name in former - {*files, LISTED}:
        (out / name).unlink(missing_ok=True)
    return (*paths, _list(out, [*files, *(_drawn(_figure(one), one.key, one.files.values()) for one in drawn)]))


def _figure(picture: Picture) -> str:
    return f"figures/{safe(picture.slug)}"


def _drawn(name: str, key: str, content: Iterable[bytes]) -> str:
    """The line of the list that says from what a figure was drawn, and what came of it."""
    return f"# {name} {key} {hashlib.sha256(b''.join(content)).hexdigest()[:16]}"


def _kept(out: Path) -> Callable[[str, str, Sequence[str]], dict[str, bytes]]:
    """A function that gives a figure of a former report by its key, where it is in the folder as it was drawn."""
    try:
        listed = set((out / LISTED).read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        listed = set()

    def kept(name: str, key: str, forms: Sequence[str]) -> dict[str, bytes]:
        with suppress(OSError):
            found = {form: (out / f"{name}.{form}").read_bytes() for form in forms}
            return found if _drawn(name, key, found.values()) in listed else {}
        return {}

    return kept


def _list(out: Path, names: Iterable[str]) -> Path:
    return _put(out / LISTED, "".join(f"{line}\n" for line in (MARK, *names)))


def _former(out: Path) -> set[str]:
    """The files that a former report wrote into a folder: those on its list that have a report's names."""
    try:
        lines = (out / LISTED).read_text(encoding="utf-8", errors="replace").splitlines()
        ours = lines[:1] == [MARK] or (lines[:1] == ["index.html"] and _FORMER in (out / "index.html").read_bytes())
    except OSError:
        return set()
    return {name for name in lines if _OWN.fullmatch(name)} | {LISTED} if ours else set()


def _put(path: Path, content: str | bytes) -> Path:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from None
    finally:
        with suppress(OSError):
            part.unlink()
    return path
