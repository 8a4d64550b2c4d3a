"""What is particular to a GPU: exact arithmetic as a switch, and a training step captured as a CUDA graph."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from repro.errors import InputError, unknown
from repro.training import generators

_ALLOWED = 0.05
"""Largest difference of a replayed step from an eager one, in the length of the step: both are the same operations, and
without deterministic algorithms their sums may be added up in another order."""
_WARM_UP_STEPS = 3
"""Steps before a capture, in which libraries choose algorithms and allocate; PyTorch's notes on CUDA graphs ask for them."""


def find_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" (the first one) or "cuda:N".

    Raises:
        InputError: there is no such device here.
    """
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if (full := "cuda:0" if name == "cuda" else name) not in here:
        if name.startswith("cuda") and here == ["cpu"]:
            raise InputError(f"unknown device {name!r}: torch finds no CUDA device on this machine (allowed: cpu)")
        raise unknown("device", name, here)
    return torch.device(full)


def prepare(device: torch.device, deterministic: bool) -> None:
    """Settles the arithmetic of this process on `device`: float32 is no TF32, and gives the same bits where asked to."""
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.set_flags(True, not deterministic, 10, deterministic, False)  # type: ignore[no-untyped-call]
    # sums in bfloat16 as a CPU makes them: in float32, whatever a product is split into
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        # On by default, it fills all new memory, to show reads of it; nothing here reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class GraphedStep:
    """A step that `capture` makes a CUDA graph of; from then on each full batch replays it.

    Its launch then costs one call in place of some hundreds. A smaller last batch runs eagerly, as does everything where
    there is no graph. Dropout stays random: a graph takes its offsets from the default generator of the device.
    """

    def __init__(
        self,
        step: Callable[[Tensor], None],
        state: Callable[[], Sequence[Tensor]],
        batch_size: int,
        device: torch.device,
    ) -> None:
        """Captures nothing yet.

        Args:
            step: takes image numbers (N,) int64 on `device`; it keeps its results in tensors that stay where they are.
            state: every tensor that a step changes: the capture must leave no trace in them.
            batch_size: length of a full batch.
            device: a CUDA device.
        """
        self._step = step
        self._state = state
        self._indices = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, indices: Tensor) -> None:
        """One step on the images `indices`."""
        if self._graph is None or indices.shape != self._indices.shape:
            self._step(indices)
            return
        self._indices.copy_(indices)
        self._graph.replay()

    def capture(self, batch: Tensor) -> str:
        """Captures the step, and holds a replay on `batch` against an eager step from the same state.

        Returns:
            Why steps stay eager, on one line; "" where they are replayed.

        Raises:
            torch.OutOfMemoryError: the device's memory is full, which says nothing of the capture.
        """
        if batch.shape != self._indices.shape:
            return "no batch is full"
        self._indices.copy_(batch)
        former = list(self._state())
        before = [tensor.clone() for tensor in former]
        drawn = generators.states(self._device)

        def restore() -> None:
            for tensor, value in zip(self._state(), before, strict=True):
                tensor.copy_(value)
            generators.restore(drawn, self._device)

        failure = self._warm_up_and_capture()
        if generators.of_host(generators.states(self._device)) != generators.of_host(drawn):
            failure = "a step draws from a generator of the host"
        elif any(now is not then for now, then in zip(self._state(), former, strict=True)):
            failure = "a step replaces a tensor that it goes on from"
        restore()
        if failure or self._graph is None:
            self._graph = None
            return failure
        self._step(self._indices)
        eager = [tensor.clone() for tensor in self._state()]
        restore()
        self._graph.replay()
        worst = max(_distance(*three) for three in zip(self._state(), eager, before, strict=True))
        restore()
        if not worst <= _ALLOWED:
            self._graph = None
            return f"a replay differs from an eager step by {worst:.1%}"
        return ""

    def _warm_up_and_capture(self) -> str:
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        failure = ""
        with _no_collection(), torch.cuda.stream(side):  # which a capture that fails does not leave by itself
            for _ in range(_WARM_UP_STEPS):
                self._step(self._indices)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=side):
                    self._step(self._indices)
                self._graph = graph
            except RuntimeError as error:
                if _out_of_memory(error):
                    raise
                failure = " ".join(str(error).split())
                self._failed = graph  # before torch 2.13 the allocator may still ask it whose memory is whose
        torch.cuda.current_stream(self._device).wait_stream(side)
        if failure:  # before torch 2.13 the generator still takes itself for captured, and would refuse to draw
            ours = torch.cuda.default_generators[self._device.index or 0]
            ours.graphsafe_set_state(torch.Generator(self._device))
        return failure


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is of full memory, or arose while one was handled: the end of a capture raises one of its own."""
    return error is not None and (isinstance(error, torch.OutOfMemoryError) or _out_of_memory(error.__context__))


def _distance(replayed: Tensor, eager: Tensor, before: Tensor) -> float:
    """How far two results of a step are apart, in the length of the step."""
    apart, length = (float((one.double() - eager.double()).norm()) for one in (replayed, before))
    return apart / length if length else apart


class Pace:
    """Keeps the host near the device: no further ahead than the steps between three calls.

    Launches are queued by the hundred; without this a stop would have to wait for all of them, and progress would be told of
    steps that are still to be computed. The device never waits: what it has to do is queued behind what is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._former: torch.cuda.Event | None = None

    def keep(self) -> None:
        """Waits until the device has come to where this was called the time before."""
        here = torch.cuda.Event()  # type: ignore[no-untyped-call]
        here.record(torch.cuda.current_stream(self._device))
        if self._former is not None:
            self._former.synchronize()
        self._former = here


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Within it no dead graph is collected: to destroy one ends the capture of another (pytorch issue 161037)."""
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
