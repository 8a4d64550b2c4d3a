"""Sweeps as a user starts them: what is trained, what is reused, what is left when they are ended by force."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro import journal, studies
from repro.execution import folders
from repro.execution.events import Event, Stopping
from repro.execution.executors.local import Local, Process
from repro.execution.following import Followed
from repro.execution.job import Job
from repro.execution.settings import Settings
from repro.execution.sweep import _STOP_SECONDS, Interrupted, _Sweep
from tests import journals
from tests.execution.watching import epochs_written, lives, points, rows, statuses, wait_for, workers_of
from tests.starting import command, environment


def test_a_sweep_trains_tracks_and_then_reuses(repro, sweep_words, tmp_path: Path) -> None:
    first = repro(*sweep_words)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "0 reused, 2 to train" in first.stdout
    assert "| Narrow" in first.stdout, "the sweep ends with its table"
    assert statuses(tmp_path) == {"tiny": "FINISHED", "narrow seed 0": "FINISHED", "wide seed 0": "FINISHED"}
    before = points(tmp_path)
    assert len([one for one in before if one[1] == "val_loss"]) == 2 * 3
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        (uri,) = db.execute("SELECT artifact_uri FROM runs WHERE name = 'tiny'").fetchone()
        query = "SELECT key, params.value FROM params JOIN runs USING (run_uuid) WHERE name = 'tiny'"
        assert dict(db.execute(query))["training.epochs"] == "3", "what was put on every variant"
        query = "SELECT key, latest_metrics.value FROM latest_metrics JOIN runs USING (run_uuid) WHERE name = 'tiny'"
        counted = dict(db.execute(query))
    assert (counted["sweep_runs"], counted["sweep_finished"], len(counted)) == (2, 2, 4)
    assert 0 < counted["sweep_best_test_accuracy"] <= 1
    assert "| Narrow" in (Path(uri) / "results.md").read_text() and (Path(uri) / "tiny-forest.png").is_file()

    again = repro(*sweep_words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 reused, 0 to train" in again.stdout
    assert points(tmp_path) == before
    described = "SELECT value FROM tags JOIN runs USING (run_uuid) WHERE name = 'tiny' AND key = 'mlflow.note.content'"
    first_note, note = (value for (value,) in rows(tmp_path / "mlflow.db", f"{described} ORDER BY start_time"))
    assert "Reused" not in first_note and "| Narrow" in note
    for (run,) in rows(tmp_path / "mlflow.db", "SELECT run_uuid FROM runs WHERE name != 'tiny'"):
        assert f"/runs/{run})" in note, "a link to each run that it reused"

    fresh = repro(*sweep_words, "--fresh", "true")
    assert "0 reused, 2 to train" in fresh.stdout
    assert len(journal.find(tmp_path / "runs")) == 4, "the former journals are kept"
    values = {(name, metric, step): set() for name, metric, step, _ in before}
    for name, metric, step, value in points(tmp_path):
        values[name, metric, step].add(value)
    assert all(len(seen) == 1 for seen in values.values()), "one key, one machine: the same bits"


def test_offline_journals_are_synced_later_with_their_own_times(repro, sweep_words, tmp_path: Path) -> None:
    trained = repro(*sweep_words, "--offline", "true")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert not (tmp_path / "mlflow.db").exists()
    for folder in journal.find(tmp_path / "runs"):
        (folder / "model.pt").unlink()  # a journal is enough
    ended = {journal.read(one).entries[-1].time_ms for one in journal.find(tmp_path / "runs")}
    time.sleep(0.1)
    for _ in range(2):
        synced = repro("sync")
        assert synced.returncode == 0, synced.stderr
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        assert {row[0] for row in db.execute("SELECT end_time FROM runs WHERE name != 'tiny'")} == ended
    assert len([one for one in points(tmp_path) if one[1] == "val_loss"]) == 2 * 3
    assert statuses(tmp_path)["tiny"] == "FINISHED", "the sweep is known, too, and is brought in once"
    compared = repro("compare", "--study", "tiny", "--figures", "false")
    assert compared.returncode == 0 and "| Narrow" in compared.stdout
    assert "2 reused, 0 to train" in repro(*sweep_words).stdout


def test_sync_gives_a_finished_run_the_predictions_that_it_lacks(repro, sweep_words, digits, tmp_path: Path) -> None:
    assert repro(*sweep_words, "--offline", "true").returncode == 0
    files = sorted((tmp_path / "runs").glob("*/predictions.npz"))
    assert len(files) == 2
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    synced = repro("sync", "--data-dir", str(tmp_path / "elsewhere"))
    assert synced.returncode == 0, "without the data set the runs are brought in as they are"
    assert not any(file.exists() for file in files)
    assert repro("sync", "--data-dir", str(digits)).returncode == 0
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_a_sweep_within_seconds_and_it_resumes(repro, start, sweep_words, tmp_path: Path, number) -> None:
    words = [*sweep_words[:-1], "200", "--patience", "200"]
    process = start(words)
    wait_for(lambda: epochs_written(tmp_path) >= 3)
    wait_for(lambda: len({run for run, *_ in points(tmp_path)}) == 2)  # the store knows both runs
    children = workers_of(process.pid)
    asked = time.monotonic()
    process.send_signal(number)
    process.wait(10)
    took = time.monotonic() - asked
    assert took < 2 * _STOP_SECONDS  # the checkpoints are small; the machine may be busy
    assert process.returncode == 130
    assert not any(child.is_running() for child in children)
    if took > _STOP_SECONDS:  # it did not wait longer for the store of a busy machine: `repro reap` says the rest
        assert repro("reap").returncode == 0
    assert set(statuses(tmp_path).values()) == {"KILLED"}
    done = epochs_written(tmp_path)

    process = start(words)
    wait_for(lambda: epochs_written(tmp_path) > done + 2)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=10)[0]
    assert "resumes after epoch" in output
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (3,), "the same sweep, and the same two runs"
    seen = [(name, metric, step) for name, metric, step, _ in points(tmp_path)]
    assert len(seen) == len(set(seen)), "no step logged twice"


def test_a_killed_worker_fails_its_run_alone_and_is_retried_once(start, sweep_words, tmp_path: Path) -> None:
    words = [*sweep_words[:-1], "60", "--patience", "60", "--workers", "2"]
    process = start(words)
    wait_for(lambda: epochs_written(tmp_path) >= 2)
    workers_of(process.pid)[0].kill()
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert "killed by SIGKILL); retrying once" in output
    assert set(statuses(tmp_path).values()) == {"FINISHED"}


def test_a_killed_driver_leaves_nothing_training_and_its_runs_are_closed(
    repro, start, sweep_words, tmp_path: Path
) -> None:
    process = start([*sweep_words[:-1], "500", "--patience", "500"])
    wait_for(lambda: epochs_written(tmp_path) >= 2 and "RUNNING" in statuses(tmp_path).values())
    children = workers_of(process.pid)
    assert children
    process.kill()
    process.wait()
    wait_for(lambda: not any(lives(child) for child in children), 12)
    reaped = repro("reap")
    assert reaped.returncode == 0, reaped.stderr
    assert set(statuses(tmp_path).values()) == {"KILLED"}


def test_two_sweeps_at_once_train_each_key_once(repro, start, sweep_words, tmp_path: Path) -> None:
    words = [*sweep_words[:-1], "15"]
    assert repro("sync").returncode == 2, "no folder of journals yet"
    both = [start(words) for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    attempts = [len(journal.read(one).attempts) for one in journal.find(tmp_path / "runs")]
    assert attempts == [1, 1]
    seen = [(name, metric, step) for name, metric, step, _ in points(tmp_path)]
    assert len(seen) == len(set(seen))


def test_four_sweeps_at_once_on_one_new_store(start, sweep_words, tmp_path: Path) -> None:
    started = [start([*sweep_words, "--workers", "1", "--runs-dir", f"runs{number % 2}"]) for number in range(4)]
    outputs = [process.communicate(timeout=250)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4, outputs
    kinds = "SELECT tags.value, status, count(*) FROM runs JOIN tags USING (run_uuid)"
    kinds += " WHERE tags.key = 'repro.kind' GROUP BY 1, 2"
    found = {(kind, status): number for kind, status, number in rows(tmp_path / "mlflow.db", kinds)}
    assert found.keys() == {("sweep", "FINISHED"), ("run", "FINISHED")}
    assert found["sweep", "FINISHED"] == 4
    assert found["run", "FINISHED"] in {2, 3, 4}, "once a folder of journals; less where one sweep was faster"
    doubled = "SELECT 1 FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
    assert rows(tmp_path / "mlflow.db", doubled) == []


def test_runs_are_reused_from_anywhere(repro, sweep_words, tmp_path: Path) -> None:
    words = [*sweep_words[:-1], "1"]
    assert repro(*words, env={"MLFLOW_EXPERIMENT_NAME": "elsewhere"}).returncode == 0
    before = points(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert "2 reused, 0 to train" in repro(*words).stdout, "another experiment of the store, without the journals"
    assert points(tmp_path) == before
    other = ["--tracking-uri", "sqlite:///other.db", "--runs-dir", "moved"]
    assert "2 reused, 0 to train" in repro(*words, *other).stdout, "journals that this store does not have"
    assert rows(tmp_path / "other.db", "SELECT count(*) FROM metrics WHERE key = 'val_loss'") == [(2,)]


def test_a_job_larger_than_a_pipe_is_handed_over_in_the_background(tmp_path: Path) -> None:
    """A worker imports torch before it reads, and a sweep with a long job must not wait for it."""
    (run,) = studies.plan([(studies.load("best"), ("best",))], seeds=[0]).runs
    job = Job(run.spec, run.study, "x" * 10**6, tmp_path, tmp_path, "cpu", 1, 1, True, checkpoint_seconds=30.0)
    process = Process(1)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        process.assign(job)  # would wait for ever
    finally:
        process.kill()


def test_a_run_that_another_sweep_trains_is_not_marked_killed(tmp_path: Path) -> None:
    """Two sweeps had found its folder free; this one is told to stop before its worker could say that it is not."""
    plan = studies.plan([(studies.load("best"), ("best",))], seeds=[0, 1])
    settings = Settings(cache=tmp_path, runs=tmp_path)
    stopped = _Sweep(plan, settings, Local(2, 1), 2)
    noted = []
    stopped.publisher = SimpleNamespace(note=lambda folder, state: noted.append((folder, state)), close=lambda *_: 0)
    handle = SimpleNamespace(stop=lambda: None, kill=lambda: None, exit=lambda: 0)
    theirs, ours = plan.runs
    for run in plan.runs:
        (tmp_path / run.key).mkdir()
    with journal.claim(tmp_path / theirs.key):
        stopped.active = [Followed(run, tmp_path / run.key, handle) for run in (theirs, ours)]
        stopped._stop()
    assert noted == [(tmp_path / ours.key, "killed")]


def test_a_run_that_had_no_time_for_its_checkpoint_is_named(tmp_path: Path, monkeypatch) -> None:
    plan = studies.plan([(studies.load("best"), ("best",))], seeds=[0, 1])
    stopped = _Sweep(plan, Settings(cache=tmp_path, runs=tmp_path, offline=True), Local(2, 1), 2)
    ends = [SimpleNamespace(stop=lambda: None, kill=lambda: None, exit=lambda code=code: code) for code in (None, 0)]
    stopped.active = [Followed(run, tmp_path / run.key, end) for run, end in zip(plan.runs, ends, strict=True)]
    monkeypatch.setattr("repro.execution.sweep._CHECKPOINT_SECONDS", 0.1)
    monkeypatch.setattr(stopped, "_look", lambda: {})

    def told(*_: object) -> Iterator[Event]:
        yield Stopping()
        raise Interrupted("stopped; rerun")

    monkeypatch.setattr(stopped, "_train", told)
    with pytest.raises(Interrupted, match=r"^stopped; rerun, from .* no new one was written in time for best seed 0$"):
        list(stopped.work())


def test_two_sweeps_that_begin_anew_set_a_run_aside_once(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / journal.NAME).write_text("damaged\n\n")
    assert folders.ended(folder, damaged=True)

    def late(folder: Path) -> None:
        folder.rename(tmp_path / "run.1")
        raise FileNotFoundError(folder / "lock")

    with monkeypatch.context() as other:
        other.setattr(journal, "claim", late)
        assert folders.set_aside(folder, folders.over(0)) is None
    (tmp_path / "run.1").rename(folder)
    assert folders.set_aside(folder, folders.over(0)) == tmp_path / "run.1"


def test_a_fresh_sweep_that_was_stopped_goes_on(repro, sweep_words, tmp_path: Path) -> None:
    words = [*sweep_words, "--offline", "true"]
    assert repro(*words).returncode == 0
    first, second = (journal.read(folder) for folder in journal.find(tmp_path / "runs"))
    plan = next((tmp_path / "runs" / "sweeps").glob("*.json"))
    ends = [one.entries[-1].time_ms for one in (first, second)]
    plan.with_suffix(".fresh").write_text(str(max(ends)))  # as if it began when one of them had ended
    done = repro(*words, "--fresh", "true")
    assert "1 reused, 1 to train" in done.stdout
    assert not plan.with_suffix(".fresh").exists()
    assert "0 reused, 2 to train" in repro(*words, "--fresh", "true").stdout


def test_runs_of_other_training_code_are_reused_and_named(repro, sweep_words, tmp_path: Path) -> None:
    assert repro(*sweep_words, "--offline", "true").returncode == 0
    assert "another state" not in repro(*sweep_words, "--offline", "true").stdout
    path = journal.find(tmp_path / "runs")[0] / journal.NAME
    records = journals.records(path)
    records[0]["environment"]["training"] = "0" * 64
    journals.write(path, records)
    again = repro(*sweep_words, "--offline", "true")
    assert "2 reused, 0 to train" in again.stdout
    assert "1 reused run was trained by another state of repro/training; --fresh true retrains" in again.stdout


def test_mlflow_is_not_imported_offline(sweep_words, tmp_path: Path, digits: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "mlflow.py").write_text("raise ImportError('mlflow was imported')")
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(blocked), env["PYTHONPATH"]])
    done = subprocess.run(
        command(*sweep_words[:-1], "1", "--offline", "true"),
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(journal.find(tmp_path / "runs")) == 2


def test_a_run_that_fails_twice_is_reported_and_the_others_go_on(repro, sweep_words, tmp_path: Path) -> None:
    folder = next(
        line.split()[0] for line in repro("plan", *_plan_words(sweep_words)).stdout.splitlines() if "narrow" in line
    )
    (tmp_path / "runs" / folder / "spec.yaml").mkdir(parents=True)  # its description cannot be written
    failed = repro(*sweep_words)
    assert failed.returncode == 1
    assert "1 of 2 runs failed" in failed.stderr
    assert "retrying once" in failed.stdout
    assert statuses(tmp_path)["wide seed 0"] == "FINISHED"


def test_a_run_that_cannot_be_trained_is_not_tried_again(repro, sweep_words, digits: Path, tmp_path: Path) -> None:
    """A cache of other images is known where they are read."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for cache in digits.glob("digits-*.u8"):
        (damaged / cache.name).write_bytes(cache.read_bytes()[::-1])
    failed = repro(*[str(damaged) if word == str(digits) else word for word in sweep_words])
    assert failed.returncode == 1
    assert "2 of 2 runs failed" in failed.stderr
    assert "failed (damaged/digits-" in failed.stdout.replace(f"{tmp_path}/", "")
    assert "retrying once" not in failed.stdout


def _plan_words(words: list[str]) -> list[str]:
    return [word for pair in zip(words[1::2], words[2::2], strict=True) if pair[0] != "--data-dir" for word in pair]
