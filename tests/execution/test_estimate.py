"""How long a sweep will take, told from the journals that are there and from the runs in training."""

from __future__ import annotations

import dataclasses
import platform
from types import SimpleNamespace

import pytest

from repro import journal
from repro.execution import estimate
from repro.execution.estimate import Estimate, Left
from repro.journal import Attempt, Writer
from repro.records import Environment, EpochRecord, RunResult
from repro.spec import resolve
from tests import journals

ENVIRONMENT = Environment("abc", False, "", "3.11", {}, "Linux", "one core", platform.node(), "cpu", 1, 1, True)


def spec(**settings):
    asked = {"model.name": "squeezenet", "training.epochs": 10}
    return resolve(asked | {name.replace("__", "."): value for name, value in settings.items()}, "test")


def planned(asked, variant="variant"):
    return SimpleNamespace(study="study", variant=variant, spec=asked, key=asked.key)


def estimated(specs, runs, workers=1) -> Left | None:
    return Estimate([planned(one) for one in specs], runs, workers, "cpu", 1).left()


def epoch(number, seconds, accuracy=0.5):
    return EpochRecord(number, 1.0, 0.5, 1.0, accuracy, seconds)


@pytest.fixture
def train(tmp_path):
    """Leaves the journal of a run whose epochs took so many seconds; `ended` gives it a result."""

    def leave(asked, *seconds, environment=ENVIRONMENT, ended=False, multiply_adds=0):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        writer = Writer(folder)
        writer.append(Attempt("1" * 32, asked.model_dump(mode="json"), "study", "variant", environment, 0, 1))
        for number, length in enumerate(seconds, 1):
            writer.append(epoch(number, length))
        if ended:
            done = len(seconds)
            writer.append(RunResult("finished", 1.0, 0.5, 0.5, done, done, 1.0, 1.0, 1.0, 1, 1, "e" * 64, ()))
        writer.close()
        if multiply_adds:
            (folder / "architecture.json").write_text(f'{{"multiply_adds": {multiply_adds}}}')
        return folder

    return leave


def test_without_earlier_runs_nothing_is_said(tmp_path, train):
    assert estimated([spec()], tmp_path) is None
    assert estimated([spec()], tmp_path / "none") is None
    train(spec())  # a run without an epoch
    assert estimated([spec()], tmp_path) is None


def test_nothing_to_train_takes_no_time(tmp_path):
    assert estimated([], tmp_path, 2) == Left(0, 0)


def test_the_bound_is_the_limit_of_epochs_at_the_median_length(tmp_path, train):
    train(spec(), 2.0, 100.0, 3.0)
    assert estimated([spec()], tmp_path).most == 30
    assert estimated([spec(training__epochs=100, seed=5)], tmp_path).most == 300
    train(spec(seed=1), 5.0)
    assert estimated([spec()], tmp_path).most == 40  # the median over runs


def test_what_is_likely_is_what_finished_runs_took(tmp_path, train):
    assert estimated([spec()], tmp_path) is None
    train(spec(seed=1), 2.0, 2.0, 2.0, 2.0, ended=True)
    assert estimated([spec()], tmp_path) == Left(likely=8, most=20)
    assert estimated([spec(training__patience=3)], tmp_path) == Left(20, 20), "another patience tells nothing"


def test_the_same_model_counts_for_more_than_the_same_network(tmp_path, train):
    train(spec(), 2.0)
    wider = spec(model__fire_modules=12)
    assert estimated([wider], tmp_path).most == 20
    train(wider, 7.0)
    assert estimated([wider], tmp_path).most == 70
    assert estimated([spec()], tmp_path).most == 20


def test_another_model_of_the_family_is_scaled_by_its_multiply_adds(tmp_path, train):
    train(spec(), 2.0, multiply_adds=1_000_000)
    wider = spec(model__fire_modules=12)
    asked = Estimate([planned(wider)], tmp_path, 1, "cpu", 1)
    asked._work[estimate._model(wider)] = 3_000_000
    assert asked.left().most == pytest.approx(60)


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
    assert estimated([spec(**other)], tmp_path) is None
    assert estimated([spec(), spec(**other)], tmp_path) is None


def test_another_network_tells_in_proportion_to_its_multiply_adds_until_one_of_the_family_ran(tmp_path, train):
    train(resolve({"model.name": "alexnet"}, "test"), 2.0)
    assert estimated([spec()], tmp_path) is None, "its multiply-adds are not known"
    train(resolve({"model.name": "alexnet", "model.batch_norm": "all"}, "test"), 2.0, multiply_adds=4_000_000)
    asked = Estimate([planned(spec())], tmp_path, 1, "cpu", 1)
    asked._work[estimate._model(spec())] = 1_000_000
    assert asked.left().most == pytest.approx(5)
    train(spec(model__fire_modules=12), 3.0, multiply_adds=1_500_000)
    asked = Estimate([planned(spec())], tmp_path, 1, "cpu", 1)
    asked._work[estimate._model(spec())] = 1_000_000
    assert asked.left().most == pytest.approx(20)


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
    assert estimated(asked, tmp_path, workers).most == seconds


