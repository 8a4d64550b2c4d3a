"""The signals that end a sweep in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def caught(ask: Callable[[], None]) -> Iterator[None]:
    """Calls `ask` for each SIGINT, SIGTERM and SIGHUP inside; a SIGHUP that is ignored, as under nohup, stays so."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    former = {number: signal.signal(number, lambda *_: ask()) for number in wanted}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
