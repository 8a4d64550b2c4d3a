"""Both networks against what is known of them: counts and sizes from the paper's tables, torchvision, and their own specs."""

from __future__ import annotations

import hashlib
import io
import re
from functools import cache
from itertools import pairwise
from threading import Thread

import pytest
import torch
from torch import nn

from repro import studies
from repro.errors import InputError
from repro.spec import AlexNetSpec, SqueezeNetSpec
from repro.training.models import build, describe, saved, state_bytes, weights_digest
from repro.training.models.layers import Dropout
from repro.training.torchvision_shim import import_torchvision

VARIANTS = {f"{study.study}/{slug}": (study, slug) for study in studies.declared() for slug in study.variants}


def squeezenet(**settings):
    return SqueezeNetSpec(name="squeezenet", **settings)


def seeded(spec, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


def model_of(variant):
    study, slug = VARIANTS[variant]
    return studies.plan([(study, [slug])], seeds=[0]).runs[0].spec.model


@cache
def layers_of(spec):
    return {layer.name: layer for layer in describe(seeded(spec), spec).layers}


# Trainable parameters of every architecture that the sizes of the paper's tables fit or that is declared for them.
PARAMETERS = {
    "reproducibility/alexnet": 23_272_266,
    "reproducibility/alexnet_bn": 23_274_570,
    "reproducibility/squeezenet": 740_554,
    "reproducibility/squeezenet_bn": 746_526,
    "ablation/fire_added": 864_010,
    "ablation/fire_added_bn": 871_134,
    "ablation/fire_removed": 493_930,
    "ablation/fire_removed_bn": 498_174,
    "residual/residual": 746_526,
    "residual/residual_2_removed": 356_766,
    "residual/residual_4_removed": 137_854,
    "residual/residual_2_added": 2_235_198,
    "residual/residual_2_replicated": 809_262,
    "residual/residual_4_replicated": 1_119_486,
    "squeeze_ratio/sr_025": 1_465_822,
    "squeeze_ratio/sr_05": 2_904_414,
    "squeeze_ratio/sr_075": 4_343_006,
    "expand_3x3/share_12": 377_886,
    "expand_3x3/share_25": 500_766,
    "expand_3x3/share_75": 992_286,
    "first_kernel/kernel_1": 732_702,
    "first_kernel/kernel_3": 735_006,
    "first_kernel/kernel_5": 739_614,
    "best/best": 349_854,
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameters_are_those_the_published_sizes_imply(variant):
    spec = model_of(variant)
    module = seeded(spec)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[variant]
    assert describe(module, spec).parameters == PARAMETERS[variant]


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


@pytest.mark.parametrize("spec", dict.fromkeys(model_of(variant) for variant in VARIANTS), ids=lambda spec: spec.name)
def test_every_parameter_gets_a_gradient(spec):
    module = seeded(spec)
    module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        nn.functional.cross_entropy(module(images), torch.tensor([0, 1, 2, 3])).backward()
    without_effect = {  # batch normalization takes away what the bias in front of it adds
        name.removesuffix("bn.weight") + "conv.bias" for name in module.state_dict() if name.endswith("bn.weight")
    }
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert name in without_effect or parameter.grad.any(), name


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


# Which layers a declared variant may add, remove or change against its base: regular expressions on their names.
NOTHING = ("", "", "")
CONVOLUTIONS = "squeeze|expand_small|expand_large"
DIFFERENCES = {
    "reproducibility/alexnet_bn": (r"conv[1-5]\.bn", "", ""),
    "reproducibility/squeezenet_bn": (r"conv1\.bn|conv10\.bn|fire[2-9]\.(" + CONVOLUTIONS + r")\.bn", "", ""),
    "ablation/fire_added": (r"fire[37]_2\..*", "", ""),
    "ablation/fire_added_bn": (r"fire[37]_2\..*", "", ""),
    "ablation/fire_removed": ("", r"fire[48]\..*", r"fire[59]\.squeeze\.conv|pool[48]"),
    "ablation/fire_removed_bn": ("", r"fire[48]\..*", r"fire[59]\.squeeze\.conv|pool[48]"),
    "residual/residual": (r"fire[3579]\.add", "", ""),
    "residual/residual_2_removed": ("", r"fire[89]\..*|pool8", r"conv10\.conv|dropout"),
    "residual/residual_4_removed": ("", r"fire[6789]\..*|pool8", r"conv10\.conv|dropout"),
    "residual/residual_2_added": (r"fire1[0123]\..*", "", r"conv10\.conv|dropout"),
    "residual/residual_2_replicated": (r"fire[35]_2\..*", "", ""),
    "residual/residual_4_replicated": (r"fire[3579]_2\..*", "", ""),
    "squeeze_ratio/sr_025": ("", "", r"fire\d\.(squeeze\..*|expand_(small|large)\.conv)"),
    "squeeze_ratio/sr_05": ("", "", r"fire\d\.(squeeze\..*|expand_(small|large)\.conv)"),
    "squeeze_ratio/sr_075": ("", "", r"fire\d\.(squeeze\..*|expand_(small|large)\.conv)"),
    "expand_3x3/share_12": ("", "", r"fire\d\.(expand_(small|large)\..*|concat)"),
    "expand_3x3/share_25": ("", "", r"fire\d\.(expand_(small|large)\..*|concat)"),
    "expand_3x3/share_75": ("", "", r"fire\d\.(expand_(small|large)\..*|concat)"),
    "first_kernel/kernel_1": ("", "", r"conv1\.conv"),
    "first_kernel/kernel_3": ("", "", r"conv1\.conv"),
    "first_kernel/kernel_5": ("", "", r"conv1\.conv"),
    "batch_norm/bn_fire": (r"fire\d\.(" + CONVOLUTIONS + r")\.bn", "", ""),
    "batch_norm/bn_outside": (r"conv1\.bn|conv10\.bn", "", ""),
    "batch_norm/bn_all": (r"conv1\.bn|conv10\.bn|fire\d\.(" + CONVOLUTIONS + r")\.bn", "", ""),
    "expand_kernels/squeeze_1_expand_1_5": ("", "", r"fire\d\.expand_large\.conv"),
    "expand_kernels/squeeze_1_expand_3_3": ("", "", r"fire\d\.expand_small\.conv"),
    "expand_kernels/squeeze_1_expand_3_5": ("", "", r"fire\d\.expand_(small|large)\.conv"),
    "expand_kernels/squeeze_3_expand_1_3": ("", "", r"fire\d\.squeeze\.conv"),
    "best/best": ("", "", r"conv1\.conv"),
}


def shape_free(layer):
    """What a layer is, without the height and width of its images."""
    return (layer.kind, layer.kernel, layer.stride, layer.padding, layer.parameters, layer.input[0], layer.output[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_only_what_its_name_says(variant):
    base = studies.based_on(*VARIANTS[variant])
    if base is None or model_of(base).name != model_of(variant).name:
        assert variant.startswith("reproducibility/")
        return
    before, after = layers_of(model_of(base)), layers_of(model_of(variant))
    common = before.keys() & after.keys()
    found = (
        after.keys() - common,
        before.keys() - common,
        {name for name in common if shape_free(before[name]) != shape_free(after[name])},
    )
    for names, allowed in zip(found, DIFFERENCES.get(variant, NOTHING), strict=True):
        assert bool(names) == bool(allowed)
        assert [name for name in sorted(names) if not re.fullmatch(allowed, name)] == []
        if allowed:  # and every alternative of it really occurs, in every module that it names
            assert {name for name in {**before, **after} if re.fullmatch(allowed, name)} == names
    order = [name for name in before if name in common]
    assert order == [name for name in after if name in common]


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


def test_size_is_that_of_torch_save_whatever_the_layout():
    state = seeded(squeezenet(batch_norm="all")).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    assert state_bytes(state, legacy=False) == buffer.tell() == len(saved(state))
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    assert state_bytes(state, legacy=True) == pytest.approx(legacy.tell(), abs=2 * 6 * len(state))  # addresses vary
    flat = torch.zeros(sum(tensor.numel() for tensor in state.values()))  # as an optimizer may keep them
    moved, start = state.copy(), 0
    moved._metadata = state._metadata
    for name, tensor in state.items():
        if tensor.dim() == 4:
            moved[name] = tensor.contiguous(memory_format=torch.channels_last)
        elif tensor.is_floating_point():
            moved[name] = flat[start : start + len(tensor)].copy_(tensor)
            start += len(tensor)
    for form in (False, True):
        assert state_bytes(moved, legacy=form) == state_bytes(state, legacy=form)
    assert saved(moved) == saved(state)


def test_the_legacy_size_does_not_depend_on_addresses():
    state, sizes = seeded(squeezenet(batch_norm="all")).state_dict(), []
    sizes.append(state_bytes(state, legacy=True))
    elsewhere = Thread(target=lambda: sizes.append(state_bytes(state, legacy=True)))  # where memory has other addresses
    elsewhere.start()
    elsewhere.join()
    assert sizes[0] == sizes[1]


def test_saved_weights_load_again():
    spec = squeezenet(batch_norm="all", residual="complex")
    module, other = seeded(spec, 0), seeded(spec, 1)
    for form in (False, True):
        other.load_state_dict(torch.load(io.BytesIO(saved(module.state_dict(), legacy=form)), weights_only=True))
        assert weights_digest(other.state_dict()) == weights_digest(module.state_dict())


def test_the_digest_is_of_names_shapes_types_and_values():
    weights = torch.arange(6.0).reshape(2, 3)
    state = {"a": weights, "b": torch.tensor(1)}
    others = [
        {"a": weights, "c": torch.tensor(1)},
        {"a": weights.reshape(3, 2), "b": torch.tensor(1)},
        {"a": weights.double(), "b": torch.tensor(1)},
        {"a": weights + 1e-7, "b": torch.tensor(1)},
        {"a": weights, "b": torch.tensor(1, dtype=torch.int32)},
    ]
    digests = {weights_digest(other) for other in [state, *others]}
    assert len(digests) == len(others) + 1
    transposed = {"b": torch.tensor(1), "a": weights.t().contiguous().t()}
    assert weights_digest(transposed) == weights_digest(state)
    assert weights_digest({"a": torch.zeros(2)}) == hashlib.sha256(b"a torch.float32 (2,)\n" + bytes(8)).hexdigest()
