"""The report as one page: self-contained HTML and CSS, without scripts and without a network, for screens and paper.

Texts are escaped here or came escaped from `sheets`; pictures are data URIs, SVG ones with colours of their own for dark
screens.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from repro.reporting.sheets import Sheet, as_html, plain

DARK: Mapping[str, str] = MappingProxyType(
    {
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
)
"""Colour of a figure on paper -> its colour on a dark screen."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with its files' bytes; `alt` says in words what is to be seen."""

    slug: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the report comes to: a headline, and the line that it rests on."""

    headline: str
    why: str
    run: str | None = None
    """Id of a run of the model that it speaks of."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. `details` are pictures that are folded away at first."""

    slug: str
    heading: str
    text: str = ""
    sheets: tuple[Sheet, ...] = ()
    pictures: tuple[Picture, ...] = ()
    details: tuple[Picture, ...] = ()


def page(
    over: str, answer: Answer, facts: Mapping[str, str], sections: Sequence[Section], notes: Sequence[str] = ()
) -> str:
    """The whole page.

    Args:
        over: what it is about, in small over the answer.
        answer: stands first, as the headline.
        facts: name -> value, in a row under the answer.
        sections: the parts, in order; each is linked from the top.
        notes: what the reader must know beside everything else, a line each.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{_text(one.slug)}">{_text(one.heading)}</a>' for one in sections)
    listed = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    warned = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(answer.headline)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="kicker">{_text(over)}</p>\n<h1>{_text(answer.headline)}</h1>\n'
        f'<p class="why">{_text(answer.why)}</p>\n<dl>{listed}</dl>\n'
        f"<nav>{links}</nav>\n</header>\n<main>\n"
        + (f'<ul class="notes">{warned}</ul>\n' if warned else "")
        + "".join(map(_section, sections))
        + "</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(plain(text))


def _section(section: Section) -> str:
    folded = ""
    if section.details:
        shown = "".join(map(_picture, section.details))
        summary = f"<summary>Each variant: {len(section.details)} figures</summary>"
        folded = f'<details>{summary}<div class="pictures">{shown}</div></details>\n'
    pictures = "".join(map(_picture, section.pictures))
    return (
        f'<section id="{_text(section.slug)}">\n<h2>{_text(section.heading)}</h2>\n'
        + (f"<p>{_text(section.text)}</p>\n" if section.text else "")
        + "".join(map(as_html, section.sheets))
        + (f'<div class="pictures">{pictures}</div>\n' if pictures else "")
        + folded
        + "</section>\n"
    )


def _picture(picture: Picture) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(_for_screens(picture.svg)).decode('ascii')}"
    return (
        f'<figure class="picture" id="figure-{_text(picture.slug)}"><img src="{source}" alt="{_text(picture.alt)}">'
        f"<figcaption>{_text(picture.caption)}</figcaption></figure>\n"
    )


def _for_screens(svg: bytes) -> bytes:
    """The SVG with a rule for every grey and colour that would not be seen on a dark screen."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{rules}}}</style>".encode()
    return svg.replace(b"<defs>", b"<defs>" + style, 1)
