"""A frame with declared columns as CSV, Markdown and LaTeX; HTML is `page`'s.

Names come from users: whatever they hold, a form shows it as it stands and none takes it for markup. Nothing here knows
what a frame is about.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

import pandas as pd


@dataclass(frozen=True, slots=True)
class Column:
    """What is shown of a frame's row; neighbours with one `group` stand under a common heading."""

    name: str
    head: str
    text: Callable[[Mapping[str, Any]], str]
    """A row of the frame -> its cell."""
    group: str = ""
    kind: str = "number"
    """number, name, prose or verdict."""
    short: str = ""
    """The head where there is no room for a group."""
    url: str = ""
    """The frame's column with the address that a cell leads to; http and https only."""

    @property
    def alone(self) -> str:
        """The head of a column whose group is not shown."""
        return self.short or (f"{self.group}: {self.head}" if self.group else self.head)


@dataclass(frozen=True)
class Sheet:
    """A table ready to be written in any form."""

    slug: str
    """The name of its files."""
    title: str
    header: str
    """One line: data, statistics, n, commit, hardware."""
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    notes: tuple[str, ...]

    @cached_property
    def cells(self) -> tuple[tuple[Column, ...], list[list[str]]]:
        """The columns in which some cell is not empty, and the cells of every row under them."""
        rows = [[plain(column.text(row)) for column in self.columns] for row in records(self.frame)]
        keep = [place for place in range(len(self.columns)) if any(row[place] for row in rows)]
        return tuple(self.columns[place] for place in keep), [[row[place] for place in keep] for row in rows]

    def groups(self) -> list[tuple[str, int]]:
        """The headings over the columns that are shown, each with the number of columns it spans."""
        columns, _ = self.cells
        return [(name, len(list(same))) for name, same in groupby(columns, key=lambda column: column.group)]

    def links(self) -> list[str]:
        """The address that a row's linked column leads to: http and https only, else empty."""
        name = next((column.url for column in self.columns if column.url), None)
        found = [] if name is None else self.frame[name].tolist()
        return [url if isinstance(url, str) and url.startswith(("https://", "http://")) else "" for url in found]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame, None where a value is missing."""
    rows: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows


def number(digits: int | None = 2, *, sign: bool = False, scale: float = 1.0) -> Callable[[Any], str]:
    """A formatter: a number with its thousands apart, one minus sign, empty where there is none; None: as it is."""

    def shown(value: Any) -> str:
        if value is None or pd.isna(value):
            return ""
        text = f"{scale * value:g}" if digits is None else f"{scale * value:{'+' if sign else ''},.{digits}f}"
        return (text if float(text.replace(",", "")) else text.lstrip("+-")).replace("-", "−")

    return shown


def plain(text: str) -> str:
    """One line without control characters: what no form could hold in a cell."""
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} else c for c in text)
    return " ".join(text.split())


def csv(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Unrounded values under one line of names; an empty cell is a value that does not exist."""
    whole = [name for name in columns if name in frame and _whole(frame[name])]
    return str(frame[list(columns)].astype(dict.fromkeys(whole, "Int64")).to_csv(index=False, lineterminator="\n"))


def _whole(column: pd.Series) -> bool:
    """Whether a column of floats holds whole numbers alone: an epoch or a fold that is missing somewhere."""
    numbers = column.dropna()
    floats = column.dtype == float or (column.dtype == object and all(isinstance(v, float) for v in numbers))
    return bool(len(numbers)) and floats and bool((numbers % 1 == 0).all())


