"""`repro verify` and `repro show` on real runs: as they were trained, and tampered with."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from repro import journal
from repro.cli import main
from tests import journals
from tests.execution.watching import rows
from tests.starting import command, environment


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with a store, and in it two finished runs of two epochs."""
    import subprocess

    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("tracked")
    (folder / "tiny.yaml").write_text(TINY)
    words = ["experiment", "--study", "tiny.yaml", "--dataset", "digits", "--seeds", "0", "--epochs", "2"]
    subprocess.run(command(*words, "--data-dir", str(digits)), cwd=folder, env=environment(), check=True, text=True)
    return folder


@pytest.fixture
def run_id(tracked: Path) -> str:
    return rows(tracked / "mlflow.db", "SELECT run_uuid FROM runs WHERE name = 'narrow seed 0'")[0][0]


def tampered(tracked: Path, runs: Path, kind: str, **changes: object) -> str:
    """Copies a journal into `runs`, with its last record of `kind` changed; returns the run's key."""
    folder = next(one for one in journal.find(tracked / "runs") if journal.read(one).attempts[0].variant == "narrow")
    copy = runs / folder.name
    shutil.copytree(folder, copy)
    records = journals.records(folder / journal.NAME)
    last = [record for record in records if record["kind"] == kind][-1]
    last |= changes
    journals.write(copy / journal.NAME, records)
    return folder.name


def test_a_tracked_run_is_bit_identical(repro, tracked: Path, run_id: str, digits: Path) -> None:
    where = ["--tracking-uri", f"sqlite:///{tracked}/mlflow.db", "--data-dir", str(digits)]
    whole = repro("verify", run_id, *where)  # from another folder: all that it needs is in the store
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "bit-identical: 2 epochs and the final weights" in whole.stdout
    assert "not bit-identical" not in whole.stdout
    beginning = repro("verify", run_id, *where, "--epochs", "1")
    assert beginning.returncode == 0
    assert "epoch 2" not in beginning.stdout
    assert beginning.stdout.endswith("bit-identical: 1 epoch\n")
    beyond = repro("verify", run_id, *where, "--epochs", "3")
    assert beyond.returncode == 2
    assert "the run recorded 2" in beyond.stderr


def test_a_metric_that_was_changed_is_found_with_its_epoch(repro, tracked: Path, tmp_path: Path, digits: Path) -> None:
    key = tampered(tracked, tmp_path / "runs", "epoch", val_loss=0.5)
    found = repro("verify", key, "--data-dir", str(digits))
    assert found.returncode == 1
    assert "epoch 2: val_loss was 0.5 and is " in found.stdout
    assert "(by " in found.stdout
    assert "epoch 1: val" not in found.stdout.replace("epoch 1: validation", "")
    assert "not bit-identical" in found.stdout


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weights_digest": "0" * 64}, "the final weights differ: digest 0000000000000000 recorded"),
        ({"test_accuracy": 0.125}, "at the end: test_accuracy was 0.125 and is "),
    ],
)
def test_another_end_is_found(repro, tracked: Path, tmp_path: Path, digits: Path, changes, line) -> None:
    key = tampered(tracked, tmp_path / "runs", "result", **changes)
    found = repro("verify", key, "--data-dir", str(digits))
    assert found.returncode == 1, found.stdout
    assert line in found.stdout
    assert "not bit-identical" in found.stdout


