"""Sweeps that track to a real `mlflow server`: one that restarts, one that hangs, one that never comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from repro import journal
from repro.records import EpochRecord
from tests.execution.watching import METRICS, epochs_written, points, rows, said, statuses, wait_for
from tests.tracking.conftest import Server

_LONG = 350
"""Epochs that take longer than a server takes to start."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A tracking server of the test's own, with its database where a sweep without one would put it."""
    running = Server(tmp_path)
    running.start()
    yield running
    running.stop()


def stored_epochs(folder: Path) -> int:
    """The last epoch that the store has of any run."""
    return rows(folder / "mlflow.db", "SELECT coalesce(max(step), 0) FROM metrics WHERE key = 'val_loss'")[0][0]


def longest_wait(runs: Path) -> float:
    """The most seconds between two epochs of a run in which it neither trained nor validated."""
    found = []
    for folder in journal.find(runs):
        ends = [entry for entry in journal.read(folder).entries if isinstance(entry.record, EpochRecord)]
        for former, later in pairwise(ends):
            found.append((later.time_ms - former.time_ms) / 1000 - later.record.epoch_seconds)
    return max(found)


def test_a_server_that_is_stopped_restarted_and_hangs_costs_nothing(server, start, long_words, tmp_path: Path) -> None:
    process = start([*long_words(_LONG), "--tracking-uri", server.uri])
    wait_for(lambda: stored_epochs(tmp_path) > 0)
    server.stop()
    before = epochs_written(tmp_path)
    wait_for(lambda: epochs_written(tmp_path) > before + 20)
    server.start()
    assert process.poll() is None, process.communicate()[0]
    before = stored_epochs(tmp_path)
    wait_for(lambda: stored_epochs(tmp_path) > before)
    os.killpg(server.process.pid, signal.SIGSTOP)
    before = epochs_written(tmp_path)
    wait_for(lambda: epochs_written(tmp_path) > before + 10)
    assert epochs_written(tmp_path) < 2 * _LONG, "it goes on training, and is not at its end"
    os.killpg(server.process.pid, signal.SIGCONT)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert "does not answer" in output
    assert "the tracking store is back" in output
    assert points(tmp_path) == said(tmp_path / "runs"), "nothing is lost, and nothing doubled"
    assert len(points(tmp_path)) == 2 * (4 * _LONG + len(METRICS) - 4)
    assert statuses(tmp_path) == {"tiny": "FINISHED", "narrow seed 0": "FINISHED", "wide seed 0": "FINISHED"}
    assert longest_wait(tmp_path / "runs") < 1, "training waits for nobody"


def test_what_a_server_that_is_gone_lacks_is_brought_into_another_store(
    server, start, repro, sweep_words, long_words, tmp_path: Path
) -> None:
    process = start([*long_words(40), "--tracking-uri", server.uri])
    wait_for(lambda: epochs_written(tmp_path) > 0)
    server.stop()
    runs = [tmp_path / "runs" / folder.name for folder in journal.find(tmp_path / "runs")]
    wait_for(lambda: len(runs) == 2 and all((known := journal.read(one)) and known.result is not None for one in runs))
    time.sleep(1)  # it waits for the store to come back, with nothing left to train
    asked = time.monotonic()
    process.terminate()
    output = process.communicate(timeout=20)[0]
    assert time.monotonic() - asked < 2.5
    assert process.returncode == 130
    assert "2 runs are missing from the store, `repro sync` publishes them" in output
    _brought_in(repro, tmp_path)


@pytest.mark.slow
def test_a_sweep_whose_server_never_comes_back_ends_and_says_what_it_lacks(
    server, start, repro, long_words, tmp_path: Path
) -> None:
    process = start([*long_words(30), "--tracking-uri", server.uri])
    wait_for(lambda: epochs_written(tmp_path) > 0)
    server.stop()
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 1
    assert "2 runs are missing from the tracking store; publish them with: repro sync" in output
    assert "Traceback" not in output
    _brought_in(repro, tmp_path)


def _brought_in(repro, folder: Path) -> None:
    """`repro sync` fills a new store, once, and changes nothing after that."""
    for _ in range(3):
        synced = repro("sync", "--tracking-uri", "sqlite:///other/mlflow.db")
        assert synced.returncode == 0, synced.stderr
        assert points(folder / "other") == said(folder / "runs")
        assert statuses(folder / "other") == {
            "tiny": "FINISHED",
            "narrow seed 0": "FINISHED",
            "wide seed 0": "FINISHED",
        }
    assert "0 points added" in synced.stdout


def test_no_part_of_a_credential_is_left_anywhere(server, repro, sweep_words, tmp_path: Path) -> None:
    uri = server.uri.replace("//", "//jane:s3%40cr%2Fet@")
    trained = repro(*sweep_words, "--variant", "narrow", "--epochs", "1", "--tracking-uri", uri)
    assert trained.returncode == 0, trained.stderr
    shown = repro("compare", env={"MLFLOW_TRACKING_URI": uri})
    assert shown.returncode == 0, shown.stderr
    linked = repro("compare", "--tracking-uri", server.uri, "--ui-url", uri, "--figures", "false", "--out", "linked")
    assert linked.returncode == 0, linked.stderr
    said = "".join(done.stdout + done.stderr for done in (trained, shown, linked))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".tex", ".html", ".jsonl", ".json", ".csv", ".db", ".png", ".md"} <= kinds
    assert f"{server.uri}/#/experiments/" in trained.stdout, "a link has no user part"
    for secret in ("s3%40cr", "s3@cr", "%2Fet", "s3%2540"):
        assert secret not in said
        assert not [path for path in files if secret.encode() in path.read_bytes()]
    for report in ("report", "linked"):
        assert f'"{server.uri}/#/experiments/' in (tmp_path / report / "index.html").read_text()


def test_a_sweep_that_cannot_reach_its_server_says_so_at_once(repro, sweep_words, tmp_path: Path) -> None:
    refused = repro(*sweep_words, "--tracking-uri", "http://127.0.0.1:9")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "does not answer (connection refused)" in refused.stderr
    assert "--offline true" in refused.stderr
    assert journal.find(tmp_path / "runs") == []


def test_a_signal_while_the_store_is_looked_for_ends_the_sweep(server, start, sweep_words) -> None:
    os.killpg(server.process.pid, signal.SIGSTOP)
    process = start([*sweep_words, "--tracking-uri", server.uri])
    time.sleep(6)
    assert process.poll() is None
    asked = time.monotonic()
    process.terminate()
    output = process.communicate(timeout=20)[0]
    assert time.monotonic() - asked < 2.5
    assert process.returncode == 130
    assert "stopped before anything was trained" in output
