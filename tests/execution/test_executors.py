"""Executors: what Slurm is asked for, how its answers are read, and how a job ends, with commands that stand in for Slurm's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from repro import journal, studies
from repro.datasets import cache_of
from repro.errors import InputError, ReproError
from repro.execution import prune, status, submission
from repro.execution.executors import batch as batch_of_slurm
from repro.execution.executors.batch import Ledger
from repro.execution.executors.entries import Entry, chosen
from repro.execution.executors.local import Process
from repro.execution.executors.slurm import Slurm
from repro.execution.job import Exit, Job
from repro.execution.submission import Submission
from tests.execution.watching import digests, wait_for
from tests.starting import environment
from tests.test_journal import RESULT, attempt, epoch, write


@pytest.fixture
def plan(tiny: Path):
    study = studies.load(tiny)
    return studies.plan(
        [(study, studies.select(study))],
        seeds=[0],
        overrides={"data.dataset": "digits", "training.epochs": 12, "training.patience": 12},
    )


@pytest.fixture
def jobs(plan, digits: Path, tmp_path: Path) -> list[Job]:
    """The two runs of the tiny study."""
    data = plan.runs[0].spec.data
    cache = cache_of(data.dataset, data.digest, digits)
    runs = tmp_path / "runs"
    return [Job(one.spec, one.study, one.variant, runs / one.key, cache, "cpu", 1, 1, True, 0.0) for one in plan.runs]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch):
    """Commands that note how they were called, and answer what stands in a file of their name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = f"""#!/bin/sh
for word; do echo "$word"; done >> {folder}/$(basename "$0").called
if [ "$(basename "$0")" = sbatch ]; then cat > {folder}/script; fi
cat {folder}/$(basename "$0").says
"""
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
        (folder / f"{name}.says").write_text("17\n" if name == "sbatch" else "")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def asked(slurm: Path) -> list[str]:
    return (slurm / "sbatch.called").read_text().splitlines()


def test_what_is_set_is_passed_to_sbatch(slurm: Path, jobs, tmp_path: Path) -> None:
    entry = Entry(
        partition="gpu",
        account="lab",
        gres="gpu:a100:1",
        memory_gb=1.5,
        minutes=30,
        options=["--qos=long"],
        setup=["module load x"],
        runs_per_job=2,
    )
    handles = Slurm(entry, tmp_path / "runs").submit([replace(job, threads=4) for job in jobs])
    assert [handle.id for handle in handles] == [f"17/{job.folder.name}" for job in jobs]
    options = {
        "--partition=gpu",
        "--account=lab",
        "--gres=gpu:a100:1",
        "--qos=long",
        "--cpus-per-task=4",
        "--mem=1500M",
    }
    assert options | {"--time=60", "--requeue", "--parsable"} <= set(asked(slurm)), "two runs, the time of two"
    lines = (slurm / "script").read_text().splitlines()
    assert lines[:2] == ["#!/bin/bash", "module load x"]
    assert [replace(Job.parse(line), threads=1) for line in lines[-3:-1]] == jobs


def test_what_is_not_set_is_not_passed(slurm: Path, jobs, tmp_path: Path) -> None:
    Slurm(Entry(), tmp_path / "runs").submit(jobs[:1])
    names = {word.partition("=")[0] for word in asked(slurm)}
    assert names == {"--parsable", "--job-name", "--output", "--open-mode", "--requeue", "--signal", "--cpus-per-task"}
    Slurm(Entry(), tmp_path / "100%j runs").submit([replace(jobs[0], device="cuda")])
    assert f"--output={tmp_path}/100%%j runs/slurm/%j.log" in asked(slurm)
    assert "--gres=gpu:1" in asked(slurm)


