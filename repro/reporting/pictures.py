"""The pictures of a report: which figures a study gets, from its rows to files' bytes with a caption and a text."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.reporting import drawing, figures, style
from repro.reporting.figures import Series
from repro.reporting.frame import Answer, Beside, Row
from repro.reporting.join import Table
from repro.reporting.sheets import number
from repro.reporting.tables import NO_INTERVAL, intervals
from repro.spec import flatten

_FORMS = ("png", "svg", "pdf")
_EACH = 16  # figures that a process draws while another one starts
_BEST = 12
"""Rows beside the headline at most."""
_WEIGHT_MIB = 4 / 2**20
"""What a weight in float32 takes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with what is said of it."""

    slug: str
    caption: str
    alt: str
    """What is to be seen, in words."""
    make: Callable[..., Figure]
    given: tuple[Any, ...]
    """What `make` draws it from."""
    forms: Sequence[str] = _FORMS
    files: dict[str, bytes] = field(default_factory=dict)
    """Its files' bytes by ending, once it is drawn."""

    @property
    def key(self) -> str:
        """A hash of what is drawn and of the code that draws it."""
        return hashlib.sha256(_code() + _bytes((self.make.__qualname__, self.given, self.forms))).hexdigest()[:16]

    def drawn(self) -> dict[str, bytes]:
        """The figure's bytes by ending."""
        figure = self.make(*self.given)
        return {form: style.saved(figure, form) for form in self.forms}


def _bytes(value: Any) -> bytes:
    """What a figure is drawn from, as bytes that are the same wherever the values are."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    if isinstance(value, pd.DataFrame):
        return str(value.to_json(orient="split", double_precision=15)).encode()
    if is_dataclass(value):
        return _bytes(tuple(getattr(value, one.name) for one in fields(value)))
    return b"(%s)" % b",".join(map(_bytes, value)) if isinstance(value, (tuple, list)) else repr(value).encode()


@cache
def _code() -> bytes:
    here = Path(__file__).parent
    sources = ("figures.py", "drawing.py", "style.py", "report.mplstyle")
    return matplotlib.__version__.encode() + b"".join((here / name).read_bytes() for name in sources)


def draw(pictures: Sequence[Picture], processes: int = 1) -> None:
    """Fills in the files of every picture, in several processes where that saves time."""
    left = [one for one in pictures if not one.files]
    if (processes := min(processes, len(left) // _EACH)) > 1:
        with (
            suppress(OSError, BrokenProcessPool),  # where none may be started, or one is killed, the rest is drawn here
            ProcessPoolExecutor(
                processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
            ) as pool,
        ):
            for one, files in zip(left, pool.map(Picture.drawn, left, chunksize=4), strict=True):
                one.files.update(files)
    for one in left:
        one.files.update(one.files or one.drawn())


def of_answer(answer: Answer) -> Iterator[Picture]:
    """The rows that the headline is about against the one that they should match; nothing without intervals."""
    base, margin = answer.reference, answer.margin
    rows = [
        {
            "label": row.named, "estimate": found.estimate, "low": found.low, "high": found.high,
            "published": None, "verdict": verdict,
        }
        for row, found, verdict in answer.compared
        if found.low is not None and found.high is not None
    ]  # fmt: skip
    if base is None or not rows:
        return
    shown, label = pd.DataFrame(rows[:_BEST]), f"test accuracy minus that of {base.named} (points)"
    folded = answer.compared[0].difference.folded
    how = "each with its own 95% interval" if folded else "with simultaneous 95% intervals over seeds"
    best = f"the {_BEST} best on validation of {len(rows)}" if len(rows) > _BEST else "the best on validation first"
    words = " A match lies to the right of −{:g} and is not clearly behind the published number."
    match = words.format(margin) if margin else ""
    caption = f"Test accuracy minus that of {base.named}, {how}; {best}.{match}"
    signed = number(1, sign=True)
    alt = f"{label}: {'; '.join(f'{row.label} {signed(row.estimate)}' for row in shown.itertuples())}"
    yield Picture("answer", caption, alt, figures.forest, (shown, f"Against {base.named}", label, True, margin))


def of_study(table: Table, frame: pd.DataFrame) -> Iterator[Picture]:
    """A study's own figures."""
    slug, title, axis = table.study.study, table.study.title, table.study.axis
    yield from _forest(f"{slug}-forest", frame, title)
    series = [one for row in table.rows if (one := _series(row)) is not None]
    if series:
        caption = f"{title}: accuracy and loss over epochs; thin lines are single runs."
        alt = f"Four panels of curves over epochs, for {', '.join(one.label for one in series)}"
        yield Picture(f"{slug}-curves", caption, alt, figures.study_curves, (series, title))
    if axis is not None and len(points := _along(table, frame)) > 1:
        only = f" Of {len(frame)} rows, the {len(points)} that differ in nothing else." * (len(points) < len(frame))
        caption, alt = (
            f"{title}: accuracy against {axis}.{only}",
            f"Validation accuracy against {axis}: {_told(points)}",
        )
        yield Picture(f"{slug}-axis", caption, alt, figures.accuracy_against_value, (points, axis, title))


