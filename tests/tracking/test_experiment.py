"""The runs of one experiment as `repro tabulate` reads them: by SQL, through MLflow's search, or from a server."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repro.tracking import api, experiment
from repro.tracking.failures import TrackingError
from repro.tracking.store import connect

NAMES = ("acc", "loss")


@pytest.fixture(scope="module")
def theirs(server) -> str:
    """The name of an experiment on the server: six runs that another program has logged, one of which is deleted."""
    client, name = connect(server.uri).client, "theirs"
    made = client.create_experiment(name)
    for seed in range(6):
        run = client.create_run(made, run_name=f"run {seed}", start_time=1000 + seed).info.run_id
        client.log_param(run, "seed", seed)
        client.log_param(run, "half", seed % 2)
        for step, value in enumerate((0.5, math.nan, math.inf, 0.7)):
            client.log_metric(run, "acc", value, timestamp=step, step=3 * step)
        client.log_metric(run, "loss", -math.inf, timestamp=5, step=1)
        client.set_terminated(run, "FAILED" if seed == 4 else "FINISHED")
    client.delete_run(run)
    return name


def test_a_server_its_database_and_a_search_give_the_same(server, theirs) -> None:
    database = f"sqlite:///{server.database}"
    remote, local, searched = (
        experiment.read(*asked)
        for asked in ((server.uri, theirs), (database, theirs), (database, theirs, "params.seed LIKE '%'"))
    )
    assert [run["run_name"] for run in local.runs] == ["run 4", "run 3", "run 2", "run 1", "run 0"]
    assert [{**run, "url": ""} for run in remote.runs] == local.runs == searched.runs
    first = local.runs[0]
    assert first["params"] == {"seed": "4", "half": "0"} and first["metrics"] == {"acc": 0.7, "loss": -math.inf}
    assert first["status"] == "FAILED" and first["url"] == ""
    here = f"{server.uri}/#/experiments/{first['experiment_id']}/runs/{first['run_id']}"
    assert remote.runs[0]["url"] == here
    ids = [run["run_id"] for run in local.runs]
    for found in (one.histories(ids, NAMES) for one in (remote, local, searched)):
        assert list(found) == ids
        for run in ids:
            acc = found[run]["acc"][found[run]["acc"][:, 0].argsort()]
            assert np.array_equal(acc[:, [0, 2]], [[0, 0.5], [3, math.nan], [6, math.inf], [9, 0.7]], equal_nan=True)
            assert found[run]["loss"].tolist() == [[1, 5, -math.inf]]
    for uri in (server.uri, database):
        half = experiment.read(uri, theirs, "params.half = '1' AND attributes.status = 'FINISHED'")
        assert [run["run_name"] for run in half.runs] == ["run 3", "run 1"]


def test_the_environment_names_the_experiment_as_it_does_for_mlflow(server, theirs, monkeypatch) -> None:
    number = experiment.read(server.uri, theirs).runs[0]["experiment_id"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", theirs)
    for uri in (server.uri, f"sqlite:///{server.database}"):
        assert experiment.read(uri, None).name == theirs
        assert experiment.read(uri, "Default").name == "Default"
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
        assert experiment.read(uri, None).name == "Default"
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)


def test_a_store_that_goes_away_before_the_histories_is_said(server, fresh, monkeypatch) -> None:
    place = fresh()
    client = connect(place.uri).client
    run = client.create_run("0").info.run_id
    local, remote = experiment.read(place.uri, "Default"), experiment.read(server.uri, "Default")
    place.database.unlink()
    with pytest.raises(TrackingError, match=r"mlflow\.db"):
        local.histories([run], NAMES)

    def gone(*_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(api, "_bulk", gone)
    with pytest.raises(TrackingError, match="gone"):
        remote.histories([run], NAMES)
