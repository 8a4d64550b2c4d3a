from __future__ import annotations

import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from mlflow.exceptions import MlflowException

from repro import journal, locks, studies
from repro.errors import InputError
from repro.records import EPOCH_METRICS, RESULT_METRICS, EpochRecord, RunResult
from repro.spec import flatten, merged, resolve
from repro.tracking import api, entries, names, reader, sqlite
from repro.tracking.failures import TrackingError
from repro.tracking.store import connect
from repro.tracking.stored import param
from repro.tracking.writer import Published, Writer
from tests import journals


def expected(folder: Path) -> list[tuple[str, int, int, float]]:
    """Every point that a journal's run must have, sorted."""
    points = []
    for entry in journal.read(folder).entries:
        if isinstance(entry.record, EpochRecord):
            points += [(name, entry.record.epoch, entry.time_ms, getattr(entry.record, name)) for name in EPOCH_METRICS]
        elif isinstance(entry.record, RunResult):
            points += [(name, 0, entry.time_ms, float(getattr(entry.record, name))) for name in RESULT_METRICS]
            points.append(("parameter_count", 0, entry.time_ms, float(entry.record.parameters)))
    return sorted(points)


def test_a_finished_run_holds_everything(place, runs, trained, dump) -> None:
    run = trained(runs)
    run.train(3)
    run.finish()
    writer = Writer(connect(place.uri))
    sweep = writer.open_sweep(run.plan, reused={}, environment=journal.read(run.folder).attempts[0].environment)
    done = writer.publish(run.folder, parent=sweep)
    assert done.points == 3 * 5 + 11
    stored = dump(place.database, done.run_id)
    assert (stored.run["name"], stored.run["status"]) == (f"squeezenet_bn seed {run.run.seed}", "FINISHED")
    assert (stored.run["start_time"], stored.run["end_time"]) == (1_700_000_000_000, 1_700_000_000_000 + 4 * 1500)
    assert stored.params == {name: param(value) for name, value in flatten(run.run.spec).items()}
    assert [point[:4] for point in stored.metrics] == expected(run.folder)
    assert set(stored.tags) == {str(tag) for tag in names.RUN_TAGS} - {
        names.Tag.DIFFERENCES,
        names.Tag.MIXED,
        names.Tag.MESSAGE,
        names.Tag.FORK_OF,
        names.Tag.STEP,
        names.Tag.FOLD,
        names.Tag.SOURCE_BRANCH,
        names.Tag.SOURCE_REPOSITORY,
    }
    assert stored.tags["repro.outcome"] == "finished"
    assert stored.tags["repro.key"] == run.key
    assert stored.tags["repro.setting"] == "declared"
    assert stored.tags["repro.dirty"] == "true"
    assert stored.tags["mlflow.parentRunId"] == sweep
    digest = run.run.spec.data.digest
    assert [(name, use) for name, _, use in stored.inputs] == [
        ("cifar10 train", "training"),
        ("cifar10 validation", "validation"),
        ("cifar10 test", "test"),
    ]
    assert len({digest for _, digest, _ in stored.inputs}) == 3
    assert stored.params["data.digest"] == digest
    files = {file.path for file in writer.store.client.list_artifacts(done.run_id)}
    assert files == set(names.RUN_ARTIFACTS)
    assert writer.artifact(done.run_id, "model.pt") == b"model.pt"
    assert writer.artifact(done.run_id, journal.NAME) == (run.folder / journal.NAME).read_bytes()
    assert writer.artifact(done.run_id, "checkpoint.pt") is None


