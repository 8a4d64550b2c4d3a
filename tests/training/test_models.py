"""Both networks against what is known of them: torchvision, their sizes layer by layer, and their own specs."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from repro.errors import InputError
from repro.networks import AlexNetSpec, SqueezeNetSpec
from repro.training.models import build, describe, weights_digest
from repro.training.models.layers import Add, Dropout
from repro.training.torchvision_shim import import_torchvision


def squeezenet(**settings):
    return SqueezeNetSpec(name="squeezenet", **settings)


def seeded(spec, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


@cache
def layers_of(spec):
    return {layer.name: layer for layer in describe(seeded(spec), spec).layers}


def test_multiply_adds():
    assert sum(layer.multiply_adds for layer in layers_of(squeezenet()).values()) == 9_148_448
    assert sum(layer.multiply_adds for layer in layers_of(AlexNetSpec(name="alexnet")).values()) == 62_742_528


def test_sizes_along_squeezenet():
    layers = layers_of(squeezenet())
    outputs = [layers[name].output for name in ("conv1.conv", "pool1", "pool4", "pool8", "conv10.conv", "pool10")]
    assert outputs == [(96, 13, 13), (96, 6, 6), (256, 3, 3), (512, 1, 1), (10, 1, 1), (10,)]
    assert [name for name in layers if name.startswith("pool")] == ["pool1", "pool4", "pool8", "pool10"]


def test_sizes_along_alexnet():
    layers = layers_of(AlexNetSpec(name="alexnet"))
    assert [layers[f"pool{number}"].output for number in (1, 2, 5)] == [(64, 8, 8), (192, 4, 4), (256, 2, 2)]
    assert [layers[f"fc{number}.linear"].input for number in (1, 2, 3)] == [(1024,), (4096,), (4096,)]


@pytest.mark.parametrize("size", [8, 9, 15, 16, 31, 32, 33, 64, 100])
def test_the_size_check_agrees_with_torch(size):
    """Where torch can pool, `build` lets it; where it cannot, `build` says so."""
    spec = squeezenet(input_size=size, first_kernel=3, base_e=8, incr_e=0)
    try:
        built = seeded(spec).eval()(torch.zeros(1, 3, size, size)).shape == (1, 10)
    except InputError:
        built = False
    side = (size - 3) // 2 + 1
    pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    try:
        pool(pool(pool(torch.zeros(1, 1, side, side))))
        pooled = True
    except RuntimeError:
        pooled = False
    assert built == pooled


def test_equals_torchvisions_squeezenet_1_0():
    theirs = import_torchvision().models.squeezenet1_0(weights=None).eval()
    spec = squeezenet(classes=1000, input_size=224, head_relu=True)
    ours = build(spec).eval()
    assert sum(parameter.numel() for parameter in ours.parameters()) == 1_248_424
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(other)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 0
        torch.testing.assert_close(ours(images), expected)


def test_initialisation_is_torchvisions():
    module = seeded(squeezenet(batch_norm="all", residual="complex"))
    for name, conv in module.named_modules():
        if isinstance(conv, nn.Conv2d):
            assert not conv.bias.any()
            if name == "conv10.conv":
                assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
            else:  # uniform within sqrt(6 / fan_in): its standard deviation is sqrt(2 / fan_in)
                fan_in = conv.weight[0].numel()
                assert conv.weight.abs().max() <= (6 / fan_in) ** 0.5
                assert conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    "spec", [squeezenet(batch_norm="all"), AlexNetSpec(name="alexnet")], ids=lambda spec: spec.name
)
def test_the_seed_decides_the_weights(spec):
    digests = [weights_digest(seeded(spec, seed).state_dict()) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_batch_norm_gets_gradients_in_one_piece():
    """A strided gradient, a part of the concatenation's, would cost a quarter of the step on the CPU."""
    module = seeded(squeezenet(batch_norm="all", residual="simple")).to(memory_format=torch.channels_last).train()
    dense = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_full_backward_hook(
                lambda _, __, given, name=name: dense.update(
                    {name: given[0].is_contiguous(memory_format=torch.channels_last)}
                )
            )
    for part in module.modules():
        part.inplace = False  # hooks on gradients do not go with steps in place
    module(torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert len(dense) == 26
    assert all(dense.values()), dense


@pytest.mark.parametrize(
    "spec",
    [squeezenet(batch_norm="all", residual="complex"), AlexNetSpec(name="alexnet", batch_norm="all")],
    ids=lambda spec: spec.name,
)
def test_no_step_waits_for_a_value(spec):
    """So a training step can be captured as a CUDA graph: on the meta device nothing has a value to wait for."""
    with torch.device("meta"):
        module = build(spec)
        module.train()(torch.empty(4, 3, 32, 32)).sum().backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in module.parameters())


