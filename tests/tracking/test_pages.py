"""What MLflow's own pages show of a run and of a sweep: description, source, data sets, system metrics."""

from __future__ import annotations

import contextlib
import json
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time

import click
import numpy as np
import pytest
from mlflow.entities import Param
from PIL import Image

from repro import declarations, journal, studies
from repro.cli import cli, options
from repro.errors import ReproError
from repro.reporting import join
from repro.tracking import names, notes, reader, system
from repro.tracking.store import connect
from repro.tracking.writer import Published, Writer
from tests.tracking.conftest import made_environment, shell


def described(study: str, variant: str, **overrides: object) -> str:
    plan = studies.plan([(studies.load(study), [variant])], seeds=[3], overrides=overrides)
    return notes.of_runs(plan)[plan.runs[0].key]


def test_a_run_says_what_it_is_and_how_to_repeat_it() -> None:
    text = described("residual", "residual_2_removed", **{"training.epochs": 6, "data.dataset": "digits"})
    assert text.startswith("**Residual (2 layers removed)** (Table 3, Residual connections), seed 3. ")
    assert "Published: accuracy 75.42%, best epoch 30, 29.95 seconds an epoch, 1.4 MiB." in text
    assert "Differs from `residual/residual`: `model.fire_modules=6`." in text
    command = next(line.strip() for line in text.splitlines() if line.startswith("    repro experiment"))
    assert command == (
        "repro experiment --study residual --variant residual_2_removed --seeds 3 --dataset digits --set training.epochs=6"
    )


def test_the_command_of_every_declared_row_asks_for_that_row() -> None:
    for study in studies.declared():
        plan = studies.plan([(study, studies.select(study))], seeds=[0], overrides={"training.patience": 3})
        for run in plan.runs:
            words = shlex.split(notes.command(plan, run))[1:]
            name, *rest = words
            context = cli.get_command(click.Context(cli), name).make_context(name, rest)
            overrides = declarations.parse_overrides(context.params["overrides"])
            asked = studies.load(context.params["study"])
            again = studies.plan([(asked, [context.params["variant"]])], seeds=[0], overrides=overrides)
            assert again.runs[0].key == run.key


def test_the_command_for_an_own_study_of_a_folder_of_images_asks_for_that_run(tmp_path, monkeypatch, tiny) -> None:
    for place in range(20):
        folder = tmp_path / "my photos" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), place, np.uint8)).save(folder / f"{place}.png")

    def planned(words: list[str]) -> studies.Plan:
        asked = cli.get_command(click.Context(cli), "experiment").make_context("experiment", words).params
        study = studies.load(asked.pop("study"))
        return options.make_plan([(study, [asked.pop("variant")])], {**asked, "data_dir": str(tmp_path / "data")})

    monkeypatch.chdir(tmp_path)
    words = ["--study", str(tiny), "--variant", "wide", "--seeds", "1", "--batch-size", "5"]
    plan = planned([*words, "--dataset", "imagefolder:my photos", "--set", "data.image_size=16"])
    monkeypatch.chdir("/")
    _, _, *again = shlex.split(notes.command(plan, plan.runs[0]))
    assert "`tiny.yaml` stands for the path of the study's file" in notes.of_runs(plan)[plan.runs[0].key]
    assert planned([str(tiny) if word == "tiny.yaml" else word for word in again]) == plan


def test_descriptions_are_stored_with_a_run_once_and_stay_the_user_s(fresh, runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    writer = Writer(connect(fresh().uri))
    sweep = writer.open_sweep(run.plan, reused={})
    run_id = writer.publish(run.folder, parent=sweep).run_id
    note = writer.run(run_id).tags["mlflow.note.content"]
    assert note == notes.of_runs(run.plan)[run.key] and "**SqueezeNet, batchnorm**" in note
    writer.store.client.set_tag(run_id, "mlflow.note.content", "mine")
    run.train(1)
    run.finish()
    writer.publish(run.folder, parent=sweep)
    assert writer.run(run_id).tags["mlflow.note.content"] == "mine"


def test_what_was_put_on_every_variant_is_a_param_of_the_sweep(fresh) -> None:
    overrides = {"training.epochs": 6, "model.pools": ["conv1", "fire4"]}
    plan = studies.plan([(studies.load("reproducibility"), ["squeezenet"])], seeds=[0], overrides=overrides)
    writer = Writer(connect(fresh().uri))
    sweep = writer.open_sweep(plan, reused={})
    assert writer.run(sweep).params == {"training.epochs": "6", "model.pools": '["conv1", "fire4"]'}
    assert writer.open_sweep(plan, reused={}) == sweep


def test_the_source_stands_where_mlflow_looks_for_it(fresh, runs, trained) -> None:
    run = trained(runs)
    run.start(branch="topic", repository="https://example.org/repo.git")
    run.train(1)
    run.finish()
    (run.folder / "diff.patch").write_text("+ line\n" * 2000)
    writer = Writer(connect(fresh().uri))
    tags = writer.run(writer.publish(run.folder, parent=None).run_id).tags
    assert tags["mlflow.source.git.commit"] == made_environment().commit
    assert tags["mlflow.source.git.branch"] == "topic"
    assert tags["mlflow.source.git.repoURL"] == "https://example.org/repo.git"
    assert tags["mlflow.source.git.dirty"] == "true"
    diff = tags["mlflow.source.git.diff"]
    assert diff.startswith("+ line\n") and len(diff) <= names.TAG_LENGTH


def test_mlflow_knows_the_source_of_every_data_set(fresh, runs, trained) -> None:
    from mlflow.data import get_source

    run = trained(runs)
    run.train(1)
    writer = Writer(connect(fresh().uri))
    stored = writer.store.client.get_run(writer.publish(run.folder, parent=None).run_id)
    found = [get_source(one.dataset) for one in stored.inputs.dataset_inputs]
    assert [one.to_dict()["url"].rpartition("/")[2] for one in found] == ["cifar-10-python.tar.gz"] * 3
    schema = json.loads(stored.inputs.dataset_inputs[0].dataset.schema)["mlflow_tensorspec"]
    assert json.loads(schema["features"])[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 32, 32, 3]}


