"""Passes on a CPU against the modules and autograd: the same logits, gradients and running statistics."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.networks import AlexNetSpec, SqueezeNetSpec
from repro.training import models
from repro.training.fast import Passes, passes
from repro.training.models.layers import Dropout, Linear

SMALL = {"name": "squeezenet", "base_e": 16, "incr_e": 16, "squeeze_ratio": 0.5, "first_filters": 16}
IMAGES = 6

SPECS = {
    "plain": SqueezeNetSpec(**SMALL),
    "norm": SqueezeNetSpec(**SMALL, batch_norm="all"),
    "norm_in_fire": SqueezeNetSpec(**SMALL, batch_norm="fire"),
    "norm_outside": SqueezeNetSpec(**SMALL, batch_norm="outside", residual="complex"),
    "no_bias": SqueezeNetSpec(**SMALL, batch_norm="all", conv_bias=False),
    "identity_bypass": SqueezeNetSpec(**SMALL, batch_norm="all", residual="simple", replicated=["fire3"]),
    "convolved_bypass": SqueezeNetSpec(**SMALL, batch_norm="all", residual="complex"),
    "all_large": SqueezeNetSpec(**SMALL, batch_norm="all", expand_3x3=1.0),
    "all_small": SqueezeNetSpec(**SMALL, expand_3x3=0.0, residual="simple"),
    "unequal": SqueezeNetSpec(**SMALL, batch_norm="all", expand_3x3=0.75),
    "large_kernels": SqueezeNetSpec(**SMALL, squeeze_kernel=3, expand_kernels=[3, 5]),
    "pixels_first": SqueezeNetSpec(**SMALL, first_kernel=1, first_stride=1, batch_norm="all"),
    "padded_first": SqueezeNetSpec(**SMALL, first_padding=2, head_relu=True),
    "alexnet": AlexNetSpec(name="alexnet"),
    "alexnet_norm": AlexNetSpec(name="alexnet", batch_norm="all"),
}


def network(spec, dtype):
    torch.manual_seed(5)
    module = models.build(spec).to(dtype).to(memory_format=torch.contiguous_format)  # autograd as it usually runs
    for name, parameter in module.named_parameters():
        if name.endswith(("bn.weight", "bn.bias", "conv.bias")):
            torch.nn.init.normal_(parameter, 0.5, 0.3)  # as they never are at the start, so each of them matters
    return module.train()


def batch(dtype):
    generator = torch.Generator().manual_seed(6)
    images = torch.randn(IMAGES, 3, 32, 32, generator=generator).to(dtype)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(IMAGES) % 10


def by_autograd(module, images, labels):
    torch.manual_seed(7)  # dropout
    logits = module(images)
    F.cross_entropy(logits, labels).backward()
    return logits.detach()


def by_passes(module, images, labels):
    torch.manual_seed(7)
    written_out = Passes(module)
    logits = written_out.forward(images).requires_grad_()
    F.cross_entropy(logits.float() if logits.dtype is torch.bfloat16 else logits, labels).backward()
    written_out.backward(logits.grad)
    return logits.detach()


@pytest.mark.parametrize("name", SPECS)
def test_the_same_as_autograd(name):
    dtype = torch.float32 if name.startswith("alexnet") else torch.float64
    tolerance = {"rtol": 2e-3, "atol": 2e-5} if dtype is torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    theirs = network(SPECS[name], dtype)
    ours = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    images, labels = batch(dtype)
    torch.testing.assert_close(by_passes(ours, images, labels), by_autograd(theirs, images, labels), **tolerance)
    for (parameter, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None, parameter
        torch.testing.assert_close(mine.grad, other.grad, **tolerance, msg=lambda text, at=parameter: f"{at}: {text}")
    for (buffer, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, other, **tolerance, msg=lambda text, at=buffer: f"{at}: {text}")


@pytest.mark.parametrize("name", ["plain", "norm", "identity_bypass", "alexnet"])
def test_bfloat16_is_as_exact_as_autocast(name):
    """Through ten layers of batch normalization over six images, both are far from float64: equally far."""
    exact = network(SPECS[name], torch.float64)
    theirs = copy.deepcopy(exact).float()
    ours = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    for parameter in models.multiplied(ours):
        parameter.data = parameter.data.bfloat16()
    images, labels = batch(torch.float32)
    by_autograd(exact, images.double(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        expected = by_autograd(theirs, images, labels)
    found = by_passes(ours, images.bfloat16(), labels)
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.02)
    for (parameter, truth), mine, other in zip(
        exact.named_parameters(), ours.parameters(), theirs.parameters(), strict=True
    ):
        assert mine.grad.dtype == mine.dtype, parameter
        allowed = 1.2 * (other.grad - truth.grad).norm() + 0.02 * truth.grad.norm()
        assert (mine.grad - truth.grad).norm() <= allowed, parameter


@pytest.mark.parametrize("features", [1024, 40])
@pytest.mark.parametrize("parts", [("dropout", "linear", "relu"), ("linear", "relu"), ("linear",)])
def test_linear_layers_of_any_size_are_the_same_as_autograd(features, parts):
    """1024 inputs take oneDNN's products, 40 take MKL's."""
    torch.manual_seed(5)
    of_all = {"dropout": Dropout(0.5), "linear": nn.Linear(features, 1030), "relu": nn.ReLU(inplace=True)}
    theirs = nn.Sequential(OrderedDict(fc=Linear(OrderedDict((name, of_all[name]) for name in parts))))
    ours = copy.deepcopy(theirs)
    batch, labels = torch.randn(IMAGES, features), torch.arange(IMAGES)
    assert Passes(ours)._blocks[0].by_onednn is (features == 1024)
    torch.testing.assert_close(by_passes(ours, batch, labels), by_autograd(theirs, batch, labels), rtol=1e-5, atol=1e-6)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_linear_layers_input_is_that_of_autograd():
    torch.manual_seed(5)
    module = Linear(OrderedDict(dropout=Dropout(0.25), linear=nn.Linear(1024, 1024)))
    features = torch.randn(IMAGES, 1024, requires_grad=True)
    torch.manual_seed(7)
    expected = module(features)
    expected.backward(expected.detach().cos())
    torch.manual_seed(7)
    with torch.no_grad():
        block = passes._Linear(module)
        output, saved = block.forward(features.detach())
        found = block.backward(output.cos(), *saved)
    torch.testing.assert_close(found, features.grad, rtol=1e-5, atol=1e-6)


def test_a_pool_comes_before_the_relu_of_its_convolution():
    """Fewer values then meet the ReLU; `test_the_same_as_autograd` shows that they are the same."""
    first, pool, *_ = Passes(network(SPECS["norm"], torch.float64).to(memory_format=torch.channels_last))._blocks
    assert (first.relu, pool.relu) == (False, True)


def test_a_bias_in_front_of_batch_normalization_gets_no_noise():
    module = network(SPECS["norm"], torch.float32).to(memory_format=torch.channels_last)
    by_passes(module, *batch(torch.float32))
    assert not module.fire2.squeeze.conv.bias.grad.any()
    assert module.fire2.squeeze.bn.bias.grad.all()


def test_passes_can_be_left_and_begun_again():
    """A forward pass whose backward pass never comes, as where a run is interrupted, leaves nothing behind."""
    module = network(SPECS["norm"], torch.float32).to(memory_format=torch.channels_last)
    written_out, (images, labels) = Passes(module), batch(torch.float32)
    written_out.forward(images)
    logits = written_out.forward(images).requires_grad_()
    F.cross_entropy(logits, labels).backward()
    written_out.backward(logits.grad)
    assert written_out._tape == []
    assert all(parameter.grad is not None for parameter in module.parameters())
