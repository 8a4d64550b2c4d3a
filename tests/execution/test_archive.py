"""Finished runs in one file: what goes in comes out, into any store, with the same tables; damage is one line."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from repro import journal, studies
from repro.errors import InputError
from repro.execution import archive, plans
from tests.execution.watching import digests, epochs_written, points, rows, wait_for
from tests.starting import PROJECT
from tests.test_journal import RESULT, attempt, epoch, write

COMPARE = ["compare", "--figures", "false", "--out"]


def tables(folder: Path) -> dict[str, bytes]:
    """The tables but the list of runs, without the ids that a store gives its runs."""
    files = {path.name: path.read_bytes() for path in (folder / "tables").iterdir() if path.stem != "runs"}
    return {name: re.sub(rb"\b[0-9a-f]{32}\b", b"id", content) for name, content in files.items()}


def test_an_archive_makes_the_same_report_in_another_store(repro, sweep_words, tmp_path: Path) -> None:
    done = repro(*sweep_words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert repro(*COMPARE, "before").returncode == 0
    written = repro("archive", "runs.zip")
    assert written.returncode == 0, written.stderr
    assert "2 runs and the plans of 1 sweep," in written.stdout
    with zipfile.ZipFile(tmp_path / "runs.zip") as opened:
        names = {Path(name).name for name in opened.namelist()}
    assert {"journal.jsonl", "spec.yaml", "environment.txt", "predictions.npz", "digests.json"} <= names
    assert "model.pt" not in names
    first = (tmp_path / "runs.zip").read_bytes()
    assert repro("archive", "runs.zip").returncode == 0
    assert (tmp_path / "runs.zip").read_bytes() == first, "the same runs, the same bytes"

    other = ["--tracking-uri", "sqlite:///other.db"]
    for sweeps in (1, 0):
        synced = repro("sync", "runs.zip", *other)
        assert synced.returncode == 0, synced.stderr
        assert f"2 runs{' (2 new)' * sweeps} up to date in the store" in synced.stdout
        assert ("1 sweep added" in synced.stdout) == (sweeps == 1)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mlflow.db").write_bytes((tmp_path / "other.db").read_bytes())
    assert points(tmp_path / "there") == points(tmp_path)
    described = (
        "SELECT name, value FROM tags JOIN runs USING (run_uuid) WHERE key = 'mlflow.note.content' ORDER BY 1, 2"
    )
    assert rows(tmp_path / "other.db", described) == rows(tmp_path / "mlflow.db", described) != []
    compared = repro(*COMPARE, "after", *other)
    assert compared.returncode == 0, compared.stderr
    assert tables(tmp_path / "after") == tables(tmp_path / "before")
    again = repro(*sweep_words, *other, "--runs-dir", "none")
    assert "2 reused, 0 to train" in again.stdout, again.stderr


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder with one finished run and one that is not."""
    runs = tmp_path / "runs"
    runs.mkdir()
    write(runs / ("a" * 16), attempt(), epoch(1), epoch(2), RESULT)
    (runs / ("a" * 16) / "model.pt").write_bytes(b"weights")
    write(runs / ("b" * 16), attempt(), epoch(1))
    return runs


def test_a_plan_counts_once_a_run_of_it_is_finished(tmp_path: Path) -> None:
    plan = studies.plan([(studies.load("reproducibility"), ["squeezenet"])], seeds=[0])
    plans.keep(tmp_path, plan)
    write(tmp_path / plan.runs[0].key, attempt(), epoch(1))
    assert plans.kept(tmp_path) == []
    write(tmp_path / plan.runs[0].key, RESULT)
    assert plans.kept(tmp_path) == [studies.dump(plan)]
    (tmp_path / "sweeps" / "damaged.json").write_text("{")
    with pytest.raises(InputError, match=r"damaged\.json: not a sweep's plan"):
        plans.kept(tmp_path)