def test_a_job_that_is_refused_is_said_in_one_line(slurm: Path, jobs, tmp_path: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
    line = "sbatch: error: invalid partition specified: gpu"
    line += " (asked for with --partition=gpu --cpus-per-task=1; executors.toml changes it)"
    with pytest.raises(ReproError) as refused:
        Slurm(Entry(partition="gpu"), tmp_path / "runs").submit(jobs)
    assert str(refused.value) == line


def test_without_slurm_it_is_refused(repro, sweep_words, tmp_path: Path) -> None:
    done = repro(*sweep_words, "--executor", "slurm", "--offline", env={"PATH": "/nowhere"})
    assert done.returncode == 2
    assert "executor: slurm needs the command sbatch" in done.stderr


@pytest.mark.parametrize(
    ("says", "recorded", "code"),
    [
        ("17 PENDING", None, None),
        ("17 RUNNING", None, None),
        ("17 PENDING", Exit.STOPPED, None),  # it was requeued
        ("17 RUNNING", Exit.FAILED, Exit.FAILED),  # its job goes on with others
        ("17 CANCELLED", Exit.STOPPED, Exit.STOPPED),
        ("17 FAILED", Exit.STOPPED, Exit.STOPPED),
        ("17 FAILED", None, Exit.FAILED),
        ("17 TIMEOUT", None, Exit.STOPPED),
        ("17 NODE_FAIL", None, Exit.STOPPED),
        ("18 RUNNING", None, Exit.STOPPED),  # Slurm has forgotten it
        ("17 COMPLETED", -9, -9),
    ],
)
def test_how_a_run_stands(slurm: Path, jobs, tmp_path: Path, says, recorded, code) -> None:
    executor = Slurm(Entry(), tmp_path / "runs")
    (handle,) = executor.submit(jobs[:1])
    if recorded is not None:
        Ledger({jobs[0].folder.name: (recorded, "words")}).write(executor.folder / "17.json")
    (slurm / "squeue.says").write_text(f"{says}\n")
    assert handle.exit() == code
    assert (executor.attach(handle.id) is not None) == (code is None)
    called = slurm / "squeue.called"
    assert not called.exists() or "--states=all" in called.read_text()


def test_while_slurm_does_not_answer_a_run_is_not_given_up(slurm: Path, jobs, tmp_path: Path) -> None:
    handles = Slurm(Entry(), tmp_path / "runs").submit(jobs)
    (slurm / "squeue").write_text(f"#!/bin/sh\necho asked >> {slurm}/asked\nexit 1\n")
    assert [handle.exit() for handle in handles] == [None, None]
    assert (slurm / "asked").read_text() == "asked\n", "one question for all, which may take a minute"


def test_a_run_without_words_has_those_of_its_job_and_is_cancelled_by_its_number(slurm, jobs, tmp_path) -> None:
    executor = Slurm(Entry(), tmp_path / "runs")
    (handle,) = executor.submit(jobs[:1])
    (executor.folder / "17.log").write_text("one\npython: not found\n")
    assert handle.last_words() == "python: not found"
    handle.kill()
    assert (slurm / "scancel.called").read_text() == "17\n"


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("[gpu]\npartitions = 'x'", "gpu", "gpu: unknown key 'partitions'; did you mean 'partition'?"),
        ("[gpu]\nminutes = 1", "gpu", "gpu: minutes: got 1 (allowed: a whole number, at least 2)"),
        ("[gpu]\nsetup = 'module load x'", "gpu", "gpu: setup: got 'module load x'"),
        ("[gpu", "slurm", "cannot be read as TOML"),
        ("[local]", "local", "[local] has no settings"),
        ("[gpu]", "gpus", "unknown executor 'gpus'; did you mean 'gpu'? (allowed: gpu, local, slurm)"),
    ],
)
def test_an_entry_that_is_wrong_is_one_line(tmp_path: Path, text, name, line) -> None:
    file = tmp_path / "executors.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        chosen(name, file)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_the_file_is_optional(tmp_path: Path) -> None:
    assert chosen("local", tmp_path / "none.toml") is None
    assert chosen("slurm", tmp_path / "none.toml") == Entry()


