"""How a run decides how its steps are computed: fast where the passes cover the network and are right, else by autograd."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from repro.errors import ReproError
from repro.records import Progress
from repro.spec import resolve
from repro.training import data, fast, models, ways
from repro.training.fast import passes
from repro.training.loop import Training
from repro.training.prepare import prepare

SETTINGS = {
    "data.dataset": "digits",
    "model.name": "squeezenet",
    "model.batch_norm": "all",
    "model.fire_modules": 2,
    "model.base_e": 16,
    "model.squeeze_ratio": 0.5,
    "model.first_filters": 16,
    "training.epochs": 1,
    "training.batch_size": 50,
}


@pytest.fixture(scope="module")
def loaded(digits):
    found = data.load(prepare("digits", digits), resolve(SETTINGS, "test").data)
    return replace(found, train=found.train[:160], val=found.val[:50], test=found.test[:50])


def run(loaded, **changes):
    training = Training(resolve(SETTINGS | changes, "test"), loaded)
    *_, result = training
    return training, result


def built(monkeypatch, change):
    """Every network is changed by `change` once it is built."""
    build = models.build

    def changed(spec):
        module = build(spec)
        change(module)
        return module

    monkeypatch.setattr(models, "build", changed)


def test_a_covered_network_is_trained_by_the_passes(loaded):
    training, _ = run(loaded)
    assert training.way == ways.Way("fast")


@pytest.mark.parametrize(
    "changes",
    [{}, {"training.precision": "bf16"}, {"model.residual": "complex"}, {"model.name": "alexnet"}],
    ids=str,
)
def test_the_check_changes_no_bit_of_what_is_trained(loaded, monkeypatch, changes):
    if "model.name" in changes:
        changes = changes | {name: None for name in SETTINGS if name.startswith("model.")} | changes
    settings = {name: value for name, value in (SETTINGS | changes).items() if value is not None}
    digests = []
    for checks in (True, False):
        if not checks:
            monkeypatch.setattr(fast, "difference", lambda *_: "")
        *_, result = Training(resolve(settings, "test"), loaded)
        digests.append(result.weights_digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net: setattr(net, "pool1", nn.MaxPool2d(3, 2, padding=1)), "pool1: MaxPool2d(kernel_size=3, stride=2"),
        (lambda net: setattr(net.conv1, "relu", nn.GELU()), "conv1.relu: GELU"),
        (lambda net: net.fire2.squeeze.conv.weight.requires_grad_(False), "fire2.squeeze.conv.weight is frozen"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_with_one_part_that_is_not_covered_is_trained_by_autograd(
    loaded, monkeypatch, change, reason, precision
):
    """And it trains what evaluation and a GPU compute: the same as plain autograd in every step."""
    built(monkeypatch, change)
    training = Training(resolve(SETTINGS | {"training.precision": precision}, "test"), loaded)
    assert training.way.step == "autograd"
    assert training.way.reason.startswith(reason)
    frozen = {name: one.clone() for name, one in training.module.named_parameters() if not one.requires_grad}
    *_, result = training
    assert result.outcome in {"finished", "chance"}
    after = dict(training.module.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


def test_passes_that_compute_something_else_end_the_run(loaded, monkeypatch):
    forward = passes._MaxPool.forward
    monkeypatch.setattr(passes._MaxPool, "forward", lambda self, images: forward(self, images * 1.5))
    with pytest.raises(ReproError, match=r"the fast step differs from autograd .* nothing was trained") as raised:
        Training(resolve(SETTINGS, "test"), loaded)
    assert "\n" not in str(raised.value)


def test_autograd_trains_what_the_passes_do(loaded, monkeypatch):
    _, expected = run(loaded)
    monkeypatch.setattr(fast, "uncovered", lambda network: "no reason")
    training, found = run(loaded)
    assert training.way == ways.Way("autograd", "no reason")
    assert found.test_loss == pytest.approx(expected.test_loss, rel=0.02)


def test_an_autograd_run_resumes_exactly(loaded, monkeypatch):
    monkeypatch.setattr(fast, "uncovered", lambda network: "no reason")
    _, expected = run(loaded)
    training = Training(resolve(SETTINGS, "test"), loaded)
    for event in training:
        if isinstance(event, Progress) and event.step == 2:
            break
    *_, found = Training(training.spec, loaded, resume=training.snapshot())
    assert found.weights_digest == expected.weights_digest


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_of_two_are_checked_on_as_many_images_as_others(loaded, precision):
    """Of two images alone, rounding in batch normalization would be taken for a fault in some runs of a hundred."""
    changes = {"model.name": "squeezenet", "model.batch_norm": "fire", "model.residual": "complex"}
    changes |= {"data.dataset": "digits", "training.batch_size": 2, "training.precision": precision}
    for seed in range(12):
        assert Training(resolve(changes | {"seed": seed}, "test"), loaded).way == ways.Way("fast")


def test_chance_is_that_of_the_data_and_not_of_the_head(loaded):
    """A head of 1000 classes on data of ten: right in every tenth case is chance."""
    changes = {"model.classes": 1000, "optimizer.name": "sgd", "optimizer.lr": 1e-12}
    training = Training(resolve(SETTINGS | changes, "test"), loaded)
    training.module.conv10.conv.bias.data[:10] += 100.0  # it says one of the ten
    training._keep_best()
    training._at.best_accuracy, training._at.epoch_seconds = 0.11, [1.0]
    assert training._result(None).outcome == "chance"
