from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3

import numpy as np
import pytest

from repro import journal, studies
from repro.errors import InputError
from repro.records import EPOCH_METRICS, RESULT_METRICS
from repro.reporting.join import keys
from repro.rows import Curve
from repro.tracking import api, sqlite, stored
from repro.tracking.failures import TrackingError
from repro.tracking.reader import read
from repro.tracking.store import connect
from repro.tracking.writer import Writer
from tests import journals


def same(one: Curve, other: Curve) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in ("epoch", *EPOCH_METRICS)
    )


def test_what_was_published_is_read(place, runs, trained) -> None:
    run = trained(runs)
    run.train(3)
    run.train(1, val_loss=math.nan, train_loss=-math.inf)
    run.finish("diverged", test_loss=math.inf, test_accuracy=math.nan)
    writer = Writer(connect(place.uri))
    sweep = writer.open_sweep(run.plan, reused={})
    run_id = writer.publish(run.folder, parent=sweep).run_id
    contents = read(place.uri, curves=[run.key])
    row = next(row for row in contents.runs if row.run_id == run_id)
    assert (row.key, row.study, row.variant, row.seed) == (run.key, "reproducibility", "squeezenet_bn", run.run.seed)
    assert (row.outcome, row.dirty, row.side_by_side) == ("diverged", True, 2)
    assert (row.started_ms, row.ended_ms) == (1_700_000_000_000, 1_700_000_000_000 + 5 * 1500)
    assert row.params["model.batch_norm"] == "all"
    assert set(row.metrics) == set(RESULT_METRICS) - {"test_loss", "test_accuracy"}
    assert row.metrics["best_val_accuracy"] == 0.75
    assert row.curve is not None
    assert same(row.curve, Curve.of(journal.read(run.folder).epochs))
    assert next(one for one in contents.sweeps if one.run_id == sweep).plan == run.plan
    assert [one.curve for one in contents.runs if one.run_id != run_id] == [None] * (len(contents.runs) - 1)


def test_only_finished_runs_newest_first(fresh, runs, trained) -> None:
    place, finished, running = fresh(), [trained(runs) for _ in range(3)], trained(runs)
    writer = Writer(connect(place.uri))
    for late, run in enumerate(finished):
        run.train(1)
        run.finish()
        journals.replace(run.folder / journal.NAME, "17000000", f"1700{late}000")
    ids = [writer.publish(run.folder, parent=None).run_id for run in (*finished, running)]
    deleted = trained(runs)
    deleted.finish()
    writer.store.client.delete_run(writer.publish(deleted.folder, parent=None).run_id)
    writer.store.client.create_run("0")  # someone else's
    assert [row.run_id for row in read(place.uri).runs] == ids[2::-1]


def test_three_ways_give_the_same(server, here, runs, trained, monkeypatch) -> None:
    writer = Writer(connect(server.uri))
    for epochs in (1, 7, 30):
        run = trained(runs)
        sweep = writer.open_sweep(run.plan, reused={})
        run.train(epochs - 1)
        run.train(1, train_loss=math.nan, val_loss=math.inf)
        run.finish("diverged", test_loss=-math.inf)
        point = writer.publish(run.folder, parent=sweep)
    client = writer.store.client
    client.log_metric(point.run_id, "val_loss", 0.001, timestamp=run.clock, step=3)  # a doubled step
    client.log_metric(point.run_id, "val_loss", math.nan, timestamp=run.clock, step=4)
    empty = trained(runs)
    empty.finish("diverged", best_epoch=0, epochs_run=0, mean_epoch_seconds=math.nan)
    writer.publish(empty.folder, parent=None)

    contents = read(server.uri, curves=True)
    ids = [row.run_id for row in contents.runs]
    copied = here / "copied.db"
    shutil.copy(server.database, copied)
    with contextlib.closing(sqlite3.connect(copied)) as store, store:
        root = f"{server.folder}/artifacts/"
        store.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, 'mlflow-artifacts:/', ?)", (root,))
    by_sql = read(f"sqlite:///{copied}", curves=True)
    monkeypatch.setattr(api, "_BULK", "/no-such-call")
    plain = read(server.uri, curves=True)
    assert any("no bulk call" in note for note in plain.notes)

    doubled = f"run {point.run_id}: 2 doubled points; the latest of each step is kept"
    for other in (by_sql, plain):
        assert [sweep.plan for sweep in other.sweeps] == [sweep.plan for sweep in contents.sweeps]
        assert [row.run_id for row in other.runs] == ids
        for one, two in zip(contents.runs, other.runs, strict=True):
            assert all(
                getattr(one, name) == getattr(two, name) for name in set(one.__slots__) - {"curve", "artifact_uri"}
            )
            assert same(one.curve, two.curve)
        assert doubled in other.notes
    last = next(row for row in contents.runs if row.run_id == point.run_id).curve
    assert last.val_loss[2] == 0.001 and math.isnan(last.val_loss[3]) and last.val_loss[-1] == math.inf
    assert doubled in contents.notes
    assert all(len(row.curve.epoch) == 0 for row in contents.runs if row.key == empty.key)

    monkeypatch.undo()
    monkeypatch.setattr(api, "_POINTS_A_REQUEST", 12)  # the server cuts off what is longer, and does not say so
    monkeypatch.setattr(api, "_RUNS_A_REQUEST", 3)
    store = connect(server.uri)
    cut, whole = api.bulk_histories(store, ids), api.histories(store, ids)
    for run_id in ids:
        assert same(stored.curve(cut[run_id])[0], stored.curve(whole[run_id])[0])


