"""What a run says of how it was computed: the state of the code, the versions, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from repro.execution import environment
from repro.execution.environment import Code, code, gather


def git(folder: Path, *words: str) -> str:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit of `tracked.py`."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "tracked.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_repository_is_its_commit(repository):
    (repository / "ignored").write_text("")
    assert code(repository) == Code(
        git(repository, "rev-parse", "HEAD"), "", branch=git(repository, "branch", "--show-current")
    )


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        ("git@example.org:team/repo.git", "git@example.org:team/repo.git"),
        ("https://me:secret@example.org/repo.git", "https://example.org/repo.git"),
        ("ssh://git@example.org/repo.git", "ssh://example.org/repo.git"),
    ],
)
def test_the_repository_is_told_without_credentials(repository, remote, told):
    git(repository, "remote", "add", "origin", remote)
    assert code(repository).repository == told


@pytest.mark.parametrize("staged", [False, True])
def test_changes_are_kept_so_that_they_can_be_applied_again(repository, tmp_path, staged):
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "true")
    (repository / "tracked.py").write_text("x = 2\n")
    if staged:
        git(repository, "add", "tracked.py")
    found = code(repository)
    assert found.commit == commit
    assert "-x = 1\n+x = 2\n" in found.diff
    git(repository, "reset", "-q", "--hard")
    patch = tmp_path / "diff.patch"
    patch.write_text(found.diff)
    git(repository, "apply", str(patch))
    assert (repository / "tracked.py").read_text() == "x = 2\n"


def test_untracked_code_and_declarations_are_named_and_a_user_s_own_files_are_not(repository):
    (repository / "my_study.yaml").write_text("study: mine")
    assert code(repository).diff == ""
    code.cache_clear()
    (repository / "experiments").mkdir()
    for name in ("new.py", "experiments/new.yaml"):
        (repository / name).write_text("")
    assert code(repository).diff == "untracked: experiments/new.yaml\nuntracked: new.py\n"


@pytest.mark.parametrize(
    ("visible", "device", "asked"),
    [
        (None, "cuda", "0"),
        (None, "cuda:1", "1"),
        ("3,GPU-ab", "cuda", "3"),
        ("3, GPU-ab", "cuda:1", "GPU-ab"),
        ("3", "cuda:1", "1"),
    ],
)
def test_the_gpu_named_is_the_one_that_torch_counts(visible, device, asked, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "Card $1"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = gather(device=device, threads=1, side_by_side=1, deterministic=True)
    assert found.hardware == f"Card --id={asked}"


def test_a_folder_without_a_repository_is_unknown(tmp_path):
    assert code(tmp_path) == Code("unknown", "")


def test_a_folder_in_the_repository_of_something_else_is_unknown(repository):
    inside = repository / "site-packages"
    inside.mkdir()
    assert code(inside) == Code("unknown", "")


def test_a_repository_without_a_commit_says_that_it_knows_nothing(tmp_path):
    git(tmp_path, "init", "-q")
    found = code(tmp_path)
    assert found.commit == "unknown"
    assert "HEAD" in found.problem
    assert found.diff == f"uncommitted changes could not be read: {found.problem}\n"


def test_a_repository_without_git_is_not_taken_for_a_clean_state(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    found = code(repository)
    assert found.commit == "unknown"
    assert found.problem == "[Errno 2] No such file or directory: 'git'"
    assert found.diff


def test_the_repository_of_somebody_else_is_not_taken_for_a_clean_state(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    found = code(repository)
    assert found.commit == "unknown"
    assert "dubious ownership" in found.problem
    assert f"git config --global --add safe.directory {repository}" in found.problem
    assert len(found.problem.splitlines()) == 1
    assert found.diff


def test_a_diff_that_cannot_be_read_is_not_taken_for_a_clean_state(repository, monkeypatch):
    real = environment._git

    def failing(project, *words):
        if "diff" in words:
            raise subprocess.TimeoutExpired("git diff", 20)
        return real(project, *words)

    monkeypatch.setattr(environment, "_git", failing)
    found = code(repository)
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert "timed out after 20 seconds" in found.problem
    assert found.diff == f"uncommitted changes could not be read: {found.problem}\n"


def gathered(**given):
    return gather(**{"device": "cpu", "threads": 1, "side_by_side": 2, "deterministic": True, **given})


@pytest.mark.parametrize("diff", ["", "--- a\n+++ b\n", "naïve"])
def test_the_state_of_the_code_is_in_the_environment(monkeypatch, diff):
    monkeypatch.setattr(environment, "code", lambda: Code("abc", diff))
    found = gathered()
    assert (found.commit, found.dirty) == ("abc", bool(diff))
    assert found.diff_digest == (hashlib.sha256(diff.encode()).hexdigest() if diff else "")


def test_exact_versions_of_everything_installed():
    found = gathered()
    assert found.python == platform.python_version()
    for package in ("torch", "mlflow", "numpy", "adabound"):
        assert found.packages[package] == metadata.version(package)
    assert list(found.packages) == sorted(found.packages)


def test_what_was_asked_for_is_recorded():
    found = gathered(threads=3, side_by_side=4, deterministic=False)
    assert (found.device, found.threads, found.side_by_side, found.deterministic) == ("cpu", 3, 4, False)
    assert found.host == platform.node()


def test_the_processor_is_named_with_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert gathered().hardware.endswith(", 3 cores")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert gathered().hardware.endswith(", 1 core")
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    if named:
        assert gathered().hardware.startswith(named[0].partition(":")[2].strip())


@pytest.mark.parametrize(("device", "index"), [("cuda", "0"), ("cuda:3", "3")])
def test_a_gpu_is_asked_for_its_name(tmp_path, monkeypatch, device, index):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in --id=' + index + ') echo "Some GPU";; *) exit 1;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gathered(device=device).hardware == "Some GPU"


def test_a_gpu_whose_name_cannot_be_asked_for_is_called_by_its_device(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert gathered(device="cuda:1").hardware == "cuda:1"
