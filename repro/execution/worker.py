"""One run in a process of its own: claim its folder, resume it, train, and write down every epoch.

    python -m repro.execution.worker < job        (one line of JSON; the input stays open for as long as the owner lives)

The worker knows nothing of MLflow. It ends when its run does, when it is told to (SIGTERM) and when its input closes,
which the kernel does for an owner that was killed; in the latter two cases it leaves a checkpoint to go on from.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TextIO

import torch
import yaml

from repro import journal
from repro.errors import InputError, ReproError, one_line
from repro.execution import disk, environment, predictions
from repro.execution.beat import Beat, Pulse
from repro.execution.checkpoint import Checkpoints
from repro.execution.job import Exit, Job
from repro.networks import PythonSpec, source
from repro.records import Environment, EpochRecord, Progress, RunResult
from repro.training import export
from repro.training.data import load
from repro.training.loop import Training
from repro.training.models import saved

_OF_THE_DEVICE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


class _Stop:
    """Whether the worker was told to stop: by SIGTERM or by the end of its owner."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner passes it on

    def _ask(self, *_: object) -> None:
        self.asked = True

    def when_closed(self, stream: TextIO) -> None:
        """Stops when `stream` ends, and ends the process if that has not helped within ten seconds."""

        def watch() -> None:
            while stream.read(1):
                pass
            self.asked = True
            time.sleep(10)
            os._exit(Exit.STOPPED)

        threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Runs the job on standard input; the result is an `Exit`."""
    stop = _Stop()
    for told in (environment.code, environment.packages, environment.training):
        told()  # and remembered, as it is now that this process has imported it
    line = sys.stdin.readline()
    if not line:
        return Exit.STOPPED  # the owner had nothing to train
    stop.when_closed(sys.stdin)
    try:
        return run(Job.parse(line), stop)
    except Exception as error:
        if not isinstance(error, (ReproError, OSError)):  # nobody foresaw it
            traceback.print_exc()
        print(one_line(error), file=sys.stderr)  # noqa: T201 - the log's last line
        return Exit.REFUSED if isinstance(error, InputError) else Exit.FAILED


def run(job: Job, stop: _Stop) -> Exit:
    """Trains a job's run to its end, or until it is stopped."""
    folder = job.folder
    folder.mkdir(parents=True, exist_ok=True)
    journal.sync(folder.parent)  # the folder's name lasts as its records do
    torch.set_num_threads(job.threads)
    lock = journal.claim(folder)
    if lock is None:
        return Exit.BUSY
    with lock:
        known = journal.read(folder)
        if known is not None and known.result is not None:
            return Exit.DONE
        writer = journal.Writer(folder)
        try:
            return _train(job, stop, writer, known.epochs if known is not None else ())
        finally:
            writer.close()


def _train(job: Job, stop: _Stop, writer: journal.Writer, known: Sequence[EpochRecord]) -> Exit:
    checkpoints = Checkpoints(job.folder, job.checkpoint_seconds)
    here = environment.gather(
        device=job.device, threads=job.threads, side_by_side=job.side_by_side, deterministic=job.deterministic
    )
    snapshot = checkpoints.load()  # one that cannot be read for the moment is said before anything is recorded
    training, failure = None, None
    try:
        training = _resumed(job, snapshot, len(known)) or _training(job, None)
        here = replace(here, step=training.way.step, step_reason=training.way.reason)
    except Exception as error:
        failure = error
    writer.append(
        journal.Attempt(
            journal=writer.journal_id,
            spec=job.spec.model_dump(mode="json"),
            study=job.study,
            variant=job.variant,
            environment=here,
            resumed_epoch=0 if training is None else training.epochs_done,
            pid=os.getpid(),
            images=() if training is None else training.images,
        )
    )
    try:
        if failure is not None or training is None:
            raise failure or AssertionError
        return _go_on(job, here, stop, writer, known, checkpoints, training)
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk does not take this either
            writer.append(journal.Stop("failed", one_line(error)))
        raise


def _training(job: Job, snapshot: Mapping[str, Any] | None) -> Training:
    data = load(job.cache, job.spec.data)
    return Training(job.spec, data, device=job.device, deterministic=job.deterministic, resume=snapshot)


