"""Schedules against those of torch, and what a run makes of them."""

import math
import re
from dataclasses import replace

import pytest
import torch

from repro.errors import InputError
from repro.recipe import SGDSpec
from repro.records import Progress
from repro.spec import resolve
from repro.training import data, schedule
from repro.training.loop import Training
from repro.training.prepare import prepare

STEPS, EPOCHS = 7, 6


def factors(**settings):
    spec = SGDSpec(name="sgd", **settings)
    return [schedule.factor(spec, step, STEPS, EPOCHS) for step in range(STEPS * EPOCHS)]


def of_torch(make, total=STEPS * EPOCHS):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs, found = make(optimizer), []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    return found


SCHEDULES = torch.optim.lr_scheduler
EXPECTED = {
    "cosine": ({}, lambda opt: SCHEDULES.CosineAnnealingLR(opt, STEPS * EPOCHS)),
    "onecycle": (
        {},
        lambda opt: SCHEDULES.OneCycleLR(opt, 1.0, total_steps=STEPS * EPOCHS, cycle_momentum=False),
    ),
    "steps": (
        {"step_epochs": [2, 5], "step_factor": 0.3},
        lambda opt: SCHEDULES.MultiStepLR(opt, [2 * STEPS, 5 * STEPS], 0.3),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_factors_are_those_of_torch(name):
    settings, theirs = EXPECTED[name]
    expected = of_torch(theirs, STEPS * EPOCHS - (name == "onecycle"))  # torch's has no step after its last one
    assert factors(schedule=name, **settings)[: len(expected)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "cosine", "steps"])
def test_a_warm_up_rises_to_1_and_goes_over_into_the_schedule(name):
    settings = {"step_epochs": [4]} if name == "steps" else {}
    found = factors(schedule=name, warmup_epochs=1.5, **settings)
    warm = round(1.5 * STEPS)
    assert found[:warm] == pytest.approx([(step + 1) / warm for step in range(warm)])
    rest = {
        "constant": [1.0] * (42 - warm),
        "steps": [1.0] * (28 - warm) + [0.1] * 14,
        "cosine": [(1 + math.cos(math.pi * step / (42 - warm))) / 2 for step in range(42 - warm)],
    }
    assert found[warm:] == pytest.approx(rest[name])


@pytest.mark.parametrize(
    "settings", [{"schedule": "cosine"}, {"schedule": "onecycle"}, {"warmup_epochs": 100.0}], ids=str
)
@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (1, 2), (3, 1), (1000, 100)])
def test_a_factor_is_above_0_and_at_most_1(settings, steps, epochs):
    """A rate of 0 would be divided by."""
    spec = SGDSpec(name="sgd", **settings)
    for step in {0, 1, steps * epochs // 3, steps * epochs - 1} & set(range(steps * epochs)):
        assert 0 < schedule.factor(spec, step, steps, epochs) <= 1


SETTINGS = {
    "data.dataset": "digits",
    "model.name": "squeezenet",
    "model.batch_norm": "all",
    "model.fire_modules": 2,
    "model.base_e": 8,
    "model.first_filters": 8,
    "model.first_stride": 4,
    "model.squeeze_ratio": 0.5,
    "training.epochs": 3,
    "training.batch_size": 50,
}


@pytest.fixture(scope="module")
def loaded(digits):
    found = data.load(prepare("digits", digits), resolve(SETTINGS, "test").data)
    return replace(found, train=found.train[:220], val=found.val[:50], test=found.test[:50])


def trained(loaded, **changes):
    spec = resolve(SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}, "test")
    *_, result = Training(spec, loaded)
    return result.weights_digest


def test_every_setting_reaches_the_weights(loaded):
    digests = [
        trained(loaded),
        trained(loaded, optimizer__schedule="cosine"),
        trained(loaded, optimizer__schedule="onecycle"),
        trained(loaded, optimizer__schedule="steps", optimizer__step_epochs=[1]),
        trained(loaded, optimizer__schedule="steps", optimizer__step_epochs=[2]),
        trained(loaded, optimizer__schedule="steps", optimizer__step_epochs=[1], optimizer__step_factor=0.5),
        trained(loaded, optimizer__warmup_epochs=1),
        trained(loaded, training__label_smoothing=0.1),
        trained(loaded, optimizer__name="adamw"),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", ["cosine", "onecycle"])
@pytest.mark.parametrize("optimizer", ["adabound", "adamw", "sgd"])
def test_a_scheduled_run_resumes_exactly(loaded, name, optimizer):
    changes = {"optimizer.schedule": name, "optimizer.name": optimizer}
    spec = resolve(SETTINGS | changes, "test")
    *_, expected = Training(spec, loaded)
    training = Training(spec, loaded)
    for event in training:
        if isinstance(event, Progress) and event.epoch == 2 and event.step == 3:
            break
    *_, found = Training(spec, loaded, resume=training.snapshot())
    assert found.weights_digest == expected.weights_digest


def test_the_factor_stays_one_tensor_that_a_graph_can_read(loaded):
    training = Training(resolve(SETTINGS | {"optimizer.schedule": "cosine"}, "test"), loaded)
    factor, seen = training.optimizer.factor, []
    for event in training:
        seen += [factor.item()] if isinstance(event, Progress) and event.step < 5 else []
    assert training.optimizer.factor is factor
    assert seen[0] == 1.0
    assert sorted(seen, reverse=True) == seen
    assert len(set(seen)) > 10


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"optimizer.schedule": "cosin"}, "optimizer.schedule: unknown value 'cosin'; did you mean 'cosine'?"),
        (
            {"optimizer.schedule": "steps"},
            "optimizer.step_epochs: got [] with the schedule steps (allowed: at least one",
        ),
        ({"optimizer.step_epochs": [3]}, "optimizer.step_epochs: got [3] with the schedule constant (allowed"),
        (
            {"optimizer.schedule": "steps", "optimizer.step_epochs": [3, 2]},
            "optimizer.step_epochs: got [3, 2] (allowed: asc",
        ),
        (
            {"optimizer.schedule": "onecycle", "optimizer.warmup_epochs": 2},
            "optimizer.warmup_epochs: got 2.0 with the sch",
        ),
        ({"optimizer.warmup_epochs": -1}, "optimizer.warmup_epochs: got -1 (allowed: a number, at least 0 and at most"),
        (
            {"training.label_smoothing": 1},
            "training.label_smoothing: got 1 (allowed: a number, at least 0 and below 1)",
        ),
    ],
)
def test_bad_settings_are_one_line(changes, line):
    with pytest.raises(InputError, match=re.escape(line)) as raised:
        resolve(SETTINGS | changes, "test")
    assert "\n" not in str(raised.value)
