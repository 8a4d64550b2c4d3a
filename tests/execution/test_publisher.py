"""How long a sweep waits for its store at the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from repro.execution.publisher import Publisher
from repro.tracking.failures import TrackingError
from repro.tracking.writer import Published


class SlowWriter:
    """A store that takes its time for everything."""

    def __init__(self, each: float, upload: float = 0.0, end: float = 0.0) -> None:
        self.each, self.upload, self.end = each, upload, end
        self.away = False
        self.refused = 0

    def open_sweep(self, *_: object, **__: object) -> str:
        return "sweep"

    def publish(self, *_: object, **__: object) -> Published:
        if self.away:
            self.refused += 1
            raise TrackingError("away")
        time.sleep(self.each + self.upload)
        return Published("run", 1)

    def close_sweep(self, *_: object, **__: object) -> None:
        time.sleep(self.end)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`made(writer, runs)`: a publisher with as many runs to publish and no table."""
    monkeypatch.setattr(Publisher, "_conclude", lambda self, *_: self._writer.close_sweep())

    def make(writer: SlowWriter, runs: int) -> Publisher:
        publisher = Publisher(writer, None, {}, None, lambda _: None)  # type: ignore[arg-type]
        for number in range(runs):
            publisher.note(tmp_path / str(number))
        publisher.start()
        return publisher

    return make


def test_patience_counts_from_the_last_progress(made) -> None:
    publisher = made(SlowWriter(each=0.4), 5)
    assert publisher.close("FINISHED", 0.9) == 0  # two seconds in all
    assert publisher.closed


def test_a_slow_upload_is_waited_for(made) -> None:
    publisher = made(SlowWriter(each=0.0, upload=1.5), 1)
    assert publisher.close("FINISHED", 0.3) == 0
    assert publisher.closed


def test_a_slow_end_is_waited_for_also_where_the_store_was_away_before(made) -> None:
    writer = SlowWriter(each=0.0, end=1.5)
    writer.away = True
    publisher = made(writer, 1)
    deadline = time.monotonic() + 60
    while not writer.refused and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.away = False
    assert publisher.close("FINISHED", 0.3) == 0
    assert publisher.closed


def test_a_store_that_makes_no_progress_is_given_up(made) -> None:
    writer = SlowWriter(each=0.0)
    writer.away = True
    publisher, began = made(writer, 2), time.monotonic()
    assert publisher.close("FINISHED", 0.5) == 2
    assert 0.4 < time.monotonic() - began < 5


def test_a_store_that_is_away_for_long_is_waited_for(made, tmp_path: Path) -> None:
    writer = SlowWriter(each=0.0)
    writer.away = True
    publisher = made(writer, 1)
    deadline = time.monotonic() + 60
    while writer.refused < 1100 and time.monotonic() < deadline:
        publisher.note(tmp_path / "0", "failed")  # a run that ended is published at once
    writer.away = False
    assert writer.refused >= 1100
    assert publisher.close("FINISHED", 10) == 0


def test_a_sweep_that_is_stopped_does_not_wait_for_an_upload(made) -> None:
    publisher, began = made(SlowWriter(each=0.0, upload=3.0), 1), time.monotonic()
    time.sleep(0.2)
    assert publisher.close("KILLED", 0.5) == 1
    assert time.monotonic() - began < 2.5