def markdown(sheet: Sheet) -> str:
    """GitHub's Markdown: title, header line, table, notes."""
    columns, rows = sheet.cells
    heads = [column.alone for column in columns]
    rule = ["---:" if column.kind == "number" else ":---" for column in columns]
    lines = [f"### {markdown_text(sheet.title)}", "", markdown_text(sheet.header), ""]
    lines += [_piped(map(markdown_text, heads)), _piped(rule), *(_piped(map(markdown_text, row)) for row in rows)]
    lines += ["", *(f"- {markdown_text(note)}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text with every character that Markdown or HTML in it would read as markup escaped."""
    text = re.sub(r"([\\`*\[\]<>|$~&#])", r"\\\1", plain(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _piped(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


_TEX: Mapping[str, str] = (
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
        ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "×": r"$\times$",
        "−": r"$-$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "·": r"$\cdot$", "–": r"\textendash{}",
        "—": r"\textemdash{}", "…": r"\ldots{}",
    }
    | {c: f"\\{c}" for c in "&%$#_{}"}
)  # fmt: skip


def latex_text(text: str) -> str:
    """Text as LaTeX sets it with T1 fonts; a letter that those do not hold stands as its code point."""
    return re.sub("-(?=-)", "-{}", "".join(map(_tex, plain(text))))  # two hyphens would become a dash


def _tex(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    european = "À" <= character <= "ž" and character not in "×÷ĦħĸĿŀŉŦŧ"
    return character if character.isascii() or european else f"[U+{ord(character):04X}]"


_SIGNS = {
    "consistent": "$=$",
    "ours below": r"$\downarrow$",
    "ours above": r"$\uparrow$",
    "undecided": "?",
    "fits": "$=$",
}
_SIGNED = (
    r" Verdict: $=$ consistent with the published value, $\downarrow$ ours below, $\uparrow$ ours above, ? undecided."
)


def latex(sheet: Sheet, wide: Literal["one column", "page"] = "page") -> str:
    """A float that needs booktabs alone; for one column of a paper verdicts are signs and intervals are left out."""
    columns, rows = sheet.cells
    narrow = wide == "one column"
    kinds = {"number": "r", "prose": "p{0.3\\linewidth}"} | (
        {"name": "p{0.25\\linewidth}", "verdict": "c"} if narrow else {}
    )
    spec = "".join(kinds.get(column.kind, "l") for column in columns)
    groups = sheet.groups()
    heads = [column.head if not narrow else "" if column.kind == "verdict" else column.alone for column in columns]
    head = _tex_row(map(latex_text, heads))
    if not narrow and any(name for name, _ in groups):
        spans = " & ".join(f"\\multicolumn{{{span}}}{{c}}{{{latex_text(name)}}}" for name, span in groups)
        rules, at = [], 1
        for name, span in groups:
            rules += [f"\\cmidrule(lr){{{at}-{at + span - 1}}}"] * bool(name)
            at += span
        head = f"{spans} \\\\\n{''.join(rules)}\n{head}"
    body = "\n".join(
        _tex_row(_tex_cell(*pair, narrow=narrow) for pair in zip(columns, row, strict=True)) for row in rows
    )
    caption = f"{latex_text(sheet.title)}. {latex_text(sheet.header)}"
    if narrow and any(column.kind == "verdict" for column in columns):
        caption += _SIGNED
    star, size = ("", "\\scriptsize\n\\setlength{\\tabcolsep}{1.2pt}") if narrow else ("*", "\\scriptsize")
    notes = "".join(f"\\\\{{}} {latex_text(note)}\n" for note in sheet.notes) if not narrow else ""
    return (
        f"% needs \\usepackage{{booktabs}}\n\\begin{{table{star}}}[t]\n\\centering\n\\caption{{{caption}}}\n"
        f"\\label{{tab:{sheet.slug.replace('_', '-')}}}\n{size}\n\\begin{{tabular}}{{@{{}}{spec}@{{}}}}\n\\toprule\n"
        f"{head}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n{notes}\\end{{table{star}}}\n"
    )


def _tex_cell(column: Column, text: str, *, narrow: bool) -> str:
    if narrow and column.kind == "verdict":
        return _SIGNS.get(text, latex_text(text))
    if narrow:
        text = re.sub(r" \[\d+\]", "", text)
        value, opened, _ = text.partition(" (")
        if opened and column.kind == "number":
            return latex_text(value)
        if " ± " in text:
            return "${}_{{\\pm{}}}$".format(*text.split(" ± "))
    return latex_text(text)


def _tex_row(cells: Any) -> str:
    row = " & ".join(cells)
    return ("{}" if row.startswith(("[", "*")) else "") + row + " \\\\"  # else an argument of the line before
