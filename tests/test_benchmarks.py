"""The benchmark compares programs that compute the same, and reckons right; how fast they are is not tested."""

import dataclasses
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import ours, processes, record, report, run, start, stopwatch
from benchmarks.asked import Asked, spec
from benchmarks.profile import OPTIMIZER, kind_of, parts_ms
from repro.datasets import DataSpec
from repro.errors import InputError, ReproError
from repro.records import EpochRecord, Progress
from repro.spec import flatten, resolve
from repro.training.data import load
from repro.training.prepare import prepare

STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def _first_steps(model, folder):
    """Spec, initial weights, batches and logits of the first steps of a real run without dropout."""
    from repro.training.loop import Training

    asked = resolve(flatten(spec(model, dataset="digits")) | {"model.dropout": 0.0}, "test")
    data = load(prepare("digits", folder), asked.data)
    training = Training(asked, data, device="cpu", deterministic=True)
    weights = {name: value.clone() for name, value in training.module.state_dict().items()}
    batches, logits = [], []
    forward = training._forward

    def watched(images):
        output = forward(images)
        batches.append(images.clone())
        logits.append(output.clone())
        return output

    training._forward = watched
    points = iter(training)
    while len(logits) < STEPS:
        next(points)
    return asked, weights, batches, logits


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# With batch normalization the losses are chaotic: weights that differ by 1e-7 move the third one by 5% (measured).
@pytest.mark.parametrize(("model", "comparable"), [("alexnet", STEPS), ("squeezenet_bn", 1)])
def test_the_usual_loop_computes_the_same(model, comparable, folder, one_thread):
    from benchmarks import peer_data, usual_loop

    asked, weights, batches, logits = _first_steps(model, folder)
    torch.manual_seed(asked.seed)
    peer = peer_data.network(asked.model)
    state = peer.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in state)

    train, _ = peer_data.datasets("digits", folder)
    images, labels = torch.stack([image for image, _ in train]), torch.tensor([label for _, label in train])
    seen = torch.cat(batches)
    order = torch.cdist(seen.flatten(1), images.flatten(1)).argmin(1).tolist()
    torch.testing.assert_close(seen.contiguous(), images[order], rtol=0, atol=1e-5)
    assert len(set(order)) == STEPS * asked.training.batch_size
    loader, _ = peer_data.loaders("digits", folder, asked.training.batch_size, workers=0, order=order)
    optimizer = usual_loop.optimizer_for(peer, asked.optimizer)
    theirs, _ = usual_loop.train_epoch(peer, loader, optimizer, 1, stopwatch.Stopwatch(0, len(order)))

    answers = labels[order].split(asked.training.batch_size)
    ours = [torch.nn.functional.cross_entropy(*step).item() for step in zip(logits, answers, strict=True)]
    assert len(theirs) == STEPS
    assert theirs[:comparable] == pytest.approx(ours[:comparable], rel=1e-4)


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_peers_normalise_by_the_same_constants(name, folder, request):
    from benchmarks.peer_data import STATISTICS

    if name == "cifar10":
        folder = request.getfixturevalue("cifar10_folder")
    data = load(prepare(name, folder), DataSpec(dataset=name))
    assert [data.mean.tolist(), data.std.tolist()] == [pytest.approx(part, rel=1e-7) for part in STATISTICS[name]]


@pytest.fixture
def cifar10_folder():
    if "REPRO_TEST_CIFAR10" not in os.environ:
        pytest.skip("REPRO_TEST_CIFAR10 does not name a folder with CIFAR-10")
    return Path(os.environ["REPRO_TEST_CIFAR10"])


def test_the_stopwatch_leaves_out_warm_up_and_validation():
    times, said = iter([0.0, 1.0, 2.0, 4.0, 50.0, 100.0, 103.0, 200.0]), []
    watch = stopwatch.Stopwatch(2, 3, said.append, clock=lambda: next(times))
    for epoch, step in [(1, 1), (1, 2), (1, 3), (1, 4), (1, 4), (2, 0), (2, 2), (2, 3)]:
        watch.at(epoch, step)
    assert watch.done
    assert watch.report == stopwatch.Report(steps=3, seconds=5.0)
    assert said == ["ready", '{"steps": 3, "seconds": 5.0}']


