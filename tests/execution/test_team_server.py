"""A team's server: `mlflow server` over PostgreSQL, with logins, that serves its artifacts; docs/team-server.md sets one up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.execution.watching import POINTS, epochs_written, said, wait_for
from tests.starting import environment, served

LOGIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a long password"}

_EPOCHS = 80
"""Of the sweeps during which the server is restarted."""


def missing() -> str:
    """Why no such server can be started here; "" where it can."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return "no PostgreSQL here: apt-get install postgresql"
    lacking = [name for name in ("psycopg", "flask_wtf") if find_spec(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "PostgreSQL is started as its own user, which takes root"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Team:
    """A database, and a server over it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "postgres"
        self.ports = (free_port(), free_port())
        self.uri = f"http://127.0.0.1:{self.ports[1]}"
        self.database_uri = f"postgresql://postgres@127.0.0.1:{self.ports[0]}/postgres"
        self.bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self._database: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        self.data.mkdir()
        shutil.chown(self.data, "postgres", "postgres")
        made = [self.bin / "initdb", "--pgdata", self.data, "--auth", "trust", "--no-sync"]
        subprocess.run(made, user="postgres", cwd=self.data, stdout=subprocess.DEVNULL, check=True)

    def start(self) -> None:
        words = [self.bin / "postgres", "-D", self.data, "-p", str(self.ports[0]), "-k", self.data, "-F"]
        self._database = subprocess.Popen(words, user="postgres", cwd=self.data, stderr=subprocess.DEVNULL)
        wait_for(lambda: self._answers(self.ports[0]))
        words = [
            "server",
            "--backend-store-uri",
            self.database_uri,
            "--artifacts-destination",
            f"{self.folder}/artifacts",
        ]
        words += ["--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(self.ports[1]), "--workers", "1"]
        env = {
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret of the server",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        env |= {"MLFLOW_AUTH_ADMIN_PASSWORD": LOGIN["MLFLOW_TRACKING_PASSWORD"], "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                cwd=self.folder,
                env=environment(env),
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        wait_for(self._serves)

    def _answers(self, port: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def _serves(self) -> bool:
        assert self._server is not None and self._server.poll() is None, (self.folder / "log").read_text()[-2000:]
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            return True
        return False

    def rows(self, query: str) -> list[tuple]:
        """What the database itself says."""
        import psycopg

        with psycopg.connect(self.database_uri) as connection:
            return connection.execute(query).fetchall()

    def stop(self) -> None:
        """Ends both at once."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        if self._database is not None:
            self._database.send_signal(signal.SIGQUIT)
            self._database.wait(30)


@pytest.fixture
def team() -> Iterator[Team]:
    """The server, with the user admin."""
    if reason := missing():
        pytest.skip(reason)
    with served(Team) as running:
        yield running


def test_a_teams_server_with_logins_over_postgresql(team: Team, repro, sweep_words, tmp_path: Path) -> None:
    words = [*sweep_words, "--variant", "narrow", "--tracking-uri", team.uri]
    refused = repro(*words)
    assert refused.returncode == 1
    assert "asks for a login (401); set MLFLOW_TRACKING_USERNAME" in refused.stderr
    done = repro(*words, env=LOGIN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| Narrow | 1 |" in done.stdout
    assert "1 reused, 0 to train" in repro(*words, env=LOGIN).stdout
    compared = repro("compare", "--tracking-uri", team.uri, "--out", "report", "--figures", "false", env=LOGIN)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_sweeps_at_once_lose_and_double_nothing_while_server_and_database_restart(
    team: Team, start, long_words, tmp_path: Path
) -> None:
    words = [*long_words(_EPOCHS), "--workers", "1", "--tracking-uri", team.uri]
    sweeps = [start([*words, "--seeds", str(seed)], env=LOGIN) for seed in range(4)]
    wait_for(lambda: len(team.rows("SELECT DISTINCT run_uuid FROM metrics")) >= 4, 300)
    team.stop()
    before = epochs_written(tmp_path)
    wait_for(lambda: epochs_written(tmp_path) > before + 20)
    team.start()
    outputs = [sweep.communicate(timeout=500)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0] * 4, "\n".join(outputs)
    assert all("the journals keep everything until the store is back" in output for output in outputs)
    assert sorted(team.rows(POINTS.replace("%", "%%"))) == said(tmp_path / "runs"), "nothing is lost or doubled"
    names = [f"{variant} seed {seed}" for seed in range(4) for variant in ("narrow", "wide")]
    assert sorted(team.rows("SELECT name, status FROM runs")) == sorted(
        (one, "FINISHED") for one in [*names, *["tiny"] * 4]
    )
