"""Training on a GPU: the captured step against the eager one, with a real device and with stand-ins for one."""

import contextlib
import copy
import gc
import random
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repro.records import EpochRecord, Progress
from repro.spec import merged, resolve
from repro.training import cuda, data, fast, models, ways
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
    "training.epochs": 2,
    "training.batch_size": 200,
}


@pytest.fixture(scope="module")
def loaded(digits):
    spec = resolve(SETTINGS, "test")
    return data.load(prepare("digits", digits), spec.data)


def outcome(training):
    """The losses and the digest of the weights."""
    *epochs, result = [event for event in training if not isinstance(event, Progress)]
    return [(record.train_loss, record.val_loss) for record in epochs], result.weights_digest


class StandIn:
    """In place of torch.cuda: a capture runs on the CPU, as a warm-up does, and a replay calls the step again.

    It is stricter than a GPU in one thing: what a capture did must be undone as well.
    """

    def __init__(self, fails):
        self.fails = fails
        self.replays = 0
        self.generators = []
        self.Stream = lambda device: SimpleNamespace(wait_stream=lambda other: None)
        self.current_stream = self.Stream
        self.stream = contextlib.nullcontext
        self.CUDAGraph = lambda: self
        self.get_rng_state = lambda device: torch.get_rng_state()
        self.set_rng_state = lambda state, device: torch.set_rng_state(state)
        self.default_generators = [SimpleNamespace(graphsafe_set_state=self.generators.append)]

    @contextlib.contextmanager
    def graph(self, graph, stream):
        yield
        if self.fails is not None:
            raise self.fails

    def replay(self):
        self.replays += 1
        self.step()


def graphed_by(stand_in, training, monkeypatch):
    """The step of a training on the CPU, to be captured by a stand-in."""
    monkeypatch.setattr(cuda, "torch", SimpleNamespace(**vars(torch) | {"cuda": stand_in}))
    graphed = cuda.GraphedStep(training._step, training._changed_by_step, 200, torch.device("cpu"))
    stand_in.step = lambda: training._step(graphed._indices)
    monkeypatch.setattr(training, "_run_step", graphed)
    return graphed


@pytest.mark.parametrize("fails", [False, True])
def test_warming_up_and_capturing_leave_no_trace(loaded, monkeypatch, fails):
    spec = resolve(SETTINGS, "test")
    expected = outcome(Training(spec, loaded))
    training = Training(spec, loaded)
    stand_in = StandIn(RuntimeError("operation not permitted\n when stream is capturing") if fails else None)
    way = ways.graphed(graphed_by(stand_in, training, monkeypatch), training._source.of_epoch(1)[0])
    reason = "no CUDA graph: operation not permitted when stream is capturing"
    assert way == (ways.Way("autograd", reason) if fails else ways.Way("cuda graph"))
    assert outcome(training) == expected
    assert stand_in.replays == (0 if fails else 1 + 2 * 7)  # the check, then all but the eighth batch, which is smaller
    assert len(stand_in.generators) == fails, "one that was in a failed capture is replaced"
    assert gc.isenabled()


def test_a_graph_that_computes_something_else_is_not_taken(loaded, monkeypatch):
    spec = resolve(SETTINGS, "test")
    expected, training = outcome(Training(spec, loaded)), Training(spec, loaded)
    stand_in = StandIn(None)
    graphed = graphed_by(stand_in, training, monkeypatch)

    def step():
        training._step(graphed._indices)
        training.optimizer.weights.mul_(1.001)

    stand_in.step = step
    reason = graphed.capture(training._source.of_epoch(1)[0])
    assert reason.startswith("a replay differs from an eager step by ")
    assert outcome(training) == expected
    assert stand_in.replays == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Draws", "a step draws from a generator of the host"),
        ("Replaces", "a step replaces a tensor that it goes on from"),
    ],
)
def test_what_a_replay_would_not_repeat_is_not_captured(loaded, monkeypatch, name, reason):
    class Draws(torch.nn.Sequential):
        def forward(self, images):
            return super().forward(images) * (2 if self.training and random.random() < 0.5 else 1)

    class Replaces(torch.nn.Sequential):
        def __init__(self, *parts):
            super().__init__(*parts)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images):
            if self.training:
                self.seen = self.seen + 1
            return super().forward(images)

    build = models.build
    network = {"Draws": Draws, "Replaces": Replaces}[name]
    monkeypatch.setattr(models, "build", lambda spec: network(*build(spec)))
    spec = resolve(SETTINGS | {"training.epochs": 1}, "test")
    expected, training = outcome(Training(spec, loaded)), Training(spec, loaded)
    graphed = graphed_by(StandIn(None), training, monkeypatch)
    assert graphed.capture(training._source.of_epoch(1)[0]) == reason
    assert outcome(training) == expected


