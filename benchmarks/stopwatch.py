"""A stopwatch that a training loop carries: it leaves out the warm-up and whatever lies between two epochs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

REPORT = "stopwatch: "
"""Head of the lines that a program under measurement says of itself on standard output."""


@dataclass(frozen=True, slots=True)
class Report:
    """Steps that were measured, and the seconds they took."""

    steps: int
    seconds: float


class Stopwatch:
    """Measures `steps` steps after `warmup` ones.

    Time counts from one call of `at` to the next one in the same epoch, so validation is outside, and a loop that calls
    it every few steps is measured as well as one that calls it at each.

    Args:
        warmup: steps that are not measured.
        steps: steps to measure.
        say: gets `ready` when the warm-up is over, and then the report as JSON, a line each.
        clock: seconds.
    """

    def __init__(
        self,
        warmup: int,
        steps: int,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._warmup, self._wanted = warmup, steps
        self._say, self._clock = say, clock
        self._last: tuple[int, int, float] | None = None
        self._steps, self._seconds = 0, 0.0
        self._ready = False
        self.held = threading.Event()
        """While it is set, further steps count as warm-up: other programs are not ready yet."""

    def at(self, epoch: int, step: int) -> None:
        """Says that `step` steps of `epoch` are done; both count from 1."""
        now = self._clock()
        if self._last is not None and self._last[0] == epoch and not self.done:
            passed, seconds = step - self._last[1], now - self._last[2]
            if passed == 0:
                pass  # between the batches of a validation
            elif self._warmup > 0 or self.held.is_set():
                self._warmup -= passed
            else:
                self._steps += passed
                self._seconds += seconds
                if self.done:
                    self._tell(json.dumps({"steps": self._steps, "seconds": self._seconds}))
        if self._warmup <= 0 and not self._ready:
            self._ready = True
            self._tell("ready")
        self._last = (epoch, step, now)

    @property
    def done(self) -> bool:
        """Whether all steps are measured."""
        return self._steps >= self._wanted

    @property
    def report(self) -> Report:
        """What was measured so far."""
        return Report(self._steps, self._seconds)

    def _tell(self, line: str) -> None:
        if self._say is not None:
            self._say(line)


def say(line: str) -> None:
    """A line to the harness."""
    print(f"{REPORT}{line}", flush=True, file=sys.stdout)


def heard(line: str) -> str | None:
    """What a program's line says to the harness; None for any other output."""
    return line.removeprefix(REPORT).strip() if line.startswith(REPORT) else None
