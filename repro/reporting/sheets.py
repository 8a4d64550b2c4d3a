"""A table as a neutral value, and its four forms: Markdown, CSV, LaTeX and HTML.

Names come from users: whatever they hold, a form shows it as it stands and none takes it for markup.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal

Raw = str | int | float | None


@dataclass(frozen=True, slots=True)
class Link:
    """Text that leads to an address: http and https only, anything else stays text."""

    text: str
    url: str


Cell = str | Link


@dataclass(frozen=True, slots=True)
class Column:
    """One column; neighbours with one `group` stand under a common heading."""

    name: str
    group: str = ""
    kind: Literal["number", "name", "prose", "verdict"] = "number"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table ready to be written in any form."""

    slug: str
    """The name of its files."""
    title: str
    header: str
    """One line: data set and digest, statistic, n, commit, hardware."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...]
    records: tuple[Mapping[str, Raw], ...]
    """The same rows for machines: unrounded, with run ids; all have the same keys."""

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{self.slug}: {len(row)} cells under {len(self.columns)} columns"

    @property
    def grouped(self) -> list[tuple[str, int]]:
        """The headings over the columns, each with the number of columns it spans."""
        return [(name, len(list(same))) for name, same in groupby(self.columns, key=lambda column: column.group)]


def trimmed(sheet: Sheet) -> Sheet:
    """The sheet without the columns in which every cell is empty."""
    keep = [i for i in range(len(sheet.columns)) if any(row[i] for row in sheet.rows)]
    columns = tuple(sheet.columns[i] for i in keep)
    rows = tuple(tuple(row[i] for i in keep) for row in sheet.rows)
    return Sheet(sheet.slug, sheet.title, sheet.header, columns, rows, sheet.footnotes, sheet.records)


def plain(text: str) -> str:
    """One line without control characters: what no form could hold in a cell."""
    return " ".join("".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} else c for c in text).split())


def as_markdown(sheet: Sheet) -> str:
    """GitHub's Markdown: title, header line, table, footnotes."""
    names = [f"{column.group}: {column.name}" if column.group else column.name for column in sheet.columns]
    rule = ["---:" if column.kind == "number" else ":---" for column in sheet.columns]
    lines = [f"### {markdown_text(sheet.title)}", "", markdown_text(sheet.header), ""]
    lines += [_piped([markdown_text(name) for name in names]), _piped(rule)]
    lines += [_piped([_markdown_cell(cell) for cell in row]) for row in sheet.rows]
    lines += ["", *(f"- {markdown_text(note)}" for note in sheet.footnotes)] if sheet.footnotes else []
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text with every character that Markdown or HTML in it would read as markup escaped."""
    text = re.sub(r"([\\`*\[\]<>|$~&#])", r"\\\1", plain(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        url = cell.url.translate({ord(c): f"%{ord(c):02X}" for c in "()<> |\\"})
        return f"[{markdown_text(cell.text)}]({url})" if _leads(cell.url) else markdown_text(cell.text)
    return markdown_text(cell)


def as_csv(sheet: Sheet) -> str:
    """The records, unrounded, under one line of names; an empty cell is a value that does not exist."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(sheet.records[0]) if sheet.records else ["no_rows"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sheet.records)
    return buffer.getvalue()


def as_html(sheet: Sheet) -> str:
    """A `figure` with caption, a table that may scroll, and footnotes; every text escaped."""
    groups = "".join(
        f'<th colspan="{span}" scope="colgroup">{html.escape(name)}</th>' if name else f'<td colspan="{span}"></td>'
        for name, span in sheet.grouped
    )
    group_row = f"<tr>{groups}</tr>\n" if any(name for name, _ in sheet.grouped) else ""
    heads = "".join(f'<th scope="col" class="{c.kind}">{html.escape(plain(c.name))}</th>' for c in sheet.columns)
    body = "\n".join(f"<tr>{_html_cells(row, sheet.columns)}</tr>" for row in sheet.rows)
    notes = "".join(f"<li>{html.escape(plain(note))}</li>" for note in sheet.footnotes)
    listed = f'<ul class="notes">{notes}</ul>\n' if notes else ""
    return (
        f'<figure class="sheet" id="table-{html.escape(sheet.slug)}">\n'
        f"<figcaption><strong>{html.escape(plain(sheet.title))}</strong>"
        f"<span>{html.escape(plain(sheet.header))}</span></figcaption>\n"
        f'<div class="scroll" tabindex="0"><table>\n<thead>\n{group_row}<tr>{heads}</tr>\n</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n{listed}</figure>\n"
    )


