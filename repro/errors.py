"""What can go wrong, as the user sees it: one line, and an exit code.

An error says what was given, what is allowed and what to do. `cli` turns it into its line and its exit code; nothing
else catches it, so no traceback reaches a user for anything that is foreseen here.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class ReproError(Exception):
    """A failure while running (exit code 1): a full disk, an unreachable server, a run that died."""

    exit_code = 1


class InputError(ReproError):
    """Bad input (exit code 2): an unknown name, a value out of range, a broken file."""

    exit_code = 2


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxdict = 2, 10, 4
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def shown(value: object) -> str:
    """A value as an error's line shows it: on one line, cut where it is long."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return "a huge number"


def one_line(error: Exception) -> str:
    """An error on one line; one that was not foreseen with its kind."""
    text = f"{error}" if isinstance(error, (ReproError, OSError)) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def unknown(kind: str, given: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not one of `allowed`: names the nearest one and lists them all."""
    names = sorted(allowed)
    return InputError(f"unknown {kind} {shown(given)}{nearest(given, names)} (allowed: {', '.join(names)})")


def few(names: Iterable[object], most: int = 3) -> str:
    """The first names of a list, and how many more there are: "a, b, c and 4 more"."""
    listed = [*map(str, names)]
    return ", ".join(listed[:most]) + f" and {len(listed) - most} more" * (len(listed) > most)


def nearest(given: object, names: Iterable[str]) -> str:
    """The end of a line about a name that is not there: "; did you mean ...?", or "" where nothing is near."""
    near = difflib.get_close_matches(given.lower()[:80], names, n=1, cutoff=0.5) if isinstance(given, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""
