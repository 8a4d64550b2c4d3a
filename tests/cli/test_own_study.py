"""docs/own-study.md, taken literally: its files written, its commands given in its order; and docs/studies.md."""

from __future__ import annotations

import csv
import json
import re
import shlex
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "own-study.md").read_text()


@pytest.mark.slow
def test_from_an_empty_folder_to_a_table(repro, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label, brightness in (("cat", 60), ("dog", 190)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(1, 101):
            pixels = generator.normal(brightness, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:03}.png")
    for name in ("my_nets.py", "widths.yaml"):
        (block,) = re.findall(rf"```\w+\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / name).write_text(block)
    commands = re.findall(r"^    repro (.*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["data", "plan", "experiment", "compare"]
    said = []
    for command in commands:
        done = repro(*shlex.split(command))
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said.append(done.stdout)
    assert "6 still to be trained" in said[1]
    assert "6 of 6 runs done" in said[2]
    assert "| 16 filters" in said[3]
    first, *_ = csv.DictReader((tmp_path / "report/tables/widths.csv").read_text().splitlines())
    models = json.loads(repro("models", "--study", "widths.yaml", "--json").stdout)
    assert models[0]["parameters"] == float(first["parameters"]), "built for the two classes of the study's own data"
    (claim,) = json.loads((tmp_path / "report" / "claims.json").read_text())
    assert claim["verdict"] in {"supported", "not supported", "undecided"}
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.slow
def test_the_studies_of_their_page_are_trained_and_compared(repro, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    budget = ["--dataset", "digits", "--seeds", "0", "--epochs", "1"]
    for name in ("my_study.yaml", "replication.yaml"):
        (block,) = re.findall(rf"^    # {re.escape(name)}\n((?:    .*\n|\n)+)", page, re.MULTILINE)
        (tmp_path / name).write_text(textwrap.dedent(block).partition("\nmlflow run")[0])
        trained = repro("experiment", "--study", name, *budget)
        assert trained.returncode == 0, trained.stderr
    planned = json.loads(repro("plan", "--study", "my_study.yaml", *budget, "--json").stdout)
    assert [one["variant"] for one in planned] == ["squeezenet_bn", "filters_48", "filters_192"]
    assert all(one["finished"] for one in planned)
    compared = repro("compare", "--study", "my_study.yaml,replication.yaml", "--figures", "false")
    assert compared.returncode == 0, compared.stderr
    assert {"wide_start", "replication"} <= {path.stem for path in (tmp_path / "report" / "tables").glob("*.csv")}
    (claim,) = json.loads((tmp_path / "report" / "claims.json").read_text())
    assert (claim["claim"], claim["margin"]) == ("wide_helps", 0.5)
    audited = repro("audit", "--study", "replication.yaml")
    assert audited.returncode == 0, audited.stderr