def test_broken_rows_are_noted(fresh, runs, trained) -> None:
    place = fresh()
    writer = Writer(connect(place.uri))
    ids, sweeps = [], []
    for _ in range(5):
        run = trained(runs)
        run.train(2)
        run.finish()
        sweeps.append(writer.open_sweep(run.plan, reused={}))
        ids.append(writer.publish(run.folder, parent=sweeps[-1]).run_id)
    client = writer.store.client
    client.set_tag(ids[0], "repro.seed", "zero")
    client.delete_tag(ids[1], "repro.hardware")
    client.set_tag(ids[2], "repro.schema", "99")
    writer.log_files(sweeps[0], {"sweep.json": b"{"})
    writer.log_files(sweeps[1], {"sweep.json": b'{"schema": 99}'})
    writer.log_files(sweeps[2], {"sweep.json": b"\xff\xfe"})
    next((place.database.parent / "mlruns").glob(f"*/{sweeps[3]}/artifacts/sweep.json")).unlink()
    contents = read(place.uri)
    assert {row.run_id for row in contents.runs} == set(ids[3:])
    assert [sweep.run_id for sweep in contents.sweeps] == [sweeps[4]]
    notes = "\n".join(contents.notes)
    assert len(contents.notes) == 7 and "\n" not in "".join(contents.notes)
    for part in (
        f"run {ids[0]} (squeezenet_bn seed {{}}): tag repro.seed is 'zero', not a whole number; passed over",
        f"run {ids[1]} (squeezenet_bn seed {{}}): tag repro.hardware is missing; passed over",
        f"run {ids[2]} (squeezenet_bn seed {{}}): tag repro.schema is '99' (known: 1); passed over",
    ):
        head, tail = part.split("{}")
        assert head in notes and tail in notes
    assert "schema 99 of a sweep's plan is not known" in notes
    assert f"sweep {sweeps[3]} (reproducibility): has no sweep.json; passed over" in notes
    with contextlib.closing(sqlite3.connect(place.database)) as store, store:
        store.execute(
            "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/0/x/artifacts' WHERE run_uuid = ?", (sweeps[4],)
        )
    assert "its files are kept by a tracking server; name that server as the store" in "\n".join(read(place.uri).notes)


def test_missing_points_are_nan(fresh, runs, trained) -> None:
    place, run = fresh(), trained(runs)
    run.train(3)
    run.finish()
    Writer(connect(place.uri)).publish(run.folder, parent=None)
    with contextlib.closing(sqlite3.connect(place.database)) as store, store:
        store.execute("DELETE FROM metrics WHERE key = 'train_loss' AND step = 2 OR key = 'val_accuracy'")
        store.execute("DELETE FROM latest_metrics WHERE key = 'best_epoch'")
    row = read(place.uri, curves=True).runs[0]
    assert row.curve.epoch.tolist() == [1, 2, 3]
    assert np.isnan(row.curve.train_loss).tolist() == [False, True, False]
    assert np.isnan(row.curve.val_accuracy).all() and len(row.curve.val_accuracy) == 3
    assert set(row.metrics) == set(RESULT_METRICS) - {"best_epoch"}


def test_studies_choose_what_their_tables_need(fresh, runs, trained) -> None:
    place = fresh()
    writer = Writer(connect(place.uri))
    for name in ("reproducibility", "residual", "best"):
        study = studies.load(name)
        writer.open_sweep(studies.plan([(study, list(study.variants))], seeds=[0]), reused={})
    base, other = trained(runs, "alexnet", seed=7), trained(runs, "squeezenet_bn", seed=0)
    for run in (base, other):
        run.train(1)
        run.finish()
        writer.publish(run.folder, parent=None)
    best = read(place.uri, studies=["best"])
    assert [sweep.plan.name for sweep in best.sweeps] == ["best"]
    assert {row.key for row in best.runs} == {base.key, other.key}  # of the study that `best` is compared with
    both = read(place.uri, studies=["best", "residual"])
    assert {sweep.plan.name for sweep in both.sweeps} == {"best", "residual"}
    assert read(place.uri, studies=["squeeze_ratio"]).runs == ()


def test_a_schema_that_is_not_known(fresh, runs, trained, monkeypatch) -> None:
    place, run = fresh(), trained(runs)
    run.train(2)
    run.finish()
    Writer(connect(place.uri)).publish(run.folder, parent=None)
    by_sql = read(place.uri, curves=True)
    monkeypatch.setattr(sqlite, "_OURS", "SELECT runs.colour FROM runs")  # as if a later MLflow had dropped a column
    plain, way = read(place.uri, curves=True), "read through MLflow, which takes longer"
    assert plain.notes == (f"{place.uri}: its schema is not known (no such column: runs.colour); {way}",)
    assert plain.runs[0].params == by_sql.runs[0].params
    assert same(plain.runs[0].curve, by_sql.runs[0].curve)


