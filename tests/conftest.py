"""What tests of whole sweeps share: the embedded data set, a study of tiny networks, and `repro` as a user starts it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from tests.starting import command, environment

# The same examples in every run, however slow the machine; `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2_000, deadline=None)
settings.load_profile("same")

TINY = """
study: tiny
title: Tiny networks
question: Does the pipeline work?
base: narrow
axis: model.first_filters
variants:
  narrow:
    title: Narrow
    set:
      model.name: squeezenet
      model.fire_modules: 2
      model.base_e: 8
      model.incr_e: 0
      model.squeeze_ratio: 0.5
      model.first_filters: 8
      model.first_stride: 4
      model.batch_norm: all
    labels: {width: narrow}
  wide:
    title: Wide
    set: {model.first_filters: 12}
    labels: {width: wide}
    published: {accuracy: 50.0, size: 0.01}
"""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds the cache of the embedded data set."""
    from repro.training.prepare import prepare

    folder = tmp_path_factory.mktemp("data")
    prepare("digits", folder)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A study of two networks that train an epoch of digits in a fraction of a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


Repro = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repro(tmp_path: Path, digits: Path) -> Repro:
    """Runs `repro` in an empty folder: `repro("plan", "--study", "ablation")`; returns the completed process."""

    def run(
        *words: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words),
            cwd=tmp_path,
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def sweep_words(tiny: Path, digits: Path) -> list[str]:
    """The words of a sweep of the tiny study: two runs of three epochs."""
    return [
        "experiment",
        "--study",
        str(tiny),
        "--dataset",
        "digits",
        "--data-dir",
        str(digits),
        "--seeds",
        "0",
        "--epochs",
        "3",
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if mounted.returncode:
        pytest.skip(f"a tmpfs is not permitted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
