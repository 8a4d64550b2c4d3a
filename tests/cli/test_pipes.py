"""Output that nobody reads, and words that are not what they seem."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from repro.cli import main, options
from repro.errors import InputError
from repro.studies import load
from tests.starting import PROJECT, command, environment


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
    assert said == "repro: the output was closed by its reader; training continues\n"
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


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "--out", "~nobody-here/x"],
        ["data", "--dataset", "imagefolder:~nobody-here/x"],
        ["ablation", "--dataset", "imagefolder:~nobody-here/x"],
        ["ablation", "--runs-dir", "~nobody-here/x"],
    ],
)
def test_a_home_folder_of_nobody_is_refused(capsys, here: Path, words: list[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "~nobody-here/x: no such user" in said and said.count("\n") == 1


def test_a_name_that_is_not_utf_8_is_refused(capsys, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsdecode(b"caf\xe9")
    assert main(["compare", "--out", odd]) == 2
    Path(odd).mkdir()
    monkeypatch.chdir(odd)
    assert main(["audit"]) == 2
    assert capsys.readouterr().err.count("is not valid UTF-8") == 2


@pytest.fixture
def sitecustomize(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """`sitecustomize(text)`: an environment in which every Python begins with these lines."""

    def made(text: str) -> dict[str, str]:
        folder = tmp_path / "first"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(text)
        return {"PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}"}

    return made


@pytest.mark.parametrize(
    ("end", "expected"), [("os.kill(os.getpid(), 9)", "killed by signal 9"), ("os._exit(1)", "could not be prepared")]
)
def test_a_data_step_that_says_nothing_is_no_traceback(tmp_path: Path, sitecustomize, end: str, expected: str) -> None:
    """As where the kernel ends it because there is no memory left."""
    text = "import os, pathlib\nwords = pathlib.Path('/proc/self/cmdline').read_text().split('\\0')\n"
    env = sitecustomize(f"{text}if 'data' in words:\n    {end}\n")
    words = command("ablation", "--fire", "removed", "--dataset", "digits", "--seeds", "0", "--epochs", "1")
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(env), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("repro: digits: ") and expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_a_user_without_a_name_or_a_home(tmp_path: Path, tiny: Path, digits: Path, sitecustomize) -> None:
    """As in a container that is started with `--user 12345`."""
    env = environment(
        sitecustomize("import pwd\ndef none(uid):\n    raise KeyError(f'no user {uid}')\npwd.getpwuid = none\n")
    )
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        env.pop(name, None)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words), cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120
        )

    asked = ["--variant", "narrow", "--dataset", "digits", "--data-dir", str(digits), "--seeds", "0", "--epochs", "1"]
    trained = run("experiment", "--study", str(tiny), *asked)
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr
    shown = run("compare", "--figures", "false")
    assert shown.returncode == 0, shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_study_in_capital_letters_is_a_file(tmp_path: Path, tiny: Path) -> None:
    tiny.rename(tmp_path / "OK.YAML")
    assert load(tmp_path / "OK.YAML").study == "tiny"


def test_a_decimal_comma_is_named(tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("accuracy: 50.0", "accuracy: 50,1"))
    with pytest.raises(InputError, match=r"published.*1 has no value; a decimal comma\? \(allowed: 74\.1\)"):
        load(tiny)
