"""No part of a credential is shown, whatever characters it has."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

from repro.errors import ReproError
from repro.tracking.credentials import link, shown
from repro.tracking.failures import TrackingError, errors
from repro.tracking.store import connect, resolve

SECRET = [
    ("http://me:a/b@h:1", {"a/b"}, "h:1"),
    ("https://token@h", {"token"}, "h"),
    ("http://me:p@ss@h", {"p@ss", "ss@"}, "h"),
    ("http://me:p%40ss@h/path", {"p%40ss", "p@ss"}, "h/path"),
    ("https://ghp_0123456789abcdefghij0123:x-oauth-basic@h", {"ghp_", "x-oauth-basic"}, "h"),
    ("http://me:a?b#c@h", {"a?b", "#c"}, "h"),
    ("postgresql://me:s3cret@h/runs?password=other&sslmode=require", {"s3cret", "other"}, "h/runs"),
    ("mysql+pymysql://:s3cret@h/runs", {"s3cret"}, "h/runs"),
]


@pytest.mark.parametrize(("uri", "secrets", "place"), SECRET)
def test_a_uri_is_shown_without_them(uri: str, secrets: set[str], place: str) -> None:
    assert place in shown(uri) and not any(secret in shown(uri) for secret in secrets)
    assert not any(secret in link(uri) for secret in {*secrets, "@", "me"})


@pytest.mark.parametrize(("uri", "secrets", "place"), SECRET)
def test_messages_of_other_libraries_are_shown_without_them(uri: str, secrets: set[str], place: str) -> None:
    with pytest.raises(TrackingError) as caught, errors(uri):
        raise OSError(f"Invalid url: {uri}/api, that is {unquote(uri)}, is wrong")
    assert not any(secret in str(caught.value) for secret in secrets)
    assert "is wrong" in str(caught.value)


@pytest.mark.parametrize("uri", ["http://me:a/b@127.0.0.1:9", "http://me:p@ss@127.0.0.1:9", "ftp:me:s3cret@h"])
def test_what_a_url_parser_would_read_otherwise_is_refused(here: Path, uri: str) -> None:
    with pytest.raises(ReproError) as caught:
        connect(uri)
    assert not any(secret in str(caught.value) for secret in ("a/b", "p@ss", "s3cret"))


def test_a_uri_with_a_blank_behind_it_is_the_same_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("sqlite:///mlflow.db \r\n", " sqlite:///mlflow.db", "", " "):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", text)
        assert resolve(None) == f"sqlite:///{here}/mlflow.db"


@pytest.mark.parametrize(("name", "value"), [("MLFLOW_HTTP_REQUEST_TIMEOUT", "abc"), ("MLFLOW_EXPERIMENT_ID", "abc")])
def test_a_variable_of_mlflow_that_is_wrong_is_named(here: Path, monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ReproError, match=f"(?s)(?=.*{name})(?=.*{value})") as caught, errors("http://h"):
        connect()
        MLFLOW_HTTP_REQUEST_TIMEOUT.get()
    assert caught.value.exit_code == 2


def test_a_proxy_before_a_local_server_is_named(here: Path, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="NO_PROXY=localhost"):
        connect("http://localhost:5000")


def test_a_run_that_was_deleted_is_named_with_the_command_that_mends_it(here: Path) -> None:
    store = connect()
    run_id = store.client.create_run("0").info.run_id
    store.client.delete_run(run_id)
    with pytest.raises(TrackingError, match=f"`mlflow runs restore --run-id {run_id}`"), store.errors():
        store.client.log_metric(run_id, "loss", 1.0)
