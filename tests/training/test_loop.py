"""The training loop: what it computes, that it does so twice, and that an interruption changes nothing."""

import hashlib
import io
import math
from dataclasses import replace

import adabound
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repro.errors import InputError, ReproError
from repro.records import EpochRecord, Progress, RunResult
from repro.spec import resolve
from repro.training import data, evaluation, loop, models
from repro.training.loop import Training
from repro.training.prepare import prepare

TINY = {
    "data.dataset": "digits",
    "model.name": "squeezenet",
    "model.batch_norm": "all",
    "model.fire_modules": 2,
    "model.base_e": 16,
    "model.incr_e": 0,
    "model.squeeze_ratio": 0.5,
    "model.first_filters": 16,
    "training.epochs": 2,
    "training.batch_size": 200,
}
STEPS = 8
"""1,437 training images in batches of 200, the last one of 37."""


@pytest.fixture(scope="module")
def loaded(digits):
    spec = tiny()
    return data.load(prepare("digits", digits), spec.data)


def tiny(**changes):
    return resolve(TINY | {name.replace("__", "."): value for name, value in changes.items()}, "test")


def records(events):
    """The epochs and the result, their times left out."""
    return [
        replace(event, **{"epoch_seconds" if isinstance(event, EpochRecord) else "mean_epoch_seconds": 0.0})
        for event in events
        if not isinstance(event, Progress)
    ]


def train(spec, loaded, **options):
    training = Training(spec, loaded, **options)
    return training, records(training)


