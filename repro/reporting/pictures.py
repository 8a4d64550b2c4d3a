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
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro.reporting import drawing, figures, style
from repro.reporting.figures import Series
from repro.reporting.frame import Beside, Row
from repro.reporting.join import Table
from repro.spec import flatten

_FORMS = ("png", "svg", "pdf")
_EACH = 16  # figures that a process draws while another one starts
_WEIGHT_MIB = 4 / 2**20
"""What a weight in float32 takes."""


class Job(NamedTuple):
    """A figure that is still to be drawn."""

    make: Callable[..., Figure]
    given: tuple[Any, ...]
    forms: Sequence[str] = _FORMS

    @property
    def key(self) -> str:
        """A hash of what is drawn and of the code that draws it."""
        return hashlib.sha256(_code() + _bytes((self.make.__qualname__, self.given, self.forms))).hexdigest()[:16]

    def files(self) -> dict[str, bytes]:
        """The figure's bytes by ending."""
        figure = self.make(*self.given)
        return {form: style.saved(figure, form) for form in self.forms}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure; `alt` says in words what is to be seen."""

    slug: str
    caption: str
    alt: str
    job: Job
    files: dict[str, bytes] = field(default_factory=dict)
    """Its files' bytes by ending, once it is drawn."""


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
            for one, files in zip(left, pool.map(Job.files, [one.job for one in left], chunksize=4), strict=True):
                one.files.update(files)
    for one in left:
        one.files.update({} if one.files else one.job.files())


def _picture(slug: str, make: Callable[..., Figure], given: tuple[Any, ...], caption: str, alt: str) -> Picture:
    return Picture(slug, caption, alt, Job(make, given))


def of_study(table: Table, frame: pd.DataFrame) -> Iterator[Picture]:
    """A study's own figures."""
    slug, title = table.study.study, table.study.title
    if (drawn := _forest(frame, title)) is not None:
        yield _picture(f"{slug}-forest", figures.forest, *drawn)
    series = [one for row in table.rows if (one := _series(row, table)) is not None]
    if series:
        caption = f"{title}: accuracy and loss over epochs, every run thin."
        alt = f"Four panels of curves over epochs, for {', '.join(one.label for one in series)}"
        yield _picture(f"{slug}-curves", figures.study_curves, (series, title), caption, alt)
    if table.study.axis is not None and len(points := _along(table, frame)) > 1:
        given = (points, table.study.axis, title)
        alt = f"Validation accuracy against {table.study.axis}: {_told(points)}"
        caption = f"{title}: accuracy against {table.study.axis}."
        yield _picture(f"{slug}-axis", figures.accuracy_against_value, given, caption, alt)


def of_groups(frame: pd.DataFrame, name: str, lower: bool, most: int) -> Iterator[Picture]:
    """The differences of one metric from the baseline, of the first groups; a lower value may be the better one."""
    rows = frame[frame[f"{name}_diff"].notna()]
    if rows.empty:
        return
    shown = rows[:most].rename(columns={f"{name}_{end}": end for end in ("diff", "diff_low", "diff_high")})
    shown = shown.rename(columns={"diff": "estimate", "diff_low": "low", "diff_high": "high"}).assign(published=None)
    words = ("better", "worse") if lower else ("worse", "better")
    clear = [shown["high"] < 0, shown["low"] > 0, shown["low"].notna()]
    shown["verdict"] = np.select(clear, [*words, "undecided"], "")
    several = (
        "each against its own base" if rows[f"{name}_base"].nunique() > 1 else f"from {rows[f'{name}_base'].iloc[0]}"
    )
    caption = f"{name}: difference {several}, with 95% intervals." + (
        f" The first {most} of {len(rows)} groups." * (len(rows) > most)
    )
    told = "; ".join(f"{row.label} {row.estimate:.3g}" for row in shown.itertuples())
    given = (shown[["label", "estimate", "low", "high", "published", "verdict"]], name, f"{name}: difference", True)
    yield _picture(f"{name}-forest", figures.forest, given, caption, f"Differences {several}: {told}")


def over_steps(name: str, points: Mapping[str, Sequence[NDArray[np.float64]]], which: str) -> Iterator[Picture]:
    """A metric over steps, of groups by label; of every run its points (n, 3): step, time, value."""
    groups = [(label, [_latest(run) for run in runs]) for label, runs in points.items()]
    groups = [(label, runs) for label, runs in groups if max(map(len, runs)) > 1]
    if groups:
        caption = f"{name} over steps, every run thin{which}."
        alt = f"Curves over steps, for {', '.join(label for label, _ in groups)}"
        yield _picture(f"{name}-curves", figures.steps, (groups, name, name), caption, alt)


