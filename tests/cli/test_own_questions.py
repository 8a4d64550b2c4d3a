"""Each kind of question of one's own, through `mlflow run`: trained, killed once, resumed, compared and looked at."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from repro import journal
from repro.spec import flatten
from repro.training import prepare
from tests.execution.watching import digests, wait_for
from tests.starting import MLFLOW, command, given
from tests.training.test_readers import cifar100

SMALL = """
base: small
variants:
  small:
    title: Small
    set: {model.name: squeezenet, model.fire_modules: 2, model.base_e: 8, model.incr_e: 0, model.squeeze_ratio: 0.5,
      model.first_filters: 8, model.first_stride: 4, model.batch_norm: all}
"""
WIDE = SMALL + "  wide: {title: Wide, set: {model.first_filters: 12}}\n"
RESNET = "variants: {resnet: {title: ResNet, set: {model.name: torchvision, model.architecture: resnet18}}}\n"
OWN = """
base: narrow
axis: model.args.width
variants:
  narrow: {title: Narrow, set: {model.name: python, model.function: "own_nets:small", model.args: {width: 4}}}
  wide: {title: Wide, set: {model.args.width: 8}}
"""
MODULE = """
from torch import nn

class Small(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 5, 4), nn.GELU(), nn.Dropout(0.1), nn.Flatten())
        self.head = nn.LazyLinear(classes)

    def forward(self, images):
        return self.head(self.features(images))

def small(classes, input_size, width=4):
    import torch
    network = Small(classes, width)
    network(torch.zeros(1, 3, input_size, input_size))
    return network
"""
GRID = "grid: {model.first_filters: [8, 12], optimizer.final_lr: [0.01, 0.1]}\n"

# name: (study, parameters of `mlflow run`, rows of the table, runs, settings that all runs have)
QUESTIONS = {
    "cifar100": (WIDE, ["dataset=cifar100", "epochs=30"], 2, 2, {"data.dataset": "cifar100", "model.classes": 100}),
    "photos": (
        WIDE,
        ["dataset=imagefolder:photos", "epochs=30", "set=data.image_size=40"],
        2,
        2,
        {"data.dataset": "imagefolder:photos", "model.classes": 3, "model.input_size": 40},
    ),
    "resnet": (
        RESNET,
        ["dataset=cifar100", "epochs=6"],
        1,
        1,
        {"model.architecture": "resnet18", "model.classes": 100},
    ),
    "module": (OWN, ["dataset=digits", "epochs=20"], 2, 2, {"model.function": "own_nets:small", "model.classes": 10}),
    "folds": (WIDE, ["dataset=digits", "epochs=4", "folds=5"], 2, 10, {"data.folds": 5}),
    "grid": (SMALL + GRID, ["dataset=digits", "epochs=6"], 5, 5, {"model.name": "squeezenet"}),
    "augmented": (
        WIDE,
        ["dataset=digits", "epochs=10", "set=data.augmentation=crop_flip,optimizer.schedule=cosine"],
        2,
        2,
        {"data.augmentation": "crop_flip", "optimizer.schedule": "cosine"},
    ),
}


def journals(runs: Path) -> list[journal.Journal]:
    return [one for one in map(journal.read, journal.find(runs)) if one is not None]


def epochs(runs: Path) -> int:
    """Epochs of the run that is furthest, among those that are not at their end."""
    return max((len(one.epochs) for one in journals(runs) if one.result is None), default=0)


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL for a command and all that it has started."""
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        one.kill()
    psutil.wait_procs(every, timeout=20)
    process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", QUESTIONS)
def test_it_is_trained_killed_resumed_compared_and_looked_at(name, clone: Path, linked, tmp_path, monkeypatch) -> None:
    text, parameters, rows, runs, settings = QUESTIONS[name]
    (clone / f"{name}.yaml").write_text(f"study: {name}\ntitle: {name.title()}\nquestion: Does it work?\n{text}")
    (clone / "own_nets.py").write_text(MODULE)
    if name == "photos":
        generator = np.random.default_rng(0)
        for label in ("cat", "dog", "owl"):
            (clone / "photos" / label).mkdir(parents=True)
            for number in range(60):
                pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(clone / "photos" / label / f"{number}.png")
    (data := tmp_path / "data").mkdir()
    if "dataset=cifar100" in parameters:
        cifar100(data, monkeypatch)
        prepare.prepare("cifar100", data)  # here, where the checksums are those of the generated files

    def mlflow_run(entry: str, *given_here: str) -> subprocess.Popen[str]:
        words = [MLFLOW, "run", ".", "-e", entry, *given(f"study={name}.yaml", *given_here)]
        return subprocess.Popen(
            words, cwd=clone, env=linked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def output(process: subprocess.Popen[str]) -> str:
        said = process.communicate(timeout=900)[0]
        assert process.returncode == 0, said
        return said

    here = clone / "runs" / name
    asked = [*parameters, "seeds=0", f"data_dir={data}", f"runs_dir={here}", "checkpoint_seconds=0"]
    killed = mlflow_run("experiment", *asked)
    wait_for(lambda: epochs(here) >= 2 or killed.poll() is not None, 600)
    assert killed.poll() is None, killed.communicate()[0]
    kill_all(killed)
    killed_runs = [one.folder for one in journals(here) if one.result is None]
    assert killed_runs, "it was at its end before it was killed"
    assert any((folder / "checkpoint.pt").is_file() for folder in killed_runs)

    output(mlflow_run("experiment", *asked))
    known = journals(here)
    assert len(known) == runs
    assert [one.result.outcome for one in known if one.result.outcome not in {"finished", "chance"}] == []
    assert max(len(one.attempts) for one in known) == 2
    for one in known:
        flat = flatten(one.spec)
        assert {field: flat[field] for field in settings} == settings
    if name == "folds":
        assert sorted((flatten(one.spec)["model.first_filters"], one.spec.data.fold) for one in known) == [
            (filters, fold) for filters in (8, 12) for fold in range(5)
        ]

    words = [part for parameter in asked for part in (f"--{parameter.partition('=')[0]}", parameter.partition("=")[2])]
    words[words.index("--runs_dir") + 1] = str(calm := tmp_path / "calm")
    undisturbed = subprocess.run(
        command("experiment", "--study", f"{name}.yaml", *words, "--offline", "true"),
        cwd=clone,
        env=linked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert digests(here) == digests(calm), "the killed runs end in the same bits"

    output(mlflow_run("compare", "out=report_" + name))
    report = clone / f"report_{name}"
    table = list(csv.DictReader((report / "tables" / f"{name}.csv").read_text().splitlines()))
    assert len(table) == rows
    assert {row["n"] for row in table} == {"5" if name == "folds" else "1"}
    assert "<svg" in (report / "index.html").read_text()
    if name == "grid":
        assert [(row["model.first_filters"], row["optimizer.final_lr"]) for row in table][:4] == [
            (filters, rate) for filters in ("8", "12") for rate in ("0.01", "0.1")
        ]
    shown = subprocess.run(
        command("show", known[0].spec.key, "--runs-dir", str(here)),
        cwd=clone, env=linked, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert known[0].spec.key in shown.stdout
