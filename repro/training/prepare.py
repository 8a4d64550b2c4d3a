"""From the name of a data set to its cache file, which is made where it is not there; no torch is imported here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from repro import datasets, locks
from repro.datasets import FOLDER
from repro.errors import InputError, ReproError
from repro.training.cache import LOCK, Told, describe, label_bytes, write
from repro.validation import expanded


def prepare(dataset: str, data_dir: Path, side: int = 32, told: Told | None = None) -> Path:
    """Makes sure of the verified cache file of a data set in `data_dir`, and returns it; its manifest lies beside it.

    Args:
        dataset: a name of `datasets.NAMES`, or `imagefolder:PATH`.
        data_dir: the folder of the data sets; what torchvision downloads is also there.
        side: height and width of the images of a folder; other data sets have 32.
        told: is told of the progress of a folder's conversion.

    Raises:
        InputError: an unknown data set, a folder that cannot be written, files that are missing and cannot be
            downloaded, or that are not what they must be.
    """
    name = datasets.named(dataset, side)
    try:
        if name.startswith(FOLDER):
            from repro.training import imagefolder

            source = expanded(dataset.partition(":")[2]).absolute()
            return imagefolder.prepare(name, source, data_dir, side, told)
        if (cache := _intact(name, data_dir)) is not None:
            return cache
        data_dir.mkdir(parents=True, exist_ok=True)
        with locks.alone(data_dir / LOCK):  # two sweeps do not download into one file at the same time
            return _intact(name, data_dir) or _build(name, data_dir)
    except OSError as error:
        where = Path(error.filename or data_dir)
        hint = "; give a writable folder with --data-dir" if where.is_relative_to(data_dir) else ""
        raise InputError(f"{where}: cannot be written or read ({error.strerror}){hint}") from None


def _intact(name: str, folder: Path) -> Path | None:
    """The cache file of a data set where it is there, byte for byte."""
    for known in datasets.prepared(folder, name):
        cache = datasets.cache_of(name, known.digest, folder)
        with cache.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == known.digest:
                return cache
    return None


def _build(name: str, folder: Path) -> Path:
    from repro.training.readers import READERS  # torchvision takes a second to import

    read = READERS[name](folder)
    raw = read.images.tobytes() + label_bytes(read.labels, len(read.classes))
    digest = hashlib.sha256(raw).hexdigest()
    constant = datasets.DATASETS.get(name)
    if constant is not None and constant.digest != digest:
        raise ReproError(f"{name}: the images built here have SHA-256 {digest}, they must have {constant.digest}")
    cache = datasets.cache_of(name, digest, folder)
    write(cache, raw)
    if constant is None:
        known = describe(name, read.labels, read.classes, read.official, digest=digest, source=str(folder.absolute()))
        write(cache.with_suffix(".json"), known.model_dump_json(indent=1).encode())
    return cache
