"""Runs that are removed: which, only when asked for, and for good."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from repro import journal
from repro.errors import InputError, ReproError
from repro.execution import prune, status, submission
from repro.execution.submission import Submission
from tests.execution.watching import rows
from tests.test_journal import RESULT, SPEC, attempt, epoch, write


def active(folder: Path) -> int:
    return int(rows(folder / "mlflow.db", "SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'")[0][0])


def test_a_pruned_run_is_not_brought_back_by_sync_and_can_be_trained_anew(repro, sweep_words, tmp_path: Path) -> None:
    assert repro(*sweep_words).returncode == 0
    assert repro("archive", "all.zip").returncode == 0
    folder = next(one for one in journal.find(tmp_path / "runs") if journal.read(one).attempts[0].variant == "wide")
    shutil.copytree(folder, tmp_path / "copy")
    asked = repro("prune", folder.name[:6])
    assert asked.returncode == 0, asked.stderr
    assert "nothing was removed without --apply" in asked.stdout
    assert folder.exists()
    assert active(tmp_path) == 3
    done = repro("prune", folder.name[:6], "--apply")
    assert done.returncode == 0, done.stderr
    assert "1 run deleted in the store" in done.stdout
    assert not folder.exists()
    assert active(tmp_path) == 2
    again = repro("sync", "all.zip")
    assert again.returncode == 0, again.stderr
    assert "1 run up to date in the store" in again.stdout
    assert "1 run skipped, removed by `repro prune`" in again.stdout
    assert active(tmp_path) == 2
    shutil.copytree(tmp_path / "copy", folder)
    former = journal.read(folder).id
    assert "1 reused, 1 to train" in repro(*sweep_words).stdout
    assert journal.read(folder).id != former == journal.read(folder.with_name(f"{folder.name}.1")).id
    assert active(tmp_path) == 4, "the run, trained anew, and the second sweep"


def test_which_runs_are_meant(tmp_path: Path) -> None:
    for name, last in (("aa1", RESULT), ("aa2", journal.Stop("failed", "no space")), ("bb", None)):
        write(tmp_path / name, attempt(), epoch(1), *([last] if last else []))
    submission.write(tmp_path / "cc", Submission("17/cc", "", ""))
    spec = SPEC.model_dump(mode="json")
    other = replace(attempt(), spec=spec | {"seed": 1, "data": spec["data"] | {"folds": 5, "fold": 2}})
    write(tmp_path / "dd", other)
    found = status.read(tmp_path)
    assert {one.key: one.name for one in found}["dd"] == "study/variant seed 1 fold 2"
    shutil.rmtree(tmp_path / "dd")
    found = status.read(tmp_path)

    def keys(names: list[str], *states: str) -> set[str]:
        return {one.key for one in prune.chosen(found, names, states)}

    assert keys(["aa1"]) == {"aa1"}
    assert keys([], "failed", "stopped") == {"aa2", "bb"}
    assert keys(["b"], "ended") == {"aa1", "bb"}
    for name, line in (("aa", "2 runs"), ("d", "0 runs"), ("cc", r"is waiting .*scancel 17")):
        with pytest.raises(InputError, match=line):
            keys([name])
    asked: list[str] = []
    with journal.claim(tmp_path / "bb"), pytest.raises(ReproError, match="another process uses it"):
        prune.prune(tmp_path / "bb", asked.index)
    assert prune.prune(tmp_path / "bb", lambda id: asked.append(id) or 3) == 3
    assert prune.marks(tmp_path) == {*asked}
    assert not (tmp_path / "bb").exists()


def test_a_kill_while_a_folder_is_removed_leaves_nothing_that_looks_like_a_run(tmp_path: Path, monkeypatch) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    write(tmp_path / "aa", attempt(), epoch(1))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        prune.prune(tmp_path / "aa", lambda id: 1)
    assert journal.find(tmp_path) == []
    write(tmp_path / "aa", attempt(), epoch(1))
    assert prune.prune(tmp_path / "aa", lambda id: 0) == 0
    assert journal.find(tmp_path) == [] and prune.marks(tmp_path) == {attempt().journal}


@pytest.mark.parametrize(
    ("words", "line"),
    [([], "no run was given (allowed: keys, or --states"), (["--states", "endet"], "did you mean 'ended'?")],
)
def test_what_is_not_meant_is_one_line(repro, words, line) -> None:
    done = repro("prune", *words)
    assert done.returncode == 2
    assert line in done.stderr


def test_where_the_store_cannot_be_reached_nothing_is_removed(repro, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs" / "aa", attempt(), epoch(1))
    for uri in ("http://127.0.0.1:9", "sqlite:///text.db"):
        (tmp_path / "text.db").write_text("no database")
        done = repro("prune", "aa", "--apply", "--tracking-uri", uri)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert journal.find(tmp_path / "runs")
        assert not prune.marks(tmp_path / "runs")
