"""The flat optimizers against the implementations they repeat: the adabound package and torch.optim."""

import copy

import adabound
import pytest
import torch
from torch import nn

from repro.recipe import AdaBoundSpec, AdamSpec, AdamWSpec, SGDSpec
from repro.training import optim

ADABOUND = AdaBoundSpec(name="adabound", lr=1e-3, final_lr=0.04)
SHAPES = ((5, 3, 3, 3), (5,), (7, 5, 1, 1), (70_000,), (600, 500), (1, 1), (3, 200, 5, 5))
"""Odd sizes, 1x1 and channels_last filters, tensors on both sides of the gathering limit and of a chunk's length."""


def parameters(dtype, shapes=SHAPES):
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [nn.Parameter(t.to(memory_format=torch.channels_last) if t.ndim == 4 else t) for t in made]


def run(step, params, steps, dtype):
    """The same gradients for every optimizer; a large share of small ones, so that both bounds of AdaBound bind."""
    generator = torch.Generator().manual_seed(4)
    for _ in range(steps):
        for parameter in params:
            gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) ** 5 * 1e-3
            parameter.grad = torch.empty_like(parameter).copy_(gradient.to(dtype))
        step()
    return torch.cat([parameter.detach().flatten() for parameter in params])


def reference(spec, params):
    betas = None if isinstance(spec, SGDSpec) else (spec.beta1, spec.beta2)
    match spec:
        case AdaBoundSpec():
            return adabound.AdaBound(
                params, spec.lr, betas, spec.final_lr, spec.gamma, spec.eps, spec.weight_decay, spec.amsbound
            )
        case AdamSpec():
            return torch.optim.Adam(params, spec.lr, betas, spec.eps, spec.weight_decay)
        case AdamWSpec():
            return torch.optim.AdamW(params, spec.lr, betas, spec.eps, spec.weight_decay)
        case SGDSpec():
            return torch.optim.SGD(params, spec.lr, spec.momentum, weight_decay=spec.weight_decay)


