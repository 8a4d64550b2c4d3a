"""Stores to write to and journals to write: real sqlite files, a real `mlflow server`, and records made up by hand."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from repro import journal, studies
from repro.records import Environment, EpochRecord, RunResult
from repro.tracking.names import RUN_ARTIFACTS

PROJECT = Path(__file__).parent.parent.parent
_SEEDS = itertools.count()  # keys are never used twice: the server is shared by all tests


def shell(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a user's shell in which nothing of MLflow is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"PYTHONPATH": str(PROJECT)} | (extra or {})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with nothing of MLflow set."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Server:
    """A tracking server that can be stopped and started again, with its store in `folder`."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        words = ["server", "--backend-store-uri", f"sqlite:///{self.database}", "--host", "127.0.0.1"]
        words += ["--port", str(self.port), "--workers", "1", "--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            cwd=self.folder,
            env=shell({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "the server did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One tracking server for all tests."""
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


@dataclass(frozen=True)
class Place:
    """A store, and the database behind it to look into."""

    uri: str
    database: Path


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty sqlite store, to copy: making one takes a second."""
    from repro.tracking.store import connect

    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{database}").client.get_experiment("0")
    return database


@pytest.fixture
def fresh(empty: Path, here: Path) -> Any:
    """`fresh(name)`: a new sqlite store in the working folder, in a file of that name."""

    def make(name: str = "mlflow.db") -> Place:
        shutil.copy(empty, here / name)
        with contextlib.closing(sqlite3.connect(here / name)) as store, store:
            store.execute("UPDATE experiments SET artifact_location = ?", (f"{here}/mlruns/0",))
        return Place(f"sqlite:///{here / name}", here / name)

    return make


@pytest.fixture(params=["sqlite", "server"])
def place(request: pytest.FixtureRequest, fresh: Any) -> Place:
    """A sqlite store of the test's own, and the tracking server."""
    if request.param == "sqlite":
        store: Place = fresh()
        return store
    running = request.getfixturevalue("server")
    return Place(running.uri, running.database)


def made_environment(**changes: Any) -> Environment:
    """Some environment, on this host."""
    given: dict[str, Any] = {
        "commit": "c0ffee" * 6 + "beef",
        "dirty": True,
        "diff_digest": "d" * 64,
        "python": "3.11.7",
        "packages": {"torch": "2.13.0"},
        "platform": "Linux",
        "hardware": "a processor, 2 cores",
        "host": platform.node(),
        "device": "cpu",
        "threads": 1,
        "side_by_side": 2,
        "deterministic": True,
    }
    return Environment(**given | changes)


class Trained:
    """A run of which only the journal is made: its folder, and what its training would have written there."""

    def __init__(self, runs: Path, variant: str = "squeezenet_bn", seed: int | None = None) -> None:
        study = studies.load("reproducibility")
        self.plan = studies.plan([(study, [variant])], seeds=[next(_SEEDS) if seed is None else seed])
        self.run = self.plan.runs[0]
        self.key = self.run.key
        self.folder = runs / self.key
        self.folder.mkdir(parents=True)
        self.clock = 1_700_000_000_000
        self.epochs = 0
        self.start()

    def append(self, record: journal.Record) -> None:
        writer = journal.Writer(self.folder)
        writer.append(record, self.clock)
        writer.close()
        self.clock += 1500

    def start(self, **changes: Any) -> None:
        writer = journal.Writer(self.folder)
        identity = writer.journal_id
        writer.close()
        spec = self.run.spec.model_dump(mode="json")
        environment = made_environment(**changes)
        self.append(
            journal.Attempt(identity, spec, self.run.study, self.run.variant, environment, self.epochs, os.getpid())
        )

    def train(self, epochs: int, **changes: float) -> None:
        for _ in range(epochs):
            self.epochs += 1
            values = {
                "train_loss": 2.0 / self.epochs,
                "train_accuracy": 1 - 0.9 / self.epochs,
                "val_loss": 2.2 / self.epochs,
                "val_accuracy": 1 - 0.95 / self.epochs,
                "epoch_seconds": 1.5,
            }
            self.append(EpochRecord(self.epochs, **values | changes))

    def finish(self, outcome: Any = "finished", files: bool = True, **changes: Any) -> None:
        values: dict[str, Any] = {
            "outcome": outcome,
            "test_loss": 1.25,
            "test_accuracy": 0.625,
            "best_val_accuracy": 0.75,
            "best_epoch": self.epochs,
            "epochs_run": self.epochs,
            "mean_epoch_seconds": 1.5,
            "model_size_mib": 2.9,
            "model_size_legacy_mib": 2.898,
            "parameters": 746_526,
            "multiply_adds": 9_148_448,
            "weights_digest": "e" * 64,
            "confusion": ((5, 1), (2, 4)),
        }
        self.append(RunResult(**values | changes))
        for name in RUN_ARTIFACTS:
            if files and name not in {journal.NAME, "diff.patch"}:
                (self.folder / name).write_bytes(name.encode())
        if files:
            (self.folder / "diff.patch").write_text("--- a\n+++ b\n")
            (self.folder / "checkpoint.pt").write_bytes(b"not for the store")


@pytest.fixture
def runs(here: Path) -> Path:
    """The folder of journals."""
    return here / "runs"


@pytest.fixture
def trained() -> type[Trained]:
    """`trained(runs)` begins the journal of a new run."""
    return Trained


@dataclass(frozen=True)
class Dump:
    """What a database holds of one run, as rows."""

    run: dict[str, Any]
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[str, int, int, float, int]]
    latest: dict[str, tuple[float, int, int]]
    inputs: list[tuple[str, str, str]]

    def comparable(self) -> tuple[Any, ...]:
        """All of it that does not name the run or the process that wrote it."""
        own = {"run_uuid", "artifact_uri"}
        run = {name: value for name, value in self.run.items() if name not in own}
        tags = {name: value for name, value in self.tags.items() if name not in {"repro.owner", "repro.folder"}}
        return run, self.params, tags, self.metrics, self.latest, self.inputs


@pytest.fixture
def dump() -> Any:
    """`dump(database, run_id)`: what is in the database itself."""

    def read(database: Path, run_id: str) -> Dump:
        with contextlib.closing(sqlite3.connect(database)) as store:
            store.row_factory = sqlite3.Row
            run = dict(store.execute("SELECT * FROM runs WHERE run_uuid = ?", (run_id,)).fetchone())
            pairs = {
                table: dict(store.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (run_id,)).fetchall())
                for table in ("params", "tags")
            }
            metrics = store.execute(
                "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY key, step, timestamp",
                (run_id,),
            )
            latest = store.execute("SELECT key, value, step, is_nan FROM latest_metrics WHERE run_uuid = ?", (run_id,))
            inputs = store.execute(
                "SELECT datasets.name, datasets.digest, input_tags.value FROM inputs"
                " JOIN datasets ON datasets.dataset_uuid = inputs.source_id"
                " JOIN input_tags ON input_tags.input_uuid = inputs.input_uuid WHERE inputs.destination_id = ?",
                (run_id,),
            )
            return Dump(
                run,
                pairs["params"],
                pairs["tags"],
                [tuple(row) for row in metrics],
                {key: (value, step, is_nan) for key, value, step, is_nan in latest},
                [tuple(row) for row in inputs],
            )

    return read


@pytest.fixture
def program(here: Path) -> Any:
    """`program(text)` runs a Python program in the working folder, as a process of its own that is still running."""
    started: list[subprocess.Popen[str]] = []

    def run(text: str, **extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", text],
            cwd=here,
            env=shell(extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
