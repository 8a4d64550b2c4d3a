"""The report as one page: self-contained HTML, without a network, for screens and paper.

Templates escape every text; SVG pictures stand in the page, their styles as classes, with colours of their own for dark
screens.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from repro.reporting.frame import Answer
from repro.reporting.sheets import Sheet, plain

if TYPE_CHECKING:
    from repro.reporting.pictures import Picture

DARK: Mapping[str, str] = {
    "#1b1b1f": "#e4e5ea",
    "#e4e4e9": "#31343c",
    "#ffffff": "#1b1d23",
    "#0072b2": "#56b4e9",
    "#56b4e9": "#9ad4f5",
    "#d55e00": "#f08a3c",
    "#009e73": "#33c39a",
    "#cfe3f1": "#20405a",
    "#fbe0c4": "#5c3c1c",
    "#d5eadf": "#1f4a38",
    "#eeeef2": "#33363f",
}
"""Colour of a figure on paper -> its colour on a dark screen."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. `first` stands above the tables, `pictures` below; `folded` lines and `details` are folded."""

    slug: str
    heading: str
    text: str = ""
    url: str = ""
    first: tuple[Picture, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    folded: tuple[str, ...] = ()
    summary: str = ""
    """What stands above the folded lines."""
    pictures: tuple[Picture, ...] = ()
    details: tuple[Picture, ...] = ()


def page(
    over: str,
    answer: Answer,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    notes: Sequence[str] = (),
    beside: Sequence[Picture] = (),
) -> str:
    """The whole page.

    Args:
        over: what it is about, in small over the answer.
        answer: stands first, as the headline.
        facts: name -> value, in a row under the answer.
        sections: the parts, in order; each is linked from the top.
        notes: what the reader must know beside everything else, a line each.
        beside: pictures beside the answer.
    """
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    style = Markup(css)  # noqa: S704
    given = {"over": over, "answer": answer, "facts": facts, "sections": sections, "notes": notes, "beside": beside}
    return _with_classes(_templates().get_template("page.html.j2").render(given, style=style))


def table(sheet: Sheet) -> str:
    """A sheet as a `figure` with caption, a table that may scroll, and notes."""
    module = _templates().get_template("table.html.j2").module
    return str(module.table(sheet))  # type: ignore[attr-defined]


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    made.filters["shown"] = _shown
    return made


def _shown(picture: Picture) -> Markup:
    """The picture in the page itself: an SVG as it is, whose texts matplotlib has escaped, else a PNG."""
    if "svg" in picture.files:
        own = zlib.crc32(picture.slug.encode())  # ids are unique in the page, so that no picture uses a hidden one's
        text = re.sub(
            r'(?<=id=")[mp][0-9a-f]{8,}|(?<=#)[mp][0-9a-f]{8,}', rf"\g<0>-{own:x}", picture.files["svg"].decode()
        )
        svg = Markup(text)  # noqa: S704
        return Markup('<div role="img" aria-label="{}">{}</div>').format(picture.alt, svg)
    data = base64.b64encode(picture.files["png"]).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, picture.alt)


def _with_classes(text: str) -> str:
    """The page with every style of its pictures written once, as a class, and once more in the colours of dark screens."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        return f'{found[1]}class="{names.setdefault(found[2], f"s{len(names)}")}"'

    text = re.sub(r'(<(?:path|use|text|rect|image) [^<>]*?)style="([^"]*)"', named, text)
    dark = {style: re.sub("#[0-9a-f]{6}", lambda found: DARK.get(found[0], found[0]), style) for style in names}
    rules = "".join(f".{name}{{{style}}}\n" for style, name in names.items())
    turned = "".join(f".{names[style]}{{{other}}}\n" for style, other in dark.items() if other != style)
    return text.replace("</style>", f"{rules}@media screen and (prefers-color-scheme:dark){{\n{turned}}}\n</style>", 1)