def test_a_schema_that_mlflow_does_not_know_either(fresh) -> None:
    place = fresh("odd.db")
    with contextlib.closing(sqlite3.connect(place.database)) as store, store:
        store.execute("ALTER TABLE tags RENAME COLUMN value TO wert")
        store.execute("UPDATE alembic_version SET version_num = 'feedbeefcafe'")
    with pytest.raises(TrackingError, match=r"schema feedbeefcafe is not that of the installed mlflow"):
        read(place.uri)


def test_nothing_there(here, fresh) -> None:
    with pytest.raises(InputError, match="no such file; train something first"):
        read()
    assert not (here / "mlflow.db").exists()
    (here / "text.db").write_text("not a database at all, whatever its name says; and long enough" * 20)
    with pytest.raises(TrackingError, match=r"text\.db: file is not a database; .* move it away: `repro sync`"):
        read("sqlite:///text.db")
    contents = read(fresh().uri, curves=True)
    assert (contents.sweeps, contents.runs, contents.notes) == ((), (), ())


def test_a_store_that_cannot_be_written_is_read(here, fresh, program, runs, trained) -> None:
    """Reading needs neither MLflow nor a lock, nor does it write."""
    place, run = fresh(), trained(runs)
    run.finish()
    Writer(connect(place.uri)).publish(run.folder, parent=None)
    before = {path: path.stat().st_mtime_ns for path in here.iterdir()}
    text = "import sys\nfrom repro.tracking.reader import read\n"
    text += "print(len(read(curves=True).runs), 'mlflow' in sys.modules)"
    assert program(text).communicate(timeout=60) == ("1 False\n", "")
    assert {path: path.stat().st_mtime_ns for path in here.iterdir()} == before


def test_why_a_sweep_is_passed_over_is_said_where_none_is_left(fresh, runs, trained) -> None:
    place, run = fresh(), trained(runs)
    Writer(connect(place.uri)).open_sweep(run.plan, reused={})
    with contextlib.closing(sqlite3.connect(place.database)) as store, store:
        store.execute("UPDATE runs SET artifact_uri = 'mlflow-artifacts:/1/a/artifacts'")
    with pytest.raises(InputError, match="its files are kept by a tracking server"):
        read(place.uri, curves=keys)


def test_a_plan_that_cannot_be_fetched_now_is_not_passed_over(fresh, runs, trained, monkeypatch) -> None:
    place, run = fresh(), trained(runs)
    Writer(connect(place.uri)).open_sweep(run.plan, reused={})
    monkeypatch.setattr(sqlite, "_OURS", "SELECT runs.colour FROM runs")  # so that it is read through MLflow

    def cut_off(**_: object) -> None:
        raise ConnectionError("connection reset")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", cut_off)
    monkeypatch.setattr(api, "is_local", lambda _: False)
    with pytest.raises(TrackingError, match="connection reset"):
        read(place.uri)


def test_a_writer_waits_for_no_reader(fresh, runs, trained, monkeypatch) -> None:
    """While plans are fetched and parsed and curves are chosen, nothing is locked."""
    place, run = fresh(), trained(runs)
    run.train(1)
    run.finish()
    writer = Writer(connect(place.uri))
    sweep = writer.open_sweep(run.plan, reused={})
    writer.publish(run.folder, parent=sweep)
    written, restored = [], studies.restore

    def write() -> None:
        with contextlib.closing(sqlite3.connect(place.database, timeout=0)) as store, store:
            written.append(store.execute("UPDATE runs SET name = name").rowcount)

    def restore(*words):
        write()
        return restored(*words)

    def choose(contents):
        write()
        return [one.key for one in contents.runs]

    monkeypatch.setattr("repro.tracking.reader.declared.restore", restore)
    contents = read(place.uri, curves=choose)
    assert contents.runs[0].curve is not None and len(contents.sweeps) == 1
    assert written == [2, 2]


def test_a_writer_killed_in_the_middle(fresh, runs, trained, program) -> None:
    """sqlite's own journal is left behind, with half a transaction in the file."""
    place, run = fresh(), trained(runs)
    run.finish()
    Writer(connect(place.uri)).publish(run.folder, parent=None)
    text = f"""
import os, signal, sqlite3
store = sqlite3.connect({str(place.database)!r})
store.execute("PRAGMA cache_size = 1")
store.execute("DELETE FROM params")
for name in range(2000):
    store.execute("INSERT INTO tags SELECT ?, value, run_uuid FROM tags WHERE key = 'repro.key'", (str(name),))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert program(text).wait(timeout=60) == -9
    assert place.database.with_name("mlflow.db-journal").exists()
    row = read(place.uri).runs[0]
    assert len(row.params) > 30