def test_on_a_gpu_whole_epochs_are_measured():
    step, epoch = Progress(2, 50, 1000), EpochRecord(2, 1.0, 0.5, 1.0, 0.5, 1.2)
    assert [ours.reached(event, "cpu") for event in (step, epoch)] == [(2, 50), None]
    assert [ours.reached(event, "cuda") for event in (step, epoch)] == [None, (1, 2)]
    times, said = iter([0.0, 9.0, 10.5, 12.0]), []
    watch = stopwatch.Stopwatch(1, 2, said.append, clock=lambda: next(times))
    for number in (1, 2, 3, 4):
        watch.at(*ours.reached(EpochRecord(number, 1.0, 0.5, 1.0, 0.5, 1.2), "cuda"))
    assert said == ["ready", '{"steps": 2, "seconds": 3.0}']


def test_a_held_stopwatch_measures_nothing():
    watch = stopwatch.Stopwatch(0, 1)
    watch.held.set()
    watch.at(1, 1)
    watch.at(1, 2)
    assert watch.report.steps == 0
    watch.held.clear()
    watch.at(1, 3)
    assert watch.report.steps == 1


@pytest.mark.parametrize(("line", "said"), [("stopwatch: ready\n", "ready"), ("INFO: ready\n", None)])
def test_only_a_programs_own_lines_are_heard(line, said):
    assert stopwatch.heard(line) == said


def _rate(number, program, rate, model="squeezenet_bn", precision="fp32", workers=0):
    return {
        "part": "throughput",
        "round": number,
        "program": program,
        "model": model,
        "precision": precision,
        "workers": workers,
        "processes": 1,
        "images_per_second": rate,
        "pss_mib": [300.0, 310.5],
    }


RATES = [
    _rate(1, "usual_loop", 100.0, workers=0),
    _rate(1, "usual_loop", 125.0, workers=2),
    _rate(1, "ours", 250.0),
    _rate(1, "ours", 375.0, precision="bf16"),
    _rate(2, "usual_loop", 400.0),
    _rate(2, "ours", 1200.0),
]


def test_a_peer_is_taken_at_its_fastest_and_compared_within_a_round():
    usual, ours = report.rates(RATES, "usual_loop", "squeezenet_bn"), report.rates(RATES, "ours", "squeezenet_bn")
    assert usual == {1: 125.0, 2: 400.0}
    assert report.ratio(ours, usual) == pytest.approx(2.5)  # the median of 2 and 3
    assert report.ratio(report.rates(RATES, "ours", "squeezenet_bn", "bf16"), usual) == pytest.approx(3.0)
    assert report.ratio({1: 1.0}, {2: 1.0}) is None


def test_tracking_is_a_share_of_an_epoch():
    # 50,000 images at 500 a second are 100 s
    assert report.tracking_share({"journal_ms": 100.0, "publish_ms": 400.0}, 500.0) == pytest.approx(0.005)


@pytest.fixture
def made():
    whole = record.make(
        {"dataset": "cifar10", "rounds": 2, "steps": 200, "quick": False},
        [0.1, 0.25],
        [
            *RATES,
            {"part": "step", "model": "alexnet", "precision": "fp32", "step_ms": 330.0, "bare_ms": 300.0, "ratio": 1.1},
            {"part": "start", "round": 1, "help_seconds": [0.2, 0.3, 0.4], "first_step_seconds": 4.0},
            {"part": "tracking", "epochs": 100, "journal_ms": 5.0, "publish_ms": 45.0},
            {"part": "profile", "model": "alexnet", "precision": "fp32", "step_ms": 9.0, "parts_ms": {"ReLU": 2.0}},
            {
                "part": "products",
                "model": "alexnet",
                "precision": "fp32",
                "layer": "conv3.conv",
                "weight": [384, 192, 3, 3],
                "images": [50, 192, 4, 4],
                "torch_ms": 3.0,
                "ours_ms": 2.0,
                "torch_error": 2.5e-7,
                "ours_error": 1e-6,
            },
            {"part": "flat", "model": "squeezenet_bn", "epochs": 20, "ratio": 1.015},
            {"part": "folder", "images": 100_000, "side": 64, "run_mib": 299.3, "converting_mib": 159.1},
            {"part": "mechanisms", "model": "alexnet", "mechanism": "passes", "without": 1.256},
            {"part": "mechanisms", "model": "alexnet", "mechanism": "denormals", "without": 1.5, "denormal": 0.25},
        ],
    )
    whole["machine"]["cores"] = 2
    return whole


