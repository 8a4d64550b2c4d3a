"""Folders of images: how they may be laid out, what of a picture is kept, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro import datasets
from repro.datasets import DataSpec
from repro.errors import InputError
from repro.training import data, prepare
from repro.training.cache import LOCK


def picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (12, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode).save(path)
    return path


def photos(folder: Path, count: int = 20, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        for number in range(count):
            picture(folder / name / f"{number}.png", seed=1000 * label + number)
    return folder


def prepared(folder: Path, where: Path, side: int = 8):
    cache = prepare.prepare(f"imagefolder:{folder}", where, side)
    known = datasets.read(cache.with_suffix(".json"))
    spec = DataSpec(dataset=known.name, digest=known.digest, split_digest=known.split_digest, image_size=side)
    return known, data.load(cache, spec), cache


def counts(labels: torch.Tensor) -> list[int]:
    return torch.bincount(labels).tolist()


def test_a_tree_without_parts_is_split_80_10_10_by_class(tmp_path):
    known, found, _ = prepared(photos(tmp_path / "photos", 20), tmp_path / "data")
    assert (known.name, known.classes, known.images, known.official) == (
        "imagefolder:photos", ("cat", "dog"), (32, 4, 4), (40,)
    )  # fmt: skip
    for part, each in ((found.train, 16), (found.val, 2), (found.test, 2)):
        assert counts(found.labels[part]) == [each, each]
    assert sorted(torch.cat([found.train, found.val, found.test]).tolist()) == list(range(40))


@pytest.mark.parametrize(
    ("parts", "images"),
    [
        (("train", "val"), (8, 4, 4)),
        (("train", "test"), (8, 4, 4)),
        (("train", "valid", "test"), (8, 8, 8)),
    ],
)
def test_parts_are_kept_and_one_that_is_held_out_is_halved(tmp_path, parts, images):
    for part in parts:
        photos(tmp_path / "photos" / part, 4)
    known, found, _ = prepared(tmp_path / "photos", tmp_path / "data")
    assert known.images == images
    assert counts(found.labels[found.train]) == [4, 4]
    assert torch.equal(found.train, torch.arange(8))


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path):
    folder = photos(tmp_path / "photos", 2)
    wide = np.zeros((8, 16, 3), dtype=np.uint8)
    wide[:, 4:12] = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    Image.fromarray(wide).save(folder / "cat" / "0.png")
    _, found, _ = prepared(folder, tmp_path / "data")
    assert any(np.array_equal(image, wide[:, 4:12]) for image in found.images.numpy())


def test_grey_is_repeated_and_transparency_laid_on_black(tmp_path):
    folder = tmp_path / "photos"
    grey = np.asarray(Image.open(picture(folder / "grey" / "0.png", mode="L", size=(8, 8))))
    clear = np.asarray(Image.open(picture(folder / "clear" / "0.png", mode="RGBA", size=(8, 8)))).astype(int)
    for name in ("grey", "clear"):
        shutil.copy(folder / name / "0.png", folder / name / "1.png")
    _, found, _ = prepared(folder, tmp_path / "data")
    assert np.array_equal(found.images[-1].numpy(), np.repeat(grey[..., None], 3, axis=2))
    expected = clear[..., :3] * clear[..., 3:] / 255
    assert np.abs(found.images[0].numpy() - expected).max() <= 1


def test_names_and_places_of_files_change_nothing_but_their_bytes_and_the_side_do(tmp_path):
    known, _, _ = prepared(photos(tmp_path / "photos", 4), tmp_path / "data")
    moved = tmp_path / "elsewhere" / "others"
    shutil.copytree(tmp_path / "photos", moved)
    (moved / "cat" / "0.png").rename(moved / "cat" / "zebra.png")
    assert prepared(moved, tmp_path / "data2")[0].digest == known.digest
    assert prepared(moved, tmp_path / "data3", side=16)[0].digest != known.digest
    picture(moved / "cat" / "1.png", seed=99)
    assert prepared(moved, tmp_path / "data4")[0].digest != known.digest


def test_it_is_not_decoded_again_until_a_file_changes(tmp_path):
    folder = photos(tmp_path / "photos", 4)
    _, _, cache = prepared(folder, tmp_path / "data")
    told: list[int] = []
    assert prepare.prepare(f"imagefolder:{folder}", tmp_path / "data", 8, lambda done, _: told.append(done)) == cache
    assert told == []
    picture(folder / "cat" / "0.png", seed=99)
    assert prepare.prepare(f"imagefolder:{folder}", tmp_path / "data", 8, lambda done, _: told.append(done)) != cache
    assert told[-1] == 8


def test_more_than_256_classes_have_labels_of_their_own(tmp_path):
    folder = tmp_path / "photos"
    first = picture(folder / "train" / "class_000" / "0.png", size=(8, 8))
    for label in range(300):
        for part, number in (("train", 0), ("val", 0), ("val", 1)):
            path = folder / part / f"class_{label:03}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                shutil.copy(first, path)
    known, found, cache = prepared(folder, tmp_path / "data")
    assert (len(known.classes), known.images, known.label_type) == (300, (300, 300, 300), "<i4")
    assert cache.stat().st_size == known.size
    assert found.labels[found.train].tolist() == list(range(300))
    assert sorted(found.labels[found.test].tolist()) == list(range(300))


def truncated(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / "cat" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:60] if number % 2 == 0 else b"no image")


def test_one_unreadable_file_in_a_hundred_is_named_and_left_out(tmp_path):
    folder = photos(tmp_path / "photos", 50)
    truncated(folder, 1)
    known, _, _ = prepared(folder, tmp_path / "data")
    assert known.unreadable == ("cat/0.png",)
    assert sum(known.images) == 99


def test_more_than_that_is_refused_and_leaves_nothing(tmp_path):
    folder = photos(tmp_path / "photos", 50)
    truncated(folder, 2)
    with pytest.raises(InputError, match=r"2 of 100 files cannot be read as images \(allowed: 1%\): cat/0.png, cat/1"):
        prepared(folder, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [LOCK]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_counts_as_one_that_cannot_be_read(tmp_path, kind):
    folder = photos(tmp_path / "photos", 50)
    odd = folder / "cat" / "odd.png"
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to("nowhere.png")
    known, _, _ = prepared(folder, tmp_path / "data")
    assert known.unreadable == ("cat/odd.png",)
    assert sum(known.images) == 100


def test_a_link_back_to_a_folder_around_it_leads_nowhere_new(tmp_path):
    folder = photos(tmp_path / "photos", 20)
    plain, _, _ = prepared(folder, tmp_path / "data")
    (folder / "cat" / "again").symlink_to("..")
    (folder / "cat" / "self").symlink_to(".")
    assert prepared(folder, tmp_path / "data")[0].digest == plain.digest
    (folder / "cat" / "more").symlink_to(photos(tmp_path / "more", 3))
    assert sum(prepared(folder, tmp_path / "data")[0].images) == 46


def test_names_that_are_no_utf_8_are_written_out(tmp_path):
    photos(tmp_path / "photos", 50)
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    (tmp_path / "photos" / "cat").rename(tmp_path / "photos" / os.fsdecode(b"caf\xe9"))
    (tmp_path / "photos").rename(folder)
    (folder / "dog" / os.fsdecode(b"\xe9.png")).write_bytes(b"")
    known, _, _ = prepared(folder, tmp_path / "data")
    assert (known.name, known.classes) == ("imagefolder:\\xe9t\\xe9", ("caf\\xe9", "dog"))
    assert known.unreadable == ("dog/\\xe9.png",)
    assert prepared(folder, tmp_path / "data")[0] == known


def test_a_class_without_a_readable_image_is_refused(tmp_path):
    folder = photos(tmp_path / "photos", 100, classes=("cat", "dog"))
    (folder / "owl").mkdir()
    (folder / "owl" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the files of class owl is an image that can be read: owl/0.png"):
        prepared(folder, tmp_path / "data")


def empty_class(folder: Path) -> None:
    (folder / "owl").mkdir()


def one_class(folder: Path) -> None:
    shutil.rmtree(folder / "dog")


def other_classes(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    (folder / "train" / "a").mkdir()
    (folder / "train" / "b").mkdir()
    picture(folder / "val" / "a" / "0.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (empty_class, r"owl: is empty; add images of the class, or delete the folder"),
        (one_class, r"photos: has 1 class folders; put each class into its own folder"),
        (other_classes, r"val: its class folders differ from those of .*train \(first: b\)|a: is empty"),
        (shutil.rmtree, r"imagefolder: .*photos is not a folder"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise_is_one_line(tmp_path, change, said):
    folder = photos(tmp_path / "photos", 2)
    change(folder)
    with pytest.raises(InputError, match=said) as caught:
        prepared(folder, tmp_path / "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("folds", "smallest"), [(5, 18), (2, 18)])
def test_folds_are_stratified_and_leave_the_test_split_alone(tmp_path, folds, smallest):
    known, whole, cache = prepared(photos(tmp_path / "photos", 20), tmp_path / "data")
    assert known.smallest == smallest
    held = []
    for fold in range(folds):
        spec = DataSpec(
            dataset=known.name,
            digest=known.digest,
            split_digest=known.split_digest,
            image_size=8,
            folds=folds,
            fold=fold,
        )
        found = data.load(cache, spec)
        assert torch.equal(found.test, whole.test)
        assert not set(found.train.tolist()) & set(found.val.tolist())
        per_class = counts(found.labels[found.val])
        assert max(per_class) - min(per_class) <= 1
        held += found.val.tolist()
    assert sorted(held) == sorted([*whole.train.tolist(), *whole.val.tolist()])
