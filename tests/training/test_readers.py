"""Every reader on small generated files in the real format: images, labels, classes, splits, and a file that is not whole."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from repro import datasets
from repro.datasets import DataSpec
from repro.errors import InputError
from repro.training import data, prepare
from repro.training.torchvision_shim import import_torchvision

SIZES = {"train": 60, "test": 40}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def images(part: str, *shape: int):
    return np.random.default_rng(SIZES[part]).integers(0, 256, (SIZES[part], *shape), dtype=np.uint8)


def cifar100(folder: Path, monkeypatch) -> None:
    kind = import_torchvision().datasets.CIFAR100
    home = folder / kind.base_folder
    home.mkdir()
    for part, size in SIZES.items():
        rows = images(part, 32, 32, 3).transpose(0, 3, 1, 2).reshape(size, -1)
        labels = [number % 20 * 5 for number in range(size)]
        (home / part).write_bytes(pickle.dumps({"data": rows, "fine_labels": labels, "coarse_labels": labels}))
    (home / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {number}" for number in range(100)]}))
    monkeypatch.setattr(kind, "train_list", [["train", md5(home / "train")]])
    monkeypatch.setattr(kind, "test_list", [["test", md5(home / "test")]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(home / "meta")})


def mnist(name: str):
    def make(folder: Path, monkeypatch) -> None:
        kind = getattr(import_torchvision().datasets, name)
        home, sums = folder / name / "raw", []
        home.mkdir(parents=True)
        for part, word in (("train", "train"), ("test", "t10k")):
            pixels = images(part, 28, 28)
            labels = (np.arange(len(pixels)) % 10).astype(np.uint8)
            for stem, head, content in (
                (f"{word}-images-idx3-ubyte.gz", struct.pack(">IIII", 0x803, *pixels.shape), pixels),
                (f"{word}-labels-idx1-ubyte.gz", struct.pack(">II", 0x801, len(labels)), labels),
            ):
                (home / stem).write_bytes(gzip.compress(head + content.tobytes()))
                sums.append((stem, md5(home / stem)))
        monkeypatch.setattr(kind, "resources", sums)
        monkeypatch.setattr(kind, "mirrors", ["http://127.0.0.1:9/"])

    return make


def svhn(folder: Path, monkeypatch) -> None:
    from scipy.io import savemat

    kind, found = import_torchvision().datasets.SVHN, {}
    for part, size in SIZES.items():
        name = f"{part}_32x32.mat"
        digits = np.arange(size) % 10
        labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]  # the files call a zero 10
        savemat(folder / name, {"X": images(part, 32, 32, 3).transpose(1, 2, 3, 0), "y": labels})
        found[part] = [f"http://127.0.0.1:9/{name}", name, md5(folder / name)]
    monkeypatch.setattr(kind, "split_list", found)


KINDS = {"cifar100": cifar100, "mnist": mnist("MNIST"), "fashion_mnist": mnist("FashionMNIST"), "svhn": svhn}


@pytest.fixture(params=KINDS)
def prepared(request, tmp_path, monkeypatch):
    """The data set's name, its cache, made of generated files, and the folder of these."""
    monkeypatch.setenv("no_proxy", "*")
    KINDS[request.param](tmp_path, monkeypatch)
    return request.param, prepare.prepare(request.param, tmp_path), tmp_path


def loaded(name: str, cache: Path) -> tuple[datasets.KnownData, data.Data]:
    known = datasets.read(cache.with_suffix(".json"))
    assert known is not None
    return known, data.load(cache, DataSpec(dataset=name, digest=known.digest, split_digest=known.split_digest))


def test_a_reader_gives_the_images_of_its_files(prepared):
    name, cache, _ = prepared
    known, found = loaded(name, cache)
    assert known.images == (60, 20, 20)
    assert found.images.shape == (100, 32, 32, 3)
    assert torch.equal(found.train, torch.arange(60))
    assert len(known.classes) == (100 if name == "cifar100" else 10)
    every = np.concatenate([images(part, 28, 28) if "mnist" in name else images(part, 32, 32, 3) for part in SIZES])
    if "mnist" in name:
        every = np.pad(every, ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=3)
    assert np.array_equal(found.images.numpy(), every)
    labels = [number % 20 * 5 if name == "cifar100" else number % 10 for part in SIZES for number in range(SIZES[part])]
    assert found.labels.tolist() == labels


def test_it_is_not_read_again(prepared, monkeypatch):
    name, cache, folder = prepared
    monkeypatch.setattr(prepare, "_build", None)
    assert prepare.prepare(name, folder) == cache


def test_a_file_that_is_not_the_original_is_named(prepared):
    name, cache, folder = prepared
    cache.unlink()
    path = sorted(path for path in folder.rglob("*train*") if path.is_file())[0]
    if "mnist" in name:
        path = sorted(folder.rglob("*train*.gz"))[0]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=rf"{path.name}: is corrupted \(MD5 .*delete it for a new download"):
        prepare.prepare(name, folder)


def test_a_file_that_is_missing_and_cannot_be_had_is_named(prepared):
    name, cache, folder = prepared
    if name == "cifar100":
        pytest.skip("its archive's address is the real one")
    cache.unlink()
    path = sorted(path for path in folder.rglob("*train*") if path.suffix in {".gz", ".mat"})[0]
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name} missing, and the download failed") as caught:
        prepare.prepare(name, folder)
    assert "\n" not in str(caught.value)
