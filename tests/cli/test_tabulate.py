"""`repro tabulate` on stores that plain MLflow code wrote, without torch."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests.starting import command, environment
from tests.tracking.conftest import Server

WRITTEN = """
import math, random
import mlflow
from mlflow.entities import Metric, Param

mlflow.set_tracking_uri("sqlite:///theirs.db")
mlflow.set_experiment("my runs")
client, chance = mlflow.MlflowClient(), random.Random(3)
data = mlflow.data.from_numpy(__import__("numpy").arange(6.0), name="numbers")
for model, shift in (("small", 0.0), ("large", 0.03)):
    with mlflow.start_run(run_name=f"search of {model}"):
        mlflow.log_param("search", "grid")
        for seed in range(3):
            with mlflow.start_run(nested=True) as run:
                best = 0.7 + shift + chance.gauss(0, 0.01)
                values = [best - 0.3, math.nan, best, best - 0.1]
                points = [Metric("val_acc", value, 0, step) for value, step in zip(values, (0, 2, 7, 9))]
                points += [Metric("loss", 1.0 + chance.random(), 0, 0), Metric("epoch_time", 1.0, 0, 0)]
                params = {"model": model, "seed": seed, "opt_lr": 0.1, "epochs": 10}
                client.log_batch(run.info.run_id, points, [Param(name, str(value)) for name, value in params.items()])
                mlflow.log_input(data, context="training")
mlflow.start_run(run_name="stopped")
mlflow.log_params({"model": "small", "seed": 9, "epochs": 10})
mlflow.log_metric("val_acc", 0.1)
mlflow.end_run("KILLED")
"""
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "sklearn"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from repro.cli import main
sys.exit(main(sys.argv[1:]))
"""
WORDS = ["tabulate", "--experiment", "my runs", "--by", "params.model", "--seed", "params.seed"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A folder with the store of somebody who knows nothing of this project."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "train.py").write_text(WRITTEN)
    subprocess.run([sys.executable, "-W", "ignore", "train.py"], cwd=folder, env=environment(), check=True, timeout=240)
    return folder


def tabulated(folder, *words, uri="sqlite:///theirs.db"):
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_TORCH, *WORDS, "--tracking-uri", uri, *words]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )


def test_a_store_of_plain_mlflow_code_becomes_a_report_without_torch(theirs, tmp_path):
    words = ["--metric", "val_acc:max,loss:last:min", "--baseline", "params.model=small", "--out", str(tmp_path)]
    done = tabulated(theirs, *words)
    assert done.returncode == 0, done.stderr
    assert "1 unfinished runs are left out (a --filter on status keeps them)" in done.stdout
    assert "val_acc: points that are not finite are skipped in 6 runs" in done.stdout
    runs = list(csv.DictReader((tmp_path / "tables/runs.csv").read_text().splitlines()))
    values = {
        model: [float(run["metrics.val_acc"]) for run in runs if run["params.model"] == model]
        for model in ("small", "large")
    }
    large, small = csv.DictReader((tmp_path / "tables/groups.csv").read_text().splitlines())
    expected = scipy.stats.ttest_ind(values["large"], values["small"])
    assert (large["params.model"], small["params.model"], large["n"], small["n"]) == ("large", "small", "3", "3")
    assert float(large["val_acc_mean"]) == pytest.approx(np.mean(values["large"]))
    assert float(large["val_acc_diff_p"]) == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert [float(large[f"val_acc_diff_{end}"]) for end in ("low", "high")] == [pytest.approx(end) for end in interval]
    names = {path.name for path in tmp_path.rglob("*.*")}
    assert {"val_acc-curves.svg", "val_acc-forest.png", "index.html", "groups.tex", "values.tex"} <= names
    assert "loss-curves.svg" not in names, "one point is no curve"


