"""What an epoch costs outside of training: its record in the journal, and its way into a sqlite store."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import asked
from benchmarks.stopwatch import say
from repro import journal
from repro.execution import environment
from repro.records import EpochRecord
from repro.tracking.store import connect
from repro.tracking.writer import Writer


def main() -> None:
    """Prints the median milliseconds of both over `--steps` epochs of one run."""
    given = asked.parse()
    appended, published = [], []
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        known = journal.Writer(folder)
        known.append(
            journal.Attempt(
                journal=known.journal_id,
                spec=given.spec.model_dump(mode="json"),
                study="reproducibility",
                variant=given.model,
                environment=environment.gather(device="cpu", threads=1, side_by_side=1, deterministic=True),
                resumed_epoch=0,
                pid=0,
            )
        )
        store = Writer(connect())
        store.publish(folder, parent=None)
        for epoch in range(1, given.steps + 1):
            record = EpochRecord(epoch, 1 / epoch, 0.5, 1 / epoch, 0.5, 1.0)
            began = time.perf_counter()
            known.append(record)
            written = time.perf_counter()
            store.publish(folder, parent=None)
            appended.append((written - began) * 1000)
            published.append((time.perf_counter() - written) * 1000)
        known.close()
    say(
        json.dumps(
            {
                "epochs": given.steps,
                "journal_ms": statistics.median(appended),
                "publish_ms": statistics.median(published),
            }
        )
    )
    say("done")


if __name__ == "__main__":
    main()