def test_a_sweep_of_this_machine_waits(repro, sweep_words) -> None:
    done = repro(*sweep_words, "--wait", "false")
    assert done.returncode == 2
    assert "wait: false needs an executor whose jobs outlive the sweep" in done.stderr


def batch(jobs: list[Job], folder: Path, timeouts: int) -> subprocess.Popen[bytes]:
    """A job as Slurm starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "repro.execution.executors.batch", str(folder), str(timeouts)],
        env=environment({"SLURM_JOB_ID": "17", "PATH": os.environ["PATH"]}),
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write("".join(f"{job.dump()}\n" for job in jobs).encode())
    process.stdin.close()
    return process


def epochs(job: Job) -> int:
    known = journal.read(job.folder)
    return 0 if known is None else len(known.epochs)


def test_a_job_at_its_time_limit_goes_on_bit_for_bit_and_so_often_only(slurm: Path, jobs, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = batch(jobs, runs / "slurm", 1)
    wait_for(lambda: epochs(jobs[0]) >= 2)
    first.send_signal(signal.SIGUSR2)
    assert first.wait(60) == Exit.STOPPED
    assert (slurm / "scontrol.called").read_text().split() == ["requeue", "17"]
    assert Ledger.read(runs / "slurm" / "17.json").timeouts == 1

    second = batch(jobs, runs / "slurm", 1)  # as Slurm starts it again
    wait_for(lambda: epochs(jobs[1]) >= 2)
    second.send_signal(signal.SIGTERM)  # a pre-emption does not count
    assert second.wait(60) == Exit.STOPPED
    assert Ledger.read(runs / "slurm" / "17.json").timeouts == 1
    assert Ledger.read(runs / "slurm" / "17.json").ends[jobs[0].folder.name][0] == Exit.DONE

    third = batch(jobs, runs / "slurm", 0)  # which allows none
    wait_for(lambda: len(journal.read(jobs[1].folder).attempts) == 2)
    time.sleep(0.5)
    third.send_signal(signal.SIGUSR2)
    assert third.wait(60) == Exit.STOPPED
    code, words = Ledger.read(runs / "slurm" / "17.json").ends[jobs[1].folder.name]
    if code != Exit.DONE:  # it was not faster
        assert code == Exit.REFUSED, "the sweep does not try it again"
        assert "reached its time limit 2 times; increase `minutes` or `timeouts`" in words

    (runs / "slurm" / "17.json").unlink()
    assert batch(jobs, runs / "slurm", 1).wait(100) == Exit.DONE
    again = [
        Job(job.spec, job.study, job.variant, tmp_path / "again" / job.folder.name, job.cache, *rest(job))
        for job in jobs
    ]
    assert batch(again, tmp_path / "again" / "slurm", 1).wait(100) == Exit.DONE
    assert digests(tmp_path / "again") == digests(runs)


def rest(job: Job) -> tuple[str, int, int, bool, float]:
    return job.device, job.threads, job.side_by_side, job.deterministic, job.checkpoint_seconds


def test_a_worker_that_is_told_to_stop_before_its_job_is_has_not_failed(monkeypatch, jobs) -> None:
    """Slurm sends SIGTERM to every process of a job; a worker that is still starting is ended by it."""

    class Starting(Process):
        def exit(self) -> int | None:
            self._popen.terminate()
            return self._popen.wait()

    monkeypatch.setattr(batch_of_slurm, "Process", Starting)
    assert batch_of_slurm._train(jobs[0], [])[0] == Exit.STOPPED


def test_a_run_that_fails_keeps_no_other_of_its_job_from_being_trained(slurm, jobs, tmp_path: Path) -> None:
    (jobs[0].folder / "spec.yaml").mkdir(parents=True)  # its description cannot be written
    assert batch(jobs, tmp_path / "runs" / "slurm", 1).wait(100) == Exit.FAILED
    ends = json.loads((tmp_path / "runs" / "slurm" / "17.json").read_text())["ends"]
    assert [ends[job.folder.name][0] for job in jobs] == [Exit.FAILED, Exit.DONE]
    assert "spec.yaml" in ends[jobs[0].folder.name][1]


def test_status_says_which_job_a_run_waits_for_and_that_its_code_has_changed(slurm: Path, tmp_path: Path) -> None:
    made = attempt().environment
    sent = {
        "waits": Submission("7/waits", made.commit, made.diff_digest, 0, "tiny/wide seed 0", 12),
        "asleep": Submission("7/asleep", made.commit, made.diff_digest),
        "changed": Submission("8/changed", "c0ffee", ""),
        "again": Submission("8/again", "c0ffee", "", 2),
        "done": Submission("6/done", made.commit, made.diff_digest),
    }
    for name, submitted in sent.items():
        if name != "waits":
            write(tmp_path / name, attempt(), epoch(1), *([RESULT] if name == "done" else []))
        submission.write(tmp_path / name, submitted)
    (slurm / "squeue.says").write_text("7 PENDING\n8 RUNNING\n")
    found = {one.key: one for one in status.read(tmp_path)}
    assert {name: one.state for name, one in found.items()} == {**dict.fromkeys(sent, "waiting"), "done": "ended"}
    assert {name: one.job for name, one in found.items()} == {name: one.job for name, one in sent.items()}
    changed = "the code has changed since it was submitted (c0ffee without uncommitted changes; trained with "
    assert [name for name, one in found.items() if changed in one.message] == ["changed"], "the other has yet to begin"
    assert (found["waits"].name, found["waits"].epochs) == ("tiny/wide seed 0", 12)
    assert found["asleep"].likely_seconds_left <= found["asleep"].seconds_left
    submission.write(tmp_path / "asleep", None)
    assert {one.key: one.state for one in status.read(tmp_path)}["asleep"] == "stopped"


def test_status_says_how_the_job_of_a_run_has_ended(slurm: Path, tmp_path: Path) -> None:
    ends = {
        "a1": ("CANCELLED", None, "stopped", "job 1 has ended"),
        "a2": ("FAILED", None, "failed", "module: command not found"),
        "a3": ("COMPLETED", (-9, ""), "failed", "killed by SIGKILL"),
        "a4": ("RUNNING", (-9, ""), "failed", "killed by SIGKILL"),
        "a5": (
            "FAILED",
            (1, "the job has come to its time limit 2 times"),
            "failed",
            "the job has come to its time limit",
        ),
        "a6": ("PENDING", (76, ""), "waiting", ""),
        "a7": ("FAILED", None, "failed", "job 7 ended with state FAILED"),
    }
    lines = []
    (tmp_path / "slurm").mkdir()
    for number, (name, (state, recorded, _, _)) in enumerate(ends.items(), 1):
        write(tmp_path / name, attempt(), epoch(1), *([journal.Stop("killed", "in epoch 2")] if name == "a5" else []))
        submission.write(tmp_path / name, Submission(f"{number}/{name}", "", ""))
        lines.append(f"{number} {state}")
        Ledger({name: recorded} if recorded else {}).write(tmp_path / "slurm" / f"{number}.json")
    (tmp_path / "slurm" / "2.log").write_text("module: command not found\n")
    (slurm / "squeue.says").write_text("\n".join(lines))
    found = {one.key: one for one in status.read(tmp_path)}
    assert {name: one.state for name, one in found.items()} == {name: end[2] for name, end in ends.items()}
    assert all(found[name].message.startswith(said) for name, (_, _, _, said) in ends.items())
    assert {one.key for one in prune.chosen(found.values(), ["a1", "a2", "a3"], ())} == {"a1", "a2", "a3"}
    (slurm / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert {one.key: one.state for one in status.read(tmp_path)}["a1"] == "waiting", "as far as can be told"
