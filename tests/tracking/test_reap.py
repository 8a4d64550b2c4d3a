from __future__ import annotations

import contextlib
import io
import json
import platform
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from repro import journal
from repro.cli import main
from repro.tracking import api
from repro.tracking.reap import reap
from repro.tracking.store import connect
from repro.tracking.writer import Writer

SWEEP = """
import sys
from pathlib import Path
from repro import journal, studies
from repro.tracking.store import connect
from repro.tracking.writer import Writer
folder = Path({folder!r})
lock = journal.claim(folder)
writer = Writer(connect({uri!r}))
study = studies.load("reproducibility")
parent = writer.open_sweep(studies.plan([(study, ["squeezenet_bn"])], seeds=[0]), reused={{}})
print(parent, writer.publish(folder, parent=parent).run_id, flush=True)
sys.stdin.read()
"""


def driving(program, place, run):
    """A sweep in a process of its own that has published what there is, and lives."""
    process = program(SWEEP.format(folder=str(run.folder), uri=place.uri))
    line = process.stdout.readline().split()
    assert len(line) == 2, process.stderr.read()
    return process, *line


@pytest.fixture(scope="module")
def nobody() -> str:
    """The owner tag of a process that has ended."""
    text = "from repro import owner; print(owner.me(), end='')"
    return subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture
def left(nobody):
    """`left(writer, run)` publishes a sweep and its run as a process would that has ended since; returns both ids."""

    def publish(writer, run):
        parent = writer.open_sweep(run.plan, reused={})
        run_id = writer.publish(run.folder, parent=parent).run_id
        for one in (parent, run_id):
            writer.store.client.set_tag(one, "repro.owner", nobody)
        return parent, run_id

    return publish


def test_only_what_is_dead_is_closed(place, runs, trained, program, dump) -> None:
    alive, dead = trained(runs), trained(runs)
    for run in (alive, dead):
        run.train(1)
    _, live_sweep, live_run = driving(program, place, alive)
    dying, dead_sweep, dead_run = driving(program, place, dead)
    writer = Writer(connect(place.uri))
    assert reap(writer, runs) == []
    dead.train(2)  # on the disk, not yet in the store
    dying.kill()
    dying.wait()
    closed = reap(writer, runs)
    assert {one.run_id for one in closed} == {dead_sweep, dead_run}
    assert all("its process is gone" in str(one) for one in closed)
    stored = dump(place.database, dead_run)
    assert (stored.run["status"], stored.tags["repro.message"]) == ("KILLED", "its process is gone")
    assert max(step for _, step, *_ in stored.metrics) == 3
    assert dump(place.database, dead_sweep).run["status"] == "KILLED"
    assert dump(place.database, live_run).run["status"] == dump(place.database, live_sweep).run["status"] == "RUNNING"
    assert reap(writer, runs) == []


def test_a_worker_that_outlives_its_driver_keeps_its_run(fresh, runs, trained, left, dump) -> None:
    place, run = fresh(), trained(runs)
    sweep, run_id = left(Writer(connect(place.uri)), run)
    writer = Writer(connect(place.uri))
    with journal.claim(run.folder):
        assert [one.run_id for one in reap(writer, runs)] == [sweep]
        assert dump(place.database, run_id).run["status"] == "RUNNING"
    assert [one.run_id for one in reap(writer, runs)] == [run_id]


def test_a_finished_journal_is_published_as_finished(fresh, runs, trained, left, dump) -> None:
    place, run = fresh(), trained(runs)
    _, run_id = left(Writer(connect(place.uri)), run)
    run.train(2)
    run.finish()
    closed = reap(Writer(connect(place.uri)), runs)
    assert (closed[0].run_id, closed[0].status) == (run_id, "FINISHED")
    stored = dump(place.database, run_id)
    assert stored.run["end_time"] == run.clock - 1500
    assert stored.tags["repro.outcome"] == "finished"
    names = [one.path for one in Writer(connect(place.uri)).store.client.list_artifacts(run_id)]
    assert {"model.pt", "curves.png"} <= set(names), "as one that its own sweep has published"


def test_a_folder_that_may_not_be_entered_is_left_alone(fresh, runs, trained, left, dump, monkeypatch) -> None:
    place, run = fresh(), trained(runs)
    _, run_id = left(Writer(connect(place.uri)), run)
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent == run.folder:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert run_id not in [one.run_id for one in reap(Writer(connect(place.uri)), runs)]
    assert dump(place.database, run_id).run["status"] == "RUNNING"


def test_the_parent_that_mlflow_run_left(fresh, runs, trained, left, dump, monkeypatch) -> None:
    place = fresh()
    writer = Writer(connect(place.uri))
    by_mlflow = {"mlflow.source.type": "PROJECT"}
    given, ended, foreign = (writer.store.client.create_run("0", tags=by_mlflow).info.run_id for _ in range(3))
    for parent in (given, ended):
        monkeypatch.setenv("MLFLOW_RUN_ID", parent)
        assert left(writer, trained(runs))[0] == parent
    writer.close_sweep(ended, "FINISHED", {})  # and then `mlflow run` died before it set the status
    monkeypatch.delenv("MLFLOW_RUN_ID")
    reap(Writer(connect(place.uri)), runs)
    status = {run_id: dump(place.database, run_id).run["status"] for run_id in (given, ended, foreign)}
    assert status == {given: "KILLED", ended: "FINISHED", foreign: "RUNNING"}


