"""What an earlier version left is opened, gone on with, compared and published.

`former.tar.xz` was made by commit bb3fe24 in /tmp/former, with the study of `tests/conftest.py` and the embedded digits:

    repro experiment --study tiny.yaml --seeds 0 --epochs 3                                   two runs, finished
    repro experiment --study tiny.yaml --variant narrow --seeds 1 --epochs 24 --patience 24   SIGINT after 5 epochs
    repro experiment --study tiny.yaml --variant narrow --seeds 2 --epochs 3 --offline true   one journal
    repro compare --study tiny --out report --figures false
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from repro import journal
from repro.records import EPOCH_METRICS, RESULT_METRICS
from repro.tracking import models, reader
from tests.conftest import Repro

_FORMER = Path(__file__).with_name("former.tar.xz")
_MADE_IN = "/tmp/former"
_FINISHED = {("narrow", 0): 0.45, ("wide", 0): 0.55}
"""Best validation accuracy of the finished runs of the store."""
_STOPPED, _OFFLINE = "d69f33cb72fc3e2e", "19edbb2b3dd434f2"


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The project folder of the earlier version, as if it had been made here."""
    with tarfile.open(_FORMER) as archive:
        archive.extractall(tmp_path, filter="data")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store, store:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location"), ("tags", "value")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (_MADE_IN, str(tmp_path)))
    return tmp_path


@pytest.fixture
def words(digits: Path) -> Callable[..., list[str]]:
    """`words("--seeds", "0")`: the words of a sweep of the former study."""
    start = ["experiment", "--study", "tiny.yaml", "--dataset", "digits", "--data-dir", str(digits)]
    return lambda *more: [*start, *more]


def test_its_runs_are_read(former: Path) -> None:
    contents = reader.read(f"sqlite:///{former}/mlflow.db", curves=True)
    assert not contents.notes
    assert len(contents.sweeps) == 2
    found = {(run.variant, run.seed): run.metrics["best_val_accuracy"] for run in contents.runs}
    assert found == pytest.approx(_FINISHED)
    assert all(run.curve is not None and len(run.curve.epoch) == 3 for run in contents.runs)


def test_its_journals_are_read(former: Path) -> None:
    known = {folder.name: journal.read(folder) for folder in journal.find(former / "runs")}
    assert len(known) == 4
    assert all(one is not None and one.spec.key == name for name, one in known.items())
    assert [len(one.epochs) for name, one in known.items() if one is not None and name == _STOPPED] == [5]


def test_its_finished_runs_are_reused(former: Path, repro: Repro, words: Callable[..., list[str]]) -> None:
    done = repro(*words("--seeds", "0", "--epochs", "3"))
    assert done.returncode == 0, done.stderr
    assert "2 reused, 0 to train" in done.stdout
    assert "| 55.00 |" in done.stdout
    assert len(journal.find(former / "runs")) == 4


def test_its_interrupted_run_goes_on(former: Path, repro: Repro, words: Callable[..., list[str]]) -> None:
    done = repro(*words("--variant", "narrow", "--seeds", "1", "--epochs", "24", "--patience", "24"))
    assert done.returncode == 0, done.stderr
    assert "narrow seed 1: resumes after epoch 5" in done.stdout
    known = journal.read(former / "runs" / _STOPPED)
    assert known is not None and known.result is not None and len(known.attempts) == 2
    with contextlib.closing(sqlite3.connect(former / "mlflow.db")) as store:
        statuses = store.execute("SELECT status FROM runs WHERE name = 'narrow seed 1'").fetchall()
        steps = store.execute(
            "SELECT step FROM metrics JOIN runs USING (run_uuid) WHERE name = 'narrow seed 1' AND key = 'val_loss'"
        ).fetchall()
    assert statuses == [("FINISHED",)]
    assert sorted(steps) == [(step,) for step in range(1, len(known.epochs) + 1)]


def test_its_journals_are_published(former: Path, repro: Repro) -> None:
    points = 3 * len(EPOCH_METRICS) + len(RESULT_METRICS) + 1
    for new, brought in ((" (1 new)", points), ("", 0)):
        done = repro("sync")
        assert done.returncode == 0, done.stderr
        assert f"4 runs{new} up to date in the store, {brought} points added" in done.stdout
    rows = reader.read(f"sqlite:///{former}/mlflow.db").runs
    (stored,) = [run for run in rows if run.key == _OFFLINE]
    assert (stored.variant, stored.seed) == ("narrow", 2)
    (old,) = [run for run in rows if (run.variant, run.seed) == ("narrow", 0)]
    assert set(old.params) < set(stored.params), "it has no field that was added later"
    assert models.group(old) == models.group(stored), "the seeds compete for the best model"


def test_its_report_is_written_again_in_place(former: Path, repro: Repro) -> None:
    table = former / "report" / "tables" / "runs.csv"
    before = _accuracies(table)
    done = repro("compare", "--study", "tiny", "--out", "report", "--figures", "false")
    assert done.returncode == 0, done.stderr
    assert _accuracies(table) == pytest.approx(before)
    assert {"index.html", "tables/runs.csv"} <= {
        str(path.relative_to(former / "report")) for path in (former / "report").rglob("*")
    }


def test_its_runs_are_shown(former: Path, repro: Repro) -> None:
    shutil.rmtree(former / "runs")  # from the store alone
    done = repro("show", "49e204810cae")
    assert done.returncode == 0, done.stderr
    assert "bb3fe24" in done.stdout


def _accuracies(table: Path) -> dict[str, float]:
    """Validation accuracy of each run in a ledger of runs, in percent; in an earlier version's it is a share."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    former = "best_val_accuracy" in rows[0]
    return {
        row["run_id"]: 100 * float(row["best_val_accuracy"]) if former else float(row["val_accuracy"]) for row in rows
    }
