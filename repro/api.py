"""What `repro.load` gives: the runs of a tracking store as frames of pandas, its tables and claims, and trained models."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from repro.errors import InputError, unknown
from repro.records import Architecture
from repro.reporting import claims, evidence, join, tables
from repro.reporting.frame import Beside, Predictions
from repro.tracking import reader
from repro.tracking.store import connect
from repro.tracking.writer import Writer
from repro.validation import typed

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from repro.reporting.join import Table
    from repro.rows import RunRow

Samples: TypeAlias = tuple[NDArray[np.uint8], Sequence[str]]
_Value = TypeVar("_Value")


class Store:
    """A tracking store as it was when it was loaded. Accuracies are in percent, sizes in MiB, times in seconds."""

    def __init__(self, uri: str | None = None) -> None:
        """Reads the store; None is $MLFLOW_TRACKING_URI, else mlflow.db in the working folder."""
        self._writer = cache(lambda: writer(uri))
        self._contents = reader.read(uri, curves=True)
        self._beside = replace(beside(self._writer), weights=lambda _: "")

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per finished run: study, variant, seed, val_accuracy, test_accuracy, best_epoch, run_id, commit ..."""
        return self._ledger[[name for name in evidence.RUN_COLUMNS if name != "weights_digest"]]

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row an epoch of every run: study, variant, seed, run_id, epoch, train_loss, val_accuracy ..."""
        return evidence.epochs_frame(self._ledger)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """One row per claim: what it says, its verdict, the numbers that it rests on, and the runs."""
        return evidence.claims_frame(claims.judge(claims.load(), self._tables))

    @cached_property
    def _tables(self) -> tuple[Table, ...]:
        return join.tables(self._contents, beside=self._beside)

    @cached_property
    def _ledger(self) -> pd.DataFrame:
        return evidence.runs_frame(self._tables)

    def table(self, study: str) -> pd.DataFrame:
        """One row per variant of a study, with the columns of `tables/<study>.csv`.

        Raises:
            InputError: the store has no such study.
        """
        (found,) = join.tables(self._contents, [study], beside=self._beside)
        return tables.study_frame(found)[[*tables.CONTRACT, *found.study.fields]]

    def model(self, run_id: str) -> nn.Module:
        """The network of a run with its best weights, as it was evaluated: on the CPU, in evaluation mode.

        It takes normalized images (N, 3, side, side) float32 and gives logits (N, classes) float32.

        Raises:
            InputError: the store has no such finished run, its plan or its weights.
        """
        key = {run.run_id: run.key for run in self._contents.runs}
        if run_id not in key:
            raise unknown("run of the store", run_id, key)
        specs = {run.key: run.spec for sweep in self._contents.sweeps for run in sweep.plan.runs}
        content = self._writer().artifact(run_id, "model.pt")
        if content is None or key[run_id] not in specs:
            raise InputError(f"run {run_id}: its {'weights are' if content is None else 'sweep is'} not in the store")
        import torch

        from repro.training.export import restored

        return restored(specs[key[run_id]], torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def writer(tracking_uri: str | None) -> Writer:
    """What fetches single runs of a store and writes to it."""
    return Writer(connect(tracking_uri, create=False))


def beside(writer: Callable[[], Writer], samples: Samples | None = None) -> Beside:
    """What a report needs beside rows: artifacts of single runs, and images of the data set."""

    def artifact(name: str, parse: Callable[[bytes], _Value]) -> Callable[[RunRow], _Value | None]:
        def fetch(run: RunRow) -> _Value | None:
            content = writer().artifact(run, name)
            try:
                return None if content is None else parse(content)
            except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
                raise InputError(f"run {run.run_id}: its {name} cannot be read ({error})") from None

        return fetch

    def architecture(content: bytes) -> Architecture:
        return typed(Architecture, json.loads(content))

    def confusion(content: bytes) -> list[list[int]]:
        _, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
        return [[int(count) for count in counts] for _, *counts in rows]

    def predictions(content: bytes) -> Predictions:
        with np.load(io.BytesIO(content)) as stored:
            return Predictions(*(stored[name] for name in Predictions._fields))

    def weights(content: bytes) -> str:
        found = re.findall(rb'"weights_digest": ?"([0-9a-f]{64})"', content)
        return found[-1].decode() if found else ""

    kept = artifact("journal.jsonl", weights)
    digests: dict[str, str] = {}  # runs.csv and the claims ask for the same runs

    def digest(run: RunRow) -> str:
        if run.run_id not in digests:
            digests[run.run_id] = kept(run) or ""
        return digests[run.run_id]

    return Beside(
        artifact("architecture.json", architecture),
        artifact("confusion.csv", confusion),
        artifact("predictions.npz", predictions),
        digest,
        samples,
    )