def test_folders_that_are_gone_or_were_replaced(fresh, runs, trained, left, dump, here) -> None:
    place, gone, replaced, moved, broken = fresh(), *(trained(runs) for _ in range(4))
    writer = Writer(connect(place.uri))
    ids = {run.key: left(writer, run)[1] for run in (gone, replaced, moved, broken)}
    gone.folder.rename(here / "no longer where it was")
    (replaced.folder / journal.NAME).unlink()
    replaced.start()
    moved.train(2)
    (here / "moved").mkdir()
    moved.folder.rename(here / "moved" / moved.key)
    text = (broken.folder / journal.NAME).read_text()
    (broken.folder / journal.NAME).write_text("by hand\n" + text)
    reap(Writer(connect(place.uri)), here / "moved")
    stored = {run.key: dump(place.database, ids[run.key]) for run in (gone, replaced, moved, broken)}
    assert {key: one.run["status"] for key, one in stored.items()} == {
        gone.key: "KILLED",
        replaced.key: "KILLED",
        moved.key: "KILLED",
        broken.key: "FAILED",
    }
    assert len(stored[moved.key].metrics) == 10
    assert "line 1 is broken" in stored[broken.key].tags["repro.message"]


def test_what_another_machine_trains_is_left_alone(fresh, runs, trained, left, dump) -> None:
    place, run = fresh(), trained(runs)
    run.start(host="another-machine")
    writer = Writer(connect(place.uri))
    sweep, run_id = left(writer, run)
    owner = json.loads(writer.run(sweep).tags["repro.owner"])
    writer.store.client.set_tag(sweep, "repro.owner", json.dumps(owner | {"host": "another-machine"}))
    assert reap(Writer(connect(place.uri)), runs) == []
    assert dump(place.database, run_id).run["status"] == dump(place.database, sweep).run["status"] == "RUNNING"


def test_the_double_of_a_run_is_closed(fresh, runs, trained, left, dump) -> None:
    """The answer to a creation was lost on the way, and the run was created again."""
    place, run = fresh(), trained(runs)
    run.train(1)
    writer = Writer(connect(place.uri))
    _, run_id = left(writer, run)
    tags = {name: value for name, value in writer.run(run_id).tags.items() if name != "mlflow.runName"}
    double = writer.store.client.create_run("0", tags=tags).info.run_id
    reap(Writer(connect(place.uri)), runs)
    assert dump(place.database, run_id).run["status"] == "KILLED"
    stored = dump(place.database, double)
    assert (stored.run["status"], stored.tags["repro.message"]) == ("FAILED", f"a double of run {run_id}")


def test_a_run_that_cannot_be_closed_is_in_nobodys_way(fresh, runs, trained, left, dump, monkeypatch) -> None:
    place, stuck, other = fresh(), trained(runs), trained(runs)
    writer = Writer(connect(place.uri))
    sweep, stuck_id = left(writer, stuck)
    _, other_id = left(writer, other)
    writer = Writer(connect(place.uri))
    end = writer.store.client.set_terminated

    def forbidden(run_id, *words):
        if run_id in {sweep, stuck_id}:
            raise MlflowException("403: forbidden")
        return end(run_id, *words)

    monkeypatch.setattr(writer.store.client, "set_terminated", forbidden)
    problems = {one.run_id: str(one) for one in reap(writer, runs) if one.problem}
    assert set(problems) == {sweep, stuck_id}
    assert all("cannot close" in line and "403: forbidden" in line for line in problems.values())
    assert dump(place.database, other_id).run["status"] == "KILLED"


def test_only_runs_of_ours_are_fetched(fresh, runs, monkeypatch) -> None:
    store = connect(fresh().uri)
    store.client.create_run("0")
    fetched = []
    search = api.search
    monkeypatch.setattr(api, "search", lambda *words: [fetched.append(run) or run for run in search(*words)])
    assert reap(Writer(store), runs) == [] and fetched == []


class TestSync:
    """`repro sync` on journals of other hosts, and on folders that cannot be read."""

    def sync(self, place) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main(["sync", "--tracking-uri", place.uri])
        return code, out.getvalue()

    def status(self, place, run) -> str:
        query = "SELECT status FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'repro.key' AND tags.value = ?"
        with contextlib.closing(sqlite3.connect(place.database)) as store:
            return store.execute(query, (run.key,)).fetchone()[0]

    @pytest.mark.parametrize(
        ("host", "minutes", "seconds", "status"),
        [
            ("elsewhere", 5, 1.5, "RUNNING"),
            ("elsewhere", 90, 1.5, "KILLED"),
            ("elsewhere", 90, 3000.0, "RUNNING"),
            (platform.node(), 5, 1.5, "KILLED"),
        ],
    )
    def test_a_run_of_another_host_is_closed_once_it_is_silent(
        self, fresh, runs, trained, host, minutes, seconds, status
    ) -> None:
        place, run = fresh(), trained(runs)
        run.clock = round(time.time() * 1000) - minutes * 60_000
        run.start(host=host)
        run.train(1, epoch_seconds=seconds)
        assert self.sync(place)[0] == 0
        assert self.status(place, run) == status

    def test_a_folder_that_cannot_be_read_keeps_no_other_away(self, fresh, runs, trained) -> None:
        place, *made = fresh(), *(trained(runs) for _ in range(3))
        for run in made:
            run.train(1)
            run.finish()
        first, *others = sorted(made, key=lambda run: run.key)
        (first.folder / "lock").mkdir()
        code, said = self.sync(place)
        assert code == 1 and f"runs/{first.key}: " in said and "2 runs (2 new) up to date" in said
        assert {self.status(place, run) for run in others} == {"FINISHED"}