def _html_cells(row: Sequence[Cell], columns: Sequence[Column]) -> str:
    cells: list[str] = []
    for cell, column in zip(row, columns, strict=True):
        text = html.escape(plain(cell.text if isinstance(cell, Link) else cell))
        if isinstance(cell, Link) and _leads(cell.url):
            text = f'<a href="{html.escape(cell.url)}">{text}</a>'
        if column.kind == "verdict" and text:
            text = f'<span class="is-{re.sub("[^a-z]", "", text.split()[0])}">{text}</span>'
        cells.append(
            f'<td class="{column.kind}">{text}</td>' if cells else f'<th scope="row" class="{column.kind}">{text}</th>'
        )
    return "".join(cells)


def _leads(url: str) -> bool:
    return url.startswith(("https://", "http://"))


_TEX: Mapping[str, str] = MappingProxyType(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": r"$-$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "→": r"$\to$",
        "·": r"$\cdot$",
        "–": r"\textendash{}",
        "—": r"\textemdash{}",
        "…": r"\ldots{}",
    }
    | {c: f"\\{c}" for c in "&%$#_{}"}
)


def latex_text(text: str) -> str:
    """Text as LaTeX sets it with T1 fonts; a letter that those do not hold stands as its code point."""
    return re.sub("-(?=-)", "-{}", "".join(map(_tex, plain(text))))  # two hyphens would become a dash


def _tex(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    european = "À" <= character <= "ž" and character not in "×÷ĦħĸĿŀŉŦŧ"
    return character if character.isascii() or european else f"[U+{ord(character):04X}]"


def as_latex(sheet: Sheet) -> str:
    """A whole document that compiles as it stands; the table between its marks can be copied into another one.

    A sheet with prose breaks over pages and lines (LaTeX aligns its columns on the second pass); one of numbers alone is
    shrunk to the width of the page.
    """
    prose = sum(column.kind == "prose" for column in sheet.columns)
    width = {"number": "r", "prose": f">{{\\raggedright\\arraybackslash}}p{{{0.7 / max(prose, 1):.3f}\\linewidth}}"}
    spec = "".join(width.get(column.kind, "l") for column in sheet.columns)
    head = _tex_row([column.name for column in sheet.columns])
    if any(name for name, _ in sheet.grouped):
        spans = " & ".join(f"\\multicolumn{{{span}}}{{c}}{{{latex_text(name)}}}" for name, span in sheet.grouped)
        head = f"{spans} \\\\\n{_tex_rules(sheet.grouped)}\n{head}"
    body = "\n".join(_tex_row([cell.text if isinstance(cell, Link) else cell for cell in row]) for row in sheet.rows)
    caption = f"\\textbf{{{latex_text(sheet.title)}}} {latex_text(sheet.header)}"
    notes = "".join(f"\\par {latex_text(note)}\n" for note in sheet.footnotes)
    if prose or len(sheet.rows) > 40:
        table = (
            f"\\begin{{longtable}}{{@{{}}{spec}@{{}}}}\n\\toprule\n{head}\n\\midrule\n\\endhead\n"
            f"{body}\n\\bottomrule\n\\end{{longtable}}"
        )
    else:
        table = (
            f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n"
            f"\\begin{{tabular}}{{@{{}}{spec}@{{}}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}}}"
        )
    return (
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n"
        "\\IfFileExists{lmodern.sty}{\\usepackage{lmodern}}{}\n"
        "\\usepackage{array,booktabs,graphicx,longtable}\n\\usepackage[a4paper,landscape,margin=15mm]{geometry}\n"
        "\\setlength{\\parindent}{0pt}\n\\begin{document}\n% table: from here\n"
        f"{{\\footnotesize\\setlength{{\\tabcolsep}}{{4pt}}\\raggedright\n{caption}\\par\\medskip\n{table}\n"
        f"\\par\\medskip\n{notes}}}\n% table: to here\n\\end{{document}}\n"
    )


def _tex_row(cells: Sequence[str]) -> str:
    # a row that begins with [ or * would be taken for an argument of the \\ before it
    return " & ".join(f"{{}}{text}" if text[:1] in {"[", "*"} else text for text in map(latex_text, cells)) + r" \\"


def _tex_rules(groups: Sequence[tuple[str, int]]) -> str:
    rules, at = [], 1
    for name, span in groups:
        if name:
            rules.append(f"\\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    return "".join(rules)


FORMS: Mapping[str, Callable[[Sheet], str]] = MappingProxyType(
    {"md": as_markdown, "csv": as_csv, "tex": as_latex, "html": as_html}
)
"""File ending -> how a sheet is written."""