def test_an_archive_holds_what_is_finished_as_it_was(finished: Path, tmp_path: Path) -> None:
    assert archive.write(tmp_path / "out.zip", finished, ["first", "second"]) == (1, 2)
    assert archive.unpack(tmp_path / "out.zip", tmp_path / "there") == ["first", "second"]
    assert [folder.name for folder in journal.find(tmp_path / "there" / "runs")] == ["a" * 16]
    assert (tmp_path / "there" / "runs" / ("a" * 16) / journal.NAME).read_bytes() == (
        finished / ("a" * 16) / journal.NAME
    ).read_bytes()
    assert not (tmp_path / "there" / "runs" / ("a" * 16) / "model.pt").exists()


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no finished run"):
        archive.write(tmp_path / "out.zip", tmp_path, [])


@pytest.mark.parametrize("content", [b"mine", None, {"mine": b""}], ids=["text", "folder", "zip"])
def test_what_is_no_archive_of_runs_is_never_overwritten(finished: Path, tmp_path: Path, content) -> None:
    out = tmp_path / "out.zip"
    if content is None:
        out.mkdir()
    elif isinstance(content, dict):
        archive.write(out, finished, [])
        changed(out, lambda files: (files.clear(), files.update(content)))
    else:
        out.write_bytes(content)
    before = None if content is None else out.read_bytes()
    with pytest.raises(InputError, match=r"out\.zip: exists and is not an archive of runs"):
        archive.write(out, finished, [])
    assert out.is_dir() if content is None else out.read_bytes() == before


def test_an_archive_is_continued_by_another_machine(finished: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.zip", tmp_path / "other"
    archive.write(out, finished, ["first", "second"])
    other.mkdir()
    write(other / ("c" * 16), attempt(name="c" * 32), epoch(1), RESULT)
    assert archive.write(out, other, ["third", "first"]) == (2, 3)
    assert archive.unpack(out, tmp_path / "there") == ["second", "third", "first"]
    assert [folder.name[0] for folder in journal.find(tmp_path / "there" / "runs")] == ["a", "c"]
    before = out.read_bytes()
    assert archive.write(out, other, ["third", "first"]) == (2, 3)
    assert out.read_bytes() == before
    gone = journal.read(finished / ("a" * 16))
    assert gone is not None
    assert archive.write(out, other, [], pruned={gone.id}) == (1, 3)


def test_runs_of_one_key_from_two_machines_are_both_archived(finished: Path, tmp_path: Path) -> None:
    out, other, key = tmp_path / "out.zip", tmp_path / "other", "a" * 16
    other.mkdir()
    for folder, id in ((finished / f"{key}.1", "d"), (other / f"{key}.1", "e"), (other / key, "f")):
        write(folder, attempt(name=id * 32), epoch(1), RESULT)
    for runs, count in ((finished, 2), (other, 4), (finished, 4), (other, 4)):
        assert archive.write(out, runs, [])[0] == count
    archive.unpack(out, tmp_path / "there")
    found = {folder.name: journal.read(folder).id for folder in journal.find(tmp_path / "there" / "runs")}
    mine = journal.read(finished / key).id
    assert found == {key: mine, f"{key}.1": "d" * 32, f"{key}.2": "f" * 32, f"{key}.3": "e" * 32}
    assert archive.write(out, finished, [], pruned={mine}) == (3, 0), "also where its folder was copied back"


def changed(path: Path, change) -> None:
    with zipfile.ZipFile(path) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)


