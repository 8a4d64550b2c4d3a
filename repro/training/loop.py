"""Training of one run: an iterator of what happens, which can be interrupted and resumed at every item.

What a run computes is settled by its spec: initialization and dropout draw from torch's global generator, seeded with the
run's seed; the order of the images comes from a generator of its own for each epoch. Denormal numbers count as zero
(they arise in the moments of weights behind dead units, and would slow a CPU many times over). On a CPU with one thread
a resumed run ends in the same bits as an undisturbed one; on a GPU it does in deterministic mode.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.errors import ReproError
from repro.records import Architecture, EpochRecord, Outcome, Progress, RunResult
from repro.spec import RunSpec
from repro.training import cpu, cuda, fast, generators, models, optim, schedule, ways
from repro.training.batches import Batches
from repro.training.data import Data
from repro.training.evaluation import Evaluation, Predictions, evaluate, predictions, sums

Event: TypeAlias = Progress | EpochRecord | RunResult

_CUDA_PROGRESS_STEPS = 50
_MIB = 2**20


@dataclass(slots=True)
class _Position:
    """Where a run stands between two items, weights and generators aside."""

    epoch_seconds: list[float] = field(default_factory=list)
    """Of the complete epochs; the epoch in work is the one after them."""
    step: int = 0
    """Steps done in the epoch in work; all of them while it is being validated."""
    seconds: float = 0.0
    """Spent on the epoch in work so far."""
    best_epoch: int = 0
    best_accuracy: float = math.nan
    since_best: int = 0
    diverged: bool = False


class Training:
    """One run, from its spec to its result; iterate over it once.

    Iterating yields a `Progress` after every step (on a GPU every 50) and between batches of an evaluation, an
    `EpochRecord` after each epoch, and at last one `RunResult`. At each of them `snapshot` may be taken.

    Args:
        spec: the run.
        data: the data set that `spec.data` names.
        device: "cpu", "cuda" or "cuda:N".
        deterministic: on a GPU, take only algorithms that give the same bits each time. On a CPU they always do.
        resume: a former `snapshot` of the same spec; training goes on there.

    Raises:
        InputError: there is no such device.
        ReproError: the snapshot belongs to another spec.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        *,
        device: str = "cpu",
        deterministic: bool = True,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.data = data
        self._device = cuda.find_device(device)
        self._on_cpu = self._device.type == "cpu"
        if self._on_cpu:
            cpu.keep_freed_memory()
        else:
            cuda.prepare(self._device, deterministic)
        generators.seed(spec.seed)
        module = models.build(spec.model)
        self._architecture = models.describe(module, spec.model)
        self.module = module.to(self._device)
        self._dtype = torch.bfloat16 if spec.training.precision == "bf16" else torch.float32
        self.optimizer = self._make_optimizer()
        self._source = Batches(spec, data, self._device, self._dtype)
        self._sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        """Loss and correct answers, summed over the images of the epoch so far."""
        self._at = _Position()
        self._best: dict[str, Tensor] | None = None
        self.predictions: Predictions | None = None
        """Of the best weights, once the run has ended."""
        self._resumed = time.perf_counter()
        self._run_step: Callable[[Tensor], None] = self._step
        self._pace: cuda.Pace | None = None
        self.module.train()
        self._forward: Callable[[Tensor], Tensor] = self.module
        if self._on_cpu:
            self._forward, self.way = ways.forward_on_cpu(self.module, self._source)
        if resume is not None:
            self._restore(resume)
        if not self._on_cpu:
            self._pace = cuda.Pace(self._device)
            self._run_step = cuda.GraphedStep(self._step, self._changed_by_step, spec.training.batch_size, self._device)
            self.way = ways.graphed(self._run_step, self._source.of_epoch(1)[0])

    def _make_optimizer(self) -> optim.Optimizer:
        parameters = list(self.module.parameters())
        still = [bias for bias in fast.before_norm(self.module) if bias.requires_grad]
        for bias in still:
            bias.requires_grad_(False)
        rounded = () if self._dtype is torch.float32 else models.multiplied(self.module)
        optimizer = optim.make(self.spec.optimizer, parameters, rounded=rounded, still=still)
        if not schedule.is_constant(self.spec.optimizer):
            optimizer.factor = torch.ones((), dtype=torch.float64, device=self._device)
        return optimizer

    def __iter__(self) -> Iterator[Event]:
        """Trains on from where the run stands."""
        events = self._events()
        while True:
            self._resumed = time.perf_counter()
            with cpu.denormals_as_zero():
                event = next(events, None)
            self._at.seconds = self._seconds()
            if event is None:
                return
            yield event

    def architecture(self) -> Architecture:
        """The network that is trained, layer by layer."""
        return self._architecture

    @property
    def images(self) -> tuple[int, int, int]:
        """Images of the training, validation and test split."""
        return len(self.data.train), len(self.data.val), len(self.data.test)

    @property
    def epochs_done(self) -> int:
        """Epochs that are complete."""
        return len(self._at.epoch_seconds)

    def pace(self) -> tuple[float, float]:
        """Mean training loss of the epoch in work so far (nan before its first step), and images per second."""
        images = min(self._at.step * self.spec.training.batch_size, self._source.images)
        loss = float(self._sums[0]) / images if images else math.nan
        return loss, images / self._at.seconds if self._at.seconds else 0.0

    def best_state(self) -> dict[str, Tensor]:
        """The weights of the best epoch, or those of now where no epoch was complete: on the CPU, contiguous."""
        state = self._state()
        for name, tensor in (state if self._best is None else self._best).items():
            state[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        return state

    def snapshot(self) -> dict[str, Any]:
        """Everything that `resume` needs: tensors, numbers, strings and lists, to be saved before the next item is asked for.

        The tensors are those that training works on: copies of AlexNet's would take 280 MB.
        """
        if not self._on_cpu:  # what is queued is training, and not the saving of its outcome
            began = time.perf_counter()
            torch.cuda.synchronize(self._device)
            self._at.seconds += time.perf_counter() - began
        return {
            "key": self.spec.key,
            "epochs_done": len(self._at.epoch_seconds),
            **{name: copy.copy(getattr(self._at, name)) for name in _Position.__slots__},
            "sums": self._sums,
            "model": dict(self._state()),
            "buffers": self._unsaved(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best,
            **generators.states(self._device),
        }

    def _state(self) -> dict[str, Tensor]:
        """The module's state dict, all weights in float32: the tensors that training works on."""
        self.optimizer.take_back()
        state: dict[str, Tensor] = self.module.state_dict()
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            state[name] = self.optimizer.exact[parameter]
        return state

    def _unsaved(self) -> dict[str, Tensor]:
        """The buffers that are not in the state dict; a step may change them all the same."""
        saved = self.module.state_dict()
        return {name: buffer for name, buffer in self.module.named_buffers() if name not in saved}

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._state().items():
            tensor.copy_(state[name])
        self.optimizer.refresh()

    def _restore(self, snapshot: Mapping[str, Any]) -> None:
        if snapshot["key"] != self.spec.key:
            raise ReproError(
                f"the checkpoint belongs to the run {snapshot['key']}, this one is {self.spec.key}; delete it"
            )
        self._at = _Position(**{name: copy.copy(snapshot[name]) for name in _Position.__slots__})
        self._sums.copy_(snapshot["sums"])
        self._load_state(snapshot["model"])
        unsaved = self._unsaved()
        for name, buffer in snapshot.get("buffers", {}).items():  # which snapshots of former versions do not have
            unsaved[name].copy_(buffer)
        self.optimizer.load_state_dict(snapshot["optimizer"])
        best = snapshot["best"]
        self._best = None if best is None else {name: tensor.to(self._device) for name, tensor in best.items()}
        generators.restore(snapshot, self._device)

    @property
    def _epoch(self) -> int:
        return len(self._at.epoch_seconds) + 1

    @property
    def _goes_on(self) -> bool:
        limits = self.spec.training
        return self._epoch <= limits.epochs and self._at.since_best < limits.patience and not self._at.diverged

    def _seconds(self) -> float:
        return self._at.seconds + time.perf_counter() - self._resumed

    def _events(self) -> Iterator[Event]:
        while self._goes_on:
            yield from self._train_epoch()
            validation = None if self._at.diverged else (yield from self._evaluate(self.data.val, self._epoch))
            yield self._complete_epoch(validation)
        test = None if self._best is None else (yield from self._evaluate_best(self._best))
        yield self._result(test)

    def predict(self, state: Mapping[str, Tensor]) -> Predictions:
        """What the weights `state` of a run that has ended predict."""
        for _ in self._evaluate_best(state):
            pass
        assert self.predictions is not None
        return self.predictions

    def _evaluate_best(self, state: Mapping[str, Tensor]) -> Generator[Progress, None, Evaluation]:
        """Evaluates `state` on the test split, and keeps what it predicts there and on the validation split."""
        self._load_state(state)
        val = yield from self._evaluate(self.data.val, self._epoch - 1)
        test = yield from self._evaluate(self.data.test, self._epoch - 1)
        self.predictions = predictions(self.data, val, test)
        return test

    def _train_epoch(self) -> Iterator[Event]:
        batches, steps = self._source.of_epoch(self._epoch), self._source.steps
        every = 1 if self._on_cpu else _CUDA_PROGRESS_STEPS
        self.module.train()
        for step in range(self._at.step, steps):
            self._set_rates(step)
            self._run_step(batches[step])
            self._at.step = step + 1
            if self._on_cpu and not math.isfinite(self._sums[0]):
                self._at.diverged = True  # nothing but nan would follow; on a GPU looking costs more than going on
                return
            if self._at.step % every == 0 or self._at.step == steps:
                if self._pace is not None:
                    self._pace.keep()
                yield Progress(self._epoch, self._at.step, steps)
        self._at.diverged = not math.isfinite(self._sums[0])

    def _set_rates(self, step: int) -> None:
        if self.optimizer.factor is not None:  # on the device, where a CUDA graph reads it
            steps, epochs = self._source.steps, self.spec.training.epochs
            done = (self._epoch - 1) * steps + step
            self.optimizer.factor.fill_(schedule.factor(self.spec.optimizer, done, steps, epochs))

    def _step(self, indices: Tensor) -> None:
        """One update by the images `indices`. Under a CUDA graph this runs once and is replayed."""
        images, labels = self._source.load(indices)
        self.optimizer.zero_grad()
        logits = self._forward(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.spec.training.label_smoothing)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._sums += sums(loss.detach().double() * len(indices), logits.detach(), labels)

    def _changed_by_step(self) -> list[Tensor]:
        rounded = [] if self.optimizer.rounded is None else [self.optimizer.rounded]
        weights = [self.optimizer.weights, *rounded]
        return [*weights, *self.optimizer.state_dict().values(), *self.module.buffers(), self._sums]

    def _evaluate(self, numbers: Tensor, epoch: int) -> Generator[Progress, None, Evaluation]:
        steps = self._source.steps
        return evaluate(self.module, self._source, numbers, Progress(epoch, steps, steps))

    def _complete_epoch(self, validation: Evaluation | None) -> EpochRecord:
        """Closes the epoch in work: its record, and the best weights where it has them."""
        at = self._at
        loss, correct = (self._sums / self._source.images).tolist()
        record = EpochRecord(
            epoch=self._epoch,
            train_loss=loss if validation else math.nan,
            train_accuracy=correct if validation else math.nan,
            val_loss=validation.loss if validation else math.nan,
            val_accuracy=validation.accuracy if validation else math.nan,
            epoch_seconds=self._seconds(),
        )
        at.diverged = not math.isfinite(record.val_loss)
        at.since_best += 1
        if not at.diverged and not record.val_accuracy <= at.best_accuracy:
            at.best_epoch, at.best_accuracy, at.since_best = record.epoch, record.val_accuracy, 0
            self._keep_best()
        at.epoch_seconds.append(record.epoch_seconds)
        at.step, at.seconds, self._resumed = 0, 0.0, time.perf_counter()
        self._sums.zero_()
        return record

    def _keep_best(self) -> None:
        state = {name: tensor.detach() for name, tensor in self._state().items()}
        if self._best is None:
            self._best = {name: tensor.clone() for name, tensor in state.items()}
        for name, tensor in self._best.items():
            tensor.copy_(state[name])

    def _result(self, test: Evaluation | None) -> RunResult:
        at, best = self._at, self.best_state()
        outcome: Outcome = "finished"
        if at.diverged:
            outcome = "diverged"
        elif at.best_accuracy <= self.data.largest_class + 0.02:
            outcome = "chance"
        return RunResult(
            outcome=outcome,
            test_loss=test.loss if test else math.nan,
            test_accuracy=test.accuracy if test else math.nan,
            best_val_accuracy=at.best_accuracy,
            best_epoch=at.best_epoch,
            epochs_run=len(at.epoch_seconds),
            mean_epoch_seconds=statistics.fmean(at.epoch_seconds),
            model_size_mib=models.state_bytes(best, legacy=False) / _MIB,
            model_size_legacy_mib=models.state_bytes(best, legacy=True) / _MIB,
            parameters=self._architecture.parameters,
            multiply_adds=self._architecture.multiply_adds,
            weights_digest=models.weights_digest(best),
            confusion=test.confusion(self.data.labels[self.data.test], self.spec.model.classes) if test else (),
        )