# For each field: settings under which it has an effect, and another value than theirs.
CHANGES = {
    SqueezeNetSpec: {
        "fire_modules": ({}, 6),
        "base_e": ({}, 64),
        "incr_e": ({}, 64),
        "freq": ({}, 4),
        "squeeze_ratio": ({}, 0.25),
        "expand_3x3": ({}, 0.25),
        "squeeze_kernel": ({}, 3),
        "expand_kernels": ({}, (1, 5)),
        "first_kernel": ({}, 5),
        "first_stride": ({}, 1),
        "first_filters": ({}, 64),
        "first_padding": ({}, 3),
        "pools": ({}, ("conv1", "fire3")),
        "replicated": ({}, ("fire3",)),
        "removed": ({}, ("fire3",)),
        "residual": ({}, "simple"),
        "batch_norm": ({}, "fire"),
        "conv_bias": ({"batch_norm": "all"}, False),
        "dropout": ({}, 0.2),
        "head_relu": ({}, True),
        "classes": ({}, 20),
        "input_size": ({}, 64),
    },
    AlexNetSpec: {
        "batch_norm": ({}, "all"),
        "conv_bias": ({"batch_norm": "all"}, False),
        "dropout": ({}, 0.2),
        "classes": ({}, 20),
        "input_size": ({}, 64),
    },
}


def fingerprint(spec):
    """State, structure and result of a forward pass in training mode."""
    module = seeded(spec)
    size = spec.input_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        output = module.train()(torch.randn(2, 3, size, size))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return shapes, layers_of(spec), output.tolist()


@pytest.mark.parametrize(
    ("model", "field"), [(model, name) for model in CHANGES for name in model.model_fields if name != "name"]
)
def test_every_field_of_a_model_has_an_effect(model, field):
    settings, value = CHANGES[model][field]
    name = model.model_fields["name"].annotation.__args__[0]
    base, changed = model(name=name, **settings), model(name=name, **settings, **{field: value})
    assert getattr(base, field) != value
    assert fingerprint(base) != fingerprint(changed)


@pytest.mark.parametrize("value", ["simple", "complex"])
def test_residual_kinds(value):
    spec = squeezenet(residual=value, batch_norm="all", replicated=["fire2"])
    described = describe(seeded(spec), spec)
    kinds = {module: kind for module, kind, _ in described.residual}
    identity = dict.fromkeys(["fire2_2", "fire3", "fire5", "fire7", "fire9"], "identity")
    convolved = dict.fromkeys(["fire2", "fire4", "fire6", "fire8"], "conv1x1")
    assert kinds == (identity if value == "simple" else identity | convolved)
    convolutions = {layer.name for layer in described.layers if ".bypass." in layer.name}
    assert convolutions == {f"{module}.bypass.{part}" for module in kinds.keys() - identity for part in ("conv", "bn")}


