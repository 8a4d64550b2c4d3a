"""A sweep's models in MLflow: exported by workers, shipped by the publisher, loaded, served and registered as any other."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from repro.tracking.models import PROGRAM, REFUSAL
from repro.training import export, models
from repro.training.data import load
from tests.conftest import TINY
from tests.starting import PROJECT, command, environment

pytestmark = pytest.mark.filterwarnings("ignore")  # those of MLflow, on itself

_WORDS = ["experiment", "--study", "tiny.yaml", "--dataset", "digits", "--epochs", "2"]


def repro(folder: Path, *words: str, **env: str) -> str:
    done = subprocess.run(
        command(*words), cwd=folder, env=environment(env), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with a store in which the tiny study has two seeds, one of them in bf16's place: each variant has a model."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.yaml").write_text(TINY)
    repro(folder, *_WORDS, "--seeds", "0,1", "--data-dir", str(digits), "--models", "best")
    return folder


@pytest.fixture
def client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


def logged(client: MlflowClient) -> dict[str, list[mlflow.entities.LoggedModel]]:
    found: dict[str, list[mlflow.entities.LoggedModel]] = {}
    for model in client.search_logged_models([one.experiment_id for one in client.search_experiments()]):
        found.setdefault(model.name, []).append(model)
    return found


def test_the_best_seed_of_each_variant_has_a_model_with_its_run_metrics_and_data(client: MlflowClient) -> None:
    found = logged(client)
    assert {name: len(models) for name, models in found.items()} == {"narrow": 1, "wide": 1}
    (model,) = found["narrow"]
    assert model.status == "READY" and model.tags["repro.best"] == "true"
    run = client.get_run(model.source_run_id)
    best = {
        one.data.tags["repro.seed"]: one.data.metrics["best_val_accuracy"]
        for one in client.search_runs([run.info.experiment_id], "tags.`repro.variant` = 'narrow'")
    }
    assert len(best) == 2 and best[run.data.tags["repro.seed"]] == max(best.values())
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    measured = {metric.key: (metric.value, metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
    inputs = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
    assert set(inputs) == {"digits train", "digits validation", "digits test"}
    for name, split in (("test_accuracy", "digits test"), ("best_val_accuracy", "digits validation")):
        assert measured[name] == (run.data.metrics[name], split, inputs[split])
    assert len(client.get_metric_history(run.info.run_id, "test_accuracy")) == 1, "no point is doubled"


def test_a_model_gives_the_predictions_that_its_run_has_kept(project: Path, client: MlflowClient, digits: Path) -> None:
    for name in ("narrow", "wide"):
        (model,) = logged(client)[name]
        run = client.get_run(model.source_run_id)
        folder = Path(run.data.tags["repro.folder"])
        spec = _spec(folder)
        data = load(next(digits.glob("digits-*.u8")), spec.data)
        kept = np.load(folder / "predictions.npz")
        mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
        loaded = mlflow.pyfunc.load_model(model.model_uri)
        predicted = loaded.predict(data.images[data.test].numpy())
        assert predicted.shape == (len(data.test), 10) and predicted.dtype == np.float32
        assert predicted.sum(1) == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(predicted.argmax(1), kept["test_predicted"])
        one = loaded.predict(data.images[data.test[:1]].numpy())
        assert one.argmax(1) == kept["test_predicted"][:1], "any number of images"


def test_files_of_a_model_that_the_store_has_lost_are_stored_again(project: Path, client: MlflowClient) -> None:
    (model,) = logged(client)["wide"]
    place = Path(model.artifact_location)

    def files() -> dict[Path, bytes]:
        (place / "registered_model_meta").unlink(missing_ok=True)  # written by MLflow where a model is loaded
        return {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    before = files()
    shutil.rmtree(place)
    repro(project, "sync", "--models", "best")
    assert files() == before
    (again,) = logged(client)["wide"]
    assert (again.model_id, again.status) == (model.model_id, "READY")
    assert len(client.get_run(model.source_run_id).outputs.model_outputs) == 1


def test_what_mlflow_reads_of_a_model_is_what_it_would_have_written(project: Path, client: MlflowClient) -> None:
    (model,) = logged(client)["wide"]
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    info = mlflow.models.get_model_info(model.model_uri)
    assert info.signature.inputs.input_types()[0] == np.dtype("uint8")
    assert info.signature.inputs.inputs[0].shape == (-1, 32, 32, 3)
    assert info.signature.outputs.inputs[0].shape == (-1, 10)
    assert info.metadata["classes"] == [str(digit) for digit in range(10)]
    assert info.run_id == model.source_run_id and info.model_id == model.model_id
    folder = Path(mlflow.artifacts.download_artifacts(model.model_uri))
    example = mlflow.models.Model.load(folder).load_input_example(str(folder))
    assert mlflow.pyfunc.load_model(model.model_uri).predict(example).shape == (2, 10)
    pins = (folder / "requirements.txt").read_text().split()
    assert pins == [
        f"mlflow=={mlflow.__version__}",
        f"numpy=={np.__version__}",
        f"torch=={torch.__version__.partition('+')[0]}",
    ]
    assert yaml.safe_load((folder / "python_env.yaml").read_text())["python"] == ".".join(
        map(str, sys.version_info[:3])
    )


def test_a_better_seed_takes_the_mark_and_the_alias_and_the_former_keeps_its_place(
    project: Path, client: MlflowClient, digits: Path
) -> None:
    registered = repro(project, "register", "--study", "tiny", "--variant", "narrow", "--alias", "champion")
    assert registered.startswith("tiny version 1, alias champion: narrow seed ")
    assert "already registered" in repro(project, "register", "--study", "tiny", "--variant", "narrow")
    (former,) = logged(client)["narrow"]
    repro(project, "register", "--study", "tiny", "--variant", "narrow", "--name", "other")
    for name, version in (("tiny", "1"), ("other", "1")):  # the column of MLflow's Models tab
        listed = json.loads(client.get_logged_model(former.model_id).tags["mlflow.modelVersions"])
        assert {"name": name, "version": version} in listed and len(listed) == 2
    repro(project, *_WORDS, "--seeds", "2-6", "--data-dir", str(digits), "--models", "best", "--variant", "narrow")
    narrow = logged(client)["narrow"]
    best = {model.model_id: model.tags["repro.best"] for model in narrow}
    winner = next(model for model in narrow if best[model.model_id] == "true")
    assert winner.model_id != former.model_id, "choose other seeds: none is better"
    assert best == {former.model_id: "false", winner.model_id: "true"}
    assert "version 2" in repro(project, "register", "--study", "tiny", "--variant", "narrow")
    assert client.get_model_version_by_alias("tiny", "champion").run_id == winner.source_run_id
    assert client.get_model_version("tiny", "1").run_id == former.source_run_id
    assert client.get_model_version("tiny", "1").aliases == []


def test_only_runs_of_one_setting_compete(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = [*_WORDS, "--variant", "narrow", "--seeds", "0", "--data-dir", str(digits), "--models", "best"]
    for epochs in ("8", "1"):  # the former is the better one
        repro(tmp_path, *words, "--epochs", epochs)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    register = ["register", "--study", "tiny"]
    for place, chosen, epochs in (("1", [], "1"), ("2", ["--setting", _other_setting(tmp_path)], "8")):
        setting = f"digits (d5959d0b), training.epochs={epochs}"
        said = repro(tmp_path, *register, *chosen)
        assert (
            said.startswith(f"tiny version {place}, alias champion: narrow seed 0, ") and f" on {setting}, run " in said
        )
        version = client.get_model_version("tiny", place)
        assert version.tags["repro.setting"] == setting
        assert client.get_run(version.run_id).data.params["training.epochs"] == epochs


def _other_setting(folder: Path) -> str:
    """The id of the setting that `compare` names besides the latest."""
    return repro(folder, "compare", "--figures", "false").partition("(--setting ")[2][:8]


def test_a_registered_model_is_served(project: Path, client: MlflowClient) -> None:
    repro(project, "register", "--study", "tiny", "--name", "served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "-m", "models:/served@champion", "--env-manager", "local", "--port", str(port)]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "mlflow"), *words],
        cwd=project,
        env=environment(
            {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db",
            }
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "it does not serve"
                time.sleep(0.2)
        version = client.get_model_version_by_alias("served", "champion")
        folder = Path(client.get_run(version.run_id).data.tags["repro.folder"])
        (run,) = [one for models in logged(client).values() for one in models if one.source_run_id == version.run_id]
        model = Path(run.artifact_location)
        answered = subprocess.run(
            [
                *["curl", "-s", f"http://127.0.0.1:{port}/invocations", "-H", "Content-Type: application/json"],
                *["-d", f"@{model}/serving_input_example.json"],
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        given = np.array(json.loads(answered)["predictions"])
        np.testing.assert_array_equal(given.argmax(1), np.load(folder / "predictions.npz")["test_predicted"][:2])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_process_that_serves_needs_no_torchvision_and_none_of_this_project(
    project: Path, client: MlflowClient
) -> None:
    (model,) = logged(client)["wide"]
    program = (
        "import sys, numpy, mlflow\n"
        "for name in ('torchvision', 'repro'): sys.modules[name] = None\n"
        f"model = mlflow.pyfunc.load_model({model.artifact_location!r})\n"
        "print(model.predict(numpy.zeros((3, 32, 32, 3), dtype='uint8')).shape)"
    )
    env = environment()
    del env["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "(3, 10)", done.stderr


def test_all_and_none(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = [*_WORDS, "--variant", "narrow", "--data-dir", str(digits)]
    repro(tmp_path, *words, "--seeds", "0", "--models", "none")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert not logged(client)
    assert not list((tmp_path / "runs").glob(f"*/{PROGRAM}"))
    repro(tmp_path, *words, "--seeds", "1,2", REPRO_MODELS="all")
    assert len(logged(client)["narrow"]) == 2
    assert len(logged(client)["narrow"]) == len(list((tmp_path / "runs").glob(f"*/{PROGRAM}")))


def test_offline_runs_get_their_models_when_they_are_brought_in(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = [*_WORDS, "--variant", "narrow", "--data-dir", str(digits), "--seeds", "0"]
    repro(tmp_path, *words, "--offline", "true", "--models", "best")
    refused = subprocess.run(
        command("register", "--study", "tiny"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    repro(tmp_path, "sync", "--models", "best")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert [model.status for model in logged(client)["narrow"]] == ["READY"]
    repro(tmp_path, "sync", "--models", "all")
    assert len(logged(client)["narrow"]) == 1, "a run has one model, however often it is brought in"


def _spec(folder: Path):
    from repro import journal

    known = journal.read(folder)
    assert known is not None
    return known.spec


def test_bf16_gives_the_same_predictions(digits: Path) -> None:
    from repro import studies
    from repro.training.loop import Training

    study = studies.load("demo")
    overrides = {
        "training.epochs": 1,
        "data.dataset": "digits",
        "training.precision": "bf16",
        "training.batch_size": 500,
    }
    run = studies.plan([(study, ["squeezenet_bn"])], seeds=[0], overrides=overrides).runs[0]
    data = load(next(digits.glob("digits-*.u8")), run.spec.data)
    training = Training(run.spec, data)
    for _ in training:
        pass
    assert training.predictions is not None
    state = training.best_state()
    network = export.restored(run.spec, state)
    assert {one.dtype for one in models.multiplied(network)} == {torch.bfloat16}
    program = torch.export.load(io.BytesIO(export.exported(run.spec, state, data))).module()
    for classifier in (export.Classifier(network, data).eval(), program):
        with torch.no_grad():
            probabilities = classifier(data.images[data.test])
        assert probabilities.dtype is torch.float32
        np.testing.assert_array_equal(probabilities.argmax(1).numpy(), training.predictions["test_predicted"])


def test_a_network_that_cannot_be_exported_leaves_the_run_finished_with_a_line(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "sitecustomize.py").write_text(
        "import repro.training.export as export\n"
        "def refuse(*_): raise RuntimeError('no graph\\nof this')\n"
        "export.exported = refuse\n"
    )
    said = repro(
        tmp_path,
        *[*_WORDS, "--variant", "narrow", "--data-dir", str(digits), "--seeds", "0", "--models", "best"],
        PYTHONPATH=f"{tmp_path}:{PROJECT}",
    )
    reason = "RuntimeError: no graph of this"
    assert f"narrow seed 0: no model in MLflow: {reason}" in said
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert not logged(client)
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()], "tags.`repro.kind` = 'run'")
    assert run.info.status == "FINISHED"
    text = (Path(re.sub("^file://", "", run.info.artifact_uri)) / REFUSAL).read_text()
    assert text == f"{reason}\n"
