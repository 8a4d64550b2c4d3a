"""What is there before a sweep is planned: the cache file of its data set, and networks that were tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import datasets
from repro.cli.words import counted
from repro.errors import InputError, ReproError, few

if TYPE_CHECKING:
    from repro.studies import Plan

_NAMED = 5
"""Files that cannot be read are named up to this number; the manifest has all."""


def cache_of(data: datasets.DataSpec, folder: Path) -> Path:
    """The cache file of a run's data set, made where it is not there and its files can be found by its name."""
    found = datasets.cache_of(data.dataset, data.digest, folder)
    if found.is_file():
        return found
    if data.dataset.startswith(datasets.FOLDER):
        raise InputError(
            f"{found}: is missing; `repro data --dataset {datasets.FOLDER}:PATH --set data.image_size={data.image_size}"
            f" --data-dir {folder}` makes it from the folder of its images"
        )
    return cache(data.dataset, folder)


def cache(dataset: str, folder: Path, side: int = 32) -> Path:
    """The cache file of a data set, made where it is not there yet; files of a folder that are no images are named."""
    name = datasets.named(dataset, side)
    if name.startswith(datasets.FOLDER):
        from repro.training.prepare import prepare

        with progress_bar(f"decoding {dataset}") as told:
            made = prepare(dataset, folder, side, told)
        if files := unreadable(known(dataset, made)):
            click.echo(files, err=True)
        return made
    if not datasets.prepared(folder, name):  # in a process of its own, for reading it takes torch
        _in_a_process(f"{dataset}: the images", "repro.cli", "data", "--dataset", dataset, "--data-dir", str(folder))
    return datasets.cache_of(name, datasets.prepared(folder, name)[0].digest, folder)


def known(dataset: str, cache: Path) -> datasets.KnownData:
    """What is known of the data set whose cache file was prepared."""
    found = datasets.DATASETS.get(dataset) or datasets.read(cache.with_suffix(".json"))
    if found is None:
        raise InputError(f"{cache.with_suffix('.json')}: is missing; delete {cache.name} to prepare the data set again")
    return found


def needed(settings: Mapping[str, Any], folder: Path) -> datasets.KnownData | None:
    """What is known of the data set of some settings where only its files tell; they are prepared for that."""
    dataset = str(settings.get("data.dataset", "cifar10"))
    return None if dataset in datasets.DATASETS else known(dataset, cache(dataset, folder, side(settings)))


def unreadable(data: datasets.KnownData) -> str:
    """Which files of a folder are no images, in a line; "" where all are."""
    named = few(data.unreadable, _NAMED)
    return f"{counted(len(data.unreadable), 'file')} cannot be read as images: {named}" if named else ""


def side(settings: Mapping[str, Any]) -> int:
    """The side that a folder's images are brought to: `data.image_size`."""
    given = settings.get("data.image_size", 32)
    if not isinstance(given, int) or not 8 <= given <= 1024:
        raise InputError(f"data.image_size: got {given!r} (allowed: a whole number, at least 8 and at most 1024)")
    return given


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error output, which appears with the first image done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    shown = Progress(*columns, console=Console(stderr=True))
    task = shown.add_task(title, total=None)

    def told(done: int, total: int) -> None:
        shown.start()
        shown.update(task, completed=done, total=total)

    try:
        yield told
    finally:
        if shown.live.is_started:
            shown.stop()


def try_networks(wanted: Plan) -> None:
    """Tries networks of torchvision and of one's own on a few images, each once, in a process of their own: it takes torch."""
    import json

    from repro.networks import PythonSpec, TorchvisionSpec

    specs = {
        (run.spec.model, run.spec.training.precision, run.spec.training.batch_size): run.spec
        for run in wanted.runs
        if isinstance(run.spec.model, PythonSpec | TorchvisionSpec)
    }
    if specs:
        given = json.dumps([spec.model_dump(mode="json") for spec in specs.values()])
        _in_a_process("the networks", "repro.training.trial", given=given)


def _in_a_process(what: str, module: str, *arguments: str, given: str = "") -> None:
    """Runs a module that ends with one line where it fails, and raises that line."""
    import subprocess

    from repro.execution.process import command

    done = subprocess.run(command(module, *arguments), input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{what} could not be prepared, and no reason was given"]
        message = said[-1].removeprefix("repro: ")
        if done.returncode < 0:  # most often for want of memory
            message = f"{what} could not be prepared: killed by signal {-done.returncode} (out of memory?)"
        raise (InputError if done.returncode == 2 else ReproError)(message)
