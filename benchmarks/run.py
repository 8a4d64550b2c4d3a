"""Measures everything, in turn and on this machine, and adds it to the record: `python -m benchmarks.run`.

Figures of CIFAR-10 are recorded in record.jsonl, except those of --quick; digits is there to try the harness out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks import processes, record, start
from benchmarks.asked import MODELS, Asked
from benchmarks.record import RECORD, Measurement
from benchmarks.report import history, markdown, products_by_layer, where_time_goes
from repro.errors import ReproError
from repro.execution import environment
from repro.execution.environment import cores

__all__ = ["history", "main", "markdown", "products_by_layer", "where_time_goes"]

ALEXNET_SHARE = 4
"""AlexNet's steps take about six times as long as SqueezeNet's; it is measured over a quarter as many."""
TRACKED_EPOCHS = 100
FLAT_SHARE = 3
"""Training steps of the run of many epochs, in steps of the comparison."""
FOLDER_IMAGES = 100_000
"""Images of the folder that is converted and trained."""
GPU_EPOCHS = 3
"""Epochs of a measurement on a GPU, after one that captures the step."""
GPU_RUNS = (1, 2, 4, 8)
"""Runs side by side on one GPU, in processes of their own."""
QUICK = ("throughput", "step", "start", "tracking")


@dataclass(frozen=True, slots=True)
class Options:
    """What the harness is asked for."""

    dataset: str
    data_dir: Path
    rounds: int
    steps: int
    quick: bool
    parts: tuple[str, ...]

    def asked(self, model: str, precision: str = "fp32", workers: int = 0) -> Asked:
        """One measurement of one program."""
        steps = self.steps if model == "squeezenet_bn" else max(2, self.steps // ALEXNET_SHARE)
        return Asked(model, precision, self.dataset, self.data_dir.absolute(), max(2, steps // 10), steps, workers)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What is measured once a precision."""
        return ("fp32",) if self.quick else ("fp32", "bf16")


def throughput(options: Options, number: int) -> Iterator[Measurement]:
    """Images a second of all programs, one after another."""
    for model in MODELS:
        peers = {workers: _rate("usual_loop", options.asked(model, workers=workers), number) for workers in (0, 2)}
        yield from peers.values()
        yield _rate("ours", options.asked(model), number)
        if find_spec("lightning") is not None:
            better = max(peers, key=lambda workers: peers[workers]["images_per_second"])
            yield _rate("lightning_loop", options.asked(model, workers=better), number)
        yield _rate("ours", options.asked(model, "bf16"), number)


def _rate(program: str, asked: Asked, number: int) -> Measurement:
    count, threads = (cores(), 1) if program == "ours" else (1, None)
    reports, memory = processes.timed(program, asked.words(), count=count, threads=threads)
    images = asked.spec.training.batch_size
    return {
        "part": "throughput",
        "round": number,
        "program": program,
        "model": asked.model,
        "precision": asked.precision,
        "workers": asked.workers,
        "processes": count,
        "images_per_second": sum(images * report.steps / report.seconds for report in reports),
        "pss_mib": memory,
    }


def step(options: Options, number: int) -> Iterator[Measurement]:
    """A training step against the bare passes; it has rounds of its own, so the harness's first one is enough."""
    if number == 1:
        yield from _each(options, "step", options.precisions)


def profile(options: Options, number: int) -> Iterator[Measurement]:
    """Where the time of a step goes, once."""
    if number == 1:
        yield from _each(options, "profile", ("fp32", "bf16"))


def products(options: Options, number: int) -> Iterator[Measurement]:
    """Single layers, torch's ways and this project's, once."""
    if number == 1:
        yield from _each(options, "products", ("fp32",))


def mechanisms(options: Options, number: int) -> Iterator[Measurement]:
    """Steps with and without each mechanism, once."""
    if number == 1:
        yield from _each(options, "mechanisms", ("fp32",))


def folder(options: Options, number: int) -> Iterator[Measurement]:
    """Memory of a large folder of images, once."""
    if number == 1:
        asked = replace(options.asked("squeezenet_bn"), steps=options.steps if options.quick else FOLDER_IMAGES)
        for found in processes.values("folder", asked.words(), threads=1):
            yield {"part": "folder", **found}


def _each(options: Options, module: str, precisions: tuple[str, ...]) -> Iterator[Measurement]:
    for model in MODELS:
        for precision in precisions:
            asked = options.asked(model, precision)
            for found in processes.values(module, asked.words(), threads=1):
                yield {"part": module, "model": model, "precision": precision, **found}


def begin(options: Options, number: int) -> Iterator[Measurement]:
    """What a user waits for, in each round."""
    with tempfile.TemporaryDirectory(prefix="repro-bench-") as name:
        yield {
            "part": "start",
            "round": number,
            "help_seconds": start.help_seconds(Path(name)),
            "first_step_seconds": start.first_step_seconds(Path(name), options.dataset, options.data_dir, cores()),
        }


def tracking(options: Options, number: int) -> Iterator[Measurement]:
    """What an epoch costs outside of training, once."""
    if number == 1:
        asked = replace(options.asked("squeezenet_bn"), steps=min(TRACKED_EPOCHS, options.steps))
        for found in processes.values("tracking_cost", asked.words(), threads=1):
            yield {"part": "tracking", **found}


