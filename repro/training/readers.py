"""One table of readers: name of a data set -> its folder -> its images and labels.

What torchvision knows is read by it, and every file's checksum is compared with torchvision's before that. Images are
32x32 with three channels in the end: those of MNIST and Fashion-MNIST (28x28) get a black edge of two pixels, one channel
is repeated to three, digits (8x8) get each pixel four times in both directions.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro.errors import InputError
from repro.training.cache import Read
from repro.training.torchvision_shim import import_torchvision

_NETWORK_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Files:
    """Files of a data set below its folder, with where to get them."""

    folder: Path
    md5: Mapping[str, str]
    """Name -> MD5 of each file that is read."""
    downloads: Sequence[tuple[Sequence[str], str, str]]
    """(addresses, name, MD5) of what is downloaded: these files, or an archive of them."""
    archive: str = ""
    """Name of the archive that holds `folder`."""


def _digits(_: Path) -> Read:
    """The 1,797 images of scikit-learn (8x8, values 0..16), scaled to 0..255, as grey RGB."""
    from sklearn.datasets import load_digits  # its import takes longer than all else here, and only digits need it

    bunch: Any = load_digits()
    small = bunch.images.astype(np.int64)
    grey = (small * 255 // 16).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    return Read(_three_channels(grey), bunch.target, [str(digit) for digit in range(10)], (len(grey),))


def _cifar(class_name: str) -> Callable[[Path], Read]:
    def read(data_dir: Path) -> Read:
        cifar = getattr(import_torchvision().datasets, class_name)
        md5 = dict([*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])])
        archive = [([cifar.url], cifar.filename, cifar.tgz_md5)]
        _make_sure_of(_Files(data_dir / cifar.base_folder, md5, archive, archive=cifar.filename), data_dir)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about the age of the pickled arrays
            parts = [cifar(str(data_dir), train=train) for train in (True, False)]
        return _official([(part.data, np.array(part.targets)) for part in parts], parts[0].classes)

    return read


def _mnist(class_name: str) -> Callable[[Path], Read]:
    def read(data_dir: Path) -> Read:
        torchvision = import_torchvision()
        mnist = getattr(torchvision.datasets, class_name)
        folder = data_dir / class_name / "raw"
        downloads = [([mirror + name for mirror in mnist.mirrors], name, md5) for name, md5 in mnist.resources]
        _make_sure_of(_Files(folder, dict(mnist.resources), downloads), data_dir)
        parts = []
        for part in ("train", "t10k"):
            paths = [folder / f"{part}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
            for path in paths:  # again each time: the checksums are those of the packed files
                torchvision.datasets.utils.extract_archive(f"{path}.gz", str(folder))
            images = torchvision.datasets.mnist.read_image_file(str(paths[0])).numpy()
            labels = torchvision.datasets.mnist.read_label_file(str(paths[1])).numpy()
            parts.append((_three_channels(np.pad(images, ((0, 0), (2, 2), (2, 2)))), labels))
        return _official(parts, mnist.classes)

    return read


def _svhn(data_dir: Path) -> Read:
    svhn = import_torchvision().datasets.SVHN
    parts = {part: svhn.split_list[part] for part in ("train", "test")}
    downloads = [([url], name, md5) for url, name, md5 in parts.values()]
    _make_sure_of(_Files(data_dir, {name: md5 for _, name, md5 in parts.values()}, downloads), data_dir)
    read = [svhn(str(data_dir), split=part) for part in parts]
    return _official(
        [(one.data.transpose(0, 2, 3, 1), one.labels) for one in read], [str(digit) for digit in range(10)]
    )


READERS: Mapping[str, Callable[[Path], Read]] = {
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "digits": _digits,
    "mnist": _mnist("MNIST"),
    "fashion_mnist": _mnist("FashionMNIST"),
    "svhn": _svhn,
}


def _official(parts: Sequence[tuple[NDArray[np.uint8], NDArray[Any]]], classes: Sequence[str]) -> Read:
    """The official training set, then the official test set."""
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Read(images, labels, classes, tuple(len(part) for part, _ in parts))


def _three_channels(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W) to (N, H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))


def _make_sure_of(files: _Files, data_dir: Path) -> None:
    """Downloads what is missing; every file is the original one then, or an InputError says which is not."""
    if missing := _missing(files):
        reason = _download(files, data_dir, missing)
        if missing := _missing(files):
            there = f"the files of {files.archive}" if files.archive else "them"
            above = "name the folder above it" if files.folder != data_dir else "name this folder"
            raise InputError(
                f"{files.folder}: {', '.join(missing)} missing, and the download failed ({reason}); put"
                f" {there} there, {above} with --data-dir, or train on --dataset digits"
            )


def _missing(files: _Files) -> list[str]:
    """The files that are not there; every other one is the original, or an InputError says which is not."""
    missing = []
    for name, md5 in files.md5.items():
        if not (path := files.folder / name).exists():
            missing.append(name)
        elif (found := import_torchvision().datasets.utils.calculate_md5(path)) != md5:
            raise InputError(
                f"{path}: is corrupted (MD5 {found}, the original has {md5}); delete it for a new"
                " download, or put the original there"
            )
    return missing


def _download(files: _Files, data_dir: Path, missing: Sequence[str]) -> str:
    """Downloads quietly, and unpacks an archive; the last reason where that failed, else ""."""
    utils = import_torchvision().datasets.utils
    timeout, reason = socket.getdefaulttimeout(), ""
    socket.setdefaulttimeout(_NETWORK_SECONDS)
    try:
        for addresses, name, md5 in files.downloads:
            for address in addresses if files.archive or name in missing else ():
                try:
                    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                        if files.archive:
                            utils.download_and_extract_archive(address, str(data_dir), filename=name, md5=md5)
                        else:
                            utils.download_url(address, str(files.folder), filename=name, md5=md5)
                    break
                except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
                    reason = str(getattr(error, "reason", error))
    finally:
        socket.setdefaulttimeout(timeout)
    return reason
