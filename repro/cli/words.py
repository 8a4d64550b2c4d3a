"""How commands read lists and print counts, lengths of time, lines and JSON."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

WIDE = 110
"""Columns of a terminal that shows everything; below it a table has fewer columns."""


def listed(text: str) -> list[str]:
    """The names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def counted(number: int, noun: str) -> str:
    """A count with its noun: 1 row, 2 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A length of time as people say it: 8 s, 1 min 32 s, 12 min, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(likely: float, most: float) -> str:
    """The seconds that are left, and at most; once where both are said the same way."""
    at_most = "" if duration(most) == duration(likely) else f", at most {duration(most)}"
    return f"about {duration(likely)}{at_most}"


def echo_line(text: str, *, err: bool = False) -> None:
    """Prints a line; on a terminal that is too narrow for it, it continues indented, with no word cut."""
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    click.echo(text, err=err)


def echo_markdown(text: str) -> None:
    """Prints Markdown; on a terminal its tables are drawn, as a sweep draws its own at its end."""
    if not sys.stdout.isatty():
        click.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def echo_json(value: object) -> None:
    """Prints mappings, sequences and dataclasses as a JSON document, in which a number that is not finite is null."""
    from pydantic_core import to_json

    click.echo(to_json(value, indent=1, inf_nan_mode="null").decode())