def test_mlflow_s_own_search_chooses_runs_and_gives_the_same(theirs):
    asked = ["--metric", "val_acc:at=7", "--json"]
    every = tabulated(theirs, *asked)
    some = tabulated(theirs, *asked, "--filter", "params.epochs = '10' and attributes.status = 'FINISHED'")
    assert (every.returncode, some.returncode) == (0, 0), every.stderr + some.stderr
    assert json.loads(some.stdout)["groups"] == json.loads(every.stdout)["groups"]
    stopped = tabulated(theirs, "--metric", "val_acc", "--json", "--filter", "attributes.status = 'KILLED'")
    assert [(group["n"], group["val_acc_mean"]) for group in json.loads(stopped.stdout)["groups"]] == [(1, 0.1)]


def test_a_server_gives_the_same_table_and_links_to_its_runs(theirs, tmp_path):
    server = Server(tmp_path)
    shutil.copy(theirs / "theirs.db", server.database)
    server.start()
    try:
        out = str(tmp_path / "report")
        asked = ["--metric", "val_acc:max,loss:last:min", "--baseline", "params.model=small", "--json"]
        local, remote = tabulated(theirs, *asked), tabulated(theirs, *asked, "--out", out, uri=server.uri)
    finally:
        server.stop()
    assert (local.returncode, remote.returncode) == (0, 0), local.stderr + remote.stderr
    shown = [{**json.loads(done.stdout), "files": []} for done in (local, remote)]
    assert shown[0] == shown[1]
    assert [group["n"] for group in shown[1]["groups"]] == [3, 3]
    assert f'href="{server.uri}/#/experiments/1/runs/' in (tmp_path / "report/index.html").read_text()


def test_pairs_and_rows_are_asked_for(theirs, tmp_path):
    asked = ["--metric", "loss", "--baseline", "params.model=small", "--paired", "--where", "params.model <> 'small'"]
    done = tabulated(theirs, *asked, "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (large,) = json.loads(done.stdout)["groups"]
    runs = pd.read_csv(tmp_path / "tables/runs.csv").pivot_table("metrics.loss", "seed", "params.model")
    expected = scipy.stats.ttest_rel(runs["large"], runs["small"])
    assert (large["params.model"], large["n"]) == ("large", 3)
    assert large["loss_diff_p"] == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--filter", "params.model ="], "--filter 'params.model ='"),
        (["--filter", "params.model = 'none'"], "no runs found, or none that match --filter"),
        (["--experiment", "my run"], "unknown experiment of the store 'my run'; did you mean 'my runs'?"),
        (["--tracking-uri", "sqlite:///none.db"], "none.db: no such file"),
        (["--by", ""], "--by names no column"),
    ],
)
def test_bad_input_ends_in_one_line(theirs, words, said):
    done = tabulated(theirs, "--metric", "val_acc", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_page_goes_from_a_training_script_to_a_table(tmp_path):
    text = (Path(__file__).parent.parent.parent / "docs/tabulate.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "train.py").write_text(script)
    subprocess.run(
        [sys.executable, "-W", "ignore", "train.py"], cwd=tmp_path, env=environment(), check=True, timeout=240
    )
    (shown,) = re.findall(r"^    repro (tabulate .*)$", text, re.MULTILINE)
    done = subprocess.run(
        command(*shlex.split(shown)),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    small, large = csv.DictReader((tmp_path / "report/tables/groups.csv").read_text().splitlines())
    assert (small["params.alpha"], small["n"], large["params.alpha"], large["n"]) == ("0.0001", "3", "1.0", "3")
    assert "0.0001.val_acc_mean" in json.loads((tmp_path / "report/values.json").read_text())
    columns = re.findall(r"`(_\w+)`", text)
    assert list(small) == ["params.alpha", "n", *(f"val_acc{column}" for column in columns)]
    for name in re.findall(r"`([\w./]+\.(?:html|csv|md|json|tex))`", text):
        assert (tmp_path / "report" / name).is_file(), name
