"""Runs that go on: from a checkpoint in the middle of an epoch, or from nothing where that is damaged."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from repro import journal
from repro.execution import worker
from tests import journals
from tests.execution.watching import digests, epochs_written, rows, said, wait_for


@pytest.fixture
def words(long_words) -> list[str]:
    return [*long_words(40), "--variant", "narrow", "--workers", "1"]


@pytest.fixture
def stopped(start, words, tmp_path: Path) -> Path:
    """The folder of a run that SIGTERM has stopped after some epochs."""
    process = start(words)
    wait_for(lambda: epochs_written(tmp_path) >= 4)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    return journal.find(tmp_path / "runs")[0]


@pytest.fixture
def undisturbed(repro, words, tmp_path: Path) -> Path:
    done = repro(*words, "--offline", "true", "--runs-dir", "undisturbed")
    assert done.returncode == 0, done.stderr
    return tmp_path / "undisturbed"


def test_a_run_that_was_stopped_in_an_epoch_ends_in_the_same_bits(repro, words, stopped, undisturbed) -> None:
    snapshot = torch.load(stopped / "checkpoint.pt", weights_only=True)
    assert snapshot["step"] > 0, "in the middle of an epoch"
    assert {path.name for path in stopped.iterdir() if "checkpoint" in path.name} == {"checkpoint.pt"}
    assert journal.read(stopped).stop.reason == "killed"
    done = repro(*words)
    assert done.returncode == 0, done.stderr
    assert [one.resumed_epoch for one in journal.read(stopped).attempts] == [0, snapshot["epochs_done"]]
    assert digests(stopped.parent) == digests(undisturbed)
    assert said(stopped.parent) == said(undisturbed)
    assert not (stopped / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(one, marks=pytest.mark.slow) for one in ("garbage", "another"))]
)
def test_a_damaged_checkpoint_means_a_new_start_that_is_held_to_the_journal(repro, words, stopped, damage) -> None:
    path = stopped / "checkpoint.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    else:
        torch.save({"key": journal.read(stopped).spec.key, "epochs_done": 1, "of": "another version"}, path)
    known = journal.read(stopped)
    done = repro(*words, "--offline", "true")
    assert done.returncode == 0, done.stderr
    after = journal.read(stopped)
    assert [one.resumed_epoch for one in after.attempts] == [0, 0]
    assert after.epochs[: len(known.epochs)] == known.epochs, "what was recorded stands"
    assert after.differences == ()


def test_a_retrained_epoch_that_differs_is_reported(repro, words, stopped, tmp_path: Path) -> None:
    path = stopped / journal.NAME
    (stopped / "checkpoint.pt").unlink()
    records = journals.records(path)
    second = next(record for record in records if record["kind"] == "epoch" and record["epoch"] == 2)
    trained, second["val_loss"] = second["val_loss"], 0.5
    journals.write(path, records)
    done = repro(*words)
    assert done.returncode == 0, done.stderr
    assert f"epoch 2 was retrained and its val_loss is {trained!r}, not 0.5 as recorded" in done.stdout
    assert journal.read(stopped).differences == (journal.Difference(2, "val_loss", 0.5, trained),)
    assert rows(tmp_path / "mlflow.db", "SELECT value FROM tags WHERE key = 'repro.differences'") == [("1",)]


def test_a_run_of_two_pieces_says_so(repro, words, stopped, tmp_path: Path) -> None:
    records = journals.records(stopped / journal.NAME)
    records[0]["environment"] |= {"training": "0" * 64, "hardware": "another", "dirty": True}
    journals.write(stopped / journal.NAME, records)
    (stopped / "diff.patch").write_text("- a\n+ b\n")
    done = repro(*words)
    assert "narrow seed 0: code and hardware changed since its first epochs were trained" in done.stdout
    tags = dict(
        rows(tmp_path / "mlflow.db", "SELECT key, value FROM tags WHERE key LIKE 'repro.%' AND value != 'sweep'")
    )
    assert (tags["repro.mixed"], tags["repro.dirty"]) == ("code, hardware", "true")
    assert (stopped / "former.patch").read_text() == "- a\n+ b\n"
    assert "Narrow, seed 0: resumed after a change of code and hardware" in repro("compare").stdout


def test_a_damaged_journal_fails_its_run_alone(repro, sweep_words, stopped, tmp_path: Path) -> None:
    path = stopped / journal.NAME
    path.write_text(path.read_text().replace("\n", "\nby hand\n", 1))
    words = [*sweep_words[:-1], "40", "--patience", "40"]
    failed = repro(*words)
    assert failed.returncode == 1
    assert "line 2 is broken" in failed.stdout
    assert "--fresh true sets it aside" in failed.stdout
    assert "1 of 2 runs failed" in failed.stderr
    done = repro(*words, "--fresh", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (stopped.with_name(f"{stopped.name}.1") / journal.NAME).exists()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no snapshot of ours")])
def test_a_device_without_memory_costs_an_attempt_and_not_the_checkpoint(monkeypatch, error) -> None:
    def fails(*_):
        raise error

    monkeypatch.setattr(worker, "_training", fails)
    job = SimpleNamespace(spec=SimpleNamespace(key="a"))
    if isinstance(error, torch.OutOfMemoryError):
        with pytest.raises(torch.OutOfMemoryError):
            worker._resumed(job, {"key": "a"}, 3)
    else:
        assert worker._resumed(job, {"key": "a"}, 3) is None, "which starts anew"
