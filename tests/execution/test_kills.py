"""kill -9 at random moments: of the process that drives a sweep, of those that train, of all at once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from repro import journal
from tests.execution.watching import digests, epochs_written, points, rows, said, statuses, wait_for, workers_of


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_a_sweep_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    start, repro, long_words, tmp_path: Path, kills: int
) -> None:
    chance = random.Random(kills)
    words = [*long_words(3 * kills), "--seeds", "0,1", "--checkpoint-seconds", "0", "--workers", "2"]
    process, targets = start(words), []
    for _ in range(kills):
        if process.poll() is not None:
            assert process.returncode in {1, -9}, process.communicate()[0]  # 1: one run was killed twice in this sweep
            process = start(words)
        wanted = epochs_written(tmp_path) + chance.randrange(8)
        latest = time.monotonic() + (chance.uniform(0, 4) if chance.random() < 0.2 else 100)
        while process.poll() is None and epochs_written(tmp_path) < wanted and time.monotonic() < latest:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.2))
        targets.append(chance.choice(["driver", "worker", "all"]))
        workers = workers_of(process.pid)
        if targets[-1] != "worker":
            process.kill()
            process.wait()
        for worker in {"driver": [], "worker": workers[:1], "all": workers}[targets[-1]]:
            worker.kill()
    assert len(set(targets)) == 3
    left = 4 * 3 * kills - epochs_written(tmp_path)
    assert left > 0, "it was at its end before the last kill"
    if process.poll() is None:
        process.communicate(timeout=600)
    last = repro(*words, timeout=600)
    assert last.returncode == 0, last.stdout + last.stderr

    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    calm = start(words, undisturbed)
    output = calm.communicate(timeout=600)[0]
    assert calm.returncode == 0, output
    assert points(tmp_path) == points(undisturbed) == said(undisturbed / "runs")
    assert digests(tmp_path / "runs") == digests(undisturbed / "runs")
    assert "RUNNING" not in [status for (status,) in rows(tmp_path / "mlflow.db", "SELECT status FROM runs")]
    runs = (
        "SELECT name, status FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'repro.kind' AND tags.value = 'run'"
    )
    assert rows(tmp_path / "mlflow.db", runs).count(("narrow seed 0", "FINISHED")) == 1
    assert sorted(rows(tmp_path / "mlflow.db", runs)) == sorted(rows(undisturbed / "mlflow.db", runs))
    known = [journal.read(folder) for folder in journal.find(tmp_path / "runs")]
    assert any(attempt.resumed_epoch > 0 for one in known for attempt in one.attempts), "no checkpoint was gone on from"
    assert not any(one.differences for one in known)


def test_a_worker_that_is_killed_twice_is_reported_and_the_others_go_on(start, long_words, tmp_path: Path) -> None:
    process = start([*long_words(100), "--workers", "1", "--patience", "3"])
    for attempt in (1, 2):
        wait_for(lambda number=attempt: _attempts(tmp_path) == number and epochs_written(tmp_path) > 0)
        workers_of(process.pid)[0].kill()
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 1, output
    assert "killed by SIGKILL); retrying once" in output
    assert "failed (killed by SIGKILL)\n" in output
    assert "1 of 2 runs failed" in output
    assert statuses(tmp_path) == {"tiny": "FAILED", "narrow seed 0": "FAILED", "wide seed 0": "FINISHED"}
    messages = "SELECT value FROM tags WHERE key = 'repro.message'"
    assert rows(tmp_path / "mlflow.db", messages) == [("killed by SIGKILL",)]


def _attempts(folder: Path) -> int:
    known = [journal.read(one) for one in journal.find(folder / "runs")]
    return sum(len(one.attempts) for one in known if one is not None)