def test_a_record_as_markdown(made):
    shown = run.markdown([made])
    for row in [
        "| SqueezeNet, batchnorm | 262 |  | 725 | 375 |",
        "| SqueezeNet, batchnorm, fp32 | 2.50 |  |",
        "| SqueezeNet, batchnorm, bf16 | 3.00 |  |",
        "| training step relative to its forward and backward passes alone, AlexNet, fp32 | 1.10 (330.0 ms) |",
        "| journal and tracking as a share of an epoch of SqueezeNet | 0.04% (5 + 45 ms) |",
        "| from the start of a sweep to its first step | 4.0 s |",
        "| `repro --help` | 0.30 s |",
        "| memory of a run (PSS), SqueezeNet, batchnorm | 310 MiB (usual loop 310) |",
    ]:
        assert row in shown.splitlines()
    assert "| rest | 7.0 |" in run.where_time_goes([made])
    assert "| 2.50 | 3.00 |  |  |" in run.history([made])
    row = "| AlexNet, conv3.conv | 192 to 384 | 4x4 | 3.00 | 2.00 | 1.50 | 2.5e-07 | 1.0e-06 |"
    assert row in run.products_by_layer([made]).splitlines()
    row = "images of 64x64 pixels, and of their conversion | 299 and 159 MiB |"
    assert row in shown
    assert f"memory (anonymous) on {made['machine']['hardware']}: of a run on 100,000 images" in shown
    assert "median of 2 rounds" in shown
    assert "one round" in report.mechanisms([made]), "which no round measures again"
    mechanisms = report.mechanisms([made]).splitlines()
    assert "| hand-written passes (instead of autograd) |  | 1.26 |" in mechanisms
    assert "| flushing denormal numbers to zero |  | 1.50 (25% of the moments) |" in mechanisms


def test_no_record_is_said_so():
    shows = (run.markdown, run.where_time_goes, run.products_by_layer, report.mechanisms, run.history)
    assert {show([]) for show in shows} == {"Not measured yet.\n"}


def test_a_gpu_is_a_machine_of_its_own(made):
    def epochs(count, deterministic, *seconds, program="ours", precision="bf16"):
        return {
            "part": "gpu",
            "program": program,
            "round": 1,
            "hardware": "NVIDIA X1",
            "model": "squeezenet_bn",
            "precision": precision,
            "deterministic": deterministic,
            "processes": count,
            "epoch_seconds": list(seconds),
        }

    found = [epochs(1, True, 1.5), epochs(2, True, 2.0, 2.4), epochs(1, False, 1.25)]
    found.append(epochs(1, False, 9.0, program="usual_loop", precision="fp32"))
    there = made | {"machine": made["machine"] | {"hardware": "its host, 16 cores"}, "measurements": found}
    shown = run.markdown([made, there]).splitlines()
    assert "| SqueezeNet, batchnorm, fp32 | 2.50 |  |" in shown
    assert (
        "| seconds per epoch of a run, in effect | 1 concurrent | 2 concurrent | 1 concurrent, not deterministic"
        " | the usual loop |" in shown
    )
    assert "| SqueezeNet, batchnorm, bf16 | 1.50 | 1.10 | 1.25 |  |" in shown
    assert any("on NVIDIA X1, Python" in line for line in shown)


def test_a_part_comes_from_the_last_record_of_this_machine_that_has_it(made):
    partial = made | {"date": "2100-01-01T00:00:00+00:00", "measurements": [{"part": "start"}]}
    elsewhere = partial | {"machine": made["machine"] | {"hardware": "another, 1 core"}}
    assert report.newest([made, elsewhere, partial], "throughput") == (made, RATES)
    assert report.newest([made, partial, elsewhere], "throughput") == (None, [])