def test_what_a_store_says_otherwise_is_found(repro, tracked: Path, tmp_path: Path, run_id: str, digits: Path) -> None:
    shutil.copy(tracked / "mlflow.db", tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        change = "UPDATE metrics SET value = 0.25 WHERE key = 'train_loss' AND step = 2 AND run_uuid = ?"
        db.execute(change, (run_id,))
    found = repro("verify", run_id, "--data-dir", str(digits))
    assert found.returncode == 1, found.stdout + found.stderr
    assert "epoch 2: train_loss is 0.25 in the store and " in found.stdout


def test_another_environment_is_listed(repro, tracked: Path, tmp_path: Path, digits: Path) -> None:
    folder = journal.find(tracked / "runs")[0]
    given = json.loads((folder / journal.NAME).read_text().splitlines()[0])["environment"]
    packages = {**given["packages"], "torch": "1.0", "left-pad": "2"}
    key = tampered(
        tracked, tmp_path / "runs", "attempt", environment={**given, "commit": "c0ffee", "packages": packages}
    )
    found = repro("verify", key, "--data-dir", str(digits), "--epochs", "1")
    assert found.returncode == 0, "what differs there need not change a bit"
    assert "environment: commit was c0ffee, is " in found.stdout
    assert "environment: torch was 1.0, is " in found.stdout
    assert "environment: left-pad was 2, is absent" in found.stdout


def test_one_run_is_shown_and_two_are_compared(repro, tracked: Path, run_id: str) -> None:
    where = ["--tracking-uri", f"sqlite:///{tracked}/mlflow.db"]
    known = next(
        one for one in map(journal.read, journal.find(tracked / "runs")) if one.attempts[0].variant == "narrow"
    )
    one = repro("show", run_id, *where)
    assert one.returncode == 0, one.stderr
    lines = dict(line.split(maxsplit=1) for line in one.stdout.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert lines["weights_digest"] == known.result.weights_digest
    assert lines["data.digest"] == known.spec.data.digest
    assert lines["key"] == known.spec.key
    names = list(lines)
    assert names.index("model.first_filters") < names.index("training.epochs") < names.index("model.dropout"), (
        "what is not the default stands first"
    )
    assert not any(name == "package" for name in names)
    packages = repro("show", run_id, "--packages", "true", *where).stdout
    assert "package torch " in packages and packages.split()[:6] == one.stdout.split()[:6]
    sweep = rows(tracked / "mlflow.db", "SELECT run_uuid FROM runs WHERE name = 'tiny'")[0][0]
    assert "| Narrow" in repro("show", sweep[:8], *where).stdout
    nothing = repro("show")
    assert nothing.returncode == 2 and "repro status" in nothing.stderr and len(nothing.stderr.splitlines()) == 1
    other = rows(tracked / "mlflow.db", "SELECT run_uuid FROM runs WHERE name = 'wide seed 0'")[0][0]
    assert repro("show", run_id[:6], *where).stdout == one.stdout, "the first digits do"
    two = repro("show", run_id, other, *where)
    assert "model.first_filters" in two.stdout
    assert "data.digest" not in two.stdout
    assert "do not differ" in repro("show", run_id, run_id, *where).stdout
    assert repro("show", "f" * 32, *where).returncode == 2
    key = next(line.split()[1] for line in one.stdout.splitlines() if line.startswith("key "))
    assert repro("show", key[:5], *where).stdout == one.stdout, "so do those of the key, in the store"
    assert repro("show", key[:5], "--runs-dir", str(tracked / "runs")).stdout == one.stdout, "and among the journals"


@pytest.mark.parametrize(
    "words", [("show", "abcd"), ("show", "ab" * 16), ("show", "abcd", "ab" * 16), ("verify", "abcd")]
)
def test_no_store_is_made_to_look_for_a_run(monkeypatch, capsys, tmp_path: Path, words) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert (
        "no such file; train something first, `repro sync` what was trained with --offline, or name the store" in said
    )
    assert list(tmp_path.iterdir()) == []


def test_digits_that_begin_several_runs_are_not_enough(repro, tmp_path: Path) -> None:
    for name in ("abcd0" + "1" * 11, "abcd0" + "2" * 11):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / journal.NAME).write_text("")
    found = repro("show", "abcd")
    assert found.returncode == 2
    assert "abcd matches 2 runs (abcd011111111111, abcd022222222222); give more digits" in found.stderr


def test_a_plan_says_what_is_finished_and_where(repro, tracked: Path, run_id: str, tmp_path: Path) -> None:
    words = ["plan", "--study", str(tracked / "tiny.yaml"), "--dataset", "digits", "--epochs", "2"]
    away = repro(*words, "--seeds", "0,1")
    assert "finished" not in away.stdout
    assert "2 rows, 4 runs, 4 still to be trained" in away.stdout
    assert not (tmp_path / "mlflow.db").exists(), "asking makes no store"
    stored = repro(*words, "--seeds", "0,1", "--tracking-uri", f"sqlite:///{tracked}/mlflow.db")
    assert f"finished, run {run_id}" in stored.stdout
    assert "2 rows, 4 runs, 2 still to be trained" in stored.stdout
    journals = repro(*words, "--seeds", "0", "--runs-dir", str(tracked / "runs"))
    assert journals.stdout.count("finished, in its journal alone") == 2
    assert "2 rows, 2 runs, 0 still to be trained" in journals.stdout
