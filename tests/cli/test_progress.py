"""The moving table of a sweep: what it shows at which width, and what a terminal without movement sees."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from repro import studies
from repro.cli.progress import Progress, shortened
from repro.execution.beat import Beat
from repro.execution.events import Epoch, Failed, Planned, Started, Step, Stopping
from repro.execution.settings import Settings
from repro.records import EpochRecord


@pytest.fixture
def plan():
    study = studies.load("residual")
    return studies.plan([(study, studies.select(study))], seeds=[0], overrides={})


def shown(plan, tmp_path: Path, monkeypatch, width: int, **environment: str) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, _environ={"COLUMNS": str(width), **environment})
    monkeypatch.setattr("repro.cli.progress.Console", lambda: console)
    progress = Progress(plan, Settings(cache=tmp_path, runs=tmp_path))
    first, second = plan.runs[4], plan.runs[1]
    progress.show(Planned(plan.name, plan.unique, (), len(plan.runs), 2))
    for run in (first, second):
        progress.show(Started(run, 0))
    progress.show(Epoch(first, EpochRecord(9, 1.2345, 0.5, 1.3, 0.61, 21.5)))
    progress.show(Step(first, Beat(10, 250, 1000, 1.1111, 2233.3)))
    return progress, out


@pytest.mark.parametrize("width", [72, 80, 120])
def test_no_word_and_no_number_is_cut(plan, tmp_path, monkeypatch, width) -> None:
    progress, _ = shown(plan, tmp_path, monkeypatch, width)
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, _environ={}).print(progress._table())
    text = out.getvalue()
    assert all(len(line) <= width for line in text.splitlines()), text
    for number in ("1.111", "9/100", "61.00%", "0/100"):
        assert number in text
    assert "0 of 6 runs done, about" in text.replace("\n", " ")
    assert ("residual_2_replicated seed 0" in text) == (width >= 80)
    if width >= 110:
        assert "250/1,000" in text
        assert "2,233" in text
    if width == 72:
        assert "residual_2_replic… 0" in text, "of the name its seed stays"


def test_a_dumb_terminal_gets_a_line_an_epoch(plan, tmp_path, monkeypatch, capsys) -> None:
    shown(plan, tmp_path, monkeypatch, 80, TERM="dumb")
    said = capsys.readouterr().out
    assert "residual_2_replicated seed 0: epoch 9/100, loss 1.2345, validation accuracy 61.00%, 21.5 s" in said


def test_nothing_is_left_on_the_terminal(plan, tmp_path, monkeypatch) -> None:
    progress, _ = shown(plan, tmp_path, monkeypatch, 120)
    progress.show(Failed(plan.runs[4], "killed", again=False))
    progress.show(Failed(plan.runs[1], "killed", again=False))
    assert isinstance(progress._table(), str), "no header without a run below it"


def test_a_signal_takes_the_table_away_before_anything_else_is_written(plan, tmp_path, monkeypatch, capsys) -> None:
    progress, out = shown(plan, tmp_path, monkeypatch, 80)
    with progress:
        progress.show(Step(plan.runs[4], Beat(10, 500, 1000, 1.1111, 2233.3)))
        progress._live.refresh()
        progress.show(Stopping())
        table = out.getvalue()
        assert capsys.readouterr().out == "stopping\n"
        progress.show(Failed(plan.runs[1], "killed", again=False))
    assert out.getvalue() == table, "nothing is drawn any more"
    assert table.count("\x1b[2K") >= table[table.rindex("this epoch") :].count("\n"), "each of its lines is deleted"


def test_a_long_name_keeps_its_beginning_and_its_seed() -> None:
    assert shortened("short seed 3", 40) == "short seed 3"
    assert shortened("residual_2_replicated seed 12", 12) == "residual… 12"
