"""Winograd's algorithm against torch's convolution: the same outputs and gradients, up to a bound on rounding."""

import pytest
import torch
from torch.nn import functional as F

from repro.training.fast import winograd

SIZES = [3, 4, 6, 8]
IMAGES, CHANNELS, FILTERS = 5, 32, 24


def given(size, dtype):
    generator = torch.Generator().manual_seed(8)
    images = torch.randn(IMAGES, CHANNELS, size, size, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(FILTERS, CHANNELS, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(FILTERS, generator=generator, dtype=torch.float64).to(dtype)
    gradient = torch.randn(IMAGES, FILTERS, size, size, generator=generator, dtype=torch.float64).to(dtype)
    return images, weight, bias, gradient


def rows(images):
    """(N, C, H, W) to (N, H * W, C)."""
    return images.flatten(2).transpose(1, 2).contiguous()


def by_winograd(images, weight, bias, gradient):
    output, (pixels, filters) = winograd.forward(rows(images), rows(weight), bias)
    return output, *winograd.backward(rows(gradient), pixels, filters, None)


def by_convolution(images, weight, bias, gradient):
    images, weight = images.clone().requires_grad_(), weight.clone().requires_grad_()
    output = F.conv2d(images, weight, bias, padding=1)
    output.backward(gradient)
    return rows(output.detach()), rows(images.grad), rows(weight.grad)


@pytest.mark.parametrize("size", SIZES)
def test_the_same_as_a_convolution(size):
    found, expected = by_winograd(*given(size, torch.float64)), by_convolution(*given(size, torch.float64))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.is_contiguous()
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("size", SIZES)
def test_rounding_errors_are_those_of_float32(size):
    """Relative to the whole tensor."""
    exact = by_convolution(*given(size, torch.float64))
    for mine, truth in zip(by_winograd(*given(size, torch.float32)), exact, strict=True):
        assert (mine - truth).norm() <= 3e-6 * truth.norm()


def test_the_points_are_chosen_for_small_errors(monkeypatch):
    def errors():
        winograd.transforms.cache_clear()
        found = by_winograd(*given(4, torch.float32))
        return [(mine - truth).norm() for mine, truth in zip(found, exact, strict=True)]

    exact = by_convolution(*given(4, torch.float64))
    chosen = errors()
    monkeypatch.setattr(winograd, "_POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    usual = errors()
    winograd.transforms.cache_clear()
    assert all(mine < theirs for mine, theirs in zip(chosen, usual, strict=True))


def test_no_bias_is_one_of_zeros():
    images, weight, bias, _ = given(4, torch.float64)
    without, _ = winograd.forward(rows(images), rows(weight), None)
    zero, _ = winograd.forward(rows(images), rows(weight), torch.zeros_like(bias))
    torch.testing.assert_close(without, zero, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_images_add_up_in_place(size):
    images, weight, bias, gradient = given(size, torch.float64)
    _, saved = winograd.forward(rows(images), rows(weight), bias)
    alone, _ = winograd.backward(rows(gradient), *saved, None)
    other = rows(images).sin()
    onto = other.clone()
    found, _ = winograd.backward(rows(gradient), *saved, onto)
    assert found.data_ptr() == onto.data_ptr()
    torch.testing.assert_close(found, other + alone)


@pytest.mark.parametrize(
    ("channels", "height", "width", "pays"),
    [(1, 3, 3, True), (1, 4, 4, True), (31, 6, 6, False), (32, 6, 6, True), (32, 8, 8, True)]
    + [(64, size, size, False) for size in (1, 2, 5, 7, 9, 13)]
    + [(64, 3, 4, False), (64, 4, 3, False)],
)
def test_only_where_it_pays(channels, height, width, pays):
    assert winograd.pays(channels, height, width) is pays
