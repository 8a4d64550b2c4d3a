"""Sweeps on a real Slurm of two nodes; all that it can be asked for without one is in test_executors.py."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from repro import journal
from repro.execution.executors.batch import Ledger
from tests.execution.cluster import Cluster, missing
from tests.execution.watching import digests, epochs_written, lives, points, rows, wait_for
from tests.starting import served

SIX = ["--seeds", "0-2", "--epochs", "10", "--patience", "10"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one processor each."""
    if reason := missing():
        pytest.skip(reason)
    with served(Cluster) as running:
        yield running


def workers(runs: Path) -> list[psutil.Process]:
    """The processes that train a run of a folder now, by its journal, once they have written their start there."""
    found = [journal.read(folder) for folder in journal.find(runs)]
    alive = [known for known in found if known is not None and known.result is None and journal.held(known.folder)]
    pids = [known.attempts[-1].pid for known in alive]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def runs_of(folder: Path) -> dict[str, str]:
    """Status of each run in the store, by name, without the sweeps."""
    query = "SELECT name, status FROM runs JOIN tags USING (run_uuid) WHERE key = 'repro.kind' AND value = 'run'"
    return dict(rows(folder / "mlflow.db", query))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disturbed_sweep_on_slurm_ends_as_an_undisturbed_one_here(
    cluster: Cluster, repro, start, sweep_words, tmp_path: Path
) -> None:
    """One worker is killed, one job is requeued, one comes to its time limit, and the sweep itself is killed."""
    words = [*sweep_words[:-4], *SIX, "--checkpoint-seconds", "0"]
    there, here = tmp_path / "slurm", tmp_path / "local"
    for folder in (there, here):
        folder.mkdir()
    (there / "executors.toml").write_text(
        "[pairs]\npartition = 'main'\nruns_per_job = 2\nsetup = ['export NOTHING=1']\n"
    )
    asked = [*words, "--executor", "pairs"]
    sweep = start(asked, there, cluster.variables)
    wait_for(lambda: epochs_written(there) >= 3 and len(workers(there / "runs")) == 2)

    workers(there / "runs")[0].kill()
    wait_for(lambda: any(Ledger.read(one).ends for one in (there / "runs" / "slurm").glob("*.json")))
    running = [job for job, state in cluster.states().items() if state == "RUNNING"]
    cluster.ask("scontrol", "requeue", running[0])
    wait_for(lambda: cluster.states()[running[0]] == "PENDING")
    sweep.kill()
    sweep.wait()

    sweep = start(asked, there, cluster.variables)
    wait_for(lambda: "RUNNING" in cluster.states().values() and bool(workers(there / "runs")))
    warned = next(job for job, state in cluster.states().items() if state == "RUNNING")
    cluster.ask("scancel", "--signal=USR2", "--batch", warned)  # as before its time limit
    output = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 0, output
    assert f"continues as job {running[0]}/" in output
    assert Ledger.read(there / "runs" / "slurm" / f"{warned}.json").timeouts == 1

    undisturbed = repro_in(here, start, words)
    assert undisturbed == 0
    assert points(there) == points(here)
    assert digests(there / "runs") == digests(here / "runs")
    assert len(runs_of(there)) == 6
    assert set(runs_of(there).values()) == {"FINISHED"}
    attempts = [len(journal.read(folder).attempts) for folder in journal.find(there / "runs")]
    assert sum(attempts) >= 6 + 3, "what was disturbed went on from its checkpoint"


def repro_in(folder: Path, start, words: list[str]) -> int:
    process = start(words, folder)
    process.communicate(timeout=300)
    return int(process.returncode)


def test_a_sweep_that_does_not_wait_submits_and_ends(cluster: Cluster, repro, sweep_words, tmp_path: Path) -> None:
    words = [*sweep_words, "--executor", "slurm", "--wait", "false", "--offline", "true"]
    done = repro(*words, env=cluster.variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("submitted as job") == 2
    folders = sorted(path.parent for path in (tmp_path / "runs").glob("*/job.json"))
    waits = json.loads(repro("status", "--json").stdout)
    assert {one["state"] for one in waits} <= {"waiting", "running", "ended"}
    assert all(one["job"] for one in waits)
    again = repro(*words, env=cluster.variables)
    assert again.stdout.count("continues as job") + again.stdout.count("2 reused") >= 1, "nothing is submitted twice"
    wait_for(lambda: all((known := journal.read(one)) is not None and known.result for one in folders))
    assert {one["state"] for one in json.loads(repro("status", "--json").stdout)} == {"ended"}
    assert repro("sync").returncode == 0
    assert set(runs_of(tmp_path).values()) == {"FINISHED"}


def test_a_sweep_that_is_told_to_stop_leaves_its_jobs(cluster: Cluster, start, long_words, tmp_path: Path) -> None:
    sweep = start([*long_words(400), "--executor", "slurm", "--offline", "true"], env=cluster.variables)
    wait_for(lambda: epochs_written(tmp_path) >= 1)
    sweep.send_signal(signal.SIGTERM)
    output = sweep.communicate(timeout=10)[0]
    assert sweep.returncode == 130
    assert "its jobs continue; rerun the same command to follow them" in output
    training = workers(tmp_path / "runs")
    assert training
    jobs = {json.loads(path.read_text())["id"].partition("/")[0] for path in (tmp_path / "runs").glob("*/job.json")}
    cluster.ask("scancel", *jobs)
    wait_for(lambda: not any(lives(one) for one in training), 30)
    stops = [known.stop for one in journal.find(tmp_path / "runs") if (known := journal.read(one)) is not None]
    assert {stop.reason for stop in stops if stop is not None} == {"killed"}, "they have left a checkpoint"


def test_a_submission_that_is_refused_is_made_again_when_a_job_has_ended(
    cluster: Cluster, repro, sweep_words, tmp_path: Path
) -> None:
    """As where a user may have so many jobs in the queue, or while the controller restarts."""
    wrapped = tmp_path / "bin" / "sbatch"
    wrapped.parent.mkdir()
    wrapped.write_text(
        '#!/bin/sh\nif [ "$(squeue --noheader | wc -l)" -ge 1 ]; then echo "sbatch: error: job submit limit" >&2; exit 1; fi\n'
        f'exec {shutil.which("sbatch", path=cluster.variables["PATH"])} "$@"\n'
    )
    wrapped.chmod(0o755)
    path = {"PATH": f"{wrapped.parent}:{cluster.variables['PATH']}"}
    wait_for(lambda: not cluster.ask("squeue", "--noheader"), 60)
    done = repro(*sweep_words, "--executor", "slurm", "--offline", "true", env={**cluster.variables, **path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("sbatch: error: job submit limit (asked for with --cpus-per-task=1; ") == 1
    assert done.stdout.count("submitted as job") == 2
    assert [one["state"] for one in json.loads(repro("status", "--json").stdout)] == ["ended", "ended"]
