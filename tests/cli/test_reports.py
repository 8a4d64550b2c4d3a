"""`repro compare` and `repro audit` on real stores: small networks trained, published and read back."""

from __future__ import annotations

import csv
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from repro import built, studies
from repro.cli import reports
from repro.reporting import tables
from repro.reporting.sheets import Sheet
from repro.training.catalogue import catalogue
from tests.conftest import TINY, Repro
from tests.starting import command, environment

HOSTILE = r"50% of <img src=x onerror=alert(1)> | $x_1$ & \input{a} `b` [c](http://d)"
STUDY = (
    TINY.replace("title: Tiny networks", f"title: '{HOSTILE}'")
    + f"""  hot:
    title: '{HOSTILE}'
    set: {{optimizer.name: sgd, optimizer.lr: 100.0}}
    note: '{HOSTILE}'
"""
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with a store: three seeds of three networks, one run twice, another setting, one run that never ended."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(STUDY)
    sweep = ["experiment", "--study", "tiny.yaml", "--dataset", "digits", "--data-dir", str(digits)]
    for words in (
        ["--seeds", "0-2", "--epochs", "2"],
        ["--seeds", "0", "--epochs", "1", "--variant", "narrow", "--set", "training.batch_size=100"],
        ["--seeds", "0", "--epochs", "2", "--variant", "narrow", "--fresh", "true"],
    ):
        done = subprocess.run(
            command(*sweep, *words), cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    with sqlite3.connect(folder / "mlflow.db") as db:
        db.execute("UPDATE runs SET status = 'KILLED' WHERE name = 'wide seed 2'")
    return folder


Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compare(trained: Path, tmp_path: Path, digits: Path) -> Compare:
    """Runs `repro compare` on a copy of the store, after some SQL, into `tmp_path / "report"`."""

    def run(*words: str, sql: str = "") -> subprocess.CompletedProcess[str]:
        shutil.copy(trained / "mlflow.db", tmp_path)
        with sqlite3.connect(tmp_path / "mlflow.db") as db:
            db.executescript(sql)
        asked = command("compare", "--figures", "false", "--data-dir", str(digits), *words)
        return subprocess.run(
            asked, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )

    return run


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "report" / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run_of(name: str) -> str:
    return f"(SELECT run_uuid FROM runs WHERE name = '{name}' ORDER BY end_time DESC LIMIT 1)"


def test_a_real_store_as_a_report(compare: Compare, tmp_path: Path) -> None:
    done = compare("--figures", "true")
    assert (done.returncode, done.stderr) == (0, "")
    found = {row["variant"]: row for row in rows(tmp_path, "tiny")}
    assert {name: row["n"] for name, row in found.items()} == {"narrow": "3", "wide": "2", "hot": "3"}
    assert len(rows(tmp_path, "runs")) == 8
    figures = {path.stem for path in (tmp_path / "report" / "figures").glob("*.png")}
    assert {
        "tiny-curves",
        "tiny-narrow-curves",
        "tiny-narrow-architecture",
        "tiny-axis",
        "tiny-narrow-confusion",
        "tiny-forest",
    } <= figures
    text = (tmp_path / "report" / "index.html").read_text()
    assert "no finished run yet for seed 2" in text
    assert "2 finished runs of key" in text
    assert "training.batch_size=100" in text, "the other setting is named"
    assert "<img src=x" not in text
    assert "onerror=alert(1)&gt;" in text
    assert "matches AlexNet" not in text, "a study of one's own is not asked whether SqueezeNet matches AlexNet"
    assert "SqueezeNet Reproducibility" not in text, "nor is it the paper's"
    assert "× smaller" not in text, "nor compared with an AlexNet that was not trained"


def test_a_study_that_is_named_twice_is_shown_once(compare: Compare, trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "tiny.yaml", tmp_path)
    reports = []
    for words in ("tiny", "tiny,tiny", "tiny, tiny.yaml,", " tiny.yaml,tiny"):
        assert compare("--study", words).returncode == 0
        files = sorted(path for path in (tmp_path / "report").rglob("*") if path.is_file())
        reports.append({path.name: path.read_bytes() for path in files})
    assert all(one == reports[0] for one in reports)


def test_the_setting_is_chosen_by_its_id(compare: Compare, tmp_path: Path) -> None:
    text = compare().stdout
    other = text.partition("(--setting ")[2][:8]
    assert compare("--setting", other).returncode == 0
    assert {row["n"] for row in rows(tmp_path, "tiny")} == {"1"}


def test_what_is_missing_nan_or_doubled_is_said_and_breaks_nothing(compare: Compare, tmp_path: Path) -> None:
    doubled = (
        f"SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE run_uuid = {run_of('hot seed 1')}"
    )
    done = compare(
        "--figures",
        "true",
        sql=f"""
        DELETE FROM latest_metrics WHERE key = 'test_accuracy' AND run_uuid = {run_of("wide seed 0")};
        UPDATE latest_metrics SET is_nan = 1, value = 0 WHERE key = 'best_val_accuracy' AND run_uuid = {run_of("wide seed 1")};
        INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) {doubled} AND step > 0;
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "seed 0: test_accuracy missing or not finite; left out" in text
    assert "seed 1: best_val_accuracy missing or not finite; left out" in text
    assert "doubled points; the latest of each step is kept" in text
    wide = next(row for row in rows(tmp_path, "tiny") if row["variant"] == "wide")
    assert wide["n"] == "2"
    assert float(wide["val_mean"]) > 0


def test_a_store_written_by_another_version_is_passed_over_in_a_line(compare: Compare, tmp_path: Path) -> None:
    newest = "(SELECT run_uuid FROM runs WHERE name = 'tiny' ORDER BY start_time DESC LIMIT 1)"
    done = compare(sql=f"UPDATE tags SET value = '99' WHERE key = 'repro.schema' AND run_uuid = {newest}")
    assert done.returncode == 0
    assert "tag repro.schema is &#39;99&#39;" in (tmp_path / "report" / "index.html").read_text()
    done = compare(sql="UPDATE tags SET value = '99' WHERE key = 'repro.schema'")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--study", "nothing"], "unknown study of the store 'nothing'; did you mean 'tiny'? (allowed: tiny)"),
        (["--study", ","], "--study names no study"),
        (["--setting", "nowhere"], "unknown setting 'nowhere'"),
        (["--out", "mlflow.db"], "choose another folder with --out"),
        (["--tracking-uri", "sqlite:///none.db"], "no such file"),
        (["--tracking-uri", "foo://bar"], "is not a store"),
        (["--ui-url", "127.0.0.1:5000"], "is not an address (example: http://127.0.0.1:5000)"),
    ],
)
def test_bad_input_is_one_line(compare: Compare, words: list[str], says: str) -> None:
    done = compare(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_tables_alone_need_neither_torch_nor_matplotlib(compare: Compare, tmp_path: Path) -> None:
    assert compare().returncode == 0
    program = (
        "import sys\nfrom repro.cli import cli\ncli(['compare', '--figures', 'false'], standalone_mode=False)\n"
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_the_audit_names_what_contradicts_itself(repro: Repro) -> None:
    done = repro("audit")
    assert (done.returncode, done.stderr) == (0, "")
    assert "The accuracy of the 5x5 start is 75.74% in section 5.3.5 and 76.74% in Table 6." in done.stdout


def test_the_models_of_the_audit_are_those_that_are_built() -> None:
    declared = [study for study in studies.declared() if study.study != "demo"]
    models = {(row.study, row.variant): row for row in catalogue(declared)}
    assert built.text(models) == built.FILE.read_text()
    assert set(built.known() or {}) == set(models)


def test_models_of_declarations_that_were_changed_are_not_taken(tmp_path: Path) -> None:
    stale = tmp_path / "models.json"
    stale.write_text(built.FILE.read_text().replace('{"declarations": "', '{"declarations": "0'))
    assert built.known(stale) is None
    assert built.known(tmp_path / "none.json") is None


def test_no_part_of_a_report_holds_a_credential(compare: Compare, tmp_path: Path) -> None:
    address = "http://reader:s3cret@host:5000?token=s3cret"
    done = compare("--ui-url", address, "--json")
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "report").rglob("*.*") if path.is_file()]
    assert {path.suffix for path in files} >= {".html", ".tex", ".md", ".csv", ".json"}
    assert [path.name for path in files if "s3cret" in path.read_text(errors="replace")] == []
    assert "s3cret" not in done.stdout
    assert 'href="http://host:5000' in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_shows_whole_words_and_numbers(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is narrow there are fewer columns, and a title goes on in the next line."""
    titles = [
        "SqueezeNet",
        "Residual (2 layers removed, 4 layers replicated), batchnorm",
        "1x1 starting kernel size [1]",
    ]
    frame = pd.DataFrame({"title": titles, "n": [3, 3, 10]})
    frame = frame.assign(val_mean=71.354, val_sd=0.661, published_val=73.72, verdict="ours below", test_mean=70.551)
    frame = frame.assign(test_sd=0.524, best_epoch=71.5, size_mib=2.902, outcome="1 chance, 2 epoch limit")
    frame = frame.assign(at_most=False, marks="")
    columns = tuple(column for column in tables.STUDY_COLUMNS if column.name in tables.BRIEF)
    monkeypatch.setenv("COLUMNS", str(width))
    reports._show("An answer", "Why it is so", [Sheet("s", "Title", "Header", columns, frame, ("a note",))])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    shown = set(" ".join(lines).split())
    always = {word for title in titles for word in title.split()} | {"71.35", "0.66", "10"}
    assert always <= shown
    assert ("limit" in shown) == (width == 200)
    assert ("73.72" in shown) == ("publ." in shown)
    assert {"ours", "below"} <= shown or "verdict" not in shown