def test_a_journal_that_cannot_be_read_is_passed_over(tmp_path, train):
    train(spec(), 2.0)
    damaged = train(spec(), 1_000.0, 1_000.0) / journal.NAME
    damaged.write_bytes(b"{\n" + damaged.read_bytes())
    changed = train(spec(), 1_000.0) / journal.NAME
    journals.replace(changed, '"fire_modules":8', '"fire_modules":0')
    assert estimated([spec()], tmp_path).most == 20


@pytest.mark.parametrize("other", [{"host": "there"}, {"device": "cuda"}, {"threads": 2}], ids=str)
def test_another_machine_tells_nothing(tmp_path, train, other):
    train(spec(), 2.0, environment=dataclasses.replace(ENVIRONMENT, **other))
    assert estimated([spec()], tmp_path) is None
    train(spec(), 2.0, environment=dataclasses.replace(ENVIRONMENT, commit="def"))
    assert estimated([spec()], tmp_path).most == 20


class TestWhileASweepTrains:
    """A sweep of two long and four short runs, two at a time, on a clock of its own."""

    LONG, SHORT = 100.0, 10.0

    @pytest.fixture
    def now(self, monkeypatch):
        clock = SimpleNamespace(time=0.0)
        monkeypatch.setattr(estimate.time, "monotonic", lambda: clock.time)
        return clock

    def replay(self, now, tmp_path, runs, workers=2):
        """(share of the work that is over, estimate, what was truly left) after every epoch of a sweep."""
        asked = Estimate([run for run, _ in runs], tmp_path, workers, "cpu", 1)
        todo, active, told = list(runs), [], []
        while todo or active:
            while todo and len(active) < workers:
                run, lengths = todo.pop(0)
                asked.started(run, 0)
                active.append([now.time + lengths[0], 1, run, lengths])
            active.sort(key=lambda one: one[0])
            one = active[0]
            now.time = one[0]
            asked.epoch(one[2], epoch(one[1], one[3][one[1] - 1], accuracy=one[1] / 100))
            if one[1] == len(one[3]):
                active.pop(0)
                asked.ended(one[2], tmp_path)
            else:
                one[0], one[1] = now.time + one[3][one[1]], one[1] + 1
            told.append((now.time, asked.left()))
        return [(time / now.time, left, now.time - time) for time, left in told]

    def test_it_is_within_a_quarter_from_a_third_of_the_work_on(self, now, tmp_path):
        long = [planned(resolve({"model.name": "alexnet", "training.epochs": 8}, "test"), f"a{i}") for i in range(1)]
        long += [planned(resolve({"model.name": "alexnet", "training.epochs": 8, "seed": 1}, "test"), "a1")]
        short = [planned(spec(training__epochs=8, seed=seed), f"s{seed}") for seed in range(4)]
        runs = [(run, [self.LONG] * 8) for run in long[:1]]
        runs += [(run, [self.SHORT * (1 + 0.05 * (i % 3)) for i in range(8)]) for run in short]
        runs += [(run, [self.LONG] * 8) for run in long[1:]]
        told = self.replay(now, tmp_path, runs)
        late = [(share, left, truly) for share, left, truly in told if share > 1 / 3]
        assert len(late) > 10
        whole = late[0][2] / (1 - late[0][0])
        for share, left, truly in late:
            assert left is not None
            assert abs(left.likely - truly) <= 0.25 * max(truly, 0.1 * whole), f"at {share:.0%}"
            assert left.most >= truly * 0.95

    def test_an_epoch_in_work_counts(self, now, tmp_path, train):
        train(spec(seed=1), 10.0)
        run = planned(spec())
        asked = Estimate([run], tmp_path, 1, "cpu", 1)
        asked.started(run, 0)
        assert asked.left().most == 100
        now.time = 6.0
        assert asked.left().most == 94
        now.time = 60.0
        assert asked.left().most == 90, "an epoch that takes longer than expected is not counted below nothing"

    def test_a_run_that_still_improves_has_at_least_its_patience_left(self, now, tmp_path, train):
        limits = {"training__epochs": 50, "training__patience": 5}
        train(spec(seed=1, **limits), *[1.0] * 12, ended=True)
        run = planned(spec(**limits))
        asked = Estimate([run], tmp_path, 1, "cpu", 1)
        asked.started(run, 0)
        assert asked.left().likely == 12
        asked.epoch(run, epoch(10, 1.0, accuracy=0.6))
        assert asked.left() == Left(likely=5, most=40)