def test_dropout_drops_the_share_and_keeps_the_mean():
    layer, features = Dropout(0.2), torch.full((200, 500), 3.0, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = layer.train()(features)
        untouched = Dropout(0.0).train()(features)
    assert dropped.unique().tolist() == pytest.approx([0, 3 / 0.8])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    dropped.sum().backward()
    assert torch.equal(features.grad != 0, dropped != 0)
    assert torch.equal(untouched, features)
    assert layer.eval()(features) is features


def test_a_residual_module_adds_its_input():
    spec = squeezenet(residual="simple", batch_norm="all")
    plain, residual = seeded(squeezenet(batch_norm="all")), seeded(spec)
    residual.load_state_dict(plain.state_dict())
    images = torch.randn(2, 128, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(residual.eval().fire3(images), plain.eval().fire3(images) + images)


def test_batch_norm_stands_behind_every_convolution():
    spec = squeezenet(batch_norm="all", residual="complex")
    layers = list(describe(seeded(spec), spec).layers)
    for layer, behind in pairwise(layers):
        assert (layer.kind == "conv") == (behind.kind == "batch_norm")


@pytest.mark.parametrize(("placed", "normed"), [("outside", True), ("fire", False)])
def test_a_bypass_counts_as_outside_of_its_module(placed, normed):
    layers = layers_of(squeezenet(residual="complex", batch_norm=placed))
    assert ("fire2.bypass.bn" in layers) == normed
    assert ("fire2.squeeze.bn" in layers) == (not normed)


def test_biases_stay_where_no_batch_norm_follows():
    module = seeded(squeezenet(batch_norm="fire", conv_bias=False))
    with_bias = {name for name, part in module.named_modules() if isinstance(part, nn.Conv2d) and part.bias is not None}
    assert with_bias == {"conv1.conv", "conv10.conv"}


@pytest.mark.parametrize(("share", "kept"), [(0, "expand_small"), (1, "expand_large")])
def test_a_share_of_all_or_nothing_leaves_one_expand_layer(share, kept):
    spec = squeezenet(expand_3x3=float(share))
    layers = layers_of(spec)
    expands = {name.split(".")[1] for name in layers if "expand" in name}
    assert expands == {kept}
    assert layers[f"fire9.{kept}.conv"].output[0] == 512
    assert not any(layer.kind == "concat" for layer in layers.values())


def test_replicas_removals_and_pools():
    spec = squeezenet(replicated=["fire4", "fire4"], removed=["fire8", "fire9"], pools=["fire4", "fire7", "conv1"])
    blocks = list(dict.fromkeys(layer.module for layer in layers_of(spec).values()))
    assert " ".join(blocks) == (  # nothing stands behind the pool of fire7 any more, so it is left out
        "conv1 pool1 fire2 fire3 fire4 fire4_2 fire4_3 pool4 fire5 fire6 fire7 dropout conv10 pool10"
    )
    kept = squeezenet(removed=["fire4", "fire8"])
    blocks = list(dict.fromkeys(layer.module for layer in layers_of(kept).values()))
    assert blocks[1:9] == ["pool1", "fire2", "fire3", "pool4", "fire5", "fire6", "fire7", "pool8"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"first_kernel": 31, "input_size": 16}, "model.first_kernel: 31"),
        ({"input_size": 8}, "model.pools: the input of pool1"),
        ({"first_stride": 8}, "model.pools: the input of pool8"),
        ({"pools": ["conv1", "fire2", "fire3", "fire4"]}, "model.pools: the input of pool4"),
        ({"base_e": 3, "squeeze_ratio": 0.125}, "model.squeeze_ratio: 0.125 of the 3 expand filters of fire2"),
        ({"base_e": 1, "squeeze_ratio": 1.0}, "model.expand_3x3: 0.5 of the 1 expand filters of fire2"),
        ({"expand_3x3": 0.001}, "model.expand_3x3: 0.001 of the 128"),
        ({"expand_3x3": 0.999}, "model.expand_3x3: 0.999 of the 128"),
    ],
)
def test_networks_that_cannot_be_are_refused_in_one_line(settings, named):
    with pytest.raises(InputError) as refused:
        build(squeezenet(**settings))
    assert str(refused.value).startswith(named)
    assert "allowed: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_parameters_are_those_of_the_module_whatever_its_layers_are():
    class Own(nn.Conv2d):
        pass

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.add = Add()

        def forward(self, images):
            return self.add(images, images)

    spec = squeezenet(classes=10)
    module = nn.Sequential(
        OrderedDict(
            own=Own(3, 6, 3, padding=1),
            grouped=nn.Conv2d(6, 6, 3, groups=3),
            norm=nn.LayerNorm([6, 30, 30]),
            around=Around(),
        )
    )
    module.own.bias.requires_grad_(False)
    found = describe(module, spec)
    assert found.parameters == sum(one.numel() for one in module.parameters()) - 6
    assert [layer.kind for layer in found.layers] == ["Own", "conv", "LayerNorm", "add"]
    assert found.layers[0].multiply_adds == 6 * 32 * 32 * 3 * 9
    assert found.layers[1].multiply_adds == 6 * 30 * 30 * 2 * 9
    assert found.residual == ()


def test_describing_leaves_no_trace():
    spec = squeezenet(batch_norm="all")
    module = seeded(spec)
    module.conv1.eval()
    before = (
        weights_digest(module.state_dict()),
        torch.random.get_rng_state(),
        [part.training for part in module.modules()],
    )
    describe(module, spec)
    after = (
        weights_digest(module.state_dict()),
        torch.random.get_rng_state(),
        [part.training for part in module.modules()],
    )
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    assert not any(part._forward_hooks for part in module.modules())