def test_system_metrics_are_stored_where_mlflow_s_variable_asks_for_them(fresh, runs, trained, monkeypatch) -> None:
    run = trained(runs)
    writer = Writer(connect(fresh().uri))
    sweep = writer.open_sweep(run.plan, reused={})
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    system.measure(writer.store, sweep)
    time.sleep(1)
    assert not writer.run(sweep).metrics
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    system.measure(writer.store, sweep)
    deadline = time.monotonic() + 60
    while "system/cpu_utilization_percentage" not in writer.run(sweep).metrics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    writer.close_sweep(sweep, "FINISHED", {})
    monkeypatch.setitem(sys.modules, "mlflow.system_metrics.system_metrics_monitor", None)
    with pytest.raises(ReproError, match="no system metrics are stored"):
        system.measure(writer.store, sweep)


def test_what_is_renamed_in_mlflow_is_still_found(fresh, runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(fresh().uri))
    sweep = writer.open_sweep(run.plan, reused={})
    run_id = writer.publish(run.folder, parent=sweep).run_id
    client, experiment = writer.store.client, writer.store.experiment_id
    client.update_run(run_id, name="mine")
    client.update_run(sweep, name="my sweep")
    client.rename_experiment(experiment, "elsewhere")
    again = Writer(connect(writer.store.uri))  # in a new experiment of the project's name
    assert again.store.experiment_id != experiment
    assert again.finished([run.key]) == {run.key: run_id}
    assert again.publish(run.folder, parent=None).run_id == run_id
    assert again.run(run_id).name == "mine"
    assert [one.run_id for one in reader.read(writer.store.uri).runs] == [run_id]


def test_a_run_that_is_restored_counts_again_and_once(fresh, runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(fresh().uri))
    sweep = writer.open_sweep(run.plan, reused={})
    former = writer.publish(run.folder, parent=sweep).run_id
    writer.store.client.delete_run(former)
    assert Writer(writer.store).finished([run.key]) == {}
    second = Writer(writer.store).publish(run.folder, parent=None).run_id
    writer.store.client.restore_run(former)
    again = Writer(writer.store)
    (counts,) = again.finished([run.key]).values()
    assert counts in {former, second} and former != second
    assert again.publish(run.folder, parent=None).points == 0
    contents = reader.read(writer.store.uri)
    assert {row.run_id for row in contents.runs} == {former, second}
    (table,) = join.tables(contents)
    assert [len(row.runs) for row in table.rows] == [1]


@pytest.mark.parametrize("way", ["the database", "a copy"])
def test_a_run_that_was_moved_to_another_experiment_still_counts(fresh, runs, trained, way) -> None:
    run = trained(runs)
    run.train(2)
    run.finish()
    writer = Writer(connect(fresh().uri))
    sweep = writer.open_sweep(run.plan, reused={})
    run_id = writer.publish(run.folder, parent=sweep).run_id
    client, elsewhere = writer.store.client, writer.store.client.create_experiment("elsewhere")
    if way == "the database":  # MLflow 3 has no call and no button for it
        with contextlib.closing(sqlite3.connect(writer.store.database)) as database, database:
            database.execute("UPDATE runs SET experiment_id = ? WHERE run_uuid = ?", (elsewhere, run_id))
    else:  # as the usual tools do
        former = client.get_run(run_id)
        tags = dict(former.data.tags)
        run_id = client.create_run(elsewhere, former.info.start_time, tags, former.info.run_name).info.run_id
        points = [
            point for name in former.data.metrics for point in client.get_metric_history(former.info.run_id, name)
        ]
        client.log_batch(run_id, points, [Param(*one) for one in former.data.params.items()])
        for one in former.inputs.dataset_inputs:
            client.log_inputs(run_id, [one])
        with tempfile.TemporaryDirectory() as folder:
            client.download_artifacts(former.info.run_id, "", folder)
            client.log_artifacts(run_id, folder)
        client.set_terminated(run_id, end_time=former.info.end_time)
        client.delete_run(former.info.run_id)
    again = Writer(connect(writer.store.uri))
    assert again.finished([run.key]) == {run.key: run_id}
    assert again.publish(run.folder, parent=None) == Published(run_id, 0)
    assert again.artifact(run_id, "model.pt") == b"model.pt"
    contents = reader.read(writer.store.uri, curves=True)
    ((found,), (kept,)) = contents.runs, contents.sweeps
    assert (found.run_id, found.experiment_id, len(found.curve.epoch)) == (run_id, elsewhere, 2)
    assert (kept.run_id, kept.experiment_id, contents.notes) == (sweep, writer.store.experiment_id, ())


def test_a_run_that_was_deleted_for_good_comes_back_from_its_journal(fresh, runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(fresh().uri))
    former = writer.publish(run.folder, parent=None).run_id
    writer.store.client.delete_run(former)
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", writer.store.uri]
    subprocess.run(
        command, env=shell({"MLFLOW_TRACKING_URI": writer.store.uri}), check=True, capture_output=True, timeout=120
    )
    again = Writer(connect(writer.store.uri))
    assert again.finished([run.key]) == {}
    run_id = again.publish(run.folder, parent=None).run_id
    assert run_id != former and again.finished([run.key]) == {run.key: run_id}
    assert journal.read(run.folder).result is not None
