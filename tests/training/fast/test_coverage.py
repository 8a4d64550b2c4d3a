"""What the passes cover, exactly: whatever else a network is made of sends it to autograd."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from repro.errors import ReproError
from repro.networks import AlexNetSpec, SqueezeNetSpec
from repro.studies import declared, plan
from repro.training import models
from repro.training.fast import Passes, uncovered
from repro.training.fast.filters import Filters
from repro.training.models.layers import Convolution, Dropout, GlobalAveragePool, convolution


def squeezenet(**settings):
    spec = SqueezeNetSpec(name="squeezenet", base_e=16, incr_e=16, squeeze_ratio=0.5, batch_norm="all", **settings)
    return models.build(spec).to(memory_format=torch.channels_last)


def chain(**blocks):
    network = nn.Sequential(
        OrderedDict(conv1=convolution(3, 8, 3, padding=1, norm=True), **blocks, end=GlobalAveragePool())
    )
    return network.to(memory_format=torch.channels_last)


def replaced(path, part):
    network = squeezenet(residual="complex")
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, part.to(memory_format=torch.channels_last))
    return network


class Own(nn.Conv2d):
    pass


def test_all_declared_networks_are_covered():
    specs = {run.spec.model for study in declared() for run in plan([(study, tuple(study.variants))], seeds=[0]).runs}
    assert len(specs) >= 30
    for spec in specs:
        assert uncovered(models.build(spec).to(memory_format=torch.channels_last)) == "", spec


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("pool1", nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)),
        ("pool1", nn.MaxPool2d((3, 3), 2)),
        ("pool1", nn.MaxPool2d(3, (2, 2))),
        ("pool1", nn.MaxPool2d(3, 2, dilation=2)),
        ("pool1", nn.AvgPool2d(3, 2)),
        ("pool1", nn.ReLU(inplace=True)),
        ("pool1", nn.BatchNorm2d(96)),
        ("pool1", nn.Dropout(0.5)),
        ("conv1.relu", nn.GELU()),
        ("fire2.squeeze.relu", nn.LeakyReLU()),
        ("fire2.squeeze.relu", nn.Identity()),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, 1, dilation=2)),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, 1, groups=8)),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, (1, 3))),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, 1, padding=(0, 1))),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, 1, stride=(1, 2))),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, 1, padding="same")),
        ("fire2.squeeze.conv", nn.Conv2d(96, 8, 3, padding=1, padding_mode="reflect")),
        ("fire2.squeeze.conv", Own(96, 8, 1)),
        ("fire2.squeeze.bn", nn.BatchNorm2d(8, affine=False)),
        ("fire2.squeeze.bn", nn.BatchNorm2d(8, momentum=None)),
        ("fire2.squeeze.bn", nn.BatchNorm2d(8, track_running_stats=False)),
        ("fire2.squeeze.bn", nn.InstanceNorm2d(8)),
        ("fire2.squeeze", nn.Sequential(nn.Conv2d(96, 8, 1))),
        ("fire2.bypass", nn.Conv2d(96, 16, 1)),
        ("fire2.concat", nn.Identity()),
        ("fire2", nn.Identity()),
    ],
    ids=str,
)
def test_a_part_of_another_type_or_setting_is_named(path, part):
    assert uncovered(squeezenet(residual="complex")) == ""
    reason = uncovered(replaced(path, part))
    assert reason.startswith(path.rpartition(".")[0] or path)
    assert reason.endswith("is not covered")
    assert "\n" not in reason


def test_a_network_that_is_no_chain_is_not_covered():
    class Branches(nn.Sequential):
        def forward(self, images):
            return self[0](images) + self[1](images)

    assert uncovered(Branches(nn.Flatten(), nn.Flatten())) == "Branches is not a chain of blocks"
    assert uncovered(nn.Linear(3, 4)) == "Linear is not a chain of blocks"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net: net.fire2.squeeze.bn.eval(), "fire2.squeeze.bn is in evaluation mode"),
        (lambda net: net.dropout.eval(), "dropout is in evaluation mode"),
        (lambda net: net.conv1.conv.weight.requires_grad_(False), "conv1.conv.weight is frozen"),
        (lambda net: net.fire2.squeeze.bn.bias.requires_grad_(False), "fire2.squeeze.bn.bias is frozen"),
        (lambda net: net.fire2.squeeze.register_forward_hook(lambda *_: None), "fire2.squeeze has a hook"),
        (lambda net: setattr(net, "fire3", net.fire2), "a part is used twice"),
        (lambda net: setattr(net.fire2.squeeze.conv, "forward", lambda x: x), "fire2.squeeze.conv"),
        (lambda net: delattr(net.fire2.expand_small, "relu"), "fire2: an expand layer without ReLU is not covered"),
        (lambda net: net.to(memory_format=torch.contiguous_format), "conv1.conv: its filters do not lie channels last"),
    ],
)
def test_what_stands_in_the_way_is_said(change, reason):
    network = squeezenet()
    change(network)
    assert uncovered(network).startswith(reason)
    with pytest.raises(ValueError, match=reason):
        Passes(network)


def test_a_shared_weight_is_not_covered():
    network = squeezenet()
    network.fire4.squeeze.bn.weight = network.fire4.expand_small.bn.bias  # of another shape even
    assert uncovered(network) == "a part is used twice"


def test_biases_before_batch_normalization_may_be_frozen():
    network = squeezenet()
    network.conv1.conv.bias.requires_grad_(False)
    assert uncovered(network) == ""
    passes = Passes(network)
    passes(torch.randn(2, 3, 32, 32)).sum().backward()
    assert network.conv1.conv.bias.grad is None
    assert network.conv1.bn.bias.grad is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net.conv1.conv.weight, "data", net.conv1.conv.weight.data.clone()),
        lambda net: net.conv1.bn.eval(),
        lambda net: net.conv1.bn.weight.requires_grad_(False),
    ],
)
def test_passes_of_a_network_that_was_changed_since_do_not_run(change):
    network = squeezenet()
    passes = Passes(network)
    passes.forward(torch.randn(2, 3, 32, 32))
    change(network)
    with pytest.raises(ReproError, match="was changed"):
        passes.forward(torch.randn(2, 3, 32, 32))


def test_a_batch_is_counted_once():
    network = chain(dropout=Dropout(0.1))
    Passes(network)(torch.randn(2, 3, 8, 8))
    assert network.conv1.bn.num_batches_tracked == 1


@pytest.mark.parametrize("side", [1, 3])
def test_images_that_do_not_lie_channels_last_are_not_read_scrambled(side):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, side, padding=side // 2).to(memory_format=torch.channels_last)
    images = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        ours = Filters(conv)
        output, saved = ours.forward(images)
        torch.testing.assert_close(output, conv(images))
        found = ours.backward(torch.ones_like(output, memory_format=torch.contiguous_format), saved)
    images.requires_grad_()
    conv(images).sum().backward()
    torch.testing.assert_close(found, images.grad)


def test_a_convolution_alone_is_a_chain():
    assert (
        uncovered(
            nn.Sequential(Convolution(OrderedDict(conv=nn.Conv2d(3, 4, 1).to(memory_format=torch.channels_last))))
        )
        == ""
    )
    assert uncovered(models.build(AlexNetSpec(name="alexnet")).to(memory_format=torch.channels_last)) == ""
