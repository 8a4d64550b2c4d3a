"""Disks that are full, cannot be written, or lose what was on them while a sweep trains."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro import journal
from tests.execution.watching import epochs_written, points, rows, said, wait_for


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """`runs/` as a file system of its own, of 1 MiB."""
    runs = tmp_path / "runs"
    runs.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(runs)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a tmpfs is not permitted here: {made.stderr.strip()}")
    yield runs
    subprocess.run(["umount", str(runs)], check=True)


def remount(runs: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(runs)], check=True)


def test_a_full_disk_is_said_and_the_sweep_goes_on_when_there_is_room(
    repro, sweep_words, mounted: Path, tmp_path: Path
) -> None:
    (mounted / "ballast").write_bytes(bytes(970_000))  # room for the journals, none for the weights beside them
    words = [*sweep_words, "--set", "model.base_e=64"]
    full = repro(*words)
    assert full.returncode == 1, full.stdout + full.stderr
    assert "No space left on device" in full.stdout
    assert "Traceback" not in full.stdout + full.stderr
    assert full.stderr.count("\n") == 1
    before = said(mounted)
    assert before, "what was recorded can be read"
    remount(mounted, "size=40m")
    again = repro(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(before) <= set(said(mounted)) == set(points(tmp_path))
    assert len(points(tmp_path)) == len(set(points(tmp_path)))


def test_a_folder_that_cannot_be_written_is_refused(repro, sweep_words, mounted: Path) -> None:
    remount(mounted, "ro")
    refused = repro(*sweep_words, "--runs-dir", str(mounted))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "cannot be written; choose another folder with --runs-dir" in refused.stderr


def test_a_store_that_is_deleted_while_it_trains_is_said_and_made_anew_by_sync(
    start, repro, long_words, tmp_path: Path
) -> None:
    process = start(long_words(60))
    wait_for(lambda: epochs_written(tmp_path) > 0 and (tmp_path / "mlflow.db").exists())
    wait_for(lambda: rows(tmp_path / "mlflow.db", "SELECT count(*) FROM runs")[0][0] == 3)
    (tmp_path / "mlflow.db").unlink()
    wait_for(lambda: all(journal.read(one).result is not None for one in journal.find(tmp_path / "runs")))
    time.sleep(2)
    process.terminate()  # it would wait a minute for the store
    output = process.communicate(timeout=20)[0]
    assert "the database file was deleted or replaced" in output
    assert "Traceback" not in output
    assert repro("sync").returncode == 0
    assert points(tmp_path) == said(tmp_path / "runs")


def test_journals_that_are_deleted_while_it_trains_are_said(start, long_words, tmp_path: Path) -> None:
    process = start(long_words(40))
    wait_for(lambda: epochs_written(tmp_path) > 2)
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    output = process.communicate(timeout=200)[0]
    assert "deleted while the run was trained" in output or "No such file or directory" in output
    assert "Traceback" not in output
    assert process.returncode == 0, "the second try is a new beginning"
