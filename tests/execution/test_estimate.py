"""How long a sweep will take, told from the journals that are there."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from repro import journal
from repro.execution import estimate
from repro.journal import Attempt, Writer
from repro.records import Environment, EpochRecord
from repro.spec import resolve

ENVIRONMENT = Environment("abc", False, "", "3.11", {}, "Linux", "one core", "here", "cpu", 1, 1, True)

estimated = functools.partial(estimate.seconds, here=ENVIRONMENT)


def spec(**settings):
    asked = {"model.name": "squeezenet", "training.epochs": 10}
    return resolve(asked | {name.replace("__", "."): value for name, value in settings.items()}, "test")


@pytest.fixture
def train(tmp_path):
    """Leaves the journal of a run whose epochs took so many seconds."""

    def leave(asked, *seconds):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        writer = Writer(folder)
        writer.append(Attempt("1" * 32, asked.model_dump(mode="json"), "study", "variant", ENVIRONMENT, 0, 1))
        for number, length in enumerate(seconds, 1):
            writer.append(EpochRecord(number, 1.0, 0.5, 1.0, 0.5, length))
        writer.close()
        return folder

    return leave


def test_without_earlier_runs_nothing_is_said(tmp_path, train):
    assert estimated([spec()], tmp_path, 1) is None
    assert estimated([spec()], tmp_path / "none", 1) is None
    train(spec())  # a run without an epoch
    assert estimated([spec()], tmp_path, 1) is None


def test_nothing_to_train_takes_no_time(tmp_path):
    assert estimated([], tmp_path, 2) == 0


def test_a_run_takes_its_whole_budget_at_the_median_length(tmp_path, train):
    train(spec(), 2.0, 100.0, 3.0)
    assert estimated([spec()], tmp_path, 1) == 30
    assert estimated([spec(training__epochs=100, seed=5)], tmp_path, 1) == 300
    train(spec(seed=1), 5.0)
    assert estimated([spec()], tmp_path, 1) == 40  # the median over runs


def test_the_same_model_counts_for_more_than_the_same_network(tmp_path, train):
    train(spec(), 2.0)
    wider = spec(model__fire_modules=12)
    assert estimated([wider], tmp_path, 1) == 20
    train(wider, 7.0)
    assert estimated([wider], tmp_path, 1) == 70
    assert estimated([spec()], tmp_path, 1) == 20


@pytest.mark.parametrize(
    "other",
    [
        {"data__dataset": "digits"},
        {"training__batch_size": 100},
        {"training__precision": "bf16"},
    ],
)
def test_another_amount_of_work_tells_nothing(tmp_path, train, other):
    train(spec(), 2.0)
    assert estimated([spec(**other)], tmp_path, 1) is None
    assert estimated([spec(), spec(**other)], tmp_path, 1) is None


def test_another_network_tells_nothing(tmp_path, train):
    train(resolve({"model.name": "alexnet"}, "test"), 2.0)
    assert estimated([spec()], tmp_path, 1) is None


@pytest.mark.parametrize(
    ("lengths", "workers", "seconds"),
    [
        ([10, 10], 1, 200),
        ([10, 10], 2, 100),
        ([10, 10, 10], 2, 200),  # the third begins when the first ends
        ([10], 4, 100),
        ([30, 10, 10, 10], 2, 300),
        ([10, 10, 10, 30], 2, 400),  # a long run that comes last keeps one worker busy alone
    ],
)
def test_runs_are_shared_out_as_a_sweep_does(tmp_path, train, lengths, workers, seconds):
    train(spec(), 10.0)
    asked = [spec(training__epochs=length, seed=seed) for seed, length in enumerate(lengths)]
    assert estimated(asked, tmp_path, workers) == seconds


def test_a_journal_that_cannot_be_read_is_passed_over(tmp_path, train):
    train(spec(), 2.0)
    damaged = train(spec(), 1_000.0, 1_000.0) / journal.NAME
    damaged.write_bytes(b"{\n" + damaged.read_bytes())
    changed = train(spec(), 1_000.0) / journal.NAME
    changed.write_bytes(changed.read_bytes().replace(b'"fire_modules":8', b'"fire_modules":0'))
    assert estimated([spec()], tmp_path, 1) == 20


@pytest.mark.parametrize("other", [{"host": "there"}, {"device": "cuda"}, {"threads": 2}], ids=str)
def test_another_machine_tells_nothing(tmp_path, train, other):
    train(spec(), 2.0)
    elsewhere = dataclasses.replace(ENVIRONMENT, **other)
    assert estimate.seconds([spec()], tmp_path, 1, elsewhere) is None
    assert estimate.seconds([spec()], tmp_path, 1, dataclasses.replace(ENVIRONMENT, commit="def")) == 20
