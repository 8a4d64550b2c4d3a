"""The declared models as a table: what each is made of, how large it is, and whether that is the size the paper prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from repro.datasets import KnownData
from repro.networks import ModelSpec
from repro.published import size_unit
from repro.records import Architecture
from repro.studies import plan
from repro.study import Study
from repro.training.models import build, describe, state_bytes

MIB = 2**20


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One declared variant. Sizes are those of its saved state dict."""

    study: str
    variant: str
    title: str
    parameters: int
    multiply_adds: int
    """Of convolutions and linear layers, for one image."""
    size_mib: float
    """In torch's zip format."""
    size_legacy_mib: float
    """In torch's format before 1.6, which the published sizes were measured in."""
    published: float | None
    difference: float | None
    """Legacy size less the published one, in MiB."""
    fits: bool | None
    """Whether the published size is this model's; None where none is published."""
    note: str
    """What is to be said of the published size: the variant's own note, where the size is not met in MiB."""


def catalogue(studies: Sequence[Study], data: KnownData | None = None) -> tuple[ModelRow, ...]:
    """A row for every variant of the studies, in order; equal models are built once, and no generator is touched.

    Args:
        studies: the studies.
        data: the data set of one's own study, whose classes and image size the networks are built for.

    Raises:
        InputError: a variant whose network cannot be built: one line.
    """
    measured, rows = cache(_measured), []
    for study in studies:
        planned = plan([(study, tuple(study.variants))], seeds=[0], data=data).runs
        for run in {run.variant: run for run in planned}.values():  # one of each, whatever the folds
            architecture, size, legacy = measured(run.spec.model)
            published = run.published.size
            unit = None if published is None else size_unit(published, legacy / MIB)
            said = study.variants[run.variant].note or (f"the published size is in {unit}" if unit else "")
            rows.append(
                ModelRow(
                    study=study.study,
                    variant=run.variant,
                    title=run.title,
                    parameters=architecture.parameters,
                    multiply_adds=architecture.multiply_adds,
                    size_mib=size / MIB,
                    size_legacy_mib=legacy / MIB,
                    published=published,
                    difference=None if published is None else legacy / MIB - published,
                    fits=None if published is None else unit is not None,
                    note="" if published is None or unit == "MiB" else said,
                )
            )
    return tuple(rows)


def _measured(spec: ModelSpec) -> tuple[Architecture, int, int]:
    """The architecture, and the bytes of its state dict in the zip and in the legacy format."""
    with torch.random.fork_rng(devices=[]):
        module = build(spec)
    state = module.state_dict()
    return describe(module, spec), state_bytes(state, legacy=False), state_bytes(state, legacy=True)