def test_mechanisms_and_the_folder_are_shown_from_any_machine(made):
    found = [{"part": "mechanisms"}, {"part": "folder"}]
    elsewhere = made | {"machine": made["machine"] | {"hardware": "another, 1 core"}, "measurements": found}
    assert report.newest([made, elsewhere], "throughput") == (made, RATES)
    assert report.newest([made, elsewhere], "folder") == (elsewhere, found[1:])


def test_a_record_is_appended_and_read(made, tmp_path):
    path = tmp_path / "record.jsonl"
    assert record.read(path) == []
    record.append(made, path)
    record.append(made, path)
    assert record.read(path) == [made, made]


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::convolution_backward", "convolutions"),
        ("aten::native_batch_norm_backward", "batch norm"),
        ("aten::clamp_min_", "ReLU"),
        ("aten::max_pool2d_with_indices_backward", "pooling"),
        ("aten::addmm", "matrix products"),
        ("aten::bmm", "matrix products"),
        ("aten::baddbmm_", "matrix products"),
        ("aten::surprise", "other"),
    ],
)
def test_operators_are_told_apart(operator, kind):
    assert kind_of(operator) == kind


def test_what_the_optimizer_does_is_its_own():
    def event(name, ms, above=None):
        return SimpleNamespace(name=name, self_cpu_time_total=ms * 1000, cpu_parent=above)

    update = event(OPTIMIZER, 1.0)
    copy = event("aten::_foreach_copy_", 2.0, update)
    events = [update, copy, event("aten::copy_", 4.0, copy), event("aten::copy_", 8.0), event("aten::conv2d", 16.0)]
    assert parts_ms(events) == {OPTIMIZER: 7.0, "casts": 8.0, "convolutions": 16.0}


def test_a_missing_data_set_is_one_line(monkeypatch, capsys):
    def missing(_):
        raise InputError("data/cifar-10-batches-py: data_batch_1 missing")

    monkeypatch.setattr(run, "_prepare", missing)
    assert run.main(["--only", "tracking"]) == 2
    assert capsys.readouterr().err == "benchmarks: data/cifar-10-batches-py: data_batch_1 missing\n"


def test_a_gpu_is_measured_where_there_is_one(folder, monkeypatch, capsys):
    monkeypatch.setattr(run, "MODELS", {"squeezenet_bn": "SqueezeNet, batchnorm"})
    monkeypatch.setattr(run, "GPU_RUNS", (1, 2))
    code = run.main(["--only", "gpu", "--dataset", "digits", "--data-dir", str(folder), "--rounds", "1"])
    shown = capsys.readouterr()
    if torch.cuda.is_available():
        assert code == 0
        assert (
            "| seconds per epoch of a run, in effect | 1 concurrent | 2 concurrent | 1 concurrent, not deterministic"
            " | the usual loop |" in shown.out
        )
    else:
        assert code != 0
        assert shown.err == "benchmarks: --only gpu: there is no CUDA device here\n"
        assert list(run.gpu(run.parse([]), 1)) == []


def test_a_program_that_fails_says_why(tmp_path):
    with pytest.raises(ReproError, match=r"benchmarks.ours ended with code 2: .*--model"):
        processes.timed("ours", ["--model=lenet"])


def test_the_harness_measures_every_program_on_digits(folder, monkeypatch, capsys):
    monkeypatch.setattr(run, "MODELS", {"squeezenet_bn": "SqueezeNet, batchnorm"})
    monkeypatch.setattr(record, "append", lambda _: pytest.fail("digits are not to be recorded"))
    words = ["--dataset", "digits", "--data-dir", str(folder), "--rounds", "1", "--steps", "2", "--only", "throughput"]
    assert run.main(words) == 0
    shown = capsys.readouterr()
    programs = [line.split("program ")[1].split(",")[0] for line in shown.err.splitlines() if "program " in line]
    assert [name for name in programs if name != "lightning_loop"] == ["usual_loop", "usual_loop", "ours", "ours"]
    assert "| SqueezeNet, batchnorm, bf16 |" in shown.out
    if sys.platform == "linux":
        assert "memory of a run (PSS)" in shown.out


