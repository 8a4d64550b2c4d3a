from __future__ import annotations

import contextlib
import http.server
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from repro.errors import InputError
from repro.tracking import store, views
from repro.tracking.failures import TrackingError
from repro.tracking.store import EXPERIMENT, connect, resolve

CONNECT = "from repro.tracking.store import connect\nstore = connect()\n"


def test_default_is_where_mlflow_looks(here: Path) -> None:
    opened = connect()
    import mlflow

    assert opened.uri == mlflow.get_tracking_uri() == f"sqlite:///{here}/mlflow.db"
    run = opened.client.create_run(opened.experiment_id)
    assert run.info.artifact_uri == f"{here}/mlruns/{opened.experiment_id}/{run.info.run_id}/artifacts"


def test_the_experiment_is_one_of_the_projects_own(here: Path) -> None:
    with pytest.raises(InputError, match="no such file; train something first"):
        connect(create=False)
    assert list(here.iterdir()) == [], "reading creates no store"
    other = connect(experiment="mine")
    assert connect(create=False).experiment_id == "", "nor an experiment"
    opened = connect()
    experiment = opened.client.get_experiment(opened.experiment_id)
    assert experiment.name == EXPERIMENT == "squeezenet-repro"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "repro.variant" in experiment.tags["mlflow.note.content"]
    assert '"metricKey": "val_accuracy"' in experiment.tags["mlflow.sharedViewState.curves"]
    assert connect().experiment_id == opened.experiment_id
    assert (
        opened.link == f"http://127.0.0.1:5000/#/experiments/{opened.experiment_id}/runs?workflowType=machine_learning"
    )
    opened.client.delete_experiment(opened.experiment_id)
    with pytest.raises(InputError, match="mlflow experiments restore"):
        connect()
    assert connect(experiment="mine").experiment_id == other.experiment_id != opened.experiment_id