def test_full_memory_is_no_failed_capture(loaded, monkeypatch):
    """Neither by itself nor behind what the end of a capture then raises."""
    training = Training(resolve(SETTINGS, "test"), loaded)
    behind = RuntimeError("capture was invalidated")
    behind.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    for error in (torch.OutOfMemoryError("CUDA out of memory"), behind):
        graphed = graphed_by(StandIn(error), training, monkeypatch)
        with pytest.raises(RuntimeError) as raised:
            graphed.capture(training._source.of_epoch(1)[0])
        assert raised.value is error


def test_a_data_set_without_a_full_batch_is_not_captured(loaded):
    training = Training(resolve(SETTINGS, "test"), loaded)
    graphed = cuda.GraphedStep(training._step, training._changed_by_step, 2_000, torch.device("cpu"))
    assert ways.graphed(graphed, training._source.of_epoch(1)[0]).reason == "no CUDA graph: no batch is full"


def test_strict_determinism_is_asked_for_and_its_workspace_is_in_the_workers_environment(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *given, **more: asked.append((given, more)))
    for name in ("set_device", "set_float32_matmul_precision"):
        monkeypatch.setattr(torch.cuda if name == "set_device" else torch, name, lambda *_: None)
    monkeypatch.setattr(torch.backends.cudnn, "set_flags", lambda *_: None)
    cuda.prepare(torch.device("cuda:0"), True)
    assert asked == [((True,), {})]


def test_the_host_is_never_two_calls_ahead(monkeypatch):
    told = []

    class Event:
        def __init__(self):
            self.number = sum(word == "record" for word, _ in told)

        def record(self, stream):
            told.append(("record", self.number))

        def synchronize(self):
            told.append(("wait", self.number))

    events = SimpleNamespace(Event=Event, current_stream=lambda device: None)
    monkeypatch.setattr(cuda, "torch", SimpleNamespace(cuda=events))
    pace = cuda.Pace(torch.device("cpu"))
    for _ in range(3):
        pace.keep()
    assert told == [("record", 0), ("record", 1), ("wait", 0), ("record", 2), ("wait", 1)]


class OnDevice(TorchDispatchMode):
    """Lets every operator pass that reads and writes tensors of torch's meta device alone."""

    def __init__(self):
        super().__init__()
        self.operators = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        results = operator(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, results)) if isinstance(leaf, torch.Tensor)]
        assert {tensor.device.type for tensor in tensors} == {"meta"}, operator
        self.operators += 1
        return results


@pytest.fixture
def on_meta(monkeypatch):
    """Trainings for a device other than the CPU that holds no values: whoever looks at one fails, as a capture would."""
    monkeypatch.setattr(cuda, "find_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(cuda, "prepare", lambda device, deterministic: None)
    monkeypatch.setattr(ways, "graphed", lambda step, batch: ways.Way("autograd", "no CUDA graph: there is no GPU"))


def test_looking_at_a_value_fails_on_the_meta_device():
    with pytest.raises(RuntimeError, match="meta"), OnDevice():
        torch.zeros(1, device="meta").item()
    with pytest.raises(AssertionError), OnDevice():
        torch.zeros(1, device="meta").add_(torch.tensor(1.0))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"training.precision": "bf16"},
        {"optimizer.name": "adam"},
        {"optimizer.name": "sgd"},
        {"model.residual": "simple", "model.base_e": 32},
        {"model.name": "alexnet"},
        {"model.name": "alexnet", "training.precision": "bf16"},
    ],
    ids=str,
)
def test_a_step_stays_on_its_device(loaded, on_meta, settings):
    """No copy from or to the host, and no value the host would wait for: what a CUDA graph cannot hold."""
    spec = resolve(({} if "model.name" in settings else SETTINGS) | settings | {"data.dataset": "digits"}, "test")
    training = Training(spec, loaded, device="cuda")
    training.module.train()
    first, second, *_ = training._source.of_epoch(1)
    training._step(first)
    before = training._changed_by_step()
    with OnDevice() as watch:
        training._step(second)
    assert watch.operators > 100
    assert all(was is now for was, now in zip(before, training._changed_by_step(), strict=True))


