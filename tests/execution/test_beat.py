"""The side channel in which a run in training says where it stands."""

from __future__ import annotations

import signal
from pathlib import Path

from repro import journal
from repro.execution import beat
from repro.execution.beat import Beat, Pulse
from tests.execution.watching import wait_for


def test_what_is_written_is_read_and_goes_with_the_run(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    assert pulse.due
    assert beat.read(tmp_path) is None
    pulse.write(Beat(3, 20, 100, 1.25, 900.0))
    assert beat.read(tmp_path) == Beat(3, 20, 100, 1.25, 900.0)
    assert not pulse.due, "twice a second at most"
    pulse.stop()
    assert list(tmp_path.iterdir()) == []


def test_damage_is_no_beat(tmp_path: Path) -> None:
    for content in (b"", b"[]", b"{}", b'{"epoch": 1', b"\xff"):
        (tmp_path / beat.NAME).write_bytes(content)
        assert beat.read(tmp_path) is None


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    Pulse(tmp_path / "gone").write(Beat(1, 1, 1, 1.0, 1.0))


def test_a_run_in_training_says_where_it_stands_and_leaves_nothing(start, repro, long_words, tmp_path: Path) -> None:
    words = [*long_words(40), "--variant", "narrow", "--workers", "1", "--offline"]
    process = start(words)
    wait_for(lambda: any(beat.read(folder) for folder in journal.find(tmp_path / "runs")))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert repro(*words).returncode == 0
    assert not list((tmp_path / "runs").glob(f"*/{beat.NAME}"))