def test_a_tag_says_how_a_run_s_setting_differs_from_the_declared_one(runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    known = journal.read(run.folder)
    other = {"data.dataset": "digits", "training.epochs": 3, "optimizer.lr": 0.5}
    spec = resolve(merged({"model.name": "alexnet"}, other), "test")
    asked = replace(known)
    asked.__dict__["spec"] = spec
    assert entries.tags(asked)["repro.setting"] == "data.dataset=digits, training.epochs=3"


def test_the_inputs_say_how_many_images_a_run_saw(runs, trained) -> None:
    run = trained(runs)
    run.train(1)
    last = journal.read(run.folder).attempts[-1]

    def images(data, seen):
        settings = {"model.name": "squeezenet", "model.classes": 100, **data}
        known = SimpleNamespace(spec=resolve(settings, "test"), attempts=[replace(last, images=seen)])
        profiles = [json.loads(one.dataset.profile) for one in entries.datasets(known)]
        return [profile.get("images") for profile in profiles]

    other = {"data.dataset": "cifar100", "data.digest": "0" * 64, "data.split_digest": "1" * 64}
    assert images(other, (45_000, 5_000, 10_000)) == [45_000, 5_000, 10_000]
    assert images({"data.folds": 5, "data.fold": 1}, (44_000, 11_000, 5_000)) == [44_000, 11_000, 5_000]
    assert images({}, ()) == [50_000, 5_000, 5_000], "a journal of a former version"
    assert images(other, ()) == [None] * 3


def test_publishing_again_changes_nothing(place, runs, trained, dump) -> None:
    run = trained(runs)
    run.train(2)
    run.finish()
    writer = Writer(connect(place.uri))
    done = writer.publish(run.folder, parent=None)
    before = dump(place.database, done.run_id)
    assert writer.publish(run.folder, parent=None) == Published(done.run_id, 0)
    assert Writer(connect(place.uri)).publish(run.folder, parent=None, state="killed") == Published(done.run_id, 0)
    assert dump(place.database, done.run_id) == before


@pytest.mark.parametrize("warm", [True, False], ids=["one writer", "a new writer each time"])
def test_in_pieces_is_as_at_once(fresh, runs, trained, dump, warm) -> None:
    pieces, whole = fresh("pieces.db"), fresh("whole.db")
    run = trained(runs)
    writer = Writer(connect(pieces.uri))
    published = [writer.publish(run.folder, parent="p").points]
    for _ in range(4):
        run.train(1)
        writer = writer if warm else Writer(connect(pieces.uri))
        published.append(writer.publish(run.folder, parent="p").points)
    run.finish()
    writer = writer if warm else Writer(connect(pieces.uri))
    done = writer.publish(run.folder, parent="p")
    assert [*published, done.points] == [0, 5, 5, 5, 5, 11]
    at_once = Writer(connect(whole.uri)).publish(run.folder, parent="p")
    one, other = (dump(place.database, p.run_id) for place, p in ((pieces, done), (whole, at_once)))
    assert one.comparable() == other.comparable()


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated"])
def test_killed_after_any_call(fresh, runs, trained, dump, program, call) -> None:
    """The publisher dies by SIGKILL between a call to the store and its own note of it; the next one goes on."""
    place, whole = fresh("killed.db"), fresh("whole.db")
    run = trained(runs)
    run.train(3)
    run.finish()
    text = f"""
import os, signal
from pathlib import Path
from repro.tracking.store import connect
from repro.tracking.writer import Writer
writer = Writer(connect({place.uri!r}))
real = writer.store.client.{call}
def dying(*args, **words):
    real(*args, **words)
    os.kill(os.getpid(), signal.SIGKILL)
writer.store.client.{call} = dying
writer.publish(Path({str(run.folder)!r}), parent="p")
"""
    process = program(text)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -9, err
    done = Writer(connect(place.uri)).publish(run.folder, parent="p")
    at_once = Writer(connect(whole.uri)).publish(run.folder, parent="p")
    assert dump(place.database, done.run_id).comparable() == dump(whole.database, at_once.run_id).comparable()
    opened = connect(place.uri)
    assert len(opened.client.search_runs([opened.experiment_id])) == 1


def test_asynchronous_logging_is_not_for_journals(fresh, runs, trained, dump, monkeypatch) -> None:
    place, run = fresh(), trained(runs)
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    writer = Writer(connect(place.uri))
    monkeypatch.setattr(writer.store.client, "set_terminated", None)  # nothing may be left to a later call's flush
    run.train(2)
    done = writer.publish(run.folder, parent=None)
    assert [point[:4] for point in dump(place.database, done.run_id).metrics] == expected(run.folder)


def test_values_that_are_not_finite(place, runs, trained, dump) -> None:
    run = trained(runs)
    run.train(1)
    run.train(1, train_loss=math.nan, val_loss=math.inf)
    run.finish("diverged", test_loss=math.nan, test_accuracy=math.nan)
    done = Writer(connect(place.uri)).publish(run.folder, parent=None)
    stored = dump(place.database, done.run_id)
    assert stored.run["status"] == "FINISHED"
    assert stored.tags["repro.outcome"] == "diverged"
    second = {key: (value, is_nan) for key, step, _, value, is_nan in stored.metrics if step == 2}
    assert second["train_loss"] == (0.0, 1)
    assert second["val_loss"] == (1.7976931348623157e308, 0)
    assert stored.latest["test_loss"][2] == 1
    again = Writer(connect(place.uri)).publish(run.folder, parent=None)
    assert again.points == 0
    assert dump(place.database, done.run_id).metrics == stored.metrics


def test_long_runs_take_several_batches(fresh, runs, trained, dump) -> None:
    place, run = fresh(), trained(runs)
    writer = journal.Writer(run.folder)
    for epoch in range(1, 401):
        writer.append(EpochRecord(epoch, 1 / epoch, 0.5, 1.0, 0.5, 1.0), 1_700_000_000_000 + epoch)
    writer.close()
    run.epochs = 400
    run.finish()
    done = Writer(connect(place.uri)).publish(run.folder, parent=None)
    assert done.points == 2011
    assert [point[:4] for point in dump(place.database, done.run_id).metrics] == expected(run.folder)


def test_killed_resumed_failed_finished(place, runs, trained, dump) -> None:
    run = trained(runs)
    run.train(2)
    writer = Writer(connect(place.uri))
    first = writer.publish(run.folder, parent=None)
    run.append(journal.Stop("killed", "SIGTERM"))
    writer.publish(run.folder, parent=None)
    stored = dump(place.database, first.run_id)
    assert (stored.run["status"], stored.tags["repro.message"]) == ("KILLED", "SIGTERM")
    assert stored.run["end_time"] == run.clock - 1500
    assert "repro.outcome" not in stored.tags

    run.start(commit="another", side_by_side=1)  # resumed, by another version of the code
    run.train(1)
    resumed = Writer(connect(place.uri)).publish(run.folder, parent="later")
    assert resumed == Published(first.run_id, 5)
    stored = dump(place.database, first.run_id)
    assert (stored.run["status"], stored.tags["repro.message"]) == ("RUNNING", "")
    assert (stored.tags["repro.attempts"], stored.tags["repro.commit"]) == ("2", "another")
    assert stored.tags["mlflow.parentRunId"] == "later"

    writer = Writer(connect(place.uri))
    writer.publish(run.folder, parent="other", state="failed", message="Killed\n" * 1000 + "last line")
    stored = dump(place.database, first.run_id)
    assert stored.run["status"] == "FAILED"
    assert stored.tags["repro.message"].endswith("last line") and len(stored.tags["repro.message"]) <= 2000
    assert stored.tags["mlflow.parentRunId"] == "later"
    Writer(connect(place.uri)).publish(run.folder, parent=None, state="killed")  # as `sync` does later
    assert dump(place.database, first.run_id) == stored

    run.start()
    run.append(journal.Difference(3, "train_loss", 0.5, 0.6))
    run.train(1)
    run.finish("chance")
    done = Writer(connect(place.uri)).publish(run.folder, parent=None)
    stored = dump(place.database, done.run_id)
    assert done.run_id == first.run_id
    assert (stored.run["status"], stored.tags["repro.outcome"], stored.tags["repro.message"]) == (
        "FINISHED",
        "chance",
        "",
    )
    assert stored.tags["repro.differences"] == "1"
    assert [point[:4] for point in stored.metrics] == expected(run.folder)


def test_a_run_that_was_closed_too_early_runs_again(fresh, runs, trained, dump) -> None:
    """As when `repro sync` runs between the death of a worker and the next one."""
    place, run = fresh(), trained(runs)
    run.train(1)
    writer = Writer(connect(place.uri))
    run_id = writer.publish(run.folder, parent=None).run_id
    Writer(connect(place.uri)).publish(run.folder, parent=None, state="killed")
    assert dump(place.database, run_id).run["status"] == "KILLED"
    run.start()
    writer.publish(run.folder, parent=None)
    assert dump(place.database, run_id).run["status"] == "RUNNING"


def test_journals_without_files_or_records(fresh, runs, trained) -> None:
    place, run = fresh(), trained(runs)
    run.train(1)
    run.finish(files=False)
    writer = Writer(connect(place.uri))
    done = writer.publish(run.folder, parent=None)
    assert {file.path for file in writer.store.client.list_artifacts(done.run_id)} == {journal.NAME, "curves.png"}
    (runs / "empty").mkdir()
    assert writer.publish(runs / "empty", parent=None) == Published("", 0)
    (runs / "empty" / journal.NAME).write_bytes(b'{"kind": "att')
    assert writer.publish(runs / "empty", parent=None) == Published("", 0)


def test_a_moved_journal_is_the_same_run(fresh, runs, trained, here) -> None:
    place, run = fresh(), trained(runs)
    run.train(1)
    first = Writer(connect(place.uri)).publish(run.folder, parent=None)
    shutil.move(runs, here / "elsewhere")
    run.folder = here / "elsewhere" / run.key
    run.train(1)
    run.finish()
    second = Writer(connect(place.uri)).publish(run.folder, parent=None)
    assert second == Published(first.run_id, 16)


def test_a_run_deleted_in_mlflow_is_made_anew(fresh, runs, trained) -> None:
    place, run = fresh(), trained(runs)
    run.train(1)
    writer = Writer(connect(place.uri))
    first = writer.publish(run.folder, parent=None)
    writer.store.client.delete_run(first.run_id)
    run.train(1)
    with pytest.raises(TrackingError):
        writer.publish(run.folder, parent=None)
    second = writer.publish(run.folder, parent=None)
    assert second.run_id != first.run_id and second.points == 10


def test_several_publishers_of_one_journal(place, runs, trained, dump) -> None:
    run = trained(runs)
    run.train(5)
    run.finish()
    writers = [Writer(connect(place.uri)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        done = set(pool.map(lambda writer: writer.publish(run.folder, parent=None).run_id, writers))
    assert len(done) == 1
    assert [point[:4] for point in dump(place.database, done.pop()).metrics] == expected(run.folder)


def test_finished_finds_the_newest_in_any_experiment(place, runs, here, trained, monkeypatch) -> None:
    old, new, killed = trained(runs), trained(here / "again"), trained(runs)
    new.folder = here / "again" / "same"
    new = trained(here / "again", seed=old.run.seed)
    assert new.key == old.key
    for run in (old, new):
        run.train(1)
        run.finish()
    killed.append(journal.Stop("killed", ""))
    writer = Writer(connect(place.uri))
    new_id = writer.publish(new.folder, parent=None).run_id
    writer.publish(killed.folder, parent=None)
    assert writer.finished([old.key, killed.key]) == {new.key: new_id}
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"other {old.key}")
    later = shutil.copytree(old.folder, here / "later" / old.key)
    journals.replace(later / journal.NAME, "1700000", "1800000")
    journals.replace(later / journal.NAME, journal.read(old.folder).id, "f" * 32)
    other = Writer(connect(place.uri))
    later_id = other.publish(later, parent=None).run_id
    assert writer.finished([old.key, "0" * 16]) == {old.key: later_id}
    assert writer.finished([f"{i:016x}" for i in range(30)] + [old.key]) == {old.key: later_id}
    assert writer.finished([]) == {}


def test_sweep(place, trained, runs, dump) -> None:
    run = trained(runs)
    writer = Writer(connect(place.uri))
    sweep = writer.open_sweep(
        run.plan, reused={run.key: "a" * 32}, environment=journal.read(run.folder).attempts[0].environment
    )
    stored = dump(place.database, sweep)
    assert (stored.run["name"], stored.run["status"]) == ("reproducibility", "RUNNING")
    assert stored.tags["mlflow.note.content"].splitlines() == [
        "1 run of reproducibility: trains 0, reuses 1",
        f"- reproducibility/squeezenet_bn seed {run.run.seed}: run {'a' * 32}",
    ]
    assert writer.open_sweep(run.plan, reused={}, journals=[run.key]) == sweep
    assert dump(place.database, sweep).tags["mlflow.note.content"].splitlines() == [
        "1 run of reproducibility: trains 0, reuses 1",
        f"- reproducibility/squeezenet_bn seed {run.run.seed}: from its journal",
    ]
    assert writer.open_sweep(run.plan, reused={run.key: "a" * 32}) == sweep
    assert studies.restore(writer.artifact(sweep, "sweep.json").decode(), "") == run.plan
    assert json.loads(writer.artifact(sweep, "reused.json")) == {run.key: "a" * 32}
    assert writer.open_sweep(run.plan, reused={}) == sweep
    table = runs / "table.csv"
    table.write_text("a,b\n")
    description = "\n".join(f"| row {i} | {'x' * 50} |" for i in range(1000))
    files = {"tables/table_1.csv": table, "tables/table_1.md": b"|a|"}
    writer.close_sweep(sweep, "FINISHED", files, description, dict.fromkeys(names.SWEEP_METRICS, 0.5))
    stored = dump(place.database, sweep)
    assert [point[:2] + point[3:4] for point in stored.metrics] == [
        (name, 0, 0.5) for name in sorted(names.SWEEP_METRICS)
    ]
    assert stored.run["status"] == stored.tags["repro.closed"] == "FINISHED"
    assert set(stored.tags) == {str(tag) for tag in names.SWEEP_TAGS} - {
        "mlflow.source.git.branch",
        "mlflow.source.git.repoURL",
    }
    note = stored.tags["mlflow.note.content"]
    assert len(note) <= 8000 and note.endswith(" |\n\n(cut here; in full among the artifacts)")
    assert writer.artifact(sweep, "tables/table_1.csv") == b"a,b\n"
    assert writer.artifact(sweep, "tables/table_1.md") == b"|a|"
    assert writer.open_sweep(run.plan, reused={}) != sweep


def test_sweep_inside_mlflow_run(fresh, trained, runs, dump, monkeypatch) -> None:
    """`mlflow run` has made the parent run and gives its id; it sets the status when we are done."""
    place, run = fresh(), trained(runs)
    store = connect(place.uri)
    given = store.client.create_run("0", run_name="serious-skink-1", tags={"mlflow.source.type": "PROJECT"}).info.run_id
    store.client.log_param(given, "seeds", "0,1")
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    writer = Writer(store)
    assert writer.open_sweep(run.plan, reused={}) == given
    writer.close_sweep(given, "FAILED", {})
    stored = dump(place.database, given)
    assert (stored.run["name"], stored.run["status"]) == ("reproducibility", "RUNNING")
    assert (stored.tags["mlflow.source.type"], stored.tags["repro.closed"]) == ("PROJECT", "FAILED")
    assert stored.params == {"seeds": "0,1"}
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # a run of another store
    assert Writer(store).open_sweep(run.plan, reused={}) not in {given, "0" * 32}


def test_a_sweep_that_is_opened_or_closed_again_after_a_failure_is_one_sweep(
    place, trained, runs, dump, monkeypatch
) -> None:
    run, writer = trained(runs), Writer(connect(place.uri))

    def fails_once(name: str) -> None:
        call, calls = getattr(writer.store.client, name), []

        def answered(*given, **named):
            calls.append(name)
            if len(calls) == 1:
                raise MlflowException("away")
            return call(*given, **named)

        monkeypatch.setattr(writer.store.client, name, answered)

    def sweeps() -> set[str]:
        return {one.info.run_id for one in api.search(writer.store, "tags.`repro.kind` = 'sweep'")}

    before = sweeps()
    for name in ("log_batch", "log_artifacts"):
        fails_once(name)
        with pytest.raises(TrackingError, match="away"):
            writer.open_sweep(run.plan, reused={})
    sweep = writer.open_sweep(run.plan, reused={})
    assert sweeps() - before == {sweep}
    metrics = dict.fromkeys(names.SWEEP_METRICS, 0.5)
    for name in ("log_artifacts", "set_terminated"):
        fails_once(name)
        with pytest.raises(TrackingError, match="away"):
            writer.close_sweep(sweep, "FINISHED", {"a.md": b"a"}, "described", metrics)
        time.sleep(0.01)
    writer.close_sweep(sweep, "FINISHED", {"a.md": b"a"}, "described", metrics)
    assert len(dump(place.database, sweep).metrics) == len(metrics), "no point is doubled"


def test_a_stopped_sweep_goes_on_in_its_run(place, trained, runs, dump, monkeypatch) -> None:
    run, other = trained(runs), trained(runs)
    first = Writer(connect(place.uri)).open_sweep(run.plan, reused={})
    Writer(connect(place.uri)).close_sweep(first, "KILLED", {})
    assert Writer(connect(place.uri)).open_sweep(other.plan, reused={}) != first, "another plan"
    again = Writer(connect(place.uri))
    assert again.open_sweep(run.plan, reused={}) == first
    assert dump(place.database, first).run["status"] == "RUNNING"
    again.close_sweep(first, "FAILED", {})

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    client = connect(place.uri).client
    given = client.create_run("0", run_name="serious-skink-1", tags={"mlflow.source.type": "PROJECT"}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    writer = Writer(connect(place.uri))
    assert writer.open_sweep(run.plan, reused={}) == given, "`mlflow run` has made a new one"
    former = dump(place.database, first)
    assert f"runs/{given}" in former.tags["mlflow.note.content"]
    assert former.run["status"] == "FAILED", "until the work is done"
    writer.close_sweep(given, "FINISHED", {})
    assert dump(place.database, first).run["status"] == "FINISHED"


def test_unknown_run(place) -> None:
    writer = Writer(connect(place.uri))
    for unknown in ("0" * 32, "no such/run"):
        with pytest.raises(InputError, match="has no run"):
            writer.run(unknown)
        with pytest.raises(InputError, match="has no run"):
            writer.artifact(unknown, "model.pt")


def test_describe_and_files(place) -> None:
    writer = Writer(connect(place.uri))
    run_id = writer.store.client.create_run("0", run_name="compare").info.run_id
    writer.describe(run_id, "## Table", "compare tiny")
    writer.log_files(run_id, {"report/index.html": b"<html>"})
    writer.log_files(run_id, {"report/index.html": b"<html lang='en'>"})
    assert writer.run(run_id).tags["mlflow.note.content"] == "## Table"
    assert writer.run(run_id).name == "compare"
    assert writer.artifact(run_id, "report/index.html") == b"<html lang='en'>"


def test_server_restarts_while_publishing(server, runs, trained, here, dump) -> None:
    run = trained(runs)
    writer = Writer(connect(server.uri))
    run.train(2)
    first = writer.publish(run.folder, parent=None)
    server.stop()
    try:
        run.train(2)
        started = time.monotonic()
        with pytest.raises(TrackingError, match="does not answer"):
            writer.publish(run.folder, parent=None)
        with pytest.raises(TrackingError, match="does not answer"):
            writer.finished([run.key])
        assert time.monotonic() - started < 5
    finally:
        server.start()
    run.train(1)
    assert writer.publish(run.folder, parent=None) == Published(first.run_id, 15)
    run.finish()
    assert writer.publish(run.folder, parent=None) == Published(first.run_id, 11)
    stored = dump(server.database, first.run_id)
    assert [point[:4] for point in stored.metrics] == expected(run.folder)
    assert stored.run["status"] == "FINISHED"


def test_store_deleted_while_publishing(fresh, runs, trained, dump) -> None:
    place, run = fresh(), trained(runs)
    run.train(2)
    writer = Writer(connect(place.uri))
    writer.publish(run.folder, parent=None)
    place.database.unlink()
    run.train(1)
    with pytest.raises(TrackingError, match="deleted or replaced"):
        writer.publish(run.folder, parent=None)
    run.finish()
    again = Writer(connect(place.uri)).publish(run.folder, parent=None)
    assert again.points == len(expected(run.folder))
    assert [point[:4] for point in dump(place.database, again.run_id).metrics] == expected(run.folder)


@pytest.mark.parametrize("what", ["points", "files"])
def test_full_disk(fresh, runs, trained, dump, program, what) -> None:
    """The kernel refuses to let files grow; nothing is lost, and it is published when there is room."""
    place, run = fresh(), trained(runs)
    writer = journal.Writer(run.folder)
    for epoch in range(1, 301 if what == "points" else 3):
        writer.append(EpochRecord(epoch, 1 / epoch, 0.5, 1.0, 0.5, 1.0), 1_700_000_000_000 + epoch)
        run.epochs = epoch
    writer.close()
    run.finish()
    if what == "files":
        (run.folder / "model.pt").write_bytes(b"w" * (place.database.stat().st_size + 2**20))
    text = f"""
import resource, signal
from pathlib import Path
from repro.tracking.failures import TrackingError
from repro.tracking.store import connect
from repro.tracking.writer import Writer
writer = Writer(connect({place.uri!r}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = {place.database.stat().st_size + 2**17}
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    writer.publish(Path({str(run.folder)!r}), parent=None)
except TrackingError as error:
    print(error)
"""
    out, err = program(text).communicate(timeout=60)
    assert out.count("\n") == 1 and not err, (out, err)
    assert "full" in out or "disk I/O error" in out or "File too large" in out
    run_id = Writer(connect(place.uri)).finished([run.key])
    assert run_id == {}
    done = Writer(connect(place.uri)).publish(run.folder, parent=None)
    stored = dump(place.database, done.run_id)
    assert [point[:4] for point in stored.metrics] == expected(run.folder)
    assert stored.run["status"] == "FINISHED"
    assert Writer(connect(place.uri)).artifact(done.run_id, "model.pt") == (run.folder / "model.pt").read_bytes()
    assert len(connect(place.uri).client.search_runs([connect(place.uri).experiment_id])) == 1


class TestRunOfMlflow:
    """Which run of MLflow a sweep takes for its own: that of `mlflow run`, as long as it goes on."""

    made: ClassVar = {"mlflow.source.type": "PROJECT"}

    @pytest.mark.parametrize("left", ["finished", "deleted", "another's"])
    def test_a_run_id_that_was_left_in_the_environment(self, fresh, trained, runs, dump, monkeypatch, left) -> None:
        place, run = fresh(), trained(runs)
        client = connect(place.uri).client
        tags = {"mlflow.note.content": "of mine"} | (self.made if left != "another's" else {})
        foreign = client.create_run("0", run_name="serious-skink-1", tags=tags).info.run_id
        if left == "finished":
            client.set_terminated(foreign)
        if left == "deleted":
            client.delete_run(foreign)
        before = dump(place.database, foreign)
        monkeypatch.setenv("MLFLOW_RUN_ID", foreign)
        writer = Writer(connect(place.uri))
        sweep = writer.open_sweep(run.plan, reused={})
        writer.close_sweep(sweep, "FINISHED", {}, "described")
        assert sweep != foreign and writer.attached() is None
        assert dump(place.database, foreign) == before
        assert dump(place.database, sweep).run["status"] == "FINISHED"

    def test_two_commands_under_one_run_keep_their_own_plans(self, fresh, trained, runs, dump, monkeypatch) -> None:
        place, first, second = fresh(), trained(runs), trained(runs)
        given = connect(place.uri).client.create_run("0", run_name="serious-skink-1", tags=self.made).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", given)
        ids = [Writer(connect(place.uri)).open_sweep(run.plan, reused={}) for run in (first, first, second)]
        assert ids[0] == ids[1] == given != ids[2]
        assert dump(place.database, ids[2]).tags["mlflow.parentRunId"] == given
        Writer(connect(place.uri)).close_sweep(ids[2], "FINISHED", {})
        assert dump(place.database, ids[2]).run["status"] == "FINISHED"
        for run_id, run in zip(ids, (first, first, second), strict=True):
            plan = Writer(connect(place.uri)).artifact(run_id, "sweep.json")
            assert plan == studies.dump(run.plan).encode()

    def test_a_name_that_was_given_stays(self, fresh, trained, runs, dump, monkeypatch) -> None:
        place, run = fresh(), trained(runs)
        given = connect(place.uri).client.create_run("0", run_name="mine", tags=self.made).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", given)
        assert Writer(connect(place.uri)).open_sweep(run.plan, reused={}) == given
        assert dump(place.database, given).run["name"] == "mine"


def test_finished_runs_are_found_whatever_the_schema(fresh, trained, runs, monkeypatch) -> None:
    place, run = fresh(), trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(place.uri))
    run_id = writer.publish(run.folder, parent=None).run_id
    monkeypatch.setattr(sqlite, "_OURS", "SELECT runs.colour FROM runs")  # as if a later MLflow had dropped it
    assert writer.finished([run.key]) == {run.key: run_id}


def test_files_of_a_run_that_was_read_are_fetched_without_another_look_at_the_store(fresh, trained, runs, monkeypatch):
    place, run = fresh(), trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(place.uri))
    run_id = writer.publish(run.folder, parent=None).run_id
    assert writer.artifact(run_id, "curves.png")
    (row,) = reader.read(place.uri, plans=False).runs
    monkeypatch.setattr(writer.store.client, "get_run", None)
    monkeypatch.setattr(writer.store.client, "list_artifacts", None)
    assert all(writer.artifact(row, name) for name in ("model.pt", journal.NAME, "curves.png"))
    assert writer.artifact(row, "none.txt") is None
    assert writer.artifact(row, "curves.png/none.txt") is None


def test_what_is_published_is_what_stands_there_once_it_is_ones_turn(fresh, trained, runs, monkeypatch) -> None:
    place, run = fresh(), trained(runs)
    run.train(1)
    writer, alone = Writer(connect(place.uri)), locks.alone

    def another_was_first(*words):
        run.train(1)
        return alone(*words)

    monkeypatch.setattr(locks, "alone", another_was_first)
    assert writer.publish(run.folder, parent=None).points == 2 * len(EPOCH_METRICS)


class TestForks:
    """A copied folder of runs, on which two machines go on."""

    def copied(self, place, run, here):
        run.train(2)
        Writer(connect(place.uri)).publish(run.folder, parent=None)
        other = here / "copy" / run.key
        shutil.copytree(run.folder, other)
        return other

    def go_on(self, folder, host, loss, epochs=2):
        known = journal.read(folder)
        writer = journal.Writer(folder)
        first = known.attempts[0]
        writer.append(replace(first, environment=replace(first.environment, host=host), resumed_epoch=2))
        for number in range(len(known.epochs) + 1, len(known.epochs) + 1 + epochs):
            writer.append(EpochRecord(number, loss, 0.5, loss, 0.5, 1.5))
        writer.close()

    def curves(self, place, dump, run_id):
        return [(step, value) for key, step, _, value, _ in dump(place.database, run_id).metrics if key == "val_loss"]

    @pytest.mark.parametrize("legacy", [False, True], ids=["", "in a store of an earlier version"])
    def test_each_has_a_run_of_its_own(self, place, runs, trained, here, dump, legacy) -> None:
        run = trained(runs)
        copy = self.copied(place, run, here)
        self.go_on(run.folder, "here", 1.0)
        self.go_on(copy, "there", 3.0)
        first = Writer(connect(place.uri)).publish(run.folder, parent=None)
        if legacy:
            connect(place.uri).client.delete_tag(first.run_id, "repro.start")
        second = Writer(connect(place.uri)).publish(copy, parent=None)
        assert (first.forked, second.forked) == (False, True)
        assert first.run_id != second.run_id
        self.go_on(copy, "there", 4.0)
        self.go_on(run.folder, "here", 0.5)
        for _ in range(2):
            again = [Writer(connect(place.uri)).publish(folder, parent=None) for folder in (run.folder, copy)]
            assert [one.run_id for one in again] == [first.run_id, second.run_id]
            assert not any(one.forked for one in again)
        early = [(1, 2.2), (2, 1.1)]
        assert self.curves(place, dump, first.run_id) == [*early, (3, 1.0), (4, 1.0), (5, 0.5), (6, 0.5)]
        assert self.curves(place, dump, second.run_id) == [*early, (3, 3.0), (4, 3.0), (5, 4.0), (6, 4.0)]
        held = [entries.journal_of(dump(place.database, one.run_id).tags, runs) for one in (first, second)]
        assert [one.folder for one in held] == [run.folder, copy], "from which models and `repro show` are made"
        tags = dump(place.database, second.run_id).tags
        assert (
            tags["repro.fork_of"]
            == journal.read(run.folder).id
            == dump(place.database, first.run_id).tags["repro.journal"]
        )
        assert tags["repro.journal"] != tags["repro.fork_of"]

    def test_both_at_the_same_time(self, fresh, runs, trained, here, dump) -> None:
        place, run = fresh(), trained(runs)
        copy = self.copied(place, run, here)
        one, other = Writer(connect(place.uri)), Writer(connect(place.uri))
        for folder, writer, loss in ((run.folder, one, 1.0), (copy, other, 3.0)):
            self.go_on(folder, "host", loss, epochs=0)
            time.sleep(0.002)
            writer.publish(folder, parent=None)
        ids = []
        for folder, writer, loss in ((copy, other, 3.0), (run.folder, one, 1.0)):
            self.go_on(folder, "host", loss, epochs=3)
            ids.append(writer.publish(folder, parent=None).run_id)
        assert self.curves(place, dump, ids[0])[2:] == [(3, 3.0), (4, 3.0), (5, 3.0)]
        assert self.curves(place, dump, ids[1])[2:] == [(3, 1.0), (4, 1.0), (5, 1.0)]

    def test_a_run_that_moves_to_another_host_is_the_same_and_an_older_copy_changes_nothing(
        self, fresh, runs, trained, here, dump
    ) -> None:
        place, run = fresh(), trained(runs)
        copy = self.copied(place, run, here)
        self.go_on(run.folder, "elsewhere", 1.0)
        moved = Writer(connect(place.uri)).publish(run.folder, parent=None)
        assert not moved.forked
        before = dump(place.database, moved.run_id)
        older = Writer(connect(place.uri)).publish(copy, parent=None, state="killed")
        assert (older.run_id, older.points, older.forked) == (moved.run_id, 0, False)
        assert dump(place.database, moved.run_id) == before
        store = connect(place.uri)
        assert len(store.client.search_runs([store.experiment_id])) == 1
