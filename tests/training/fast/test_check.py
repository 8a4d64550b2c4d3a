"""The check before a run trains: what differs from autograd is found, and what is checked is left as it was."""

import pytest
import torch
from torch import nn

from repro.networks import AlexNetSpec, SqueezeNetSpec
from repro.training import models
from repro.training.fast import Passes, check, difference, passes
from repro.training.models import weights_digest

SPEC = SqueezeNetSpec(name="squeezenet", base_e=16, incr_e=16, squeeze_ratio=0.5, batch_norm="all", residual="simple")


def network(spec=SPEC, dtype=torch.float32):
    torch.manual_seed(3)
    module = models.build(spec).to(memory_format=torch.channels_last)
    for parameter in models.multiplied(module):
        parameter.data = parameter.data.to(dtype)
    return module


def batches(dtype=torch.float32, number=1):
    generator = torch.Generator().manual_seed(4)
    for _ in range(number):
        images = torch.randn(16, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
        yield images.to(dtype), torch.arange(16) % 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", [SPEC, AlexNetSpec(name="alexnet", batch_norm="all")], ids=lambda spec: spec.name)
def test_nothing_differs_and_nothing_is_left_behind(spec, dtype):
    module = network(spec, dtype)
    before, generator = weights_digest(module.float().state_dict()), torch.get_rng_state()
    module = network(spec, dtype)
    torch.set_rng_state(generator)
    assert difference(module, Passes(module), batches(dtype)) == ""
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert weights_digest(module.float().state_dict()) == before


def wrong_pool(monkeypatch):
    forward = passes._MaxPool.forward

    def mean(self, images):
        output, saved = forward(self, images)
        return output * 0.9, saved

    monkeypatch.setattr(passes._MaxPool, "forward", mean)


def no_bias_gradient(monkeypatch):
    through = passes._Convolution.through

    def forgets(self, *given):
        found = through(self, *given)
        if self.norm is not None:
            self.norm.shift.grad = torch.zeros_like(self.norm.shift)
        return found

    monkeypatch.setattr(passes._Convolution, "through", forgets)


@pytest.mark.parametrize("fault", [wrong_pool, no_bias_gradient])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fault_of_the_passes_is_found_in_every_batch(monkeypatch, fault, dtype):
    fault(monkeypatch)
    module = network(dtype=dtype)
    found = difference(module, Passes(module), batches(dtype, check.TRIALS))
    assert found.partition(" by ")[2].endswith("%")


def test_a_passing_batch_is_enough():
    """Where a ReLU decides between what is nearly equal, one batch in a hundred differs by some hundredths."""
    module = network()
    right, calls = Passes(module), []

    def forward(images):
        calls.append(images)
        return right(images) * (2.0 if len(calls) == 1 else 1.0)

    assert difference(module, forward, batches(number=3)) == ""
    assert len(calls) == 2


def test_nan_of_the_passes_alone_is_a_difference():
    module = network()
    assert difference(module, lambda images: module(images) * float("nan"), batches()).startswith("the output by nan")


def test_a_network_that_gives_nan_itself_is_left_to_its_run():
    module = network()
    nn.init.constant_(module.conv1.conv.weight, float("nan"))
    assert difference(module, Passes(module), batches()) == ""
