"""`repro sync`: sweeps as parents of the runs it brings in, at the times of their journals, and concluded as they grow."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from repro import studies
from repro.cli import main
from repro.execution import archive, plans
from repro.tracking import reader
from tests.execution.watching import rows

SWEEPS = (
    "SELECT runs.run_uuid, status, start_time, end_time, metric.value FROM runs JOIN tags USING (run_uuid)"
    " LEFT JOIN latest_metrics metric ON metric.run_uuid = runs.run_uuid AND metric.key = 'sweep_finished'"
    " WHERE tags.key = 'repro.kind' AND tags.value = 'sweep' ORDER BY start_time"
)


def sync(place, *words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        assert main(["sync", *words, "--tracking-uri", place.uri]) == 0, out.getvalue()
    return out.getvalue()


def tags(place, name: str) -> dict[str, str]:
    """Key of each run -> one of its tags."""
    query = f"SELECT keys.value, tags.value FROM tags JOIN tags keys USING (run_uuid) WHERE tags.key = '{name}'"
    return dict(rows(place.database, f"{query} AND keys.key = 'repro.key'"))


def test_a_run_is_a_child_of_the_first_sweep_that_asked_for_it(fresh, runs: Path, trained) -> None:
    place, first, second = fresh(), trained(runs, seed=0), trained(runs, seed=1)
    second.clock += 10**6
    study = studies.load("reproducibility")
    asked = [studies.plan([(study, ["squeezenet_bn"])], seeds=seeds) for seeds in ([0], [0, 1])]
    for plan in asked:
        plans.keep(runs, plan)
    for run in (first, second):
        run.train(1)
    began = first.clock - 3000
    first.finish()
    assert "2 runs (2 new) up to date" in sync(place)
    (one, *ended), (both, *stopped) = rows(place.database, SWEEPS)
    assert ended == ["FINISHED", began, first.clock - 1500, 1.0], "at the times of its journals"
    assert stopped == ["KILLED", began + 1, second.clock - 1500, 1.0]
    assert tags(place, "mlflow.parentRunId") == {first.key: one, second.key: both}
    second.finish()
    assert "1 sweep updated" in sync(place)
    assert rows(place.database, SWEEPS)[1] == (both, "FINISHED", began + 1, second.clock - 1500, 2.0)
    assert len(reader.read(place.uri).sweeps) == 2
    before = place.database.read_bytes()
    assert "2 runs up to date in the store, 0 points added\n" in sync(place)
    assert place.database.read_bytes() == before, "nothing is written again"


def test_the_journals_of_runs_dir_are_meant_where_no_folder_is_named(fresh, here: Path, runs: Path, trained) -> None:
    place, meant = fresh(), trained(here / "elsewhere")
    trained(runs)
    assert "1 run (1 new) up to date" in sync(place, "--runs-dir", "elsewhere")
    assert tags(place, "repro.key") == {meant.key: meant.key}


def test_a_run_from_an_archive_names_no_folder(fresh, here: Path, runs: Path, trained) -> None:
    place, run = fresh(), trained(runs)
    run.train(1)
    run.finish()
    archive.write(here / "out.zip", runs, [])
    assert "1 run (1 new)" in sync(place, "out.zip")
    assert tags(place, "repro.key") == {run.key: run.key} and tags(place, "repro.folder") == {}