def test_any_experiment_of_a_sweep_is_tagged_unless_its_user_has_chosen_otherwise(here: Path) -> None:
    opened = connect(experiment="mine")
    views.offer(opened.client, opened.experiment_id)
    tags = opened.client.get_experiment(opened.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    opened.client.set_experiment_tag(opened.experiment_id, "mlflow.experimentKind", "genai_development")
    views.offer(opened.client, opened.experiment_id)
    assert opened.client.get_experiment(opened.experiment_id).tags["mlflow.experimentKind"] == "genai_development"


def test_an_experiment_that_is_given_goes_before_the_environments_but_not_before_mlflow_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    opened = connect(experiment="mine")
    assert opened.client.get_experiment(opened.experiment_id).name == "mine"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert connect(experiment="mine").experiment_id == opened.experiment_id
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    assert connect().experiment_id == "0"
    with pytest.raises(InputError, match=r"--experiment 'mine'.*--experiment-name"):
        connect(experiment="mine")


@pytest.mark.parametrize("name", ["what? 50% off", "a%20b", "ünï"])
def test_folder_with_odd_characters(here: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (here / name).mkdir()
    monkeypatch.chdir(here / name)
    opened = connect()
    opened.client.create_run(opened.experiment_id)
    with contextlib.closing(sqlite3.connect(here / name / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert resolve(opened.uri) == opened.uri


def test_relative_uri_of_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///some/where/runs.db")
    assert connect().uri == f"sqlite:///{here}/some/where/runs.db"
    assert (here / "some/where/runs.db").is_file()


def test_experiment_of_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    named = connect().experiment_id
    assert named not in {"", "0"} and connect().experiment_id == named
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert connect().experiment_id == "0"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(InputError, match="no experiment with the id '77'"):
        connect()


def test_an_experiment_that_another_sweep_makes_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect().client
    made = client.create_experiment("mine")
    find, missed = type(client).get_experiment_by_name, []

    def late(self, name):
        if not missed:
            missed.append(name)
            return None
        return find(self, name)

    monkeypatch.setattr(type(client), "get_experiment_by_name", late)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert connect().experiment_id == made
    assert missed == ["mine"]


def test_a_database_that_is_busy_is_not_called_broken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect()
    (here / "mlflow.db").rename(here / "busy.db")
    monkeypatch.setattr(store, "PROBE_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(here / "busy.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match=r"busy\.db: another program has been writing to it; try again"):
            connect("sqlite:///busy.db")


def test_deleted_experiment_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = connect()
    other = opened.client.create_experiment("other")
    opened.client.delete_experiment(other)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
    with pytest.raises(InputError, match="'other' is deleted; `mlflow experiments restore"):
        connect()


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:", "mlflow.db"])
def test_not_a_store(here: Path, uri: str) -> None:
    with pytest.raises(InputError, match="example"):
        connect(uri)


def test_not_a_database(here: Path) -> None:
    (here / "mlflow.db").write_text("something else entirely, and long enough to hold a header\n" * 10)
    with pytest.raises(TrackingError, match="not a database; put back a copy, or move it away: `repro sync`"):
        connect()


def test_cut_database(here: Path) -> None:
    connect()
    content = (here / "mlflow.db").read_bytes()
    (here / "cut.db").write_bytes(content[: 3 * 4096 + 100])
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"cut\.db"):
        connect("sqlite:///cut.db")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["/proc/no/where/mlflow.db", "/proc/mlflow.db", "folder"])
def test_cannot_be_written(here: Path, name: str) -> None:
    (here / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot be written .*; name a store"):
        connect(f"sqlite:///{name}")


def test_schema_of_another_mlflow(here: Path) -> None:
    connect()
    (here / "mlflow.db").rename(here / "newer.db")
    with contextlib.closing(sqlite3.connect(here / "newer.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'feedbeefcafe'")
    with pytest.raises(
        TrackingError, match=r"schema feedbeefcafe is not that of the installed mlflow.*mlflow db upgrade"
    ):
        connect("sqlite:///newer.db")


def test_no_server(here: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(
        TrackingError, match=rf"http://127.0.0.1:{port} does not answer \(connection refused\); start it"
    ):
        connect(f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (401, b"You are not authenticated.", "asks for a login (401)"),
        (403, b"Permission denied", "does not let this login do that (403)"),
        (
            403,
            b'{"error_code": "PERMISSION_DENIED", "message": "no"}',
            "does not let this login do that (PERMISSION_DENIED)",
        ),
    ],
)
def test_a_server_that_wants_a_login_says_what_to_set(here: Path, status, body, line) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(TrackingError) as error:
            connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert line in str(error.value)
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["databricks", "databricks://profile"])
def test_databricks_is_passed_on(here: Path, uri: str) -> None:
    assert store.resolve(uri) == uri
    with pytest.raises(TrackingError, match=r"[Dd]atabricks"):
        connect(uri)


def test_server_that_never_answers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.PROBE_SECONDS < 10
    monkeypatch.setattr(store, "PROBE_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(TrackingError, match=r"does not answer \(timed out\)"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 6


def test_server_that_is_no_tracking_server(here: Path) -> None:
    other = http.server.HTTPServer(
        ("127.0.0.1", 0), type("Quiet", (http.server.BaseHTTPRequestHandler,), {"log_message": print})
    )
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        with pytest.raises(TrackingError) as caught:
            connect(f"http://127.0.0.1:{other.server_port}")
        assert "\n" not in str(caught.value)
    finally:
        other.shutdown()
        other.server_close()


def test_four_processes_on_one_new_store(here: Path, program) -> None:
    text = CONNECT + "store.client.create_run(store.experiment_id)"
    processes = [program(text) for _ in range(4)]
    outcomes = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert outcomes == [("", "", 0)] * 4  # nothing on stderr either: no migration's chatter
    with contextlib.closing(sqlite3.connect(here / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (4,)
    assert sorted(path.name for path in here.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_creation_that_was_killed(here: Path) -> None:
    (here / "mlflow.db.new").write_bytes(b"SQLite format 3\0 and then the power went")
    (here / "mlflow.db.new-journal").write_bytes(b"half of it")
    connect().client.create_run("0")
    assert sorted(path.name for path in here.glob("mlflow.db*")) == ["mlflow.db", "mlflow.db.lock"]


def test_deleted_store(here: Path) -> None:
    opened = connect()
    opened.client.create_run("0")
    (here / "mlflow.db").unlink()
    with pytest.raises(TrackingError, match="deleted or replaced"), opened.errors():
        opened.client.create_run("0")
    again = connect()
    assert again.client.search_runs(["0"]) == []
    with again.errors():
        again.client.create_run("0")
    with contextlib.closing(sqlite3.connect(here / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    with pytest.raises(TrackingError, match="deleted or replaced"), opened.errors():
        pass


def test_whatever_sqlite_makes_of_a_deleted_store_is_said_as_that(here: Path) -> None:
    opened = connect()
    with pytest.raises(TrackingError, match="deleted or replaced"), opened.errors():
        (here / "mlflow.db").unlink()
        raise sqlite3.OperationalError("attempt to write a readonly database")


def test_driver_that_is_not_installed(here: Path) -> None:
    line = r"^mysql://me:\*\*\*@nowhere/runs: No module named 'MySQLdb'; install the database's driver"
    with pytest.raises(TrackingError, match=line):
        connect("mysql://me:secret@nowhere/runs")


def test_passwords_are_not_shown(here: Path) -> None:
    with pytest.raises(TrackingError, match="does not answer") as caught:
        connect("http://me:secret@127.0.0.1:9")
    assert "http://me:***@127.0.0.1:9" in str(caught.value) and "secret" not in str(caught.value)


def test_errors_of_our_own_are_not_hidden(here: Path) -> None:
    opened = connect()
    with pytest.raises(ZeroDivisionError), opened.errors():
        _ = 1 / 0


def test_logging_and_settings_of_the_user_stand(program) -> None:
    text = "import logging, os, sys\nlogging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
    text += CONNECT + "logging.info('mine'); logging.getLogger('theirs').info('too')\n"
    text += "print(os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'], os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'])"
    out, err = program(text, MLFLOW_HTTP_REQUEST_TIMEOUT="99").communicate(timeout=60)
    assert (out, err) == ("INFO:root:mine\nINFO:theirs:too\n99 0\n", "")


def test_mlflow_is_imported_late(program) -> None:
    text = (
        "import sys, repro.tracking.reader, repro.tracking.writer, repro.tracking.reap\nprint('mlflow' in sys.modules)"
    )
    assert program(text).communicate(timeout=60) == ("False\n", "")


def test_a_store_of_an_earlier_mlflow_is_kept_and_said_before_it_is_upgraded(here: Path, caplog) -> None:
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base

    Base.metadata.create_all(create_sqlalchemy_engine(f"sqlite:///{here}/mlflow.db"))
    with contextlib.closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        database.execute("INSERT INTO experiments VALUES (0, 'Default', ?, 'active')", (f"{here}/mlruns/0",))
    before = tables(here / "mlflow.db")
    assert connect().client.create_run("0")
    assert len(tables(here / "mlflow.db")) > len(before) == len(tables(here / "mlflow.db.former"))
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("repro")]
    assert "is of an earlier MLflow" in line and "mlflow.db.former" in line
    caplog.clear()
    assert connect() and not [record for record in caplog.records if record.name.startswith("repro")]


def test_an_upgrade_that_was_interrupted_leaves_the_copy_from_before_it(here: Path) -> None:
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base

    Base.metadata.create_all(create_sqlalchemy_engine(f"sqlite:///{here}/mlflow.db"))
    (here / "mlflow.db.former").write_bytes(b"from before it")
    (here / "mlflow.db.former.partial").write_bytes(b"cut")
    connect()
    assert (here / "mlflow.db.former").read_bytes() == b"from before it"
    with contextlib.closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        database.execute("DROP TABLE trace_tags")  # as an upgrade that another version's store needs
        (version,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    with contextlib.suppress(TrackingError):  # MLflow does not make a single table again
        connect()
    assert "trace_tags" not in tables(here / f"mlflow.db.former-{version}")
    assert {path.name for path in here.glob("mlflow.db.former*")} == {
        "mlflow.db.former",
        "mlflow.db.former.partial",
        f"mlflow.db.former-{version}",
    }


def tables(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as store:
        return {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
