"""`mlflow run` as a user types it, on a copy of the project as git has it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.starting import MLFLOW, environment, given


def run(words: list[str], clone: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [MLFLOW, "run", ".", *words], cwd=clone, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(clone: Path, query: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(clone / "mlflow.db") as db:
        return db.execute(query).fetchall()


def test_the_literal_command_trains_the_rows_asked_for_and_compare_makes_artifacts(
    clone: Path, linked: dict[str, str]
) -> None:
    asked = ["-e", "ablation", *given("fire=removed", "dataset=digits", "epochs=1", "seeds=0")]
    output = run([*asked, "-P", "set=model.first_kernel=5,model.pools=[conv1, fire4]"], clone, linked)
    assert "Fire layers removed" in output
    names = "SELECT name, status FROM runs ORDER BY name"
    assert rows(clone, names) == [
        ("ablation", "FINISHED"),
        ("fire_removed seed 0", "FINISHED"),
        ("fire_removed_bn seed 0", "FINISHED"),
    ]
    params = dict(
        rows(
            clone, "SELECT key, params.value FROM params JOIN runs USING (run_uuid) WHERE name = 'fire_removed seed 0'"
        )
    )
    assert params["model.first_kernel"] == "5", "true values on the children, unquoted"
    assert params["model.removed"] == '["fire4", "fire8"]'
    parents = rows(clone, "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'")
    assert len(parents) == 2 and len(set(parents)) == 1, "the run that mlflow made is the parent"

    run(["-e", "compare", "-P", "study=ablation", "-P", "out=report", "-P", "figures=false"], clone, linked)
    (artifacts,) = rows(clone, "SELECT artifact_uri FROM runs WHERE name = 'compare ablation'")
    folder = Path(artifacts[0].removeprefix("file://"))
    assert (folder / "index.html").is_file()
    assert (folder / "tables").is_dir()
    note = rows(clone, "SELECT value FROM tags WHERE key = 'mlflow.note.content' AND value LIKE '%Ablation%'")
    assert note, "its description is a summary"


def test_the_code_that_runs_is_that_of_the_folder(clone: Path, linked: dict[str, str]) -> None:
    study = clone / "experiments" / "ablation.yaml"
    text = study.read_text()
    study.write_text(text.replace("title: Fire layers removed\n", "title: Fire layers removed here\n"))
    try:
        output = run(
            [
                "-e",
                "ablation",
                *[
                    "-P",
                    "fire=removed",
                    "-P",
                    "batchnorm=off",
                    "-P",
                    "dataset=digits",
                    "-P",
                    "epochs=1",
                    "-P",
                    "seeds=0",
                ],
            ],
            clone,
            linked,
        )
    finally:
        study.write_text(text)
    assert "Fire layers removed here" in output


def test_the_environment_installed_elsewhere_is_never_taken_for_the_code(clone: Path, linked: dict[str, str]) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import repro; print(repro.__file__)"],
        cwd=clone,
        env=linked,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(clone))


def test_set_up_makes_mlflow_run_work_in_its_environment_and_touches_no_other(clone: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = environment({"HOME": str(tmp_path / "home")})
    del env["PYTHONPATH"]
    subprocess.run([python, "-m", "repro.tracking.project"], cwd=clone, env=env, check=True)
    done = subprocess.run(
        [python, "-m", "mlflow", "run", ".", "-e", "compare", *given("study=ablation", "figures=false")],
        cwd=clone,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"Environment {tmp_path}/venv/mlflow/mlflow-" in done.stderr
    assert "repro compare" in done.stdout + done.stderr
    assert not (tmp_path / "home" / ".mlflow" / "envs").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyenv") is None, reason="MLflow builds environments with pyenv, which is not here")
def test_where_set_up_never_ran_mlflow_builds_the_environment_from_the_pins(clone: Path, tmp_path: Path) -> None:
    env = environment({"MLFLOW_ENV_ROOT": str(tmp_path / "envs")})
    del env["PYTHONPATH"]
    done = subprocess.run(
        [
            MLFLOW,
            "run",
            ".",
            "-e",
            "ablation",
            *["-P", "fire=removed", "-P", "dataset=digits", "-P", "epochs=1", "-P", "seeds=1"],
        ],
        cwd=clone,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tmp_path / "envs").iterdir()
    frozen = subprocess.run(
        [str(built / "bin" / "python"), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout.lower()
    for line in (clone / "constraints.txt").read_text().lower().splitlines():
        if "==" in line:
            name, version = line.split("==")
            assert f"{name}=={version}" in frozen, line


@pytest.mark.slow
def test_a_project_from_git_leaves_nothing_in_its_temporary_clone(
    clone: Path, linked: dict[str, str], tmp_path: Path
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    source = shutil.copytree(
        clone, tmp_path / "source", ignore=shutil.ignore_patterns("mlruns", "runs", "data", "*.db*")
    )
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All of it"]):
        subprocess.run(["git", *words], cwd=source, env=os.environ | identity, check=True)
    url = "https://git.invalid/project.git"
    here = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{source}.insteadOf", "GIT_CONFIG_VALUE_0": url}
    asked = given("model=squeezenet", "batchnorm=on", "epochs=1", "dataset=digits", "seeds=0")
    words = [MLFLOW, "run", url, "--env-manager", "local", "-e", "reproducibility", *asked]
    for trains in ("1 to train", "1 reused"):
        done = subprocess.run(
            words, cwd=home, env=linked | here | {"TMPDIR": str(temporary)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert trains in done.stdout
        assert f"runs, data and reports are kept in {home}" in done.stderr
    assert {path.name for path in home.iterdir()} >= {"runs", "data", "mlflow.db", "mlruns"}
    assert not [path for name in ("runs", "data", "mlflow.db") for path in temporary.glob(f"tmp*/{name}")]


def test_the_run_of_a_refused_command_says_what_was_refused(clone: Path, linked: dict[str, str]) -> None:
    words = [MLFLOW, "run", ".", "-e", "ablation", *given("fire=removd")]
    done = subprocess.run(words, cwd=clone, env=linked, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode != 0
    told = rows(
        clone,
        "SELECT status, value FROM runs JOIN tags USING (run_uuid)"
        " WHERE name = 'ablation (refused)' AND key = 'mlflow.note.content'",
    )
    assert [status for status, _ in told] == ["FAILED"]
    assert "removed" in told[0][1], "the description is the message"