@pytest.mark.parametrize(
    "spec",
    [
        ADABOUND,
        AdaBoundSpec(
            name="adabound", lr=0.01, final_lr=0.5, beta1=0.8, beta2=0.99, gamma=0.01, eps=1e-4, weight_decay=0.01
        ),
        AdamSpec(name="adam"),
        AdamSpec(name="adam", lr=0.04, beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0.1),
        AdamWSpec(name="adamw"),
        AdamWSpec(name="adamw", lr=0.04, beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0.1),
        SGDSpec(name="sgd"),
        SGDSpec(name="sgd", lr=0.04, momentum=0.0, weight_decay=0.1),
    ],
    ids=lambda spec: f"{spec.name}-{spec.weight_decay}",
)
def test_float64_equals_the_reference(spec):
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    found = run(optim.make(spec, ours).step, ours, 30, torch.float64)
    expected = run(reference(spec, theirs).step, theirs, 30, torch.float64)
    assert torch.linalg.norm(found - expected) <= 1e-10 * torch.linalg.norm(expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_adabound_equals_the_package_after_1000_steps(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(optim, "_LARGE", 120)
    monkeypatch.setattr(optim, "_CHUNK", 80)
    shapes = ((5, 3, 3, 3), (5,), (7, 5, 1, 1), (300,), (11, 13))
    ours, theirs = parameters(dtype, shapes), parameters(dtype, shapes)
    found = run(optim.make(ADABOUND, ours).step, ours, 1000, dtype)
    expected = run(reference(ADABOUND, theirs).step, theirs, 1000, dtype)
    assert torch.linalg.norm(found - expected) <= tolerance * torch.linalg.norm(expected)


def test_every_field_of_a_spec_changes_the_weights():
    for base, changes in (
        (
            ADABOUND,
            {"lr": 0.02, "final_lr": 0.5, "beta1": 0.5, "beta2": 0.5, "gamma": 0.1, "eps": 0.1, "weight_decay": 0.1},
        ),
        (AdamSpec(name="adam"), {"lr": 0.02, "beta1": 0.5, "beta2": 0.5, "eps": 0.1, "weight_decay": 0.1}),
        (AdamWSpec(name="adamw"), {"lr": 0.02, "beta1": 0.5, "beta2": 0.5, "eps": 0.1, "weight_decay": 0.1}),
        (SGDSpec(name="sgd"), {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.1}),
    ):
        of_schedules = {"schedule", "warmup_epochs", "step_epochs", "step_factor"}  # tests/training/test_schedule.py
        assert set(changes) == set(type(base).model_fields) - {"name", "amsbound"} - of_schedules
        results = []
        for change in ({}, *({name: value} for name, value in changes.items())):
            params = parameters(torch.float32, ((4, 3),))
            spec = base.model_copy(update=change)
            results.append(run(optim.make(spec, params).step, params, 5, torch.float32))
        assert all(not torch.equal(results[0], changed) for changed in results[1:])


@pytest.mark.parametrize("where", ["cpu", "device"])
@pytest.mark.parametrize(
    "spec",
    [
        ADABOUND,
        AdamSpec(name="adam", weight_decay=0.1),
        AdamWSpec(name="adamw", weight_decay=0.1),
        SGDSpec(name="sgd", weight_decay=0.1),
    ],
    ids=lambda spec: spec.name,
)
def test_a_factor_multiplies_every_rate(spec, where):
    """As the reference with rates that change; the adabound package has its final rate follow the first one by itself."""
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    optimizer, by_reference = optim.make(spec, ours), reference(spec, theirs)
    optimizer._on_cpu = where == "cpu"
    optimizer.factor = torch.ones((), dtype=torch.float64)
    factors = [0.1, 0.5, 1.0, 0.7, 1e-3]

    def scheduled(step, put):
        left = iter(factors)

        def one():
            put(next(left))
            step()

        return one

    def put(factor):
        for group in by_reference.param_groups:
            group["lr"] = spec.lr * factor

    found = run(scheduled(optimizer.step, optimizer.factor.fill_), ours, len(factors), torch.float64)
    expected = run(scheduled(by_reference.step, put), theirs, len(factors), torch.float64)
    assert torch.linalg.norm(found - expected) <= 1e-10 * torch.linalg.norm(expected)


def test_frozen_parameters_stay_and_the_others_do_as_without_them():
    spec = AdamSpec(name="adam", weight_decay=0.1)
    shapes = ((4, 3), (70_000,), (5,), (80_000,))
    alone = [one for number, one in enumerate(parameters(torch.float32, shapes)) if number % 2 == 0]
    together = parameters(torch.float32, shapes)
    for one in together[1::2]:
        one.requires_grad_(False)
    frozen = [one.detach().clone() for one in together[1::2]]
    optimizer = optim.make(spec, together, rounded=[together[1]])
    run(optim.make(spec, alone).step, alone, 3, torch.float32)
    run(optimizer.step, together[::2], 3, torch.float32)
    assert all(map(torch.equal, alone, together[::2]))
    assert all(torch.equal(optimizer.exact[one], value) for one, value in zip(together[1::2], frozen, strict=True))
    assert together[1].dtype is torch.bfloat16


def test_parameters_that_get_no_gradient_decay_as_if_it_were_0():
    spec = AdamSpec(name="adam", weight_decay=0.1)
    ours, theirs = parameters(torch.float32, ((4, 3), (5,))), parameters(torch.float32, ((4, 3), (5,)))
    ours[1].requires_grad_(False)
    optimizer, other = optim.make(spec, ours, still=[ours[1]]), optim.make(spec, theirs)
    for _ in range(4):
        ours[0].grad, theirs[0].grad, theirs[1].grad = torch.ones(4, 3), torch.ones(4, 3), torch.zeros(5)
        optimizer.step()
        other.step()
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("large", [False, True])
def test_a_gradient_that_is_not_there_counts_as_0(large):
    """As in a layer that a network leaves out of some steps."""
    spec = AdamSpec(name="adam", weight_decay=0.1)
    shapes = ((4, 3), (70_000,) if large else (5,))
    ours, theirs = parameters(torch.float32, shapes), parameters(torch.float32, shapes)
    optimizer, other = optim.make(spec, ours), optim.make(spec, theirs)
    for there in (True, False, True):
        for one in (*ours, *theirs):
            one.grad = torch.ones_like(one)
        if not there:
            ours[1].grad, theirs[1].grad = None, torch.zeros_like(theirs[1])
        optimizer.step()
        other.step()
    assert all(map(torch.equal, ours, theirs))


def test_frozen_parameters_of_another_type_or_layout_are_left_alone():
    params = parameters(torch.float32, ((4, 3),))
    others = [torch.arange(5).flip(0), torch.zeros(1).expand(4), torch.randn(4, 8)[:, :3]]
    frozen = [nn.Parameter(one, requires_grad=False) for one in others]
    optimizer = optim.make(ADABOUND, [*frozen, *params])
    params[0].grad = torch.ones(4, 3)
    optimizer.step()
    assert all(one.data_ptr() == other.data_ptr() for one, other in zip(frozen, others, strict=True))
    assert all(torch.equal(optimizer.exact[one], other) for one, other in zip(frozen, others, strict=True))


def test_weights_that_a_network_replaced_are_taken_back():
    ours, theirs = parameters(torch.float32, ((4, 3), (5,))), parameters(torch.float32, ((4, 3), (5,)))
    optimizer, other = optim.make(ADABOUND, ours), optim.make(ADABOUND, theirs)
    for _ in range(3):
        ours[0].data = ours[0].data.clamp(-0.1, 0.1)
        theirs[0].data.clamp_(-0.1, 0.1)
        for one in (*ours, *theirs):
            one.grad = torch.ones_like(one)
        optimizer.step()
        other.step()
    assert all(map(torch.equal, ours, theirs))
    with torch.inference_mode():  # as an evaluation does
        ours[0].data = ours[0].data.clamp(-0.05, 0.05)
    optimizer.zero_grad()
    assert torch.equal(optimizer.exact[ours[0]], theirs[0].clamp(-0.05, 0.05))
    ours[0].sum().backward()


def test_parameters_keep_values_shapes_and_strides():
    before, after = parameters(torch.float32), parameters(torch.float32)
    optimizer = optim.make(ADABOUND, after)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new)
        assert old.stride() == new.stride()
        assert new.data_ptr() % 64 == 0
        assert optimizer.weights.data_ptr() <= new.data_ptr() < optimizer.weights.data_ptr() + optimizer.weights.nbytes


@pytest.mark.parametrize(
    "spec", [ADABOUND, AdamSpec(name="adam"), AdamWSpec(name="adamw"), SGDSpec(name="sgd")], ids=lambda spec: spec.name
)
def test_goes_on_exactly_from_its_state(spec):
    whole = parameters(torch.float32)
    optimizer = optim.make(spec, whole)
    run(optimizer.step, whole, 3, torch.float32)
    resumed = parameters(torch.float32)
    other = optim.make(spec, resumed)
    for new, old in zip(resumed, whole, strict=True):
        new.data.copy_(old.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(run(optimizer.step, whole, 2, torch.float32), run(other.step, resumed, 2, torch.float32))
    assert optimizer.state_dict()["steps"] == 5


@pytest.mark.parametrize(
    "spec", [ADABOUND, AdamSpec(name="adam"), AdamWSpec(name="adamw"), SGDSpec(name="sgd")], ids=lambda spec: spec.name
)
def test_rounded_parameters_show_exact_weights(spec, monkeypatch):
    """Their weights move by what is lost on bfloat16: as those of an optimizer that sees the same gradients in float32."""
    monkeypatch.setattr(optim, "_CHUNK", 1000)
    exact, rounded = parameters(torch.float32), parameters(torch.float32)
    lowered = [rounded[0], rounded[1], rounded[4]]  # small ones, and a large one of many chunks
    expected, found = optim.make(spec, exact), optim.make(spec, rounded, rounded=lowered)
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        for one, other in zip(exact, rounded, strict=True):
            gradient = (torch.randn(one.shape, generator=generator) * 1e-2).to(other.dtype)
            other.grad = torch.empty_like(other).copy_(gradient)
            one.grad = torch.empty_like(one).copy_(gradient)
        expected.step()
        found.step()
    assert torch.equal(found.weights, expected.weights)
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == (torch.bfloat16 if any(other is low for low in lowered) else torch.float32)
        assert torch.equal(found.exact[other], one)
        assert torch.equal(other, one.to(other.dtype))
        assert other.stride() == one.stride()


def test_weights_written_from_outside_are_rounded_anew():
    params = parameters(torch.float32, ((4, 3),))
    optimizer = optim.make(ADABOUND, params, rounded=params)
    optimizer.exact[params[0]].fill_(1.01)
    optimizer.refresh()
    assert torch.equal(params[0].detach(), torch.full((4, 3), 1.01).bfloat16())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "spec", [ADABOUND, AdamSpec(name="adam"), AdamWSpec(name="adamw"), SGDSpec(name="sgd")], ids=lambda spec: spec.name
)
def test_the_gpu_computes_what_the_cpu_does(spec):
    params = parameters(torch.float64)
    on_gpu = [nn.Parameter(parameter.detach().cuda()) for parameter in params]
    found = run(optim.make(spec, on_gpu).step, on_gpu, 5, torch.float64).cpu()
    expected = run(optim.make(spec, params).step, params, 5, torch.float64)
    assert torch.linalg.norm(found - expected) <= 1e-10 * torch.linalg.norm(expected)
