"""docs/own-study.md, taken literally: its files written, its commands given in its order."""

from __future__ import annotations

import json
import re
import shlex
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
    assert "6 of them still to be trained" in said[1]
    assert "6 of 6 runs done" in said[2]
    assert "| 16 filters" in said[3]
    (claim,) = json.loads((tmp_path / "report" / "claims.json").read_text())
    assert claim["verdict"] in {"supported", "not supported", "undecided"}
    assert (tmp_path / "report" / "index.html").is_file()
