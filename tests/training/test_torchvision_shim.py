"""torchvision imports beside any torch, and is left alone where it is whole. Each case has an interpreter of its own."""

from __future__ import annotations

import _bisect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(code, *folders):
    """What `code` prints, with `folders` in front of everything installed."""
    paths = [str(folder) for folder in (*folders, REPOSITORY)]
    start = f"import sys\nsys.path[:0] = {paths!r}\n"
    start += "import torch\nfrom repro.training.torchvision_shim import import_torchvision\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.fixture
def empty_torchvision(tmp_path):
    """A package of that name that does nothing, with a library of operators that loads where one is put beside it."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    return tmp_path


def test_the_installed_torchvision_imports_twice():
    code = "first, again = import_torchvision(), import_torchvision()\n"
    code += "print(first is again is sys.modules['torchvision'], first.datasets.CIFAR10.__name__)"
    assert run(code) == ["True", "CIFAR10"]


def test_operators_are_declared_where_none_can_be_loaded(empty_torchvision):
    (empty_torchvision / "torchvision" / "_C.so").write_text("not a library")
    code = "import_torchvision()\nprint(torch.ops.torchvision.nms.default._schema)"
    assert "".join(run(code, empty_torchvision)).startswith(
        "torchvision::nms(Tensordets,Tensorscores,floatiou_threshold)"
    )


def test_nothing_is_declared_where_the_operators_load(empty_torchvision):
    shutil.copy(_bisect.__file__, empty_torchvision / "torchvision" / "_C.so")
    assert run("import_torchvision()\nprint(hasattr(torch.ops.torchvision, 'nms'))", empty_torchvision) == ["False"]


def test_nothing_is_declared_where_the_operators_are_there_already(empty_torchvision):
    code = "schema = '(Tensor dets, Tensor scores, float iou_threshold, int mine) -> Tensor'\n"
    code += "torch.library.define('torchvision::nms', schema)\nimport_torchvision()\n"
    code += "print('mine' in str(torch.ops.torchvision.nms.default._schema), hasattr(torch.ops.torchvision, 'qnms'))"
    assert run(code, empty_torchvision) == ["True", "False"]
