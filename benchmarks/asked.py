"""What every program under measurement is asked for, as its command line says it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from repro import studies
from repro.spec import RunSpec, resolve

MODELS = {"squeezenet_bn": "SqueezeNet, batchnorm", "alexnet": "AlexNet"}
"""Variants of the study `reproducibility` that are measured, and how the tables call them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One measurement of one program."""

    model: str
    precision: str
    dataset: str
    data_dir: Path
    warmup: int
    steps: int
    workers: int
    """Processes that load data, for the programs that have such."""
    device: str = "cpu"
    """On "cuda" warm-up and steps are whole epochs."""
    deterministic: bool = True
    """On a GPU: take only algorithms that give the same bits each time."""

    def words(self) -> list[str]:
        """The command line that `parse` reads."""
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in self.__dataclass_fields__]

    @property
    def spec(self) -> RunSpec:
        """The run, with epochs enough for any number of steps."""
        return spec(self.model, self.precision, self.dataset)


def spec(model: str, precision: str = "fp32", dataset: str = "cifar10") -> RunSpec:
    """A row of Table 1, without an end in sight."""
    settings = studies.settings(studies.load("reproducibility"), model)
    return resolve(
        settings
        | {
            "data.dataset": dataset,
            "training.precision": precision,
            "training.epochs": 100_000,
            "training.patience": 100_000,
        },
        "benchmarks",
    )


def parse() -> Asked:
    """What the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, default="squeezenet_bn")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--dataset", choices=("cifar10", "digits"), default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--deterministic", type="True".__eq__, default=True)
    return Asked(**vars(parser.parse_args()))
