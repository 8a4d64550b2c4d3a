"""Figures by matplotlib's object API: functions of frames and curves that return a `Figure` and never show it.

One style sheet (`report.mplstyle`), colours of Okabe and Ito with line styles and markers beside them, so that print and
the colour-blind lose nothing; the same values give the same bytes. Text is never read as mathematics: a `$` is a `$`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from repro.reporting.style import INK, MUTED, framed, legend, saved, styled
from repro.rows import Curve

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SPLITS = (("train", "training", "#0072B2", "-"), ("val", "validation", "#D55E00", "--"))
_NAMES = {"loss": "loss", "accuracy": "accuracy (%)"}
VERDICTS = {
    "consistent": "#009E73",
    "ours below": "#D55E00",
    "ours above": "#0072B2",
    "better": "#009E73",
    "worse": "#D55E00",
    "undecided": MUTED,
    "": "#0072B2",
}
"""Verdict -> colour."""


@dataclass(frozen=True, slots=True)
class Series:
    """The curves of one variant, one a run, with the published level in percent where there is one."""

    label: str
    curves: tuple[Curve, ...]
    published: float | None = None


def over_runs(curves: Sequence[Curve], metric: str) -> NDArray[np.float64]:
    """(runs, epochs): a metric by epoch, nan where a run has ended or has no finite value."""
    grid = np.full((len(curves), max(int(curve.epoch.max(initial=0)) for curve in curves)), np.nan)
    for row, curve in zip(grid, curves, strict=True):
        row[curve.epoch - 1] = getattr(curve, metric)
    return np.where(np.isfinite(grid), grid, np.nan) * (100 if metric.endswith("accuracy") else 1)


def _line(ax: Axes, series: Series, metric: str, **look: Any) -> Line2D:
    """Every run thin and the mean as long as all of them run; on validation accuracy a mark at each best epoch."""
    grid = over_runs(series.curves, metric)
    epochs = np.arange(1, grid.shape[1] + 1)
    if len(grid) > 1:
        ax.plot(epochs, grid.T, **look | {"marker": None, "linewidth": 0.6, "alpha": 0.45})
    every = max(len(epochs) // 8, 1)
    (line,) = ax.plot(epochs, grid.mean(axis=0), markevery=(every // 2, every), **look)
    if metric == "val_accuracy":
        known = grid[np.isfinite(grid).any(axis=1)]
        white: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.4}
        best = np.nanargmax(known, axis=1) if len(known) else np.empty(0, dtype=np.int64)
        ax.plot(best + 1, known[np.arange(len(known)), best], "*", color=look["color"], **white)
        if series.published is not None:
            ax.axhline(series.published, color=look["color"], linestyle=":", linewidth=0.8, alpha=0.8)
    return line


def _epochs_axis(ax: Axes) -> None:
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.margins(x=0.02)


def _limit_loss(axes: Sequence[Axes], series: Sequence[Series]) -> None:
    """Cut a loss axis where a run explodes: three times the median loss of the first epochs is never passed in learning."""
    values = [getattr(c, f"{split}_loss") for one in series for c in one.curves for split in ("train", "val")]
    finite = np.concatenate([value[np.isfinite(value)] for value in values] or [np.empty(0)])
    first = [value[0] for value in values if len(value) and np.isfinite(value[0])]
    if not first:
        return
    top = 3 * float(np.median(first))
    for ax in axes:
        ax.set_ylim(0, min(top, 1.05 * float(finite.max())))
        if finite.max() > top:
            ax.set_title(f"{ax.get_title(loc='left')} (cut at {top:.2g})")


def _marks(figure: Figure, handles: list[Line2D], labels: list[str], series: Sequence[Series], columns: int) -> None:
    handles = [*handles, Line2D([], [], color=MUTED, marker="*", linestyle="none", markersize=7)]
    labels = [*labels, "best epoch of a run"]
    if any(one.published is not None for one in series):
        handles, labels = [*handles, Line2D([], [], color=MUTED, linestyle=":", linewidth=1)], [*labels, "published"]
    legend(figure, handles, labels, columns)


@styled()
def run_curves(curve: Curve, title: str) -> bytes:
    """Loss and accuracy of one run as PNG, cheap enough to be drawn for every run of a sweep."""
    return saved(variant_curves(Series(title, (curve,))), "png", dpi=100)


@styled()
def variant_curves(series: Series) -> Figure:
    """Training and validation loss and accuracy of one variant: every run thin, and their mean."""
    runs = len(series.curves)
    title = series.label if runs == 1 else f"{series.label}: {runs} runs and their mean while all run"
    figure = framed(7.0, 3.0, title, top=0.62, bottom=0.72, wspace=0.22)
    axes = figure.subplots(1, 2)
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.set_title(_NAMES[metric])
        lines = [_line(ax, series, f"{split}_{metric}", color=c, linestyle=dash) for split, _, c, dash in _SPLITS]
        _epochs_axis(ax)
    _limit_loss(axes[:1], [series])
    _marks(figure, lines, [name for _, name, *_ in _SPLITS], [series], 4)
    return figure


@styled()
def study_curves(series: Sequence[Series], title: str) -> Figure:
    """Accuracy and loss of a study's variants over the epochs, training on the left, validation on the right."""
    columns = 3 if max(map(len, (one.label for one in series)), default=0) <= 30 else 2
    rows = -(-(len(series) + 2) // columns)
    figure = framed(7.0, 5.0 + 0.2 * rows, title, top=0.62, bottom=0.6 + 0.2 * rows, wspace=0.1, hspace=0.24)
    axes = figure.subplots(2, 2, sharex="all", sharey="row")
    handles = []
    for index, one in enumerate(series):
        shape = (index + index // 7) % 7  # another pairing of colour and shape from the eighth variant on
        look = {"color": f"C{index % 7}", "linestyle": _LINES[shape], "marker": _MARKERS[shape]}
        for row, metric in zip(axes, ("accuracy", "loss"), strict=True):
            for ax, split in zip(row, ("train", "val"), strict=True):
                line = _line(ax, one, f"{split}_{metric}", **look)
        handles.append(line)
    for row, metric in zip(axes, ("accuracy", "loss"), strict=True):
        for ax, (_, split, *_) in zip(row, _SPLITS, strict=True):
            ax.set_title(f"{split} {_NAMES[metric]}")
    for ax in axes[1]:
        _epochs_axis(ax)
    _limit_loss(axes[1], series)
    _marks(figure, handles, [one.label for one in series], series, columns)
    return figure


@styled()
def steps(groups: Sequence[tuple[str, Sequence[NDArray[np.float64]]]], title: str, ylabel: str) -> Figure:
    """A metric over steps: of every group (label, runs) each run thin, (points, 2), and their mean where all have a point."""
    rows = -(-len(groups) // 2)
    figure = framed(7.0, 3.2 + 0.2 * rows, title, bottom=0.6 + 0.2 * rows)
    ax = figure.subplots()
    handles = []
    for index, (_, runs) in enumerate(groups):
        look: dict[str, Any] = {"color": f"C{index}", "linestyle": _LINES[index]}
        grid = pd.DataFrame([dict(points) for points in runs]).sort_index(axis=1)
        if len(grid) > 1:
            for points in runs:
                ax.plot(*points.T, **look, linewidth=0.6, alpha=0.45)
        handles += ax.plot(grid.columns, grid.mean(axis=0, skipna=False), **look, marker=_MARKERS[index], markevery=0.1)
    ax.set(xlabel="step", ylabel=ylabel)
    ax.margins(x=0.02)
    legend(figure, handles, [label for label, _ in groups], 2)
    return figure


@styled()
def forest(rows: pd.DataFrame, title: str, xlabel: str, zero: bool = False) -> Figure:
    """One line a row: an estimate with its interval, a tick at the published value, coloured by verdict.

    Args:
        rows: columns label, estimate, low, high, published, verdict; numbers may be missing.
        title: of the figure.
        xlabel: what the numbers are, with the unit.
        zero: whether the numbers are differences, so that 0 gets a line.
    """
    left = min(0.3 + 0.065 * max(map(len, rows["label"])), 3.0)
    figure = framed(7.0, 1.2 + 0.24 * len(rows), title, bottom=0.8, left=left)
    ax = figure.subplots()
    numbers = rows[["estimate", "low", "high", "published"]].astype(float)
    low, high = float(numbers.min(axis=None)), float(numbers.max(axis=None))
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    near = numbers[["estimate", "published"]].stack().dropna()
    floor = float(near[near > near.max() - 25].min()) - 8
    cut = low if zero or low >= floor or (near < floor).mean() > 0.4 else floor
    space = 0.04 * ((high - cut) or 1)
    ax.set(xlim=(cut - space, high + space), ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel)
    for place, row in enumerate(rows.itertuples()):
        color = VERDICTS.get(row.verdict, MUTED)
        if pd.notna(row.estimate) and row.estimate < cut:
            ax.text(cut, place, f"◂ {row.estimate:.1f}", va="center", ha="left", fontsize=7, color=color)
        elif pd.notna(row.estimate):
            if pd.notna(row.low):
                ax.plot(
                    [row.low, row.high], [place, place], color=color, linewidth=2.2, alpha=0.6, solid_capstyle="butt"
                )
            ax.plot(row.estimate, place, "o", color=color, markersize=5)
        if pd.notna(row.published) and row.published >= cut:
            ax.plot(row.published, place, "|", color=INK, markersize=11, markeredgewidth=1.6)
    if zero:
        ax.axvline(0, color=MUTED, linewidth=1)
    ax.set_yticks(range(len(rows)), [label if len(label) <= 44 else f"{label[:43]}…" for label in rows["label"]])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    shown = [word for word in VERDICTS if word and (rows["verdict"] == word).any()]
    handles = [Line2D([], [], color=VERDICTS[word], marker="o", linewidth=2.2) for word in shown]
    if not shown:
        several = bool(rows["low"].notna().any())
        handles = [Line2D([], [], color=VERDICTS[""], marker="o", linewidth=2.2 * several)]
        shown = ["ours, 95% interval" if several else "ours, without an interval"]
    if rows["published"].notna().any():
        handles, shown = (
            [*handles, Line2D([], [], color=INK, marker="|", linestyle="none", markersize=9)],
            [*shown, "published"],
        )
    legend(figure, handles, shown, 5)
    return figure


def pareto(sizes: ArrayLike, accuracies: ArrayLike) -> list[tuple[float, float]]:
    """The (size, accuracy) pairs that no other pair beats: none smaller or equal in size is at least as accurate."""
    frontier: list[tuple[float, float]] = []
    pairs = zip(np.asarray(sizes).tolist(), np.asarray(accuracies).tolist(), strict=True)
    for size, accuracy in sorted(pairs, key=lambda point: (point[0], -point[1])):
        if not frontier or accuracy > frontier[-1][1]:
            frontier.append((size, accuracy))
    return frontier


def _log_x(ax: Axes, values: Sequence[float], ticks: Sequence[float] | None = None) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5 (or at `ticks`) where the values span more than a factor of 8."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 8:
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(FixedLocator([]))
        decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
        nice = ticks or [m * 10.0**d for d in decades for m in (1, 2, 5) if low / 1.5 <= m * 10.0**d <= high * 1.5]
        ax.xaxis.set_major_locator(FixedLocator(list(nice)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scatter(ax: Axes, points: pd.DataFrame) -> list[tuple[Line2D, str]]:
    """Ours filled with error bars, the published hollow, a grey line from one to the other; what the legend needs."""
    for point in points.itertuples():
        ax.plot([point.published_x, point.x], [point.published, point.accuracy], color=MUTED, linewidth=0.7, zorder=1)
    ours, paper = points[points["accuracy"].notna()], points[points["published"].notna()]
    ax.errorbar(ours["x"], ours["accuracy"], ours["sd"], fmt="o", color="C0", capsize=2, linewidth=1, zorder=3)
    ax.plot(paper["published_x"], paper["published"], "s", color="C1", markerfacecolor="none", zorder=2)
    proxies = [(Line2D([], [], color="C0", marker="o", linestyle="none"), "ours, mean and standard deviation")]
    if len(paper):
        proxies.append((Line2D([], [], color="C1", marker="s", markerfacecolor="none", linestyle="none"), "published"))
    return proxies


@styled()
def accuracy_against_size(
    points: pd.DataFrame, title: str, elsewhere: Sequence[tuple[str, float, float]] = ()
) -> Figure:
    """Accuracy against the size of the saved model, with the Pareto frontier of ours, its models named.

    Args:
        points: columns label, x, accuracy, sd, published_x, published; accuracies in percent, sizes in MiB.
        title: of the figure.
        elsewhere: label, size and test accuracy of models of others.
    """
    figure = framed(7.0, 4.2, title, bottom=0.85)
    ax = figure.subplots()
    every = points[["accuracy", "published"]].astype(float).stack().dropna()
    floor = float(every.max()) - 20
    low = int((every < floor).sum())
    if 0 < 3 * low <= len(every):  # a few that hardly learned would press the others together
        kept = points[["accuracy", "published"]].astype(float)
        points = points.assign(**kept.where(kept >= floor)).dropna(subset=["accuracy", "published"], how="all")
        ax.set_title(f"{low} of {len(every)} points lie below {floor:.0f}% and are not shown")
    proxies = _scatter(ax, points)
    ours = points[points["accuracy"].notna()]
    front = pareto(ours["x"], ours["accuracy"])
    names = {(point.x, point.accuracy): point.label for point in ours.itertuples()}
    if len(front) > 1:
        ax.plot(*zip(*front, strict=True), color="C0", linestyle="--", linewidth=1, drawstyle="steps-post", zorder=1)
        proxies.append((Line2D([], [], color="C0", linestyle="--"), "Pareto front of ours"))
    for place, point in enumerate(front):
        right = point[0] < np.sqrt(float(ours["x"].min()) * float(ours["x"].max()))
        at = (7 if right else -7, -10 if place % 2 else 6)
        ax.annotate(names[point], point, at, textcoords="offset points", fontsize=7, ha="left" if right else "right")
    for label, size, accuracy in elsewhere:
        ax.plot(size, accuracy, "D", color=MUTED, markersize=4, zorder=2)
        ax.annotate(label, (size, accuracy), (6, 4), textcoords="offset points", fontsize=7, color=MUTED)
    if elsewhere:
        proxies.append((Line2D([], [], color=MUTED, marker="D", linestyle="none"), "of others, on test"))
    sizes = [float(value) for value in points[["x", "published_x"]].astype(float).stack() if value]
    _log_x(ax, [*sizes, *(size for _, size, _ in elsewhere)])
    ax.margins(x=0.12, y=0.15)
    ax.set(xlabel="size of the saved model (MiB)", ylabel="validation accuracy (%)")
    legend(figure, [line for line, _ in proxies], [label for _, label in proxies], 2 if elsewhere else 3)
    return figure


@styled()
def accuracy_against_value(points: pd.DataFrame, axis: str, title: str) -> Figure:
    """Accuracy against a swept setting, ours and the published; columns as for `accuracy_against_size`."""
    figure = framed(5.6, 3.6, title, bottom=0.85)
    ax = figure.subplots()
    points = points.sort_values("x")
    for color, dash, column in (("C0", "-", "accuracy"), ("C1", ":", "published")):
        drawn = points[points[column].notna()]
        ax.plot(drawn["x"], drawn[column], color=color, linestyle=dash, linewidth=1)
    proxies = _scatter(ax, points)
    values = points["x"].tolist()
    _log_x(ax, values, values)
    if len(values) <= 8:
        ax.xaxis.set_major_locator(FixedLocator(values))
    ax.margins(x=0.08, y=0.12)
    ax.set(xlabel=axis, ylabel="validation accuracy (%)")
    legend(figure, [line for line, _ in proxies], [label for _, label in proxies], 3)
    return figure


@styled()
def confusion(counts: ArrayLike, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix with the accuracy of each class: counts as numbers; rows are true, columns predicted."""
    matrix = np.asarray(counts, dtype=np.float64)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = framed(6.6, 4.6, title, bottom=0.8, left=1.0, wspace=0.05)
    ax, bars = figure.subplots(1, 2, width_ratios=(4, 1))
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
    for (row, column), value in np.ndenumerate(matrix):
        if value:  # colours that dark screens do not turn round
            color = "#fdfdfd" if share[row, column] > 0.55 else "#222222"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    ax.spines[:].set_visible(False)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted", ylabel="true")
    right = 100 * np.diag(share)
    bars.barh(range(len(classes)), right, color="C0", alpha=0.7)
    for place, value in enumerate(right):
        bars.text(2, place, f"{value:.1f}", va="center", fontsize=7, color=INK)
    bars.set(xlim=(0, 100), ylim=(len(classes) - 0.5, -0.5), xlabel="accuracy (%)")
    bars.set_yticks([])
    for one in (ax, bars):
        one.grid(visible=False)
        one.tick_params(length=0)
    return figure


@styled()
def samples(images: NDArray[np.uint8], labels: Sequence[str], title: str, each: int = 10) -> Figure:
    """The first `each` images of every class, a row a class. `images` is (n, height, width, 3) uint8."""
    names = sorted(set(labels))
    height, width = images.shape[1:3]
    canvas = np.full((len(names) * (height + 2) - 2, each * (width + 2) - 2, 3), 255, dtype=np.uint8)
    for row, name in enumerate(names):
        for column, index in enumerate([i for i, label in enumerate(labels) if label == name][:each]):
            top, left = row * (height + 2), column * (width + 2)
            canvas[top : top + height, left : left + width] = images[index]
    figure = framed(5.6, 0.5 + 0.42 * len(names), title, top=0.42, bottom=0.08, left=1.0)
    ax = figure.subplots()
    ax.imshow(canvas, interpolation="nearest", aspect="equal")
    ax.set_yticks([row * (height + 2) + height / 2 for row in range(len(names))], names)
    ax.set_xticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure
