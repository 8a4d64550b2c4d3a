"""What a run says of itself while it trains and when it ends: plain values, without torch.

Training yields `Progress`, `EpochRecord` and at last `RunResult`; the journal keeps them. Accuracies are shares in 0..1,
losses mean cross-entropies in nats, both over all images of the split (not means of batch means).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Outcome = Literal["finished", "diverged", "chance"]
Step = Literal["fast", "autograd", "cuda graph"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A point at which training can be interrupted and its snapshot taken; `steps` is the length of the epoch."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch, counted from 1. Training figures are those of the training passes themselves, in training mode."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    epoch_seconds: float
    """Seconds of training and validation of this epoch, without checkpoints and tracking."""


EPOCH_METRICS = tuple(one.name for one in fields(EpochRecord) if one.type == "float")


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run that came to its end: by its budget or patience, or because it diverged."""

    outcome: Outcome
    """diverged: a loss was not finite; chance: best validation accuracy at most 0.02 above the share of the largest class."""
    test_loss: float
    test_accuracy: float
    """Of the best epoch's weights on the test split, which is read here and nowhere else; nan where no epoch was complete."""
    best_val_accuracy: float
    best_epoch: int
    """The first epoch with the best validation accuracy; 0 where no epoch was complete."""
    epochs_run: int
    mean_epoch_seconds: float
    model_size_mib: float
    """MiB (2**20 bytes) of the best weights' state dict, saved in torch's zip format: the logged model.pt."""
    model_size_legacy_mib: float
    """The same in torch's format before 1.6, which the paper's sizes were measured in."""
    parameters: int
    """Trainable parameters."""
    multiply_adds: int
    """Multiply-adds of convolutions and linear layers for one image."""
    weights_digest: str
    """SHA-256 over names, shapes, types and bytes of the best weights' state dict."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts on the test split: rows are the true classes, columns the predicted ones."""


RESULT_METRICS = tuple(one.name for one in fields(RunResult) if one.type in {"float", "int"})


@dataclass(frozen=True, slots=True)
class Environment:
    """How a run was computed: everything that may change its digits, or how long it took, and is not asked for by its spec."""

    commit: str
    """Git commit of the code, or "unknown" outside a repository."""
    dirty: bool
    diff_digest: str
    """SHA-256 of the uncommitted changes (`diff.patch`), "" where there are none."""
    python: str
    packages: dict[str, str]
    platform: str
    hardware: str
    """Model of the processor that computed, and the number of cores, or the GPU's model."""
    host: str
    device: str
    threads: int
    side_by_side: int
    """How many runs the sweep trained at a time."""
    deterministic: bool
    step: Step | Literal[""] = ""
    """How a step was computed: by the passes written out for a CPU, by plain autograd, or as a CUDA graph; "" where the
    journal is of a version that did not say."""
    step_reason: str = ""
    """Why it was by plain autograd."""
    branch: str = ""
    """Git branch of the code; "" where none was checked out, or the journal is of a version that did not say."""
    repository: str = ""
    """URL of the code's git remote `origin`, without credentials."""
    training: str = ""
    """SHA-256 of the code that computes, `repro/training`; "" where the journal is of a version that did not say."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an architecture; shapes are (channels, height, width) of one image, or (features,)."""

    name: str
    kind: str
    """conv, batch_norm, relu, max_pool, avg_pool, dropout, linear, concat or add; of another layer with weights, its type."""
    module: str
    """The block it belongs to: conv1, fire2, fire3_2 (a replica), conv10, fc1 ..."""
    input: tuple[int, ...]
    output: tuple[int, ...]
    kernel: int | None
    stride: int | None
    padding: int | None
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model as a drawing or a table needs it: `architecture.json`."""

    model: str
    input: tuple[int, int, int]
    layers: tuple[Layer, ...]
    residual: tuple[tuple[str, str, str], ...]
    """(module, kind, source) for each residual addition: the module it goes around, `identity` or `conv1x1`, and the
    module whose output is added to that module's own."""
    parameters: int
    multiply_adds: int