def through_a_file(snapshot):
    """As a checkpoint does: only plain values and tensors may be in it."""
    buffer = io.BytesIO()
    torch.save(snapshot, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(loaded):
    return train(tiny(), loaded)


def test_events_come_in_order(loaded, monkeypatch):
    monkeypatch.setattr(evaluation, "_BATCH", 90)
    events = list(Training(tiny(), loaded))
    kinds = [(e.epoch, e.step, e.steps) if isinstance(e, Progress) else type(e).__name__ for e in events]
    epochs = [[*((epoch, step, STEPS) for step in range(1, STEPS + 1)), (epoch, STEPS, STEPS)] for epoch in (1, 2)]
    assert kinds == [*epochs[0], "EpochRecord", *epochs[1], "EpochRecord", *[(2, STEPS, STEPS)] * 2, "RunResult"]


def test_the_pace_is_that_of_the_epoch_in_work(loaded):
    training = Training(tiny(), loaded)
    assert math.isnan(training.pace()[0])
    events = iter(training)
    next(events)
    first, rate = training.pace()
    assert 1 < first < 5
    assert rate > 0
    for event in events:
        if isinstance(event, Progress) and (event.epoch, event.step) == (1, STEPS):
            last = training.pace()[0]
        if isinstance(event, EpochRecord):
            assert event.train_loss == pytest.approx(last)
            break


def test_training_learns(undisturbed):
    _, (first, second, result) = undisturbed
    assert second.train_loss < first.train_loss < 2.5
    assert result.outcome == "finished"
    assert result.epochs_run == 2
    assert result.best_val_accuracy == max(first.val_accuracy, second.val_accuracy)


def test_one_seed_gives_one_result_and_another_seed_another(loaded, undisturbed):
    assert train(tiny(), loaded)[1] == undisturbed[1]
    assert train(tiny(seed=1), loaded)[1][-1].weights_digest != undisturbed[1][-1].weights_digest


def interrupted_and_resumed(spec, loaded, at):
    """The records of a run that is stopped at its event number `at`, and resumed in another process, so to speak."""
    training = Training(spec, loaded)
    seen = []
    for number, event in enumerate(training):
        seen.append(event)
        if number == at:
            break
    snapshot = through_a_file(training.snapshot())
    torch.manual_seed(12345)
    resumed = Training(spec, loaded, resume=snapshot)
    return records(seen) + [record for record in records(resumed) if record not in records(seen)], resumed


@pytest.mark.parametrize(
    "at", [0, 3, STEPS - 1, STEPS, STEPS + 1, STEPS + 2, 2 * STEPS + 1, 2 * STEPS + 2, 2 * STEPS + 3, 2 * STEPS + 4]
)
def test_an_interruption_anywhere_changes_no_bit(loaded, monkeypatch, at):
    """At a first step, in an epoch, before, in and after a validation, in the last epoch, in the test, at the result."""
    monkeypatch.setattr(evaluation, "_BATCH", 90)
    whole, expected = train(tiny(), loaded)
    found, resumed = interrupted_and_resumed(tiny(), loaded, at)
    assert found == expected
    assert models.weights_digest(resumed.best_state()) == models.weights_digest(whole.best_state())
    for name, tensor in whole.optimizer.state_dict().items():
        assert torch.equal(tensor, resumed.optimizer.state_dict()[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__name": "adam"},
        {"optimizer__name": "sgd"},
        {"training__precision": "bf16"},
        {"model__batch_norm": "none"},
    ],
    ids=str,
)
def test_every_optimizer_and_precision_resumes(loaded, changes):
    spec = tiny(**changes)
    assert interrupted_and_resumed(spec, loaded, STEPS + 3)[0] == train(spec, loaded)[1]


def test_alexnet_resumes(loaded):
    settings = {"data.dataset": "digits", "model.name": "alexnet", "training.epochs": 2, "training.batch_size": 40}
    spec = resolve(settings, "test")
    small = replace(loaded, train=loaded.train[:80], val=loaded.val[:50], test=loaded.test[:50])
    assert interrupted_and_resumed(spec, small, 3)[0] == train(spec, small)[1]


def test_a_snapshot_is_plain_small_and_of_one_spec(loaded):
    training = Training(tiny(), loaded)
    for event in training:
        if isinstance(event, EpochRecord):
            break
    snapshot = training.snapshot()
    file = io.BytesIO()
    torch.save(snapshot, file)
    weights, moments, best = 1, 2, 1
    assert len(file.getvalue()) < (weights + moments + best) * training.optimizer.weights.nbytes + 100_000
    assert (snapshot["epochs_done"], snapshot["step"], len(snapshot["epoch_seconds"])) == (1, 0, 1)
    with pytest.raises(ReproError, match=snapshot["key"]):
        Training(tiny(seed=1), loaded, resume=snapshot)


def plain_epochs(spec, loaded, epochs):
    """The loop that a textbook has: float images, contiguous tensors, the adabound package, sums read at each step."""
    torch.manual_seed(spec.seed)
    module = models.build(spec.model)
    optimizer = adabound.AdaBound(module.parameters(), lr=spec.optimizer.lr, final_lr=spec.optimizer.final_lr)
    pixels = loaded.images.permute(0, 3, 1, 2).float() / 255
    mean = pixels[loaded.train].double().mean((0, 2, 3)).float()
    std = pixels[loaded.train].double().std((0, 2, 3), correction=0).float()
    images = ((pixels - mean[:, None, None]) / std[:, None, None]).contiguous()
    for epoch in range(1, epochs + 1):
        seed = int.from_bytes(hashlib.sha256(f"{spec.seed}:order:{epoch}".encode()).digest()[:4], "little")
        order = torch.randperm(len(loaded.train), generator=torch.Generator().manual_seed(seed))
        loss_sum = correct = 0.0
        module.train()
        for batch in loaded.train[order].split(spec.training.batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=spec.training.precision == "bf16"):
                logits = module(images[batch]).float()
            loss = F.cross_entropy(logits, loaded.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            correct += (logits.argmax(1) == loaded.labels[batch]).sum().item()
        module.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=spec.training.precision == "bf16"):
            logits = module(images[loaded.val]).float()
        val = F.cross_entropy(logits, loaded.labels[loaded.val]).item()
        val_accuracy = (logits.argmax(1) == loaded.labels[loaded.val]).float().mean().item()
        yield loss_sum / len(loaded.train), correct / len(loaded.train), val, val_accuracy


@pytest.mark.parametrize("batch_norm", ["none", "all"])
def test_equals_a_plain_loop(loaded, batch_norm):
    spec = tiny(model__dropout=0.0, model__batch_norm=batch_norm)
    found = [record for record in train(spec, loaded)[1] if isinstance(record, EpochRecord)]
    for record, (loss, accuracy, val_loss, val_accuracy) in zip(found, plain_epochs(spec, loaded, 2), strict=True):
        assert record.train_loss == pytest.approx(loss, rel=1e-3)
        assert record.train_accuracy == pytest.approx(accuracy, abs=3 / 1437)
        assert record.val_loss == pytest.approx(val_loss, rel=5e-3)
        assert record.val_accuracy == pytest.approx(val_accuracy, abs=3 / 180)


def test_bf16_equals_a_plain_loop_under_autocast(loaded):
    """Rounding moves a loss by a few thousandths, as it does between two orders of addition; float32 weights stay exact."""
    spec = tiny(model__dropout=0.0, model__batch_norm="none", training__precision="bf16")
    training, found = train(spec, loaded)
    for record, (loss, accuracy, val_loss, _) in zip(found[:-1], plain_epochs(spec, loaded, 2), strict=True):
        assert record.train_loss == pytest.approx(loss, rel=1e-2)
        assert record.train_accuracy == pytest.approx(accuracy, abs=0.02)
        assert record.val_loss == pytest.approx(val_loss, rel=2e-2)
    state = training.best_state()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert not torch.equal(state["fire2.squeeze.conv.weight"], state["fire2.squeeze.conv.weight"].bfloat16().float())


@pytest.mark.parametrize(
    ("batch", "images", "steps"), [(50, 101, 2), (50, 100, 2), (50, 102, 3), (100, 101, 1), (101, 101, 1), (1, 3, 3)]
)
def test_every_image_is_used_but_one_that_is_alone(loaded, batch, images, steps):
    """A batch of a single image cannot be normalised; it is left out, and the averages are over the others."""
    norm = "none" if batch == 1 else "all"
    small = replace(loaded, train=loaded.train[:images])
    training = Training(tiny(training__batch_size=batch, training__epochs=1, model__batch_norm=norm), small)
    seen = [len(part) for part in training._source.of_epoch(training._epoch)]
    assert sum(seen) == (images - 1 if images % batch == 1 and batch > 1 else images)
    events = list(training)
    assert sum(isinstance(event, Progress) for event in events) == steps == len(seen)
    assert events[-2].train_accuracy * sum(seen) == pytest.approx(
        round(events[-2].train_accuracy * sum(seen)), abs=1e-9
    )


def test_the_order_changes_with_seed_and_epoch(loaded):
    training = Training(tiny(), loaded)
    first = torch.cat(training._source.of_epoch(training._epoch))
    training._at.epoch_seconds.append(1.0)
    second = torch.cat(training._source.of_epoch(training._epoch))
    other = torch.cat(Training(tiny(seed=1), loaded)._source.of_epoch(1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    for order in (first, second, other):
        assert torch.equal(order.sort().values, loaded.train)


def test_images_reach_the_network_normalised_and_as_they_lie_in_memory(loaded):
    training = Training(tiny(), loaded)
    seen = []
    training.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training.module(training._source.load(loaded.train)[0])
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0].mean((0, 2, 3)).abs().max() < 1e-5
    assert (seen[0].std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_patience_counts_epochs_without_a_better_one(loaded, monkeypatch):
    accuracies = iter([0.3, 0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.6, 0.9])

    def evaluate(self, numbers, epoch):
        accuracy = next(accuracies) if numbers is self.data.val else 0.125
        return evaluation.Evaluation(1.0, accuracy, torch.zeros(len(numbers), dtype=torch.int64))
        yield

    monkeypatch.setattr(Training, "_evaluate", evaluate)
    weights = {}
    training = Training(tiny(training__epochs=20, training__patience=3), loaded)
    found = []
    for event in training:
        if isinstance(event, EpochRecord):
            weights[event.epoch] = models.weights_digest(training.module.state_dict())
        if not isinstance(event, Progress):
            found.append(event)
    assert [record.epoch for record in found[:-1]] == list(range(1, 9))
    assert (found[-1].best_epoch, found[-1].best_val_accuracy, found[-1].epochs_run) == (5, 0.6, 8)
    assert found[-1].weights_digest == weights[5] == models.weights_digest(training.best_state())
    assert found[-1].test_accuracy == 0.125


def test_the_best_weights_are_tested(loaded, undisturbed):
    training, (*_, result) = undisturbed
    module = models.build(training.spec.model)
    module.load_state_dict(training.best_state())
    pixels = loaded.images[loaded.test].permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        logits = module.eval()((pixels - loaded.mean.view(3, 1, 1)) / loaded.std.view(3, 1, 1))
    labels = loaded.labels[loaded.test]
    assert result.test_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert result.test_accuracy == (logits.argmax(1) == labels).double().mean().item()
    confusion = torch.tensor(result.confusion)
    assert confusion.sum(1).tolist() == torch.bincount(labels).tolist()
    assert confusion.diagonal().sum() / len(labels) == pytest.approx(result.test_accuracy)
    assert confusion[labels[0], logits[0].argmax()] > 0
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in training.best_state().values())


def test_the_test_split_is_read_once_at_the_end(loaded, monkeypatch):
    read = []
    evaluate = Training._evaluate
    monkeypatch.setattr(
        Training, "_evaluate", lambda self, numbers, epoch: read.append(numbers) or evaluate(self, numbers, epoch)
    )
    train(tiny(), loaded)
    assert [numbers is loaded.test for numbers in read] == [False, False, False, True], "after the best epoch is chosen"


def test_what_the_best_weights_predict_is_kept_for_every_image(loaded, undisturbed):
    training, (*_, result) = undisturbed
    kept = training.predictions
    assert {name: array.dtype for name, array in kept.items()} == dict.fromkeys(
        ("val_predicted", "val_true", "test_predicted", "test_true"), np.uint8
    )
    assert (kept["val_predicted"] == kept["val_true"]).mean() == result.best_val_accuracy
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (kept["test_true"], kept["test_predicted"]), 1)
    assert tuple(map(tuple, counts.tolist())) == result.confusion
    again = Training(training.spec, loaded).predict(training.best_state())
    assert all(np.array_equal(again[name], array) for name, array in kept.items())


def test_a_loss_that_is_not_finite_ends_the_run(loaded):
    explosive = {"optimizer__name": "sgd", "optimizer__lr": 100.0, "optimizer__weight_decay": 10.0}
    spec = tiny(model__batch_norm="none", training__epochs=9, training__batch_size=50, **explosive)
    training, (*epochs, result) = train(spec, loaded)
    assert result.outcome == "diverged"
    assert len(epochs) == result.epochs_run < 9
    assert not math.isfinite(epochs[-1].train_loss)
    assert result.best_epoch == len(epochs) - 1 == 0
    assert math.isnan(result.test_loss)
    assert math.isnan(result.best_val_accuracy)
    assert result.confusion == ()
    assert len(models.weights_digest(training.best_state())) == 64


def test_a_run_that_diverges_late_keeps_its_best_epoch(loaded):
    training = Training(tiny(training__epochs=9), loaded)
    found = []
    for event in training:
        if isinstance(event, EpochRecord) and event.epoch == 2:
            training.optimizer.weights.fill_(math.nan)
        if not isinstance(event, Progress):
            found.append(event)
    result = found[-1]
    assert [record.epoch for record in found[:-1]] == [1, 2, 3]
    assert math.isnan(found[2].val_loss)
    assert result.outcome == "diverged"
    assert result.best_val_accuracy == max(found[0].val_accuracy, found[1].val_accuracy)
    assert math.isfinite(result.test_loss)
    assert sum(map(sum, result.confusion)) == 180


def test_a_validation_loss_that_is_not_finite_ends_the_run_too(loaded):
    training = Training(tiny(training__epochs=9), loaded)
    found = []
    for event in training:
        if isinstance(event, Progress) and event.step == STEPS:
            training.module.state_dict()["conv10.bn.running_var"].fill_(math.nan)
        if not isinstance(event, Progress):
            found.append(event)
    assert [type(record) for record in found] == [EpochRecord, RunResult]
    assert math.isfinite(found[0].train_loss)
    assert math.isnan(found[0].val_loss)
    assert (found[1].outcome, found[1].best_epoch) == ("diverged", 0)


def test_a_run_that_never_leaves_chance_says_so(loaded):
    spec = tiny(optimizer__name="sgd", optimizer__lr=1e-12, model__batch_norm="none", training__epochs=1)
    *_, result = train(spec, loaded)[1]
    assert result.outcome == "chance"
    assert result.best_val_accuracy <= 0.12
    assert math.isfinite(result.test_loss)


def test_bf16_computes_something_else_and_learns(loaded, undisturbed):
    _, (*_, result) = train(tiny(training__precision="bf16"), loaded)
    assert result.weights_digest != undisturbed[1][-1].weights_digest
    assert result.test_loss == pytest.approx(undisturbed[1][-1].test_loss, abs=0.2)
    assert result.model_size_mib == undisturbed[1][-1].model_size_mib


def test_sizes_are_those_of_the_saved_weights(undisturbed):
    training, (*_, result) = undisturbed
    for legacy, size in ((False, result.model_size_mib), (True, result.model_size_legacy_mib)):
        buffer = io.BytesIO()
        torch.save(training.best_state(), buffer, _use_new_zipfile_serialization=not legacy)
        assert len(buffer.getvalue()) == size * 2**20
    assert result.parameters == sum(p.numel() for p in training.module.parameters())
    assert training.architecture().parameters == result.parameters
    assert training.architecture().multiply_adds == result.multiply_adds


def test_seconds_leave_out_what_the_caller_does(loaded, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    step = Training._step

    def slow(self, indices):
        now[0] += 1.0
        step(self, indices)

    monkeypatch.setattr(Training, "_step", slow)
    events = []
    for event in Training(tiny(), loaded):
        now[0] += 1000.0
        events.append(event)
    assert [event.epoch_seconds for event in events if isinstance(event, EpochRecord)] == [STEPS, STEPS]
    assert events[-1].mean_epoch_seconds == STEPS


def test_the_callers_denormal_numbers_stay(loaded):
    for _ in Training(tiny(training__epochs=1), loaded):
        assert torch.tensor(1e-40) * 1 != 0


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps"])
def test_an_unknown_device_is_one_line(loaded, device):
    with pytest.raises(InputError, match=rf"unknown device '{device}'.*\(allowed: cpu"):
        Training(tiny(), loaded, device=device)


def test_a_gpu_that_is_not_there_is_said(loaded, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        InputError, match=r"unknown device 'cuda': torch finds no CUDA device on this machine \(allowed: cpu\)"
    ):
        Training(tiny(), loaded, device="cuda")
