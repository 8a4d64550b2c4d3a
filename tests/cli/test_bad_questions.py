"""Networks, images, folds and grids of one's own that cannot be: one line, exit code 2, and nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro import studies
from repro.cli.options import make_plan

HEAD = "study: mine\ntitle: Mine\nquestion: Which?\n"
MODULES = {
    "my_nets.py": """
from torch import nn

def small(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, classes))

def nothing(classes):
    print("said on the way")

def deep(depth, classes):
    return small(classes)

def seven(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))

def map_of_logits(classes):
    return nn.Conv2d(3, classes, 3)

def for_other_sizes(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(100, classes))

def fails():
    raise ValueError("two\\nlines")
""",
    "lacking.py": "import no_such_package\n",
    "broken.py": "def net(:\n",
    "script.py": "import sys\nsys.exit(3)\n",
}


def refused(repro, tmp_path: Path, *words: str) -> str:
    """The one line on the error output, a bar of progress above it aside, after which nothing is there that trains."""
    done = repro(words[0], "--seeds", "0", *words[1:])  # of an option that is given twice the last counts
    assert (done.returncode, done.stdout) == (2, "")
    bar, _, line = done.stderr.rpartition("repro: ")
    assert bar.count("\n") == bar.startswith("decoding")
    assert line.count("\n") == 1, line
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()
    return line


def experiment(tmp_path: Path, digits: Path, text: str) -> list[str]:
    (tmp_path / "mine.yaml").write_text(HEAD + text)
    return ["experiment", "--study", "mine.yaml", "--dataset", "digits", "--data-dir", str(digits)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("my_nets:smal", "unknown function of my_nets 'smal'; did you mean 'small'? (allowed: deep, "),
        ("my_net:small", "there is no module 'my_net'; did you mean 'my_nets'?"),
        ("my_nets", "got 'my_nets' (allowed: module:function, for example my_nets:small)"),
        ("lacking:net", "lacking cannot be imported (ModuleNotFoundError: No module named 'no_such_package')"),
        ("broken:net", "broken cannot be imported (SyntaxError: invalid syntax (broken.py, line 1))"),
        ("script:net", "script cannot be imported (SystemExit: 3)"),
        ("my_nets:nothing", "my_nets:nothing: returned None (allowed: a torch.nn.Module)"),
        ("my_nets:deep", "is called with classes: missing a required argument: 'depth' (it takes depth, classes)"),
        (
            "my_nets:seven",
            "on 2 images of 32x32 in fp32: returned the shape (2, 7) (allowed: (2, 10), one logit per class)",
        ),
        ("my_nets:map_of_logits", "returned the shape (2, 10, 30, 30) (allowed: (2, 10), one logit per class)"),
        ("my_nets:for_other_sizes", "mat1 and mat2 shapes cannot be multiplied (1x3072 and 100x10)"),
        ("my_nets:fails", "my_nets:fails: ValueError: two lines"),
    ],
)
def test_a_network_of_ones_own(repro, digits, tmp_path, function, said):
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    row = f"variants: {{v: {{title: V, set: {{model.name: python, model.function: '{function}'}}}}}}"
    assert said in refused(repro, tmp_path, *experiment(tmp_path, digits, row))


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (
            "variants: {v: {title: V, set: {model.name: torchvision, model.architecture: resnet8}}}",
            (),
            "unknown network of torchvision 'resnet8'; did you mean 'resnet18'?",
        ),
        (
            "variants: {v: {title: V, set: {model.name: torchvsion, model.architecture: resnet18}}}",
            (),
            "unknown value 'torchvsion'; did you mean 'torchvision'?",
        ),
        (
            "base: reproducibility/squeezenet\ngrid: {model.dropuot: [0.1, 0.2]}",
            (),
            "variants.dropuot_0_1: model: unknown key 'dropuot'; did you mean 'dropout'?",
        ),
        (
            "base: reproducibility/squeezenet\ngrid: {model.dropout: [0.1, 2]}",
            (),
            "variants.dropout_2: model.dropout: got 2 (allowed: a number, at least 0 and below 1)",
        ),
        ("base: reproducibility/squeezenet\ngrid: {model.dropout: 0.1}", (), "got 0.1 (allowed: a list of values"),
        (
            "base: reproducibility/squeezenet\nzip: {model.dropout: [0.1, 0.2], model.base_e: [64]}",
            (),
            "zip: its lists must have equal lengths (got 2 of model.dropout, 1 of model.base_e)",
        ),
        (
            f"base: reproducibility/squeezenet\ngrid: {{training.epochs: {list(range(1, 102))},"
            f" training.batch_size: {list(range(2, 102))}}}",
            (),
            "grid: has 10,100 variants (allowed: at most 10,000)",
        ),
        (
            "base: reproducibility/squeezenet\ninclude_base: false\ngrid: {model.dropout: [0.1, 0.2]}",
            ("--folds", "2", "--seeds", "0-2500"),
            "plan: 10,004 runs (allowed: at most 10,000); choose fewer variants, seeds or folds",
        ),
        (
            "base: reproducibility/squeezenet\nfolds: 157\ngrid: {model.dropout: [0.1, 0.2]}",
            (),
            "data.folds: 157 folds need 157 images of every class; one of digits has 156 for training and validation"
            " (allowed: 2 to 156)",
        ),
        (
            "variants: {v: {title: V, base: reproducibility/squeezenet}}",
            ("--folds", "1"),
            "data.folds: got 1 (allowed:",
        ),
    ],
)
def test_a_network_of_torchvision_a_grid_and_folds(repro, digits, tmp_path, text, words, said):
    assert said in refused(repro, tmp_path, *experiment(tmp_path, digits, text), *words)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """101 images of cats and 100 of dogs, 12 pixels wide."""
    generator = np.random.default_rng(0)
    for label, count in (("cat", 101), ("dog", 100)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:03}.png")
    return tmp_path / "photos"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


PHOTOS = ["experiment", "--study", "demo", "--variant", "alexnet", "--dataset", "imagefolder:photos"]


def test_a_class_without_a_file(repro, photos, tmp_path):
    (photos / "bird").mkdir()
    line = refused(repro, tmp_path, *PHOTOS)
    assert line == f"{photos / 'bird'}: is empty; add images of the class, or delete the folder\n"


def test_files_that_are_no_images_are_named_and_counted_and_refused_beyond_a_hundredth(repro, photos, tmp_path):
    truncate(photos / "cat" / "007.png")
    (photos / "dog" / "list.txt").write_text("no image\n")
    done = repro("plan", "--study", "demo", "--variant", "alexnet", "--dataset", "imagefolder:photos", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
    assert done.stderr.splitlines()[-1] == "2 files cannot be read as images: cat/007.png, dog/list.txt"
    assert repro("data", "--dataset", "imagefolder:photos").stdout.splitlines()[1] == done.stderr.splitlines()[-1]

    truncate(photos / "dog" / "050.png")
    assert refused(repro, tmp_path, *PHOTOS) == (
        f"{photos}: 3 of 202 files cannot be read as images (allowed: 1%): cat/007.png, dog/050.png, dog/list.txt;"
        " repair or delete them\n"
    )


STUDY = {
    "study": "mine",
    "title": "Mine",
    "question": "Q?",
    "variants": {"a": {"title": "A", "set": {"model.name": "squeezenet"}, "published": {"size": 2.35}}},
}


def test_a_study_declares_its_images_and_their_size_which_a_command_can_change(repro, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = STUDY | {"dataset": "imagefolder:photos", "image_size": 40, "folds": 2}
    (tmp_path / "mine.yaml").write_text(json.dumps(study))

    def planned(dataset=None, overrides="") -> list[tuple[str, int, int | None, int | None]]:
        rest = dict.fromkeys(("folds", "epochs", "patience", "batch_size"))
        asked = {"dataset": dataset, "overrides": overrides, "seeds": "0", "data_dir": "data", **rest}
        specs = [run.spec.data for run in make_plan([(studies.load("mine.yaml"), ["a"])], asked).runs]
        return [(one.dataset, one.image_size, one.folds, one.fold) for one in specs]

    assert planned() == [("imagefolder:photos", 40, 2, 0), ("imagefolder:photos", 40, 2, 1)]
    assert planned(overrides="data.image_size=48")[0] == ("imagefolder:photos", 48, 2, 0)
    assert planned(dataset="digits")[0] == ("digits", 32, 2, 0)
    (model,) = json.loads(repro("models", "--study", "mine.yaml", "--data-dir", "one", "--json").stdout)
    assert model["parameters"] == 736450, "with two classes, and once, whatever the folds"
    audited = repro("audit", "--study", "mine.yaml", "--data-dir", "other", "--details")
    assert "(736,450 parameters)" in audited.stdout
    assert all(list((tmp_path / folder).glob("imagefolder-*.u8")) for folder in ("one", "other"))


def test_a_data_set_of_a_study_that_cannot_be(repro, photos, tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps(STUDY | {"dataset": "photos"}))
    said = refused(repro, tmp_path, "experiment", "--study", "mine.yaml")
    assert said.startswith("mine.yaml: dataset: unknown data set 'photos' (allowed: cifar10, ")


def test_a_folder_that_is_not_there_and_more_folds_than_images_of_a_class(repro, photos, tmp_path):
    words = [*PHOTOS[:-1], "imagefolder:photo"]
    assert refused(repro, tmp_path, *words) == (
        f"imagefolder: {tmp_path / 'photo'} is not a folder; did you mean 'photos'?\n"
    )
    line = refused(repro, tmp_path, *PHOTOS, "--folds", "91")
    assert "91 folds need 91 images of every class; one of imagefolder:photos has 90 for training" in line
