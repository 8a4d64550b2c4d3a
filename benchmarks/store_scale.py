"""How long it takes to read a large store: 1,000 finished runs, 100 epochs of five metrics each.

    python -m benchmarks.store_scale                            # adds to store_scale.jsonl, which docs/report.md shows
    python -m benchmarks.store_scale --runs 100 --epochs 10     # another size is printed, not recorded

Builds the store in a temporary folder: one run is published by the project's own writer, the others are copies of its rows
with keys, seeds and values of their own. Then reads it in processes of their own, imports included, in turn: by SQL,
through an `mlflow server` on this machine, and as one would with MLflow's API alone (search_runs, get_metric_history).
All tables of a report are timed as `repro compare --figures false`, as a user starts it. At last it publishes a run into the
full store, epoch by epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import record
from repro import journal, studies
from repro.records import EPOCH_METRICS, Environment, EpochRecord, RunResult
from repro.studies import Plan, PlannedRun

RECORD = Path(__file__).parent / "store_scale.jsonl"
READS = {
    "compare": (
        "from repro.cli import cli\n"
        "cli(['compare', '--figures', 'false', '--tracking-uri', URI], standalone_mode=False)"
    ),
    "keys": (
        "from repro.tracking.store import connect\nfrom repro.tracking.writer import Writer\n"
        "assert len(Writer(connect(URI)).finished(open('keys').read().split())) == RUNS"
    ),
    "tables": "from repro.tracking import reader\ncontents = reader.read(URI)\nassert len(contents.runs) == RUNS",
    "curves": (
        "from repro.tracking import reader\ncontents = reader.read(URI, curves=True)\n"
        "assert sum(len(run.curve.epoch) for run in contents.runs) == RUNS * EPOCHS"
    ),
    "API": (
        "from mlflow import MlflowClient\nclient = MlflowClient(tracking_uri=URI)\ntoken, runs = None, []\n"
        "where = [one.experiment_id for one in client.search_experiments()]\n"
        "while token or not runs:\n"
        "    page = client.search_runs(where, \"attributes.status = 'FINISHED'\", page_token=token)\n"
        "    token, runs = page.token, runs + page\n"
        f"METRICS = {EPOCH_METRICS!r}\n"
        "points = sum(len(client.get_metric_history(r.info.run_id, m)) for r in runs if r.data.params for m in METRICS)\n"
        "assert points == RUNS * EPOCHS * len(METRICS)"
    ),
}
"""What is timed, as the programs that are run."""


def environment() -> Environment:
    """Some environment: what stands in it does not matter here."""
    return Environment(
        commit="0" * 40,
        dirty=False,
        diff_digest="",
        python=platform.python_version(),
        packages={},
        platform=platform.platform(),
        hardware=machine(),
        host=platform.node(),
        device="cpu",
        threads=1,
        side_by_side=2,
        deterministic=True,
    )


def machine() -> str:
    """Model of the processor and number of cores."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0].partition(':')[2].strip() if models else platform.machine()}, {os.cpu_count()} cores"


