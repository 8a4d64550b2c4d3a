"""What a user gets wrong: one line that says what is allowed, the right exit code, and nothing left behind."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from repro.cli import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def refused(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that `repro WORDS` answers with."""
    assert main(words) == code
    said = capsys.readouterr()
    assert said.err.startswith("repro: ")
    assert said.err.count("\n") == 1, said.err
    return said.err


DIGITS = ["--dataset", "digits", "--data-dir", "data"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ablation", "--fire", "remved", *DIGITS], ["'remved'", "did you mean 'removed'", "added, all, removed"]),
        (["ablation", "--batchnorm", "yes", *DIGITS], ["batchnorm", "on", "off", "both"]),
        (["reproducibility", "--model", "vgg", *DIGITS], ["'vgg'", "alexnet", "squeezenet"]),
        (["experiment", "--study", "residuals", *DIGITS], ["did you mean 'residual'", "squeeze_ratio"]),
        (["experiment", "--study", "residual", "--variant", "residual_3", *DIGITS], ["residual_3", "residual_2_added"]),
        (["experiment", "--study", "nowhere.yaml", *DIGITS], ["nowhere.yaml", "cannot be read", "give the path"]),
        (["ablation", "--dataset", "cifar"], ["'cifar'", "cifar10", "digits"]),
        (
            ["ablation", "--set", "model.squeze_ratio=0.5", *DIGITS],
            ["model: unknown key", "did you mean 'squeeze_ratio'"],
        ),
        (["ablation", "--set", "squeeze_ratio=0.5", *DIGITS], ["did you mean 'model.squeeze_ratio'?"]),
        (["ablation", "--set", "model.squeeze_ratio", *DIGITS], ["name=value"]),
        (["ablation", "--set", "model.pools=[conv1", *DIGITS], ["model.pools"]),
        (["ablation", "--set", "seed=3", *DIGITS], ["--seeds"]),
        (["ablation", "--seeds", "a", *DIGITS], ["'a'", "0,1,2 or 0-9"]),
        (["status", "--runs-dir", "rusn"], ["rusn: no such folder", "--runs-dir"]),
        (["ablation", "--seeds", "3-1", *DIGITS], ["3-1", "0-9"]),
        (["ablation", "--epochs", "3", "--set", "training.epochs=5", *DIGITS], ["--epochs 3", "training.epochs=5"]),
        (["ablation", "--patience", "3", "--set", "training.patience=5", *DIGITS], ["--patience 3", "patience=5"]),
        (["ablation", "--batch-size", "64", "--set", "training.batch_size=32", *DIGITS], ["--batch-size 64", "=32"]),
        (["ablation", "--folds", "3", "--set", "data.folds=5", *DIGITS], ["--folds 3", "data.folds=5"]),
        (["ablation", "--set", "data.dataset=cifar10", *DIGITS], ["--dataset digits", "data.dataset=cifar10"]),
        (["ablation", "--epochs", "0", *DIGITS], ["training.epochs", "0"]),
        (["ablation", "--epochs", "many", *DIGITS], ["epochs", "many"]),
        (["ablation", "--batch-size", "2000", *DIGITS], ["batch_size", "1437"]),
        (["ablation", "--workers", "0", *DIGITS], ["workers", "auto", "1 to 1024"]),
        (["ablation", "--threads", "0", *DIGITS], ["threads", "1 to 1024"]),
        (["ablation", "--device", "tpu", *DIGITS], ["'tpu'", "cpu, cuda"]),
        (["ablation", "--device", "cuda:77", *DIGITS], ["unknown device 'cuda:77'", "cpu"]),
        (["ablation", "--checkpoint-seconds", "-1", *DIGITS], ["checkpoint-seconds"]),
        (["ablation", "--fresh", "perhaps", *DIGITS], ["fresh", "perhaps"]),
        (["ablation", "--epcohs", "3"], ["--epcohs", "--epochs"]),
        (["abaltion"], ["'abaltion'", "did you mean 'ablation'"]),
        (["data", "--dataset", "mnits"], ["'mnits'", "cifar10", "digits", "did you mean 'mnist'"]),
        (["models", "--study", "ablations"], ["did you mean 'ablation'"]),
        (["sync", "nowhere"], ["nowhere", "no such folder"]),
        (["archive", "nosuch/dir/x.zip"], ["nosuch/dir/x.zip: there is no folder nosuch/dir; create it"]),
        (["experiment"], ["--study", "(example: repro experiment --study residual"]),
        (["verify"], ["RUN", "(example: repro verify 0f3c9a --epochs 2)"]),
        (["archive"], ["OUT", "(example: repro archive"]),
        (["ablation", "--models", "bst"], ["unknown --models 'bst'; did you mean 'best'?", "all, best, none"]),
        (["compare", "--preset", "ful"], ["did you mean 'full'?"]),
    ],
)
def test_one_line_says_what_is_allowed(words: list[str], expected: list[str], capsys, tmp_path: Path) -> None:
    line = refused(words, capsys)
    for part in expected:
        assert part in line
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("study: [", "not valid YAML"),
        ("study: a\nstudy: b\n", "'study' stands twice"),
        ("just a sentence", "a.yaml"),
        ("", "a.yaml: is empty (allowed: a group of settings); it needs study, title"),
        ("study: mine\ntitle: T\nquestion: Q\nvariants: {}\n", "variants"),
        (
            "study: mine\ntitle: T\nquestion: Q\nvariants: {v: {title: V, base: reproducibility/alexnet_bm}}\n",
            "alexnet_bn",
        ),
        ("study: mine\ntitle: T\nquestion: Q\nvariants: {v: {title: V, sets: {}}}\n", "variants.v: unknown key 'sets'"),
        ("study: mine\ntitle: T\nquestion: Q\nvariants: {v: {title: V}}\n", "model"),
    ],
)
def test_a_broken_study_of_ones_own(text: str, expected: str, capsys, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert expected in refused(["experiment", "--study", "a.yaml", *DIGITS], capsys)
    assert "did you mean 'a.yaml'?" in refused(["experiment", "--study", "a.yml", *DIGITS], capsys)


def test_data_that_is_not_there_names_what_to_do(capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens: as good as no network
    line = refused(["reproducibility", "--data-dir", "empty", "--epochs", "1"], capsys)
    for part in ("--data-dir", "--dataset digits", "data_batch_1"):
        assert part in line
    assert not list(tmp_path.glob("runs/*"))


def test_a_corrupted_batch_file_is_named(capsys, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_3").write_bytes(b"not what it was")
    assert "data_batch_3" in refused(["data", "--data-dir", "data"], capsys)


def test_a_server_that_does_not_answer(capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    for words in (["ablation", *DIGITS, "--epochs", "1"], ["compare"], ["sync", "."], ["reap"], ["show", "a" * 32]):
        assert uri in refused([*words, "--tracking-uri", uri], capsys, code=1)


def test_a_folder_that_cannot_be_made(capsys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--runs-dir" in refused(["ablation", *DIGITS, "--runs-dir", "file/runs", "--offline", "true"], capsys)
    assert "data" in refused(["data", "--dataset", "digits", "--data-dir", "file/data"], capsys)


def test_an_empty_store_and_a_file_that_is_none(capsys, tmp_path: Path) -> None:
    assert "mlflow.db" in refused(["compare"], capsys)
    assert main(["reap"]) == 0
    capsys.readouterr()
    assert "no sweep" in refused(["compare"], capsys)
    assert "a" * 32 in refused(["show", "a" * 32], capsys)
    assert "a run id or a key" in refused(["show", "abc"], capsys)
    (tmp_path / "notes.txt").write_text("no database")
    assert "notes.txt" in refused(["compare", "--tracking-uri", "sqlite:///notes.txt"], capsys, code=1)
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (0,)
