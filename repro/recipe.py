"""How a network is trained: the declarations of optimizers, their schedules, and of batches, budget and arithmetic."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from repro.validation import Strict


class _Scheduled(Strict):
    """What all optimizers share: one factor a step for every rate they have."""

    schedule: Literal["constant", "cosine", "onecycle", "steps"] = "constant"
    """How the rates change over `training.epochs`: `constant`; `cosine`, down to 0; `onecycle`, up from 1/25 over the first
    30% and down to 1/250,000; `steps`, by `optimizer.step_factor` after each of `optimizer.step_epochs`."""
    warmup_epochs: float = Field(0.0, ge=0, le=100_000)
    """Epochs over which the rates rise linearly, before the schedule."""
    step_epochs: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False)] = ()
    """Epochs after which the schedule `steps` multiplies the rates."""
    step_factor: float = Field(0.1, gt=0, le=1)
    """What the schedule `steps` multiplies the rates by."""

    @model_validator(mode="after")
    def _steps_where_they_count(self) -> Self:
        if list(self.step_epochs) != sorted(set(self.step_epochs)):
            raise ValueError(f"optimizer.step_epochs: got {list(self.step_epochs)} (allowed: ascending, each once)")
        if (self.schedule == "steps") != bool(self.step_epochs):
            raise ValueError(
                f"optimizer.step_epochs: got {list(self.step_epochs)} with the schedule {self.schedule}"
                " (allowed: at least one epoch with steps, none with the others)"
            )
        if self.schedule == "onecycle" and self.warmup_epochs:
            raise ValueError(
                f"optimizer.warmup_epochs: got {self.warmup_epochs} with the schedule onecycle, which has a warm-up of its"
                " own (allowed: 0)"
            )
        return self


class _Moments(_Scheduled):
    """What the kinds of Adam share."""

    name: str
    lr: float = Field(1e-3, gt=0, le=100)
    """Learning rate (with AdaBound that of its Adam phase)."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment."""
    eps: float = Field(1e-8, gt=0, le=1)
    """Term added to the denominator."""
    weight_decay: float = Field(0.0, ge=0, le=10)
    """L2 penalty (with AdamW: decoupled weight decay)."""


class AdaBoundSpec(_Moments):
    """AdaBound (Luo et al. 2019). The paper's "learning rate" is `final_lr`; `lr` is the rate of the Adam phase."""

    name: Literal["adabound"]
    """Optimizer: `adabound`, `adam`, `adamw` or `sgd`."""
    final_lr: float = Field(0.04, gt=0, le=100)
    """AdaBound's final learning rate: the paper's "learning rate"."""
    gamma: float = Field(1e-3, gt=0, lt=1)
    """Speed at which AdaBound's bounds close."""
    amsbound: Literal[False] = False
    """Whether AdaBound keeps the maximum of the second moment (AMSBound); only `false`: the variant is not implemented."""


class AdamSpec(_Moments):
    """Adam (Kingma and Ba 2014)."""

    name: Literal["adam"]


class AdamWSpec(_Moments):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"]
    weight_decay: float = Field(0.01, ge=0, le=10)


class SGDSpec(_Scheduled):
    """Stochastic gradient descent with momentum (torch's convention: v = momentum * v + g, w = w - lr * v)."""

    name: Literal["sgd"]
    lr: float = Field(0.01, gt=0, le=100)
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(0.0, ge=0, le=10)


OptimizerSpec: TypeAlias = AdaBoundSpec | AdamSpec | AdamWSpec | SGDSpec


class TrainingSpec(Strict):
    """How long, in what batches, in which arithmetic."""

    epochs: int = Field(100, ge=1, le=100_000)
    """Maximum number of epochs."""
    patience: int = Field(15, ge=1, le=100_000)
    """Early stopping: epochs without a better validation accuracy."""
    batch_size: int = Field(50, ge=1, le=100_000)
    """Batch size."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of convolutions and linear layers, `fp32` or `bf16` as under autocast; weights and optimizer are in
    float32."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each label that is spread over all classes in the training loss; validation and test use none."""