def test_the_harness_measures_lightning(folder):
    if find_spec("lightning") is None:
        pytest.skip("Lightning is not installed (benchmarks/requirements.txt)")
    reports, _ = processes.timed("lightning_loop", Asked("squeezenet_bn", "fp32", "digits", folder, 2, 2, 0).words())
    assert [one.steps for one in reports] == [2]


@pytest.mark.slow
def test_the_costs_of_an_epoch_are_measured(folder):
    options = run.parse(["--dataset", "digits", "--data-dir", str(folder), "--steps", "2"])
    (found,) = run.tracking(options, 1)
    assert found["epochs"] == 2
    assert found["journal_ms"] > 0
    assert found["publish_ms"] > 0


@pytest.mark.slow
def test_a_step_is_compared_with_the_bare_passes(folder):
    asked = Asked("squeezenet_bn", "fp32", "digits", folder, 0, 2, 0)
    (found,) = processes.values("step", asked.words(), threads=1)
    assert found["ratio"] > 0
    assert {"step_ms", "bare_ms"} < found.keys()


def test_what_was_measured_before_a_program_failed_is_kept(folder, monkeypatch, capsys):
    def fails(_, number):
        if number == 2:
            raise ReproError("benchmarks.step ended with code 1")
        yield {"part": "step", "ratio": 1.0}

    monkeypatch.setitem(run.PARTS, "step", fails)
    monkeypatch.setitem(run.PARTS, "tracking", lambda _, number: [{"part": "tracking", "round": number}])
    options = run.parse(["--dataset", "digits", "--data-dir", str(folder)])
    made = run.measure(dataclasses.replace(options, parts=("step", "tracking")))
    assert [one["part"] for one in made["measurements"]] == ["step", *["tracking"] * 3]
    assert "step is left out: benchmarks.step ended with code 1" in capsys.readouterr().err
    monkeypatch.setitem(run.PARTS, "step", lambda *_: fails(_, 2))
    with pytest.raises(ReproError, match="ended with code 1"):
        run.measure(dataclasses.replace(options, parts=("step",)))


@pytest.mark.parametrize(
    ("model", "first"),
    [
        ("squeezenet_bn", ["fire2.expand_large.conv", "fire4.expand_large.conv"]),
        ("alexnet", ["conv1.conv", "conv2.conv", "conv3.conv", "conv4.conv", "conv5.conv", "fc1.linear"]),
    ],
)
def test_layers_are_compared_that_compute_the_same(folder, model, first):
    asked = Asked(model, "fp32", "digits", folder, 0, 1, 0)
    found = processes.values("products", asked.words(), threads=1)
    assert [one["layer"] for one in found][: len(first)] == first
    for one in found:
        assert one["torch_ms"] > 0 < one["ours_ms"]
        assert 0 < one["torch_error"] < 3e-6 > one["ours_error"] > 0


@pytest.mark.slow
def test_every_mechanism_is_taken_away_and_put_back(folder):
    asked = Asked("squeezenet_bn", "fp32", "digits", folder, 1, 1, 0)
    found = processes.values("mechanisms", asked.words(), threads=1)
    assert [one["mechanism"] for one in found] == list(report.MECHANISMS)
    assert all(one["step_ms"] > 0 < one["without"] for one in found)
    assert found[-1]["denormal"] >= 0


@pytest.mark.slow
def test_the_memory_of_a_folder_of_images_is_seen(folder):
    (found,) = processes.values("folder", Asked("squeezenet_bn", "fp32", "digits", folder, 0, 600, 0).words())
    assert found["images"] == 600
    assert 0 < found["converting_mib"] < 700 > found["run_mib"] > 0


@pytest.mark.slow
def test_the_first_step_of_a_sweep_is_seen(folder, tmp_path):
    assert start.first_step_seconds(tmp_path, "digits", folder, sides=1) > 0


def test_peers_train_in_torchs_own_layout():
    from benchmarks import peer_data

    network = peer_data.network(spec("squeezenet_bn").model)
    assert all(parameter.is_contiguous() for parameter in network.parameters())