def _latest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(steps, 2): the latest finite value of each step, in order."""
    finite = points[np.isfinite(points[:, 2])]
    latest = dict(finite[np.lexsort((finite[:, 1], finite[:, 0]))][:, [0, 2]].tolist())
    return np.array([*latest.items()], dtype=np.float64).reshape(-1, 2)


def of_variants(table: Table, beside: Beside) -> Iterator[Picture]:
    """Curves, architecture and confusion matrix of each variant."""
    for row in table.rows:
        name = f"{table.study.study}-{row.variant}"
        if (one := _series(row, table)) is not None:
            alt = f"Training and validation loss and accuracy of {row.title} over epochs"
            yield _picture(f"{name}-curves", figures.variant_curves, (one,), f"{row.title}: curves.", alt)
        if row.runs and (model := beside.architecture(row.runs[0].record)) is not None:
            layers = ", ".join(dict.fromkeys(layer.module for layer in model.layers))
            around = ", ".join(module for module, *_ in model.residual)
            caption = f"{row.title}: {model.parameters:,} parameters, {model.multiply_adds:,} multiply-adds an image."
            alt = f"Blocks {layers}" + f"; residual additions around {around}" * bool(around)
            yield _picture(f"{name}-architecture", drawing.architecture, (model, row.title), caption, alt)
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
            yield _picture(f"{name}-confusion", figures.confusion, given, caption, alt)


def overall(tables: Sequence[Table], frames: Sequence[pd.DataFrame], beside: Beside) -> Iterator[Picture]:
    """Every row of one setting in one forest plot, accuracy against size, samples of the data."""
    answered = [pair for pair in zip(tables, frames, strict=True) if pair[0].answered]
    same = [pair for pair in answered if pair[0].setting.id == answered[0][0].setting.id]
    left = [table.study.title for table, _ in answered if table.setting.id != answered[0][0].setting.id]
    also = f" Not shown, in another setting: {', '.join(left)}." if left else ""
    if same:
        rows = pd.concat(
            [
                frame.assign(title=[_named(table, title) for title in frame["title"]], printed=table.printed)
                for table, frame in same
            ]
        )
        rows = rows[rows["n"] > 0].assign(runs=[_runs(row) for table, _ in same for row in table.rows if row.runs])
        rows = rows.drop_duplicates("runs")
        printed = rows[rows["printed"]] if rows["printed"].any() else rows  # never both in one picture of the paper
        if printed["study"].nunique() > 1 and (drawn := _forest(printed, "All studies")) is not None:
            given, caption, alt = drawn
            yield _picture("forest", figures.forest, given, caption + also, alt)
        points = _points(rows, "size_mib", "published_size")
        if len(points) > 2:
            others = tuple(
                (f"{one.title} ({one.year})", one.parameters * _WEIGHT_MIB, one.accuracy)
                for table, _ in same
                for one in table.study.elsewhere
            )
            sized = (points, "Accuracy against size", others)
            caption = f"Validation accuracy against the size of the saved model, ours and the published.{also}"
            alt = "; ".join(
                [f"Accuracy and size: {_told(points, ' MiB')}"]
                + [f"{label} {accuracy:g}% on test at {size:.2f} MiB" for label, size, accuracy in others]
            )
            yield _picture("accuracy_against_size", figures.accuracy_against_size, sized, caption, alt)
    if beside.samples is not None:
        images, labels = beside.samples
        job = Job(figures.samples, (images, labels, "Samples of the data set"), ("png",))
        alt = f"Images of {', '.join(sorted(set(labels)))}"
        yield Picture("samples", "Samples of the data set, a row a class.", alt, job)


def _named(table: Table, title: str) -> str:
    return title if any(map(str.isalpha, title)) and len(title) > 5 else f"{table.study.title}: {title}"


def _runs(row: Row) -> str:
    return " ".join(run.record.key for run in row.runs)


def _series(row: Row, table: Table) -> Series | None:
    curves = tuple(run.record.curve for run in row.runs if run.record.curve is not None and len(run.record.curve.epoch))
    published = None if table.setting.changes else row.published.accuracy
    return Series(row.title, curves, published) if curves else None


def _forest(frame: pd.DataFrame, title: str) -> tuple[tuple[Any, ...], str, str] | None:
    """A study against the published numbers, else against its base; None where neither can be drawn."""
    rows = frame[frame["n"] > 0]
    if rows["published_val"].notna().any():
        columns, label = ("val_mean", "predicted_low", "predicted_high"), "validation accuracy (%)"
        caption = f"{title}: our mean with the 95% prediction interval of one new run, and the published accuracy."
    elif rows["test_diff"].notna().any():
        rows = rows[rows["test_diff"].notna()]
        base = " or ".join(rows["base_title"].unique())
        columns, label = (
            ("test_diff", "test_diff_low", "test_diff_high"),
            f"test accuracy minus that of {base} (points)",
        )
        several = rows["test_diff_low"].notna().any()
        interval = (
            "with simultaneous 95% intervals" if several else "without intervals: one run each does not tell the spread"
        )
        caption = f"{title}: difference from {base} on test, {interval}."
    else:
        return None
    names = dict(zip(columns, ("estimate", "low", "high"), strict=True))
    shown = rows.rename(columns=names | {"title": "label", "published_val": "published"})
    zero = columns[0] == "test_diff"
    told = "; ".join(f"{row.label} {row.estimate:.1f}" for row in shown.itertuples() if pd.notna(row.estimate))
    shown = shown[["label", "estimate", "low", "high", "published", "verdict"]]
    return (shown, title, label, zero), caption, f"{label}: {told}"


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
