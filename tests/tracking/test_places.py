"""Stores in projects that were moved, copied, or lie in folders with odd names."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from repro.tracking import reader
from repro.tracking.store import connect
from repro.tracking.writer import Writer
from tests.starting import command, environment
from tests.tracking.conftest import shell

ODD = ["feature%2Fbranch", "a%20b", "100%", "what?x=1", "a#b", "a b;c'd"]


def train(folder: Path, trained, monkeypatch) -> tuple[str, str]:
    """A sweep of one finished run in a project's folder; ids of both."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    run = trained(folder / "runs")
    run.train(1)
    run.finish()
    said: list[str] = []
    writer = Writer.opened(None, said.append)
    sweep = writer.open_sweep(run.plan, reused={})
    run_id = writer.publish(run.folder, parent=sweep).run_id
    writer.close_sweep(sweep, "FINISHED", {})
    assert not said
    return sweep, run_id


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "mlruns").rglob("*") if path.is_file()}


def test_a_moved_project_is_read_and_says_how_it_is_mended(here, trained, monkeypatch) -> None:
    sweep, run_id = train(here / "a", trained, monkeypatch)
    (here / "a").rename(here / "b")
    monkeypatch.chdir(here / "b")
    contents = reader.read(None, curves=True)
    assert [one.run_id for one in contents.sweeps] == [sweep]
    (note,) = contents.notes
    assert f"{here}/a/mlruns, which is gone" in note and "`repro sync`" in note
    assert Writer(connect(None)).artifact(run_id, "model.pt") == b"model.pt"
    assert not (here / "a").exists()


def test_a_moved_project_is_trained_in_at_its_new_place(here, trained, monkeypatch) -> None:
    _, run_id = train(here / "a", trained, monkeypatch)
    (here / "a").rename(here / "b")
    monkeypatch.chdir(here / "b")
    said: list[str] = []
    writer = Writer.opened(None, said.append)
    assert len(said) == 1 and f"from now on under {here}/b/mlruns" in said[0]
    assert {one.path for one in writer.store.client.list_artifacts(run_id)} >= {"model.pt", "journal.jsonl"}
    train(here / "b", trained, monkeypatch)
    assert not (here / "a").exists()
    assert not reader.read(None).notes and len(reader.read(None).sweeps) == 2


def test_a_copied_project_leaves_the_original_alone(here, trained, monkeypatch) -> None:
    sweep, _ = train(here / "a", trained, monkeypatch)
    shutil.copytree(here / "a", here / "b")
    before = files(here / "a")
    monkeypatch.chdir(here / "b")
    (note,) = reader.read(None).notes
    assert "a copy of" in note
    said: list[str] = []
    Writer.opened(None, said.append)
    assert len(said) == 1
    train(here / "b", trained, monkeypatch)
    assert files(here / "a") == before and len(files(here / "b")) == 2 * len(before)
    with contextlib.closing(sqlite3.connect(here / "b" / "mlflow.db")) as store:
        assert all(uri.startswith(f"{here}/b/") for (uri,) in store.execute("SELECT artifact_uri FROM runs"))
    shutil.rmtree(here / "a")
    assert sweep in [one.run_id for one in reader.read(None).sweeps]


def test_files_that_are_kept_elsewhere_stay_there(here, trained, monkeypatch) -> None:
    (here / "a").mkdir()
    (here / "stores").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/stores/mlflow.db")
    train(here / "a", trained, monkeypatch)
    assert files(here / "a")
    train(here / "b", trained, monkeypatch)  # the same store, from another folder
    assert not (here / "stores" / "mlruns").exists() and not reader.read(None).notes


@pytest.mark.parametrize("name", ODD)
def test_files_stay_in_a_folder_of_an_odd_name(here, trained, monkeypatch, name) -> None:
    sweep, run_id = train(here / name, trained, monkeypatch)
    assert {f"mlruns/1/{run_id}/artifacts/model.pt", f"mlruns/1/{sweep}/artifacts/sweep.json"} <= files(here / name)
    assert [one.run_id for one in reader.read(None).sweeps] == [sweep]
    assert Writer(connect(None)).artifact(run_id, "model.pt") == b"model.pt"
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize("name", ODD[::3])
def test_a_sweep_and_its_report_stay_in_such_a_folder(here, tiny, digits, name) -> None:
    (here / name).mkdir()
    asked = ["--study", str(tiny), "--variant", "narrow", "--dataset", "digits", "--seeds", "0", "--epochs", "1"]
    for words in (["experiment", *asked, "--data-dir", str(digits)], ["compare", "--figures", "false"]):
        done = subprocess.run(
            command(*words),
            cwd=here / name,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in here.iterdir()} == {name, tiny.name}
    assert any(file.endswith("/artifacts/model.pt") for file in files(here / name))
    assert "| Narrow" in (here / name / "report/tables/tiny.md").read_text()


def test_an_experiment_of_its_own_in_such_a_folder(here, trained, monkeypatch) -> None:
    (here / "a%20b").mkdir()
    monkeypatch.chdir(here / "a%20b")
    connect(None).client.create_experiment("mine")  # as `mlflow run --experiment-name mine` does
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    run = trained(Path("runs"))
    writer = Writer.opened(None, lambda _: None)
    sweep = writer.open_sweep(run.plan, reused={})
    assert any(
        name.endswith(f"/{sweep}/artifacts/sweep.json") for name in files(here / "a%20b") if name.startswith("mlruns/")
    )
    assert [path.name for path in here.iterdir()] == ["a%20b"]


def test_the_ui_shows_the_files_of_such_a_folder(here, trained, monkeypatch) -> None:
    _, run_id = train(here / "feature%2Fbranch", trained, monkeypatch)
    text = """
import sys
from mlflow.server import app
from mlflow.server.handlers import initialize_backend_stores
initialize_backend_stores("sqlite:///mlflow.db", default_artifact_root="./mlruns")
answer = app.test_client().get(f"/get-artifact?path=model.pt&run_uuid={sys.argv[1]}")
print(answer.status_code, answer.data.decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", text, run_id], capture_output=True, text=True, env=shell(), cwd=Path.cwd(), check=False
    )
    assert done.stdout.split() == ["200", "model.pt"], done.stderr


def test_files_that_a_store_has_lost_are_stored_again(here, trained, monkeypatch) -> None:
    _, run_id = train(here / "a", trained, monkeypatch)
    before = {name for name in files(here / "a") if run_id in name}
    shutil.rmtree(here / "a" / "mlruns")
    (folder,) = (here / "a" / "runs").iterdir()
    writer = Writer(connect(None))
    assert writer.publish(folder, parent=None).files == len(before)
    assert files(here / "a") == before
    assert writer.publish(folder, parent=None).files == 0
    assert Writer(connect(None)).publish(folder, parent=None).files == 0


def test_a_deleted_sweep_is_named_with_the_command_that_mends_it(here, trained, monkeypatch) -> None:
    sweep, run_id = train(here / "a", trained, monkeypatch)
    store = connect(None)
    store.client.delete_run(sweep)
    contents = reader.read(None)
    assert [run.run_id for run in contents.runs] == [run_id]
    assert contents.notes == (
        f"sweep {sweep} is deleted, its runs are not: `mlflow runs restore --run-id {sweep}` brings it back",
    )
    store.client.restore_run(sweep)
    assert not reader.read(None).notes