def _forest(slug: str, frame: pd.DataFrame, title: str, also: str = "") -> Iterator[Picture]:
    """A study against the published numbers, else against its base; nothing where neither can be drawn."""
    rows = frame[frame["n"] > 0]
    printed = bool(rows["published_val"].notna().any())
    if printed:
        label, shown = "validation accuracy (%)", _bars(rows, "val_mean", "predicted_low", "predicted_high")
        interval = "with the 95% prediction interval of one more run" if shown["low"].notna().any() else NO_INTERVAL
        caption = f"{title}: our mean, {interval}, and the published accuracy."
    else:
        rows = rows[rows["test_diff"].notna()]
        base = " or ".join(rows["base_title"].unique())
        label = f"test accuracy minus that of {base} (points)"
        shown = _bars(rows, "test_diff", "test_diff_low", "test_diff_high")
        caption = f"{title}: difference from {base} on test, {intervals(rows)}."
    if len(shown):
        known = shown[shown["estimate"].notna()].itertuples()
        alt = f"{label}: {'; '.join(f'{row.label} {row.estimate:.1f}' for row in known)}"
        yield Picture(slug, caption + also, alt, figures.forest, (shown, title, label, not printed))


def _bars(frame: pd.DataFrame, estimate: str, low: str, high: str) -> pd.DataFrame:
    """The rows of a forest plot: label, estimate, low, high, published, verdict."""
    names = {"title": "label", estimate: "estimate", low: "low", high: "high", "published_val": "published"}
    return frame.rename(columns=names)[[*names.values(), "verdict"]]


def of_groups(frame: pd.DataFrame, name: str, lower: bool, most: int) -> Iterator[Picture]:
    """The differences of one metric from the baseline, of the first groups; a lower value may be the better one."""
    rows = frame[frame[f"{name}_diff"].notna()]
    if rows.empty:
        return
    low, high = rows[f"{name}_diff_low"], rows[f"{name}_diff_high"]
    words = ("better", "worse") if lower else ("worse", "better")
    verdicts = np.select([high < 0, low > 0, low.notna()], [*words, "undecided"], "")
    rows = rows.assign(title=rows["label"], published_val=None, verdict=verdicts).drop(columns="label")
    shown = _bars(rows[:most], f"{name}_diff", low.name, high.name)
    bases = rows[f"{name}_base"].unique()
    base = f"from {bases[0]}" if len(bases) == 1 else "each against its own base"
    first = f" The first {most} of {len(rows)} groups." * (len(rows) > most)
    alt = f"Differences {base}: {'; '.join(f'{row.label} {row.estimate:.3g}' for row in shown.itertuples())}"
    caption = f"{name}: difference {base}, with 95% intervals.{first}"
    yield Picture(f"{name}-forest", caption, alt, figures.forest, (shown, name, f"{name}: difference", True))


def over_steps(name: str, points: Mapping[str, Sequence[NDArray[np.float64]]], which: str) -> Iterator[Picture]:
    """A metric over steps, of groups by label; of every run its points (n, 3): step, time, value."""
    groups = [(label, pd.DataFrame(map(_latest, runs), dtype=float).T.sort_index()) for label, runs in points.items()]
    groups = [(label, runs) for label, runs in groups if runs.count().max() > 1]
    if groups:
        caption = f"{name} over steps; thin lines are single runs{which}."
        alt = f"Curves over steps, for {', '.join(label for label, _ in groups)}"
        yield Picture(f"{name}-curves", caption, alt, figures.steps, (groups, name, name))


def _latest(points: NDArray[np.float64]) -> dict[float, float]:
    """Step -> its latest finite value."""
    finite = points[np.isfinite(points[:, 2])]
    return dict(finite[np.lexsort((finite[:, 1], finite[:, 0]))][:, [0, 2]].tolist())


