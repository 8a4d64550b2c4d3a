"""A folder of class folders with images, decoded once into a cache file by several processes.

    photos/cat/1.png                          no parts: 80/10/10, stratified
    photos/train/cat/1.png, photos/val/...    train/ with val/ or test/, which is halved, or with both

An image's shorter side is brought to the side asked for, and its centre is cut out. Grey is repeated to three channels,
transparency is laid on black. Images stand in the cache by part, class and the SHA-256 of their files, so that names of
files, and where the folder lies, change nothing.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
import os
import signal
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from repro import datasets, locks
from repro.datasets import FOLDER, as_text
from repro.errors import InputError, few, nearest
from repro.training.cache import LOCK, Told, describe, label_bytes, temporary, write

_CHUNK = 64
_ROWS = 1_000
_VALIDATION = ("val", "valid", "validation")

Listed: TypeAlias = tuple[int, int, Path]
"""Part (0 training, 1 validation, 2 test), class, file."""


def prepare(name: str, source: Path, data_dir: Path, side: int, told: Told | None = None) -> Path:
    """Makes sure of the cache file of the images below `source`, and returns it; the rest is as with `prepare.prepare`.

    Raises:
        InputError: there are no class folders, a class without an image, or more than 1% of files that are no images.
    """
    classes, listed = _listed(source)
    fingerprint = _fingerprint(source, listed, side)

    def made() -> Path | None:
        for known in datasets.prepared(data_dir, name):
            if (known.source, known.fingerprint) == (as_text(source), fingerprint):
                return datasets.cache_of(name, known.digest, data_dir)
        return None

    if (cache := made()) is not None:
        return cache  # also from a folder that can only be read
    data_dir.mkdir(parents=True, exist_ok=True)
    with locks.alone(data_dir / LOCK):
        return made() or _convert(name, source, classes, listed, data_dir, side, fingerprint, told)


def _listed(source: Path) -> tuple[list[str], list[Listed]]:
    """The classes and every file below them, in the order of names."""
    if not source.is_dir():
        beside = [entry.name for entry in source.parent.iterdir() if entry.is_dir()] if source.parent.is_dir() else []
        raise InputError(f"{FOLDER}: {source} is not a folder{nearest(source.name, beside)}")
    parts = [source / "train", next((source / one for one in _VALIDATION if (source / one).is_dir()), source / "val")]
    parts = [part for part in (*parts, source / "test") if part.is_dir()]
    if not (source / "train").is_dir():
        parts = [source]
    folders = [{folder.name: folder for folder in _visible(part) if folder.is_dir()} for part in parts]
    classes = sorted(folders[0])
    if len(classes) < 2:
        raise InputError(
            f"{parts[0]}: has {len(classes)} class folders; put each class into its own folder, at least two"
            " (photos/cat/1.png, photos/dog/1.png), or such folders below train/ and val/"
        )
    listed = []
    for place, part in enumerate(folders):
        if other := sorted(set(part) ^ set(classes)):
            raise InputError(f"{parts[place]}: its class folders differ from those of {parts[0]} (first: {other[0]})")
        for label, slug in enumerate(classes):
            files = sorted(_files(part[slug], (source.resolve(), parts[place].resolve())))
            if not files:
                raise InputError(f"{part[slug]}: is empty; add images of the class, or delete the folder")
            listed += [(place, label, file) for file in files]
    return [as_text(slug) for slug in classes], listed


def _files(folder: Path, around: tuple[Path, ...]) -> Iterator[Path]:
    """The files of a folder and of those below it; a link to a folder that it lies in leads nowhere new."""
    around = (*around, folder.resolve())
    for entry in _visible(folder):
        if entry.is_dir():
            if entry.resolve() not in around:
                yield from _files(entry, around)
        else:
            yield entry


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _fingerprint(source: Path, listed: Sequence[Listed], side: int) -> str:
    found = hashlib.sha256(f"{side}".encode())
    for _, _, path in listed:
        status = path.stat() if path.exists() else path.lstat()  # of a link that leads to nothing, its own
        place = os.fsencode(path.relative_to(source))
        found.update(place + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return found.hexdigest()


def _convert(
    name: str,
    source: Path,
    classes: Sequence[str],
    listed: Sequence[Listed],
    data_dir: Path,
    side: int,
    fingerprint: str,
    told: Told | None,
) -> Path:
    kept: list[tuple[int, int, bytes]] = []
    unreadable: list[str] = []
    with tempfile.TemporaryFile(dir=data_dir) as decoded:
        for (part, label, path), (digest, image) in zip(listed, _decoded(listed, side), strict=True):
            if image is None:
                unreadable.append(as_text(path.relative_to(source)))
            else:
                kept.append((part, label, digest))
                decoded.write(image)
            if told is not None:
                told(len(kept) + len(unreadable), len(listed))
        _check(source, classes, {label for _, label, _ in kept}, unreadable, len(listed))
        order = sorted(range(len(kept)), key=kept.__getitem__)
        labels = np.array([kept[place][1] for place in order])
        parts = np.bincount([part for part, _, _ in kept])
        asked = hashlib.sha256(f"{side}".encode())
        for place in order:
            asked.update(b"%d %d %s" % kept[place])
        cache, content = datasets.cache_of(name, asked.hexdigest(), data_dir), hashlib.sha256()
        images = np.memmap(decoded, dtype=np.uint8, mode="r", shape=(len(kept), side * side * 3))
        with temporary(cache) as file:
            for start in range(0, len(order), _ROWS):
                _put(images[order[start : start + _ROWS]].tobytes(), file, content)
            _put(label_bytes(labels, len(classes)), file, content)
    known = describe(
        name,
        labels,
        classes,
        tuple(int(count) for count in parts if count),
        side=side,
        digest=asked.hexdigest(),
        content=content.hexdigest(),
        source=as_text(source),
        fingerprint=fingerprint,
        unreadable=tuple(unreadable),
    )
    write(cache.with_suffix(".json"), known.model_dump_json(indent=1).encode())
    return cache


def _put(content: bytes, file: Any, digest: Any) -> None:
    file.write(content)
    digest.update(content)


def _check(source: Path, classes: Sequence[str], read: set[int], unreadable: Sequence[str], files: int) -> None:
    """Refuses a folder of which more than 1% cannot be read, or a whole class."""
    named = few(unreadable, 5)
    if len(unreadable) * 100 > files:
        raise InputError(
            f"{source}: {len(unreadable)} of {files} files cannot be read as images (allowed: 1%): {named}; repair"
            " or delete them"
        )
    if lacking := [slug for label, slug in enumerate(classes) if label not in read]:
        raise InputError(f"{source}: none of the files of class {lacking[0]} is an image that can be read: {named}")


def _decoded(listed: Sequence[Listed], side: int) -> Iterator[tuple[bytes, bytes | None]]:
    """SHA-256 of each file, and its pixels as they stand in the cache, or None where they cannot be read."""
    paths = [path for _, _, path in listed]
    processes = min(len(os.sched_getaffinity(0)), -(-len(paths) // _CHUNK))
    spawn = multiprocessing.get_context("spawn")  # threads of this process, a progress bar's, are not copied
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_start) as pool:
        try:
            yield from pool.map(_decode, paths, itertools.repeat(side), chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked ends these
    warnings.simplefilter("ignore")  # Pillow's, about single files


def _decode(path: Path, side: int) -> tuple[bytes, bytes | None]:
    if not path.is_file():  # a pipe, or a link that leads to nothing
        return b"", None
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at the smallest size that is enough
            return hashlib.sha256(content).digest(), _centre(_rgb(ImageOps.exif_transpose(image)), side).tobytes()
    except Exception:  # Pillow raises many kinds for a damaged file
        return b"", None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        on_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(on_black, image.convert("RGBA"))
    return image.convert("RGB")


def _centre(image: Image.Image, side: int) -> Image.Image:
    """The square centre, `side` pixels wide."""
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
