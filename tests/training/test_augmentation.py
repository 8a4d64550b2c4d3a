"""Augmentation: what it does to pixels, that its choices depend on seed and epoch alone, and that evaluation sees none."""

from __future__ import annotations

import pytest
import torch

from repro.spec import resolve
from repro.training import augmentation
from repro.training.batches import Batches
from repro.training.data import load
from repro.training.loop import Training
from repro.training.prepare import prepare

TINY = {
    "model.name": "squeezenet", "model.fire_modules": 2, "model.base_e": 8, "model.incr_e": 0,
    "model.squeeze_ratio": 0.5, "model.first_filters": 8, "model.first_stride": 4,
    "data.dataset": "digits", "training.epochs": 2, "training.batch_size": 479,
}  # fmt: skip


def spec(kind: str, **more):
    return resolve(TINY | {"data.augmentation": kind} | more, "test")


@pytest.fixture
def data(digits):
    return load(prepare("digits", digits), spec("none").data)


def by_hand(image, choice):
    padded = torch.zeros(image.shape[0] + 8, image.shape[1] + 8, 3, dtype=torch.uint8)
    padded[4:-4, 4:-4] = image
    if choice % 2:
        padded = padded.flip(1)
    place = (choice // 2 + 40) % 81
    top, left = divmod(place, 9)
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def test_every_choice_is_that_of_a_padded_crop():
    images = torch.randint(0, 256, (162, 10, 12, 3), dtype=torch.uint8)
    found = augmentation.apply(images, torch.arange(162))
    assert torch.equal(found[0], images[0])
    assert torch.equal(found[1], images[1].flip(1))
    same = augmentation.apply(images[:1].expand(162, -1, -1, -1), torch.arange(162))
    shifted = {tuple(one.flatten().tolist()) for one in same}
    assert len(shifted) == 162
    for choice in range(162):
        assert torch.equal(found[choice], by_hand(images[choice], choice))


def test_choices_depend_on_seed_epoch_and_kind_alone():
    drawn = augmentation.draw("crop_flip", 3, 2, 10_000)
    torch.rand(5)
    assert torch.equal(drawn, augmentation.draw("crop_flip", 3, 2, 10_000))
    assert set(drawn.tolist()) == set(range(162))
    assert set(augmentation.draw("flip", 3, 2, 100).tolist()) == {0, 1}
    for other in (augmentation.draw("crop_flip", 4, 2, 10_000), augmentation.draw("crop_flip", 3, 1, 10_000)):
        assert not torch.equal(drawn, other)


def test_evaluation_sees_images_as_they_are(data):
    plain = Batches(spec("none"), data, torch.device("cpu"), torch.float32)
    changed = Batches(spec("crop_flip"), data, torch.device("cpu"), torch.float32)
    assert torch.equal(plain.load(data.val)[0], changed.load(data.val)[0])
    one, other = plain.load(plain.of_epoch(1)[0]), changed.load(changed.of_epoch(1)[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
def test_a_resumed_run_is_bit_identical(data, kind):
    whole = Training(spec(kind), data)
    ends = list(whole)[-1]
    first = Training(spec(kind), data)
    events = iter(first)
    for _ in range(2):
        next(events)
    resumed = Training(spec(kind), data, resume=first.snapshot())
    assert list(resumed)[-1].weights_digest == ends.weights_digest


def test_without_normalisation_pixels_are_in_0_to_1(digits):
    asked = spec("none", **{"data.normalisation": "none"})
    found = load(prepare("digits", digits), asked.data)
    images, _ = Batches(asked, found, torch.device("cpu"), torch.float32).load(found.val)
    assert torch.allclose(images, found.images[found.val].permute(0, 3, 1, 2) / 255)
    assert (images.min(), images.max()) == (0, 1)
