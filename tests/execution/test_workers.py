"""Worker processes: which code and modules they import, and what they record of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro import journal
from repro.execution import environment, process
from repro.execution.executors import local
from tests.execution.watching import epochs_written, wait_for
from tests.starting import PROJECT

MAIN = """
import json, selectors, sys, mine
def main():
    print(json.dumps([selectors.__file__, mine.__file__, sys.argv[1:], sys.modules.get("repro") is None]))
"""


def placed(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(MAIN if name == "asked" else "")
    return folder


@pytest.mark.parametrize("inherited", [False, True], ids=["", "with a PYTHONPATH of the user's own"])
def test_the_working_folder_comes_last_and_never_before_the_standard_library(tmp_path, inherited):
    folder, own = placed(tmp_path / "folder", "selectors", "mine", "asked"), placed(tmp_path / "own", "mine")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        process.command("asked", "--set", "a b"),
        cwd=folder,
        env=env | ({"PYTHONPATH": str(own)} if inherited else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    selectors, mine, words, clean = json.loads(done.stdout)
    assert Path(selectors).parent == Path(os.__file__).parent
    assert Path(mine).parent == (own if inherited else folder)
    assert words == ["--set", "a b"]
    assert clean


def test_a_worker_has_the_niceness_of_its_sweep_and_no_ctrl_c_of_its_terminal():
    worker = local.Process(threads=1)
    try:
        assert os.getsid(worker.pid) == os.getsid(0)  # Linux schedules each session as one, whatever is nice in it
        assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
    finally:
        worker.kill()


def test_a_sweep_trains_in_a_folder_whose_files_are_named_like_the_standard_librarys(repro, sweep_words, tmp_path):
    (tmp_path / "selectors.py").write_text("raise SystemExit('not the standard library')")
    code = "import sys; sys.path[:] = sys.path[1:] if sys.path[0] == '' else sys.path; from repro.__main__ import run; run()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *sweep_words, "--offline", "true", "--variant", "narrow"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("tree", [True, False])
def test_the_trees_own_code_is_put_before_what_is_installed_in_a_source_tree_alone(tmp_path, monkeypatch, tree):
    monkeypatch.setattr(process, "_PROJECT", tmp_path)
    if tree:
        (tmp_path / "pyproject.toml").touch()
    assert (str(tmp_path) in process.command("repro.cli")) is tree


def test_each_worker_records_the_code_that_it_runs_and_the_sweep_says_that_it_changed(
    start, long_words, tmp_path: Path
) -> None:
    """A copy of the project is changed between two runs of one sweep."""
    project = tmp_path / "project"
    files = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z", "repro", "pyproject.toml", "experiments"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (PROJECT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_bytes((PROJECT / name).read_bytes())
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", str(project), *identity, *words], check=True)
    words = [*long_words(60), "--offline", "true", "--workers", "1", "--runs-dir", str(tmp_path / "runs")]
    sweep = start(words, project, {"PYTHONPATH": str(project)})
    wait_for(lambda: epochs_written(tmp_path) >= 1)
    loop = project / "repro" / "training" / "loop.py"
    loop.write_text(loop.read_text() + "# changed\n")
    output = sweep.communicate(timeout=200)[0]
    assert sweep.returncode == 0, output
    assert output.count("the code has changed since the sweep started") == 1
    first, second = sorted(
        (journal.read(folder) for folder in journal.find(tmp_path / "runs")), key=lambda one: one.entries[0].time_ms
    )
    assert not first.attempts[0].environment.dirty
    assert second.attempts[0].environment.dirty
    assert first.attempts[0].environment.commit == second.attempts[0].environment.commit
    assert "+# changed" in (second.folder / "diff.patch").read_text()
    assert not (first.folder / "diff.patch").exists()


def test_a_run_keeps_the_uncommitted_changes_of_all_its_attempts(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from repro.execution import worker
    from repro.records import Architecture

    architecture = Architecture("none", (3, 32, 32), (), (), 0, 0)
    here = environment.gather(device="cpu", threads=1, side_by_side=1, deterministic=True)
    spec = SimpleNamespace(model=None, model_dump=lambda mode: {})
    for diff, done, now, former in (
        ("+ a\n", 0, "+ a\n", None),
        ("+ a\n", 1, "+ a\n", None),
        ("+ b\n", 2, "+ b\n", "+ a\n"),
        ("", 3, None, "+ a\n+ b\n"),
        ("", 4, None, "+ a\n+ b\n"),
        ("", 0, None, None),
    ):
        monkeypatch.setattr(environment, "code", lambda diff=diff: environment.Code("abc", diff))
        worker._describe(
            SimpleNamespace(spec=spec, folder=tmp_path),
            here,
            SimpleNamespace(architecture=lambda: architecture, epochs_done=done),
        )
        paths = [tmp_path / name for name in ("diff.patch", "former.patch")]
        assert [path.read_text() if path.exists() else None for path in paths] == [now, former]
