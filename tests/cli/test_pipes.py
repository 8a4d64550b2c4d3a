"""Output that nobody reads, and words that are not what they seem."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from repro.cli import main, options
from repro.errors import InputError
from repro.studies import load
from tests.starting import command, environment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("plan", "--study", "ablation"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, bufsize=0,
    ) as plan:  # fmt: skip
        assert plan.stdout is not None and plan.stderr is not None
        plan.stdout.close()
        assert plan.stderr.read() == ""
    assert plan.returncode == 0


def test_a_sweep_whose_output_was_closed_trains_on(tmp_path: Path, sweep_words: list[str]) -> None:
    with subprocess.Popen(
        command(*sweep_words, "--offline", "true"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, bufsize=0,
    ) as sweep:  # fmt: skip
        assert sweep.stdout is not None and sweep.stderr is not None
        sweep.stdout.close()
        said = sweep.stderr.read()
    assert said == "repro: the output was closed by its reader; training goes on\n"
    assert sweep.returncode == 0
    assert len(list(tmp_path.glob("runs/*/model.pt"))) == 2


@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_that_is_closed_is_no_traceback(tmp_path: Path, stream: int) -> None:
    shell = f'exec "$@" {stream}>&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command("--help")], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("option", ["--out", "--data-dir"])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_folder_is_refused(capsys, here: Path, option: str, value: str) -> None:
    assert main(["compare", option, value]) == 2
    assert f"{option} is empty" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_a_home_folder_is_meant_by_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert options.Folder().convert("~/x", None, None) == "/home/me/x"


def test_a_name_that_is_not_utf_8_is_refused(capsys, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsdecode(b"caf\xe9")
    assert main(["compare", "--out", odd]) == 2
    Path(odd).mkdir()
    monkeypatch.chdir(odd)
    assert main(["audit"]) == 2
    assert capsys.readouterr().err.count("is not UTF-8") == 2


@pytest.mark.parametrize("code", [-9, 1])
def test_a_data_step_that_says_nothing_is_no_traceback(here: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *words, **_: subprocess.CompletedProcess(words, code, "", ""))
    with pytest.raises(Exception, match=r"digits: .*(killed by signal 9|could not be prepared)"):
        options.prepared("digits", here)


def test_a_study_in_capital_letters_is_a_file(tmp_path: Path, tiny: Path) -> None:
    tiny.rename(tmp_path / "OK.YAML")
    assert load(tmp_path / "OK.YAML").study == "tiny"


def test_a_decimal_comma_is_named(tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("accuracy: 50.0", "accuracy: 50,1"))
    with pytest.raises(InputError, match=r"published.*1 stands alone, as after a decimal comma \(allowed: 74\.1\)"):
        load(tiny)