def plans(runs: int) -> list[Plan]:
    """Plans of `runs` runs in all: every declared variant, under as many seeds as it takes."""
    declared = [(study, list(study.variants)) for study in studies.declared()]
    distinct = len(studies.plan(declared, seeds=[0]).unique)
    plans, planned = [], 0
    for seed in range(-(-runs // distinct)):
        plan = studies.plan(declared, seeds=[seed], name="paper")
        plans.append(plan)
        planned += len(plan.unique)
    return plans


def build(folder: Path, runs: int, epochs: int) -> Path:
    """A store in `folder` with as many finished runs and the sweeps that planned them; returns its database."""
    from repro.tracking.store import connect
    from repro.tracking.writer import Writer

    os.chdir(folder)
    writer = Writer(connect("sqlite:///mlflow.db"))
    planned = plans(runs)
    for plan in planned:
        writer.close_sweep(writer.open_sweep(plan, reused={}), "FINISHED", {})
    unique = [run for plan in planned for run in plan.unique][:runs]
    (folder / "keys").write_text("\n".join(run.key for run in unique))
    first = folder / "runs" / unique[0].key
    journaled = begin(first, unique[0])
    for epoch in range(1, epochs + 1):
        journaled.append(EpochRecord(epoch, 2 / epoch, 0.5, 2.5 / epoch, 0.4, 30.0))
    journaled.append(
        RunResult("finished", 1.0, 0.6, 0.6, epochs, epochs, 30.0, 2.9, 2.9, 740_554, 9_148_448, "0" * 64, ((1,),))
    )
    journaled.close()
    original = writer.publish(first, parent=None).run_id
    copy(folder / "mlflow.db", original, [(run.key, run.seed) for run in unique[1:]])
    return folder / "mlflow.db"


def begin(folder: Path, run: PlannedRun) -> journal.Writer:
    """A journal in `folder` with the start of a run in it."""
    folder.mkdir(parents=True)
    journaled = journal.Writer(folder)
    spec = run.spec.model_dump(mode="json")
    journaled.append(journal.Attempt(journaled.journal_id, spec, run.study, run.variant, environment(), 0, os.getpid()))
    return journaled


def publishing(uri: str, folder: Path, epochs: int) -> float:
    """Median seconds of publishing one epoch into the store at `uri`."""
    from repro.tracking.store import connect
    from repro.tracking.writer import Writer

    writer, run = Writer(connect(uri)), plans(1)[0].runs[0]
    journaled = begin(folder, run)
    writer.publish(folder, parent=None)
    seconds = []
    for epoch in range(1, epochs + 1):
        journaled.append(EpochRecord(epoch, 2 / epoch, 0.5, 2.5 / epoch, 0.4, 30.0))
        started = time.perf_counter()
        writer.publish(folder, parent=None)
        seconds.append(time.perf_counter() - started)
    journaled.close()
    return statistics.median(seconds)


def copy(database: Path, original: str, runs: list[tuple[str, int]]) -> None:
    """Copies the rows of run `original`, a copy for each key and seed, with metrics of their own."""
    draw = np.random.default_rng(0)
    with contextlib.closing(sqlite3.connect(database)) as store, store:
        tables = {
            table: [name for _, name, *_ in store.execute(f"PRAGMA table_info({table})")]
            for table in ("runs", "tags", "params", "metrics", "latest_metrics")
        }
        rows = {
            table: list(store.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (original,))) for table in tables
        }
        for key, seed in runs:
            run_id, noise = uuid.uuid4().hex, draw.normal(1, 0.05)
            own = {"repro.key": key, "repro.seed": str(seed), "repro.journal": uuid.uuid4().hex, "seed": str(seed)}
            for table, names in tables.items():
                copies = []
                for row in rows[table]:
                    values = dict(zip(names, row, strict=True)) | {"run_uuid": run_id}
                    if table in {"tags", "params"}:
                        values["value"] = own.get(values["key"], values["value"])
                    elif table != "runs":
                        values["value"] *= noise
                    copies.append(tuple(values.values()))
                store.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", copies)


@contextlib.contextmanager
def server(database: Path, artifacts: Path) -> Iterator[str]:
    """An `mlflow server` over a copy of the store, which hands out the files itself."""
    served = database.with_name("served.db")
    shutil.copy(database, served)
    with contextlib.closing(sqlite3.connect(served)) as store, store:
        place = "'mlflow-artifacts:/' || experiment_id || '/' || run_uuid || '/artifacts'"
        store.execute(f"UPDATE runs SET artifact_uri = {place}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--backend-store-uri", f"sqlite:///{served}", "--artifacts-destination", str(artifacts)]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def measure(what: str, uri: str, runs: int, epochs: int) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one read in a process of its own, imports included."""
    program = f"URI, RUNS, EPOCHS = {uri!r}, {runs}, {epochs}\n{READS[what]}\n"
    program += "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024


def measured(database: Path, runs: int, epochs: int) -> list[record.Measurement]:
    """Every read of the store at `database`, by SQL and through a server, and what an epoch's publishing takes."""
    found: list[record.Measurement] = []
    folder = database.parent
    with server(database, folder / "mlruns") as address:
        for name, uri in (("sqlite", f"sqlite:///{database}"), ("server", address)):
            for what in READS:
                seconds, memory = measure(what, uri, runs, epochs)
                found.append({"part": what, "store": name, "seconds": round(seconds, 2), "mib": round(memory)})
            seconds = publishing(uri, folder / f"published {name}", epochs)
            found.append({"part": "publish", "store": name, "seconds": round(seconds, 4)})
    return found


def markdown(records: list[record.Record]) -> str:
    """The newest record as a table."""
    if not records:
        return "Not measured yet: `python -m benchmarks.store_scale`.\n"
    newest = records[-1]
    runs, epochs = newest["asked"]["runs"], newest["asked"]["epochs"]
    found = {(one["store"], one["part"]): one for one in newest["measurements"]}
    described = {
        "compare": "`repro compare --figures false`, the whole command",
        "tables": "reading the rows of all tables",
        "curves": "the same with every metric history",
        "keys": "finding the finished runs",
        "API": "the same histories, by `search_runs` and `get_metric_history`",
    }
    lines = [
        f"{runs:,} finished runs of {epochs} epochs and five metrics; {newest['machine']['hardware']};"
        f" {newest['date'][:10]}, commit {newest['commit'][:9]}; load average {newest['load'][0]:.1f} beforehand.",
        "",
        "| in a separate process, including imports | sqlite | | `mlflow server` | |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for part, words in described.items():
        cells = [f"{one['seconds']:.1f} s | {one['mib']} MiB" for s in ("sqlite", "server") if (one := found[s, part])]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    times = [found[s, "API"]["seconds"] / found[s, "compare"]["seconds"] for s in ("sqlite", "server")]
    lines.append(f"| these calls relative to the whole command | {times[0]:.0f} times | | {times[1]:.0f} times | |")
    published = [f"{1000 * found[s, 'publish']['seconds']:.0f} ms" for s in ("sqlite", "server")]
    lines.append(f"| publishing one epoch of a run | {published[0]} | | {published[1]} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Builds the store, measures, prints, and records a store of the standard size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=100)
    asked = vars(parser.parse_args())
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        database = build(Path(folder), asked["runs"], asked["epochs"])
        load = os.getloadavg()[:1]
        made = record.make(asked, load, measured(database, asked["runs"], asked["epochs"]))
        os.chdir("/")
    print(markdown([made]))
    if asked == {"runs": 1000, "epochs": 100}:
        record.append(made, RECORD)


if __name__ == "__main__":
    main()