def test_biases_before_batch_normalization_stay_as_on_a_cpu(loaded):
    spec = resolve(SETTINGS, "test")
    there, here = Training(spec, loaded), Training(spec, loaded)
    there._forward = there.module  # by autograd, as on a GPU
    before = [bias.clone() for bias in fast.before_norm(there.module)]
    for training in (there, here):
        training.module.train()
        training._step(training._source.of_epoch(1)[0])
    assert len(before) == 8
    for training in (there, here):
        assert all(map(torch.equal, before, fast.before_norm(training.module)))


needs_gpu = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]


@pytest.fixture
def spec_on_gpu(request):
    return resolve(merged(SETTINGS, request.param), "test")


variants = pytest.mark.parametrize(
    "spec_on_gpu",
    [
        {},
        {"training.precision": "bf16"},
        {"optimizer.name": "adam"},
        {"optimizer.name": "sgd"},
        {"model.residual": "simple"},
        {"model.name": "alexnet"},
    ],
    ids=str,
    indirect=True,
)


class TestOnGPU:
    pytestmark = needs_gpu

    @variants
    def test_a_graph_computes_what_eager_steps_do(self, loaded, spec_on_gpu):
        graphed = Training(spec_on_gpu, loaded, device="cuda")
        found = outcome(graphed)
        assert graphed.way == ways.Way("cuda graph")
        eager = Training(spec_on_gpu, loaded, device="cuda")
        eager._run_step = eager._step
        assert outcome(eager) == found

    @variants
    def test_a_resumed_run_ends_in_the_same_bits(self, loaded, spec_on_gpu, monkeypatch):
        monkeypatch.setattr("repro.training.loop._CUDA_PROGRESS_STEPS", 3)
        expected = outcome(Training(spec_on_gpu, loaded, device="cuda"))
        stopped = Training(spec_on_gpu, loaded, device="cuda")
        seen = []
        for event in stopped:
            seen.append(event)
            if isinstance(event, Progress) and event.epoch == 2:
                break
        snapshot = copy.deepcopy(stopped.snapshot())
        torch.manual_seed(99)
        losses, digest = outcome(Training(spec_on_gpu, loaded, device="cuda", resume=snapshot))
        first = [(e.train_loss, e.val_loss) for e in seen if isinstance(e, EpochRecord)]
        assert (first + losses, digest) == expected

    @variants
    def test_steps_are_eager_where_a_capture_fails(self, loaded, spec_on_gpu, monkeypatch):
        expected = outcome(Training(spec_on_gpu, loaded, device="cuda"))
        step = Training._step

        def looks(training, indices):
            step(training, indices)
            if torch.cuda.is_current_stream_capturing():
                training._sums.sum().item()  # which no capture allows

        monkeypatch.setattr(Training, "_step", looks)
        training = Training(spec_on_gpu, loaded, device="cuda")
        assert training.way.step == "autograd"
        assert "capturing" in training.way.reason
        assert outcome(training) == expected

    def test_learns_as_the_cpu_does(self, loaded):
        spec = resolve(SETTINGS | {"training.epochs": 6, "training.batch_size": 50}, "test")
        losses, _ = outcome(Training(spec, loaded, device="cuda"))
        expected, _ = outcome(Training(spec, loaded))
        assert losses[-1] == pytest.approx(expected[-1], abs=0.1)
        assert max(losses[-1]) < 1.8, "an untrained network has log(10) = 2.30"

    def test_it_learns_with_whatever_algorithms_are_fastest(self, loaded):
        spec = resolve(SETTINGS | {"training.epochs": 6, "training.batch_size": 50}, "test")
        training = Training(spec, loaded, device="cuda", deterministic=False)
        losses, _ = outcome(training)
        assert training.way == ways.Way("cuda graph")
        assert max(losses[-1]) < 1.8

    def test_an_epoch_never_waits_for_what_is_queued(self, loaded, monkeypatch):
        monkeypatch.setattr("repro.training.loop._CUDA_PROGRESS_STEPS", 3)
        training = Training(resolve(SETTINGS, "test"), loaded, device="cuda")
        batches = training._source.of_epoch(1)
        monkeypatch.setattr(training._source, "of_epoch", lambda epoch: batches)  # their copy is an epoch's start
        steps = training._train_epoch()
        try:
            torch.cuda.set_sync_debug_mode("error")
            progress = [next(steps) for _ in range(3)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert [one.step for one in progress] == [3, 6, 8]