def flat(options: Options, number: int) -> Iterator[Measurement]:
    """Seconds of an epoch from the first to the last, once, on digits, whose epochs are short."""
    if number == 1:
        asked = replace(options.asked("squeezenet_bn"), dataset="digits", steps=options.steps * FLAT_SHARE)
        for found in processes.values("flat", asked.words(), threads=1):
            yield {"part": "flat", "model": "squeezenet_bn", **found}


def gpu(options: Options, number: int) -> Iterator[Measurement]:
    """Seconds of an epoch on a GPU: of some runs side by side, of one that need not be repeatable, and of the usual loop.

    Raises:
        ReproError: there is no CUDA device, and nothing else is asked for.
    """
    import torch

    if not torch.cuda.is_available():
        if options.parts == ("gpu",):
            raise ReproError("--only gpu: there is no CUDA device here")
        return
    card = environment.gather(device="cuda", threads=1, side_by_side=1, deterministic=True).hardware
    settings = [*(("ours", count, True) for count in GPU_RUNS), ("ours", 1, False)]
    for model in MODELS:
        for precision in ("fp32", "bf16"):
            peers = [("usual_loop", 1, False)] if precision == "fp32" else []
            for program, count, deterministic in [*settings, *peers]:
                asked = replace(
                    options.asked(model, precision, workers=2),
                    **{"device": "cuda", "deterministic": deterministic, "warmup": 1, "steps": GPU_EPOCHS},
                )
                reports, _ = processes.timed(program, asked.words(), count=count, threads=1)
                yield {
                    "part": "gpu",
                    "round": number,
                    "hardware": card,
                    "program": program,
                    "model": model,
                    "precision": precision,
                    "deterministic": deterministic,
                    "processes": count,
                    "epoch_seconds": [report.seconds / report.steps for report in reports],
                }


PARTS: dict[str, Callable[[Options, int], Iterator[Measurement]]] = {
    "throughput": throughput,
    "step": step,
    "start": begin,
    "tracking": tracking,
    "flat": flat,
    "profile": profile,
    "products": products,
    "mechanisms": mechanisms,
    "folder": folder,
    "gpu": gpu,
}


def parse(words: list[str]) -> Options:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--dataset", choices=("cifar10", "digits"), default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of the data sets (data)")
    parser.add_argument("--rounds", type=_positive, default=None, help="times that everything is measured (3)")
    parser.add_argument("--steps", type=_positive, default=None, help="training steps of a measurement (200)")
    parser.add_argument("--only", choices=PARTS, default=None, help="one part of it")
    parser.add_argument("--quick", action="store_true", help="one round, few steps, not recorded")
    given = parser.parse_args(words)
    return Options(
        dataset=given.dataset,
        data_dir=given.data_dir,
        rounds=given.rounds or (1 if given.quick else 3),
        steps=given.steps or (20 if given.quick else 200),
        quick=given.quick,
        parts=(given.only,) if given.only else QUICK if given.quick else tuple(PARTS),
    )


def measure(options: Options) -> record.Record:
    """Measures all that is asked for, round by round, and says each figure as it comes.

    A part whose program fails is said and left out from there on; what is measured by then is kept.

    Raises:
        ReproError: the data set is not there, or the first program under measurement failed.
    """
    _prepare(options)
    measurements: list[Measurement] = []
    load = []
    failed: set[str] = set()
    for number in range(1, options.rounds + 1):
        load.append(os.getloadavg()[0])
        for part in (part for part in options.parts if part not in failed):
            try:
                for found in PARTS[part](options, number):
                    measurements.append(found)
                    print(_line(found), file=sys.stderr, flush=True)
            except ReproError as error:
                if not measurements:
                    raise
                failed.add(part)
                print(f"benchmarks: {part} is left out: {error}", file=sys.stderr, flush=True)
    asked = {"dataset": options.dataset, "rounds": options.rounds, "steps": options.steps, "quick": options.quick}
    return record.make(asked, load, measurements)


def main(words: list[str]) -> int:
    """Measures, shows and records what a command line asks for; returns the exit code."""
    options = parse(words)
    if find_spec("lightning") is None and "throughput" in options.parts:
        print("Lightning is not installed (benchmarks/requirements.txt): left out", file=sys.stderr)
    try:
        made = measure(options)
    except ReproError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    for part, show in ((None, markdown), ("profile", where_time_goes), ("products", products_by_layer)):
        if part is None or part in options.parts:
            print(f"\n{show([made])}")
    if options.dataset == "cifar10" and not options.quick:
        record.append(made)
        print(f"added to {RECORD}; `make docs` brings it into the documents")
    return 0


def _prepare(options: Options) -> None:
    from repro.training.prepare import prepare  # torch, which reading the record must not wait for

    prepare(options.dataset, options.data_dir)
    prepare("digits", options.data_dir)  # for the run of many epochs


def _line(found: Measurement) -> str:
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items())
    return ", ".join(shown)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of times (allowed: 1 and more)")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
