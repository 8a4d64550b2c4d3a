"""The ways to apply filters on a CPU: each against torch's convolution and autograd, and each where it was meant to be."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.training.fast import filters
from repro.training.fast.filters import Filters


def convolution(side, stride, padding, *, channels=4, bias=True, dtype=torch.float64):
    torch.manual_seed(11)
    module = nn.Conv2d(channels, 5, side, stride=stride, padding=padding, bias=bias, dtype=dtype)
    return module.to(memory_format=torch.channels_last)


def pictures(size, channels=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(12)
    images = torch.randn(2, channels, size, size, generator=generator, dtype=torch.float64).to(dtype)
    return images.contiguous(memory_format=torch.channels_last)


WAYS = [
    (1, 1, 0, 4, "_Product"),
    (1, 2, 0, 4, "_Direct"),
    (1, 1, 1, 4, "_Direct"),
    (3, 1, 1, 1, "_Product"),
    (5, 1, 2, 1, "_Product"),
    (3, 1, 1, 2, "_Direct"),
    (3, 1, 1, 3, "_Winograd"),
    (3, 1, 1, 4, "_Winograd"),
    (3, 1, 0, 4, "_Direct"),
    (3, 2, 1, 4, "_Direct"),
    (5, 1, 2, 4, "_Direct"),
    (3, 1, 1, 6, "_Direct"),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("side", "stride", "padding", "size", "way"), WAYS)
def test_the_same_as_autograd(side, stride, padding, size, way, bias):
    module, images = convolution(side, stride, padding, bias=bias), pictures(size)
    expected = module(images.requires_grad_())
    gradient = expected.detach().cos()
    expected.backward(gradient)
    of_images, of_weight = images.grad, module.weight.grad
    module.weight.grad = None
    with torch.no_grad():
        ours = Filters(module)
        output, saved = ours.forward(images.detach())
        assert type(saved[0]).__name__ == way
        found = ours.backward(gradient, saved)
        torch.testing.assert_close(output, expected.detach())
        torch.testing.assert_close(found, of_images)
        torch.testing.assert_close(module.weight.grad, of_weight)
        assert module.weight.grad.stride() == module.weight.stride() or 1 in module.weight.shape
        onto = torch.ones_like(found)
        assert ours.backward(gradient, saved, onto).data_ptr() == onto.data_ptr()
        torch.testing.assert_close(onto, of_images + 1)


def test_many_channels_over_larger_images_take_winograd_too():
    _, saved = Filters(convolution(3, 1, 1, channels=32)).forward(pictures(6, channels=32))
    assert type(saved[0]).__name__ == "_Winograd"


@pytest.mark.parametrize("size", [3, 6])
def test_bfloat16_takes_no_winograd(size):
    _, saved = Filters(convolution(3, 1, 1, dtype=torch.bfloat16)).forward(pictures(size, dtype=torch.bfloat16))
    assert type(saved[0]).__name__ == "_Direct"


def test_the_first_filters_work_out_no_gradient_of_the_images(monkeypatch):
    wanted = []
    original = filters._convolution_backward
    monkeypatch.setattr(filters, "_convolution_backward", lambda *given: wanted.append(given[-1]) or original(*given))
    for first in (True, False):
        ours = Filters(convolution(5, 1, 2), first)
        with torch.no_grad():
            output, saved = ours.forward(pictures(4))
            ours.backward(output, saved)
    assert wanted == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(("side", "padding", "height", "width"), [(3, 1, 4, 5), (5, 2, 3, 3), (3, 0, 6, 4)])
def test_patches_are_what_lies_under_the_filters(side, padding, height, width):
    images = torch.randn(2, 7, height, width).contiguous(memory_format=torch.channels_last)
    found = filters._patches(images, side, padding)
    unfolded = F.unfold(images, side, padding=padding)  # (N, C * side * side, places)
    expected = unfolded.view(2, 7, side * side, -1).permute(0, 3, 2, 1).reshape(-1, side * side * 7)
    assert torch.equal(found, expected)