def of_variants(table: Table, beside: Beside) -> Iterator[Picture]:
    """Curves, architecture and confusion matrix of each variant."""
    for row in table.rows:
        name = f"{table.study.study}-{row.variant}"
        if (one := _series(row)) is not None:
            alt = f"Training and validation loss and accuracy of {row.title} over epochs"
            yield Picture(f"{name}-curves", f"{row.title}: curves.", alt, figures.variant_curves, (one,))
        if row.runs and (model := beside.architecture(row.runs[0].record)) is not None:
            layers = ", ".join(dict.fromkeys(layer.module for layer in model.layers))
            around = ", ".join(module for module, *_ in model.residual)
            caption = f"{row.title}: {model.parameters:,} parameters, {model.multiply_adds:,} multiply-adds per image."
            alt = f"Blocks {layers}" + f"; residual additions around {around}" * bool(around)
            yield Picture(f"{name}-architecture", caption, alt, drawing.architecture, (model, row.title))
        counts = [np.asarray(found) for run in row.runs if (found := beside.confusion(run.record)) is not None]
        counts = [one for one in counts if one.shape == counts[0].shape]
        if counts:
            total = np.sum(counts, axis=0)
            several = f" of {len(counts)} runs" if len(counts) > 1 else ""
            names = [*row.known.classes, *map(str, range(len(total)))][: len(total)]
            given = (total, names, f"{row.title}, test images{several}")
            right = np.trace(total) / max(total.sum(), 1)
            caption = f"{row.title}: confusion on test{several}, and the accuracy of each class."
            alt = f"Confusion matrix; {right:.1%} lie on the diagonal"
            yield Picture(f"{name}-confusion", caption, alt, figures.confusion, given)


def overall(pairs: Sequence[tuple[Table, pd.DataFrame]], beside: Beside) -> Iterator[Picture]:
    """Every row of one setting in one forest plot, accuracy against size, samples of the data."""
    answered = [pair for pair in pairs if pair[0].answered]
    same = [pair for pair in answered if pair[0].setting.id == answered[0][0].setting.id]
    left = [table.study.title for table, _ in answered if table.setting.id != answered[0][0].setting.id]
    also = f" Not shown, in another setting: {', '.join(left)}." if left else ""
    if same:
        rows = pd.concat(
            [
                frame.assign(
                    title=[row.named for row in table.rows],
                    printed=table.printed,
                    runs=[" ".join(run.record.key for run in row.runs) for row in table.rows],
                )
                for table, frame in same
            ]
        )
        rows = rows[rows["n"] > 0].drop_duplicates("runs")
        printed = rows[rows["printed"]] if rows["printed"].any() else rows  # never both in one picture of the paper
        if printed["study"].nunique() > 1:
            yield from _forest("forest", printed, "All studies", also)
        points = _points(rows, "size_mib", "published_size")
        if len(points) > 2:
            others = [
                (f"{one.title} ({one.year})", one.parameters * _WEIGHT_MIB, one.accuracy)
                for table, _ in same
                for one in table.elsewhere
            ]
            caption = f"Validation accuracy against the size of the saved model, ours and the published.{also}"
            told = [f"{label} {accuracy:g}% on test at {size:.2f} MiB" for label, size, accuracy in others]
            alt = "; ".join([f"Accuracy and size: {_told(points, ' MiB')}", *told])
            sized = (points, "Accuracy against size", others)
            yield Picture("accuracy_against_size", caption, alt, figures.accuracy_against_size, sized)
    if beside.samples is not None:
        title, alt = "Samples of the data set", f"Images of {', '.join(sorted(set(beside.samples[1])))}"
        yield Picture(
            "samples", f"{title}, one row per class.", alt, figures.samples, (*beside.samples, title), ("png",)
        )


def _series(row: Row) -> Series | None:
    curves = tuple(run.record.curve for run in row.runs if run.record.curve is not None and len(run.record.curve.epoch))
    return Series(row.title, curves, row.published.accuracy) if curves else None


def _along(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that differ in the study's axis alone; where several groups do so, the largest one."""
    settings = [
        {name: value for name, value in flatten(row.spec).items() if name != table.study.axis} for row in table.rows
    ]
    numbers = frame["axis"].map(lambda value: isinstance(value, (int, float)))
    group = pd.Series([repr(setting) for setting in settings], index=frame.index)[numbers]
    if group.empty:
        return frame[:0]
    points = _points(frame.loc[group[group == group.mode()[0]].index], "axis", "axis")
    return points[points[["accuracy", "published"]].notna().any(axis=1)].astype({"x": float, "published_x": float})


def _points(frame: pd.DataFrame, x: str, published_x: str) -> pd.DataFrame:
    """Columns label, x, accuracy, sd, published_x, published of the rows that have an x."""
    made = pd.DataFrame({"label": frame["title"], "x": frame[x], "published_x": frame[published_x].fillna(frame[x])})
    made[["accuracy", "sd"]] = frame[["val_mean", "val_sd"]].astype(float)
    made["published"] = frame["published_val"].where(~frame["at_most"].astype(bool)).astype(float)
    return made[made["x"].notna()]


def _told(points: pd.DataFrame, unit: str = "") -> str:
    rows = points[points["accuracy"].notna()].itertuples()
    return "; ".join(f"{row.label} {row.accuracy:.1f}% at {row.x:g}{unit}" for row in rows)
