"""Figures by matplotlib's object API: functions of values that draw on an `ax` or return a `Figure` and never show it.

One style sheet (`report.mplstyle`), colours of Okabe and Ito with line styles and markers beside them, so that print and
the colour-blind lose nothing; the same values give the same bytes. Text is never read as mathematics: a `$` is a `$`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from repro.reporting.style import MUTED, framed, legend, png, styled
from repro.rows import Curve

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SPLITS = (("train", "training", "#0072B2", "-"), ("val", "validation", "#D55E00", "--"))
_NAMES = {"loss": "loss", "accuracy": "accuracy (%)"}


@dataclass(frozen=True, slots=True)
class Series:
    """The curves of one variant, one a seed."""

    label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One variant in a scatter plot: accuracies in percent, `x` a size in MiB or the value of a hyperparameter."""

    label: str
    x: float
    accuracy: float | None
    """Mean over seeds; None where nothing was run."""
    sd: float | None = None
    published_x: float | None = None
    published_accuracy: float | None = None


def over_seeds(curves: Sequence[Curve], metric: str) -> tuple[NDArray[np.float64], ...]:
    """A metric by epoch over runs of different length: epochs, mean, standard deviation and n, arrays of one length.

    An epoch counts the runs that reached it with a finite value; the mean is nan where there are none, the standard
    deviation (n - 1 in the denominator) where there are fewer than two.
    """
    grid = np.full((len(curves), max(int(curve.epoch.max(initial=0)) for curve in curves)), np.nan)
    for row, curve in zip(grid, curves, strict=True):
        row[curve.epoch - 1] = getattr(curve, metric)
    finite = np.isfinite(grid)
    n = finite.sum(axis=0)
    mean = np.where(n > 0, np.where(finite, grid, 0).sum(axis=0) / np.maximum(n, 1), np.nan)
    squares = np.where(finite, (np.where(finite, grid, 0) - mean) ** 2, 0).sum(axis=0)
    sd = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    return np.arange(1.0, grid.shape[1] + 1), mean, sd, n.astype(np.float64)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (size, accuracy) pairs that no other pair beats: none smaller or equal in size is at least as accurate."""
    frontier: list[tuple[float, float]] = []
    for size, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not frontier or accuracy > frontier[-1][1]:
            frontier.append((size, accuracy))
    return frontier


def _line(ax: Axes, series: Series, metric: str, **look: Any) -> Line2D:
    """Mean and band, accuracies in percent; thin and pale where some of the runs have ended already."""
    scale = 100 if metric.endswith("accuracy") else 1
    epochs, mean, sd, n = over_seeds(series.curves, metric)
    mean, sd = scale * mean, scale * sd
    every = max(len(epochs) // 8, 1)
    all_there = np.where(n == n.max(initial=0), mean, np.nan)
    ax.plot(epochs, mean, **look | {"marker": None, "linewidth": 0.8, "alpha": 0.55})
    (line,) = ax.plot(epochs, all_there, markevery=(every // 2, every), **look)
    if np.isfinite(sd).any():
        ax.fill_between(epochs, mean - sd, mean + sd, color=look["color"], alpha=0.15, linewidth=0)
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


@styled()
def run_curves(curve: Curve, title: str) -> bytes:
    """Loss and accuracy of one run as PNG, cheap enough to be drawn for every run of a sweep."""
    return png(_variant(Series(title, (curve,))), dpi=100)


@styled()
def variant_curves(series: Series) -> Figure:
    """Training and validation loss and accuracy of one variant: mean and standard deviation over its seeds."""
    return _variant(series)


def _variant(series: Series) -> Figure:
    seeds = len(series.curves)
    title = series.label if seeds == 1 else f"{series.label}, mean and standard deviation of {seeds} seeds"
    figure = framed(7.0, 3.0, title, top=0.62, bottom=0.72, wspace=0.22)
    axes = figure.subplots(1, 2)
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.set_title(_NAMES[metric])
        lines = [_line(ax, series, f"{split}_{metric}", color=c, linestyle=dash) for split, _, c, dash in _SPLITS]
        _epochs_axis(ax)
    _limit_loss(axes[:1], [series])
    legend(figure, lines, [name for _, name, *_ in _SPLITS], 2)
    return figure


@styled()
def study_curves(series: Sequence[Series], title: str) -> Figure:
    """Loss and accuracy of a study's variants over the epochs, training on the left, validation on the right."""
    columns = 3 if max(map(len, (one.label for one in series)), default=0) <= 30 else 2
    rows = -(-len(series) // columns)
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
    legend(figure, handles, [one.label for one in series], columns)
    return figure


def _numbers(value: float, _: int = 0) -> str:
    return f"{value:g}"


def _log_x(ax: Axes, values: Sequence[float], ticks: Sequence[float] | None = None) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5 (or at `ticks`) where the values span more than a factor of 8."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 8:
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(FixedLocator([]))
        decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
        nice = ticks or [m * 10.0**d for d in decades for m in (1, 2, 5) if low / 1.5 <= m * 10.0**d <= high * 1.5]
        ax.xaxis.set_major_locator(FixedLocator(list(nice)))
    ax.xaxis.set_major_formatter(FuncFormatter(_numbers))


def _label_points(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside their points, each where it meets no point and no other name; one that fits nowhere is left out."""
    figure = ax.get_figure()
    assert figure is not None
    pixel = figure.dpi / 72
    ax.autoscale_view()  # else the places are those of axes that do not know their data yet
    anchors = ax.transData.transform([(x, y) for x, y, _ in points]) / pixel
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in anchors]
    frame = ax.bbox.get_points().ravel() / pixel
    for (x, y), (at_x, at_y, text) in zip(anchors, points, strict=True):
        width, height = 4.0 * len(text), 8.0  # about 4 points a letter
        for dx, dy in product((6, -6 - width, -width / 2), (4, -11, 14, -21)):
            box = (x + dx, y + dy, x + dx + width, y + dy + height)
            inside = box[0] >= frame[0] and box[2] <= frame[2] + 8 and box[1] >= frame[1] and box[3] <= frame[3]
            if inside and not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
            ):
                ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
                ax.annotate(
                    text, (at_x, at_y), (dx, dy + 1), textcoords="offset points", fontsize=7, bbox=ground,
                    arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
                )  # fmt: skip
                taken.append(box)
                break


def _scatter(ax: Axes, points: Sequence[Point]) -> None:
    """Ours filled with error bars, the paper's hollow, a grey line from one to the other."""
    for point in points:
        published_x = point.x if point.published_x is None else point.published_x
        if point.accuracy is not None and point.published_accuracy is not None:
            pair = [published_x, point.x], [point.published_accuracy, point.accuracy]
            ax.plot(*pair, color=MUTED, linewidth=0.7, zorder=1)
        if point.accuracy is not None:
            ax.errorbar(point.x, point.accuracy, point.sd, fmt="o", color="C0", capsize=2, linewidth=1, zorder=3)
        if point.published_accuracy is not None:
            ax.plot(published_x, point.published_accuracy, "s", color="C1", markerfacecolor="none", zorder=2)


def _scatter_legend(figure: Figure, points: Sequence[Point], *, frontier: bool) -> None:
    proxies = {
        "ours, mean and standard deviation over seeds": Line2D([], [], color="C0", marker="o", linestyle="none"),
        "published": Line2D([], [], color="C1", marker="s", markerfacecolor="none", linestyle="none"),
        "Pareto frontier of ours": Line2D([], [], color="C0", linestyle="--"),
    }
    if not frontier:
        del proxies["Pareto frontier of ours"]
    if all(point.published_accuracy is None for point in points):
        del proxies["published"]
    legend(figure, list(proxies.values()), list(proxies), 3)


def _above(point: Point, floor: float) -> Point:
    ours, paper = (
        None if value is None or value < floor else value for value in (point.accuracy, point.published_accuracy)
    )
    return replace(point, accuracy=ours, published_accuracy=paper)


@styled()
def accuracy_against_size(points: Sequence[Point], title: str) -> Figure:
    """Accuracy against the size of the saved model, with the Pareto frontier of ours and the published points."""
    figure = framed(7.0, 4.2, title, bottom=0.85)
    ax = figure.subplots()
    accuracies = [v for point in points for v in (point.accuracy, point.published_accuracy) if v is not None]
    floor = max(accuracies, default=0) - 20
    low = sum(value < floor for value in accuracies)
    if 0 < 3 * low <= len(accuracies):  # a few that hardly learned would press the others together
        points = [_above(point, floor) for point in points]
        ax.set_title(f"{low} of {len(accuracies)} points lie below {floor:.0f}%, off the picture")
    _scatter(ax, points)
    if ours := pareto([(point.x, point.accuracy) for point in points if point.accuracy is not None]):
        ax.plot(*zip(*ours, strict=True), color="C0", linestyle="--", linewidth=1, drawstyle="steps-post", zorder=1)
    _log_x(ax, [value for point in points for value in (point.x, point.published_x) if value])
    ax.margins(x=0.12, y=0.12)
    ax.set(xlabel="size of the saved model (MiB)", ylabel="validation accuracy (%)")
    named = [(p.x, p.published_accuracy if p.accuracy is None else p.accuracy, p.label) for p in points]
    shown = [(x, y, label) for x, y, label in named if y is not None]
    _label_points(ax, sorted(shown, key=lambda point: point[:2] not in ours))
    _scatter_legend(figure, points, frontier=len(ours) > 1)
    return figure


@styled()
def accuracy_against_value(points: Sequence[Point], axis: str, title: str) -> Figure:
    """Accuracy against a swept hyperparameter, ours and the published."""
    figure = framed(5.6, 3.6, title, bottom=0.85)
    ax = figure.subplots()
    points = sorted(points, key=lambda point: point.x)
    for color, dash, field in (("C0", "-", "accuracy"), ("C1", ":", "published_accuracy")):
        drawn = [(p.x, getattr(p, field)) for p in points if getattr(p, field) is not None]
        if drawn:
            ax.plot(*zip(*drawn, strict=True), color=color, linestyle=dash, linewidth=1)
    _scatter(ax, points)
    values = [point.x for point in points]
    _log_x(ax, values, values)
    if len(values) <= 8:
        ax.xaxis.set_major_locator(FixedLocator(values))
    ax.margins(x=0.08, y=0.12)
    ax.set(xlabel=axis, ylabel="validation accuracy (%)")
    _scatter_legend(figure, points, frontier=False)
    return figure


@styled()
def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix: counts as numbers, colours by the share of the true class; rows true, columns predicted."""
    matrix = np.asarray(counts, dtype=np.float64)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = framed(5.2, 4.8, title, bottom=0.8)
    figure.subplots_adjust(left=0.2, right=0.98)
    ax = figure.subplots()
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        color = (
            "#fdfdfd" if share[row, column] > 0.55 else "#222222" if value else "#999999"
        )  # not those that turn dark
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted", ylabel="true")
    return figure


@styled()
def samples(images: NDArray[np.uint8], labels: Sequence[str], title: str, each: int = 10) -> Figure:
    """The first `each` images of every class, a row a class. `images` is (n, height, width, 3) uint8."""
    names = list(dict.fromkeys(sorted(labels)))
    height, width = images.shape[1:3]
    gap = 2
    sheet = np.full((len(names) * (height + gap) - gap, each * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for row, name in enumerate(names):
        chosen = [image for image, label in zip(images, labels, strict=True) if label == name][:each]
        for column, image in enumerate(chosen):
            y, x = row * (height + gap), column * (width + gap)
            sheet[y : y + height, x : x + width] = image
    figure = framed(5.2, 0.45 + 0.42 * len(names), title, top=0.42, bottom=0.08)
    figure.subplots_adjust(left=0.19)
    ax = figure.subplots()
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    for row, name in enumerate(names):
        ax.text(-6, row * (height + gap) + height / 2, name, ha="right", va="center", fontsize=8)
    return figure
