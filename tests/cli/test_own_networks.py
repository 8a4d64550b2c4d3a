"""A network of one's own from the command line: tried before it is planned, trained, shown, verified, edited, compared."""

from __future__ import annotations

import json
import zipfile

from tests.starting import PROJECT

MODULE = """
from torch import nn

def small(classes, width=4):
    print("made")  # goes nowhere, and harms nothing
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(225 * width, classes)
    )
"""
STUDY = """
study: mine
title: Networks of my own
question: How wide?
base: narrow
axis: model.args.width
variants:
  narrow: {title: Narrow, set: {model.name: python, model.function: "my_nets:small", model.args: {width: 2}}}
  wide: {title: Wide, set: {model.args.width: 4}}
"""
WORDS = ["--study", "mine.yaml", "--dataset", "digits", "--epochs", "2", "--seeds", "0"]


def test_a_module_in_the_working_folder_is_trained_verified_and_compared(repro, digits, tmp_path) -> None:
    (tmp_path / "my_nets.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text(STUDY)
    words = [*WORDS, "--data-dir", str(digits)]
    trained = repro("experiment", *words, env={"REPRO_MODELS": "all"})
    assert trained.returncode == 0, trained.stderr
    planned = json.loads(repro("plan", *words, "--json").stdout)
    assert [row["finished"] for row in planned] == [True, True]
    narrow, wide = (row["key"] for row in planned)
    assert (tmp_path / "runs" / wide / "model.pt2").is_file()
    shown = repro("show", narrow, wide).stdout
    assert [line.split() for line in shown.splitlines() if "model." in line] == [["model.args.width", "2", "|", "4"]]
    assert "model.source" not in shown
    verified = repro("verify", narrow, "--data-dir", str(digits))
    assert "bit-identical: 2 epochs and the final weights" in verified.stdout, verified.stderr
    compared = repro("compare", "--study", "mine", "--out", "report")
    assert compared.returncode == 0, compared.stderr
    assert "args.width 2" in (tmp_path / "report" / "tables" / "mine.csv").read_text()

    (tmp_path / "my_nets.py").write_text(MODULE + "# edited\n")
    edited = json.loads(repro("plan", *words, "--json").stdout)
    assert [row["finished"] for row in edited] == [False, False]
    refused = repro("verify", narrow, "--data-dir", str(digits))
    assert "the source of my_nets:small has changed since this run was planned" in refused.stderr
    assert refused.stderr.count("\n") == 1
    with zipfile.ZipFile(tmp_path / "runs" / narrow / "source.zip") as archive:
        archive.extractall(tmp_path / "former")
    again = repro("verify", narrow, "--data-dir", str(digits), "--epochs", "1", env={"PYTHONPATH": f"{PROJECT}:former"})
    assert "bit-identical" in again.stdout, again.stderr


def test_what_does_not_fit_is_one_line_and_nothing_is_trained(repro, digits, tmp_path) -> None:
    (tmp_path / "my_nets.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text(STUDY)
    refused = repro("experiment", *WORDS, "--data-dir", str(digits), "--set", "model.args.depth=3")
    assert refused.returncode == 2
    assert "got an unexpected keyword argument 'depth' (it takes classes, width)" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
