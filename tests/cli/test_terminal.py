"""What a user sees on the terminal: help, switches, counts."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from repro.cli import catalogue, cli, main, options, words


def test_repro_alone_prints_its_help(repro) -> None:
    alone, asked = repro(), repro("--help")
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == asked.stdout
    assert "Commands:" in alone.stdout


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], False),
        (["--offline"], True),
        (["--offline", "true"], True),
        (["--offline", "false"], False),
        (["--offline", "--seeds", "1"], True),
    ],
)
def test_a_switch_may_stand_alone_or_have_a_value(words, value) -> None:
    @click.command()
    @options.switch("--offline", False, "Train without MLflow.")
    @click.option("--seeds")
    def command(offline: bool, seeds: str | None) -> None:
        click.echo(f"{offline} {seeds}")

    assert CliRunner().invoke(command, words).output.split()[0] == str(value)


def test_a_sweep_takes_a_switch_without_a_value(repro, sweep_words, tmp_path) -> None:
    trained = repro(*sweep_words, "--variant", "narrow", "--offline")
    assert trained.returncode == 0, trained.stderr
    assert "1 row, 1 run; 0 reused, 1 to train" in trained.stdout
    assert "; publish with: repro sync" in trained.stdout
    assert not (tmp_path / "mlflow.db").exists()


def test_counts_agree_with_their_nouns() -> None:
    assert [words.counted(number, "run") for number in (0, 1, 2, 1200)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "1,200 runs",
    ]


def test_lengths_of_time_go_on_in_one_form_and_are_not_said_twice() -> None:
    seconds = (8, 59.6, 82, 92, 599, 600, 3600, 12000)
    assert [words.duration(one) for one in seconds] == [
        "8 s", "1 min", "1 min 22 s", "1 min 32 s", "9 min 59 s", "10 min", "60 min", "3 h 20 min",
    ]  # fmt: skip
    assert words.time_left(700, 710) == "about 12 min"
    assert words.time_left(30, 90) == "about 30 s, at most 1 min 30 s"


def test_a_plan_of_one_run_is_said_in_the_singular(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--study", "reproducibility", "--variant", "squeezenet", "--seeds", "0"]) == 0
    assert capsys.readouterr().out.endswith("1 row, 1 run, 1 still to be trained\n")


def test_a_line_that_is_wider_than_the_terminal_continues_indented(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    line = f"{'0' * 16}  tiny/wide  running   epoch 2/12, best validation accuracy 61.20%"
    words.echo_line(line)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    words.echo_line(line)
    piped, first, *others = capsys.readouterr().out.splitlines()
    assert piped == line
    assert others
    assert max(map(len, (first, *others))) <= 40
    assert all(other.startswith("    ") for other in others)
    assert " ".join([first, *others]).split() == line.split()


@pytest.mark.parametrize("command", [["audit"], ["audit", "--study", "nothing-of-that-name"]])
def test_findings_and_errors_cut_no_word_on_a_narrow_terminal(monkeypatch, capsys, command) -> None:
    main(command)
    whole = "".join(capsys.readouterr()).split()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    main(command)
    shown = "".join(capsys.readouterr())
    assert max(map(len, shown.splitlines())) <= 60
    assert shown.split() == whole


def test_markdown_is_drawn_on_a_terminal_and_plain_in_a_pipe(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = "| variant | accuracy |\n| :--- | ---: |\n| narrow | 61.20 |\n"
    words.echo_markdown(text)
    assert capsys.readouterr().out == f"{text}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    words.echo_markdown(text)
    drawn = capsys.readouterr().out
    assert "|" not in drawn
    assert "61.20" in drawn


@pytest.mark.parametrize("command", ["demo", "paper", "reproducibility", "ablation"])
def test_the_example_of_set_holds_for_each_study(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(cli, [command, "--help"], terminal_width=110).output
    example = shown.partition("Settings for every run: ")[2].split()[0].rstrip(".")
    name = "all" if command == "paper" else command
    asked = ["plan", "--study", name, "--seeds", "0", "--set", example]
    result = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert result.exit_code == 0


def test_another_system_is_refused_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert main(["models"]) == 2
    assert "runs on Linux (this is darwin)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", *cli.list_commands(click.Context(cli))])
def test_help_fits_a_terminal_of_80_columns_and_cuts_nothing(name):
    shown = CliRunner().invoke(cli, [*filter(None, [name]), "--help"], prog_name="repro", terminal_width=80).output
    assert [line for line in shown.splitlines()[1:] if len(line) > 80 or line.endswith("...")] == []


def test_the_models_fit_a_terminal_of_80_columns_with_their_notes_below(monkeypatch):
    monkeypatch.setattr(catalogue, "WIDE", 999)
    shown = CliRunner().invoke(cli, ["models", "--study", "residual"]).output.splitlines()
    assert max(len(line.rstrip()) for line in shown[:7]) <= 80
    assert "137,854" in "\n".join(shown[:7])
    assert shown[7].startswith("residual/residual: published size: every other row of the paper implies 2.90")