JOURNAL = f"runs/{'a' * 16}/{journal.NAME}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: files.update({JOURNAL: files[JOURNAL].replace(b"1.25", b"1.35")}), "differs from what was archived"),
        (lambda files: files.pop(JOURNAL), "differs from what was archived"),
        (lambda files: files.update({"runs/more": b""}), "runs/more differs from what was archived"),
        (lambda files: files.pop("digests.json"), "is not an archive of runs"),
        (lambda files: files.update({"digests.json": b"[]"}), "differs from what was archived"),
        (lambda files: files.update({"digests.json": b"{"}), "is not an archive of runs"),
        (
            lambda files: files.update(
                {"digests.json": json.dumps({**json.loads(files["digests.json"]), "../x": "e3b0c44298fc1c149afbf4c8996fb"
                 "92427ae41e4649b934ca495991b7852b855"}).encode(), "../x": b""}
            ),
            "does not belong in an archive",
        ),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_refused_in_one_line(repro, finished: Path, tmp_path: Path, change, said) -> None:
    archive.write(tmp_path / "out.zip", finished, [])
    changed(tmp_path / "out.zip", change)
    with pytest.raises(InputError, match=said) as excinfo:
        archive.unpack(tmp_path / "out.zip", tmp_path / "there")
    assert len(str(excinfo.value).splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_any_byte_that_is_changed_is_noticed_or_changes_nothing(finished: Path, tmp_path: Path) -> None:
    archive.write(tmp_path / "out.zip", finished, ["plan"])
    raw = (tmp_path / "out.zip").read_bytes()
    for position in range(0, len(raw), 7):
        (tmp_path / "out.zip").write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
        try:
            plans = archive.unpack(tmp_path / "out.zip", tmp_path / "there")
        except InputError:
            continue
        assert plans == ["plan"]


def test_an_archive_without_a_name_is_refused(repro, tmp_path: Path) -> None:
    done = repro("archive", "")
    assert done.returncode == 2 and "out is empty" in done.stderr


def test_what_is_no_archive_is_one_line(repro, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text")
    done = repro("sync", "text.zip")
    assert done.returncode == 2
    assert "text.zip: is not an archive of runs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_status_says_how_far_each_run_is_from_the_journals_alone(start, repro, long_words, tmp_path: Path) -> None:
    process = start([*long_words(300), "--offline", "true", "--workers", "1"])
    wait_for(lambda: epochs_written(tmp_path) >= 2)
    running = json.loads(repro("status", "--json").stdout)
    process.terminate()
    process.communicate(timeout=60)
    assert [one["state"] for one in running] == ["running"]
    assert running[0]["name"] == "tiny/narrow seed 0"
    assert running[0]["epochs"] == 300
    assert running[0]["epoch"] >= 2
    assert running[0]["seconds_left"] > 0
    write(tmp_path / "runs" / ("a" * 16), attempt(), epoch(1), epoch(2), RESULT)
    (tmp_path / "runs" / ("b" * 16)).mkdir()
    (tmp_path / "runs" / ("b" * 16) / journal.NAME).write_text("by hand\n\n")
    write(tmp_path / "runs" / ("c" * 16), attempt(), epoch(1), journal.Stop("failed", "no space"))
    said = repro("status")
    assert said.returncode == 0, said.stderr
    assert "4 runs: 0 running, 0 waiting, 1 stopped, 1 failed, 1 ended, 1 broken" in said.stdout
    assert "stopped   epoch" in said.stdout
    assert "no space" in said.stdout
    assert not (tmp_path / "mlflow.db").exists()
    states = {one["key"]: one for one in json.loads(repro("status", "--json").stdout)}
    assert states["a" * 16]["test_accuracy"] == 0.5
    assert states["b" * 16]["state"] == "broken"


def test_commands_answer_in_json(repro, sweep_words, tmp_path: Path) -> None:
    keys: set[str] = set()

    def answered(*words: str) -> Any:
        document = json.loads(repro(*words, "--json").stdout)
        keys.update((document[0] if isinstance(document, list) else document).keys())
        return document

    planned = answered("plan", *sweep_words[1:3], *sweep_words[3:5], "--seeds", "0", "--epochs", "3", "--explain")
    assert [(one["variant"], one["finished"]) for one in planned] == [("narrow", False), ("wide", False)]
    assert repro(*sweep_words, "--variant", "narrow").returncode == 0
    shown = answered("show", planned[0]["key"])
    assert (shown["training.epochs"], shown["attempts"], type(shown["test_accuracy"])) == (3, 1, float)
    keys -= shown.keys() - {"study", "variant", "key", "journal", "attempts", "epochs"}  # settings, environment, result
    assert shown["variant"] == "narrow"
    assert shown["weights_digest"] == digests(tmp_path / "runs")[planned[0]["key"]]
    models = answered("models", "--study", sweep_words[2])
    assert [row["variant"] for row in models] == ["narrow", "wide"]
    compared = answered(*COMPARE, "report")
    assert compared["index"] == "report/index.html"
    assert all((tmp_path / name).is_file() for name in compared["files"])
    findings = answered("audit")
    assert answered("status")[0]["state"] == "ended"
    table = (PROJECT / "docs" / "cli.md").read_text().partition("<!--")[0]
    assert [key for key in sorted(keys) if f"`{key}`" not in table] == []
    assert {"kind", "where", "sentence"} <= findings[0].keys()
