"""Every declared variant: its parameters, its gradients, and that it changes only what its name says."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from torch import nn

from repro import studies
from repro.training.models import build, describe

VARIANTS = {f"{study.study}/{slug}": (study, slug) for study in studies.declared() for slug in study.variants}


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


@pytest.mark.parametrize(
    "variant", [name for name in VARIANTS if not name.startswith("frontier/")]
)  # no single changes
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
