"""How every figure looks and how it becomes bytes: one style sheet, margins in inches, no date and no version in a file."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, MUTED, GRID = "#1b1b1f", "#8a8a93", "#e4e4e9"
"""The style sheet's greys; `page` turns them round for dark screens."""
_FONTS = b"'DejaVu Sans', Verdana, 'Bitstream Vera Sans', Geneva, Arial, Helvetica, sans-serif"


@cache
def rules() -> Any:
    """The style sheet over matplotlib's own defaults, without what is no matter of looks."""
    sheet = mpl.rc_params_from_file(Path(__file__).with_name("report.mplstyle"), use_default_template=True)
    return {name: value for name, value in sheet.items() if not name.startswith(("backend", "date.", "webagg."))}


@contextmanager
def styled() -> Iterator[None]:
    """The project's style sheet, whatever the user's own matplotlibrc says. Also a decorator."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a title in another script
        with mpl.rc_context(rules()):
            yield


@styled()
def saved(figure: Figure, form: str, dpi: int = 150) -> bytes:
    """The figure as png, svg or pdf, without a date or a version in it."""
    buffer = io.BytesIO()
    unnamed: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    figure.savefig(buffer, format=form, dpi=dpi, metadata=unnamed[form])
    data = buffer.getvalue()
    return data if form != "svg" else _small(data)


def _small(svg: bytes) -> bytes:
    """An SVG in fewer bytes: one font, tenths of a point, no names, metadata, comments or groups of one element."""
    for pattern, short in (
        (rb"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*|<metadata>.*?</metadata>|<!--.*?-->", b""),
        (rb' id="[A-Za-z0-9.]+_[0-9]+"| transform="rotate\(-0 [^"]*"', b""),
        (rb" ?font-family: [^;\"]+;?", b""),
        (rb"\s*\n\s*", b"\n"),
        (rb"(?<=[0-9a-z])\n(?=[LQCz\"])", b""),
        (rb"<g>\n?</g>\n?", b""),
        *[(rb"<g>\n(<(?:path|use|text)[^\n]*>)\n</g>", rb"\1")] * 3,
    ):
        svg = re.sub(pattern, short, svg, flags=re.DOTALL)
    svg = re.sub(rb"<[^>]*>", _tenths, svg)
    return svg.replace(b"</style>", b"text{font-family:%s}</style>" % _FONTS, 1)


def _tenths(tag: re.Match[bytes]) -> bytes:
    """An element's tag with coordinates in tenths of a point; texts between tags keep their numbers."""
    short = re.sub(rb"(?<=[ \n(])(-?\d+\.\d)\d+", rb"\1", tag[0])
    short = re.sub(rb'(?<=[xy12]=")(-?\d+\.\d)\d+', rb"\1", short)
    return re.sub(rb"(?<=\d)\.0(?!\d)", b"", short)


def framed(width: float, height: float, title: str, *, top: float = 0.5, bottom: float = 0.55, left: float = 0.62,
           **grid: Any) -> Figure:  # fmt: skip
    """A figure with its title at the upper left and margins in inches, so that no layout engine need run."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width, right=1 - 0.15 / width, top=1 - top / height, bottom=bottom / height, **grid
    )
    if title:
        figure.text(0.12 / width, 1 - 0.12 / height, title, va="top", ha="left", fontsize=10, fontweight="bold")
    return figure


def legend(figure: Figure, columns: int, more: Sequence[Artist] = ()) -> None:
    """A legend along the lower edge: every label of the first axes that has some, and `more`."""
    labelled, _ = figure.axes[0].get_legend_handles_labels()
    handles = sorted(labelled, key=lambda one: isinstance(one, Line2D))  # points with error bars first
    figure.legend(
        handles=[*handles, *more], loc="lower left", bbox_to_anchor=(0.05, 0.0), ncols=columns, borderaxespad=0.3
    )