def _resumed(job: Job, snapshot: Mapping[str, Any] | None, known: int) -> Training | None:
    """The training that a snapshot goes on with; None without one that fits the run and its journal of `known` epochs."""
    if snapshot is None or snapshot.get("key") != job.spec.key:
        return None
    try:
        training = _training(job, snapshot)
    except (*_OF_THE_DEVICE, OSError, MemoryError):
        raise  # memory or a disk may be full; the next attempt goes on from the snapshot
    except Exception:
        return None  # not a snapshot of this version; what else is wrong shows when the run starts anew
    return training if training.epochs_done <= known else None  # else its journal is gone


def _go_on(
    job: Job,
    here: Environment,
    stop: _Stop,
    writer: journal.Writer,
    known: Sequence[EpochRecord],
    checkpoints: Checkpoints,
    training: Training,
) -> Exit:
    _describe(job, here, training)
    pulse = Pulse(job.folder)
    for record in training:
        match record:
            case Progress():
                if pulse.due:
                    pulse.write(Beat(record.epoch, record.step, record.steps, *training.pace()))
                if stop.asked:
                    checkpoints.save(training.snapshot())
                    writer.append(journal.Stop("killed", f"stopped in epoch {record.epoch}"))
                    return Exit.STOPPED
                if checkpoints.due:
                    checkpoints.save(training.snapshot())
            case EpochRecord():
                if record.epoch > len(known):
                    writer.append(record)
                else:
                    for difference in journal.differences(known[record.epoch - 1], record):
                        writer.append(difference)
                if record.epoch == job.until:
                    return Exit.DONE
            case RunResult():
                _keep(job, training, record)
                writer.append(record)
    checkpoints.remove()
    pulse.stop()
    return Exit.DONE


def _describe(job: Job, here: Environment, training: Training) -> None:
    """What is known of a run before its first epoch, beside its journal."""
    facts = asdict(here)
    packages = facts.pop("packages")
    lines = [f"{name}: {value}" for name, value in facts.items()]
    lines += ["", *(f"{name}=={version}" for name, version in packages.items())]
    described: dict[str, bytes] = {
        "spec.yaml": yaml.safe_dump(job.spec.model_dump(mode="json"), sort_keys=False).encode(),
        "environment.txt": "\n".join(lines).encode() + b"\n",
        "architecture.json": json.dumps(asdict(training.architecture()), indent=1).encode() + b"\n",
    }
    diff, (now, former) = environment.code().diff, (job.folder / name for name in ("diff.patch", "former.patch"))
    kept = former.read_bytes() if former.exists() and training.epochs_done else b""
    if training.epochs_done and now.exists() and (before := now.read_bytes()) != diff.encode():
        kept += before
    for path, content in ((now, diff.encode()), (former, kept)):
        if content:
            described[path.name] = content
        else:
            path.unlink(missing_ok=True)
    if isinstance(job.spec.model, PythonSpec):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in source(job.spec.model.function):
                archive.writestr(zipfile.ZipInfo(name), content)
        described["source.zip"] = packed.getvalue()
    for name, content in described.items():
        disk.write(job.folder / name, content)


def _keep(job: Job, training: Training, result: RunResult) -> None:
    """What a run leaves at its end: the best weights, their program, their predictions and the confusion matrix."""
    folder, state = job.folder, training.best_state()
    disk.write(folder / "model.pt", saved(state))
    if job.export and result.best_epoch:
        try:
            disk.write(folder / "model.pt2", export.exported(job.spec, state, training.data))
        except Exception as error:  # torch may trace no such network; the run is finished all the same
            disk.write(folder / "not_exported.txt", one_line(error).encode() + b"\n")
    if training.predictions is not None:
        predictions.write(folder, training.predictions)
    classes, table = training.data.classes, io.StringIO()
    rows = [(name, *counts) for name, counts in zip(classes, result.confusion, strict=False)]
    csv.writer(table, lineterminator="\n").writerows([("true \\ predicted", *classes), *rows])
    disk.write(folder / "confusion.csv", table.getvalue().encode())


if __name__ == "__main__":
    sys.exit(main())
