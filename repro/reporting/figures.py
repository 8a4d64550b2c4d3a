"""Figures by matplotlib's object API: functions of frames and curves that return a `Figure` and never show it.

One style sheet (`report.mplstyle`), colours of Okabe and Ito with line styles and markers beside them, so that print and
the colour-blind lose nothing; the same values give the same bytes. Text is never read as mathematics: a `$` is a `$`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from repro.reporting.style import INK, MUTED, framed, legend, saved, styled
from repro.rows import Curve

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SPLITS = (("train", "training"), ("val", "validation"))
_NAMES = {"loss": "loss", "accuracy": "accuracy (%)"}
VERDICTS = {
    "consistent": "#009E73",
    "ours below": "#D55E00",
    "ours above": "#0072B2",
    "better": "#009E73",
    "worse": "#D55E00",
    "a match": "#009E73",
    "less accurate": "#D55E00",
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

    def runs(self, metric: str) -> pd.DataFrame:
        """(epochs, runs): a metric, accuracies in percent, nan where a run has ended or has no finite value."""
        runs = [dict(zip(curve.epoch.tolist(), getattr(curve, metric).tolist(), strict=True)) for curve in self.curves]
        found = pd.DataFrame(runs, dtype=float).T.sort_index()
        return found.where(np.isfinite(found)) * (100 if metric.endswith("accuracy") else 1)


def _look(place: int) -> dict[str, Any]:
    """Colour, dashes and marker of the line at a place, another pairing from the eighth line on."""
    shape = (place + place // 7) % 7
    return {"color": f"C{place % 7}", "linestyle": _LINES[shape], "marker": _MARKERS[shape]}


def _over_runs(ax: Axes, runs: pd.DataFrame, label: str, look: Mapping[str, Any]) -> None:
    """Every run, a column, thin, and the mean as long as all of them have a value."""
    for name in runs if len(runs.columns) > 1 else ():
        ax.plot(runs[name].dropna(), **{**look, "marker": None, "linewidth": 0.6, "alpha": 0.45})
    every = max(len(runs) // 8, 1)
    named = f" {label}" if label.startswith("_") else label  # a legend leaves out what begins with "_"
    ax.plot(runs.mean(axis=1, skipna=False), label=named, markevery=(every // 2, every), **look)
    ax.margins(x=0.02)


def _curves(ax: Axes, series: Series, metric: str, label: str, look: Mapping[str, Any]) -> None:
    """A metric over epochs; on validation accuracy a star at the best epoch of every run, and the published level."""
    runs = series.runs(metric)
    _over_runs(ax, runs, label, look)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if metric == "val_accuracy":
        known = runs.dropna(axis="columns", how="all")
        white: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.4}
        ax.plot([known[run].idxmax() for run in known], known.max(), "*", color=look["color"], **white)
        if series.published is not None:
            ax.axhline(series.published, color=look["color"], linestyle=":", linewidth=0.8, alpha=0.8)


def _limit_loss(axes: Sequence[Axes], series: Sequence[Series]) -> None:
    """Cut a loss axis where a run explodes: three times the median loss of the first epochs is never passed in learning."""
    losses = pd.concat([one.runs(f"{split}_loss") for one in series for split, _ in _SPLITS], axis=1)
    if not losses[:1].notna().any(axis=None):
        return
    top, highest = 3 * float(losses.iloc[0].median()), float(losses.max(axis=None))
    for ax in axes:
        ax.set_ylim(0, min(top, 1.05 * highest))
        if highest > top:
            ax.set_title(f"{ax.get_title(loc='left')} (cut at {top:.2g})")


def _epochs_legend(figure: Figure, series: Sequence[Series], columns: int) -> None:
    marks = [Line2D([], [], color=MUTED, marker="*", linestyle="none", markersize=7, label="best epoch of a run")]
    if any(one.published is not None for one in series):
        marks.append(Line2D([], [], color=MUTED, linestyle=":", linewidth=1, label="published"))
    legend(figure, columns, marks)


@styled()
def run_curves(curve: Curve, title: str) -> bytes:
    """Loss and accuracy of one run as PNG, cheap enough to be drawn for every run of a sweep."""
    return saved(variant_curves(Series(title, (curve,))), "png", dpi=100)


@styled()
def variant_curves(series: Series) -> Figure:
    """Training and validation loss and accuracy of one variant: every run thin, and their mean."""
    runs = len(series.curves)
    title = series.label if runs == 1 else f"{series.label}: {runs} runs, and their mean while all of them run"
    figure = framed(7.0, 3.0, title, top=0.62, bottom=0.72, wspace=0.22)
    axes = figure.subplots(1, 2)
    for ax, metric in zip(axes, _NAMES, strict=True):
        ax.set(title=_NAMES[metric], xlabel="epoch")
        for place, (split, name) in enumerate(_SPLITS):
            _curves(ax, series, f"{split}_{metric}", name, _look(place) | {"marker": None})
    _limit_loss(axes[:1], [series])
    _epochs_legend(figure, [series], 4)
    return figure


@styled()
def study_curves(series: Sequence[Series], title: str) -> Figure:
    """Accuracy and loss of a study's variants over the epochs, training on the left, validation on the right."""
    columns = 3 if max(map(len, (one.label for one in series)), default=0) <= 30 else 2
    rows = -(-(len(series) + 2) // columns)
    figure = framed(7.0, 5.0 + 0.2 * rows, title, top=0.62, bottom=0.6 + 0.2 * rows, wspace=0.1, hspace=0.24)
    axes = figure.subplots(2, 2, sharex="all", sharey="row")
    for row, metric in zip(axes, reversed(_NAMES), strict=True):
        for ax, (split, name) in zip(row, _SPLITS, strict=True):
            ax.set(title=f"{name} {_NAMES[metric]}", xlabel="epoch" if metric == "loss" else "")
            for place, one in enumerate(series):
                _curves(ax, one, f"{split}_{metric}", one.label, _look(place))
    _limit_loss(axes[1], series)
    _epochs_legend(figure, series, columns)
    return figure


@styled()
def steps(groups: Sequence[tuple[str, pd.DataFrame]], title: str, ylabel: str) -> Figure:
    """A metric over steps: of every group (label, runs by step) each run thin, and their mean where all have a point."""
    rows = -(-len(groups) // 2)
    figure = framed(7.0, 3.2 + 0.2 * rows, title, bottom=0.6 + 0.2 * rows)
    ax = figure.subplots()
    for place, (label, runs) in enumerate(groups):
        _over_runs(ax, runs, label, _look(place))
    ax.set(xlabel="step", ylabel=ylabel)
    legend(figure, 2)
    return figure


@styled()
def forest(rows: pd.DataFrame, title: str, xlabel: str, zero: bool = False, margin: float | None = None) -> Figure:
    """One line a row: an estimate with its interval, a tick at the published value, coloured by verdict.

    Args:
        rows: columns label, estimate, low, high, published, verdict; numbers may be missing.
        title: of the figure.
        xlabel: what the numbers are, with the unit.
        zero: whether the numbers are differences, so that 0 gets a line.
        margin: how far below 0 a row may lie that still matches, as a dotted line.
    """
    left = min(0.3 + 0.065 * max(map(len, rows["label"])), 3.0)
    figure = framed(7.0, 1.2 + 0.24 * len(rows), title, bottom=0.8, left=left)
    ax = figure.subplots()
    names = ["estimate", "low", "high", "published"]
    rows = rows.assign(**rows[names].astype(float), place=range(len(rows)))
    low, high = (float(found) for found in (rows[names].min(axis=None), rows[names].max(axis=None)))
    if zero:
        low, high = min(low, -(margin or 0.0)), max(high, 0.0)
        ax.axvline(0, color=MUTED, linewidth=1)
    if margin:
        ax.axvline(-margin, color=INK, linewidth=1, linestyle=":", label="margin of a match")
    near = rows[["estimate", "published"]].stack()
    floor = float(near[near > near.max() - 25].min()) - 8
    cut = low if zero or low >= floor or (near < floor).mean() > 0.4 else floor
    space = 0.04 * ((high - cut) or 1)
    ax.set(xlim=(cut - space, high + space), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel(xlabel, loc="right")
    ours = "ours, 95% interval" if rows["low"].notna().any() else "ours, without an interval"
    for verdict in [one for one in VERDICTS if one in set(rows["verdict"])]:
        drawn = rows[(rows["verdict"] == verdict) & ~(rows["estimate"] < cut)]
        color, label = VERDICTS[verdict], verdict or ("" if rows["verdict"].any() else ours)
        ax.hlines(drawn["place"], drawn["low"], drawn["high"], color=color, linewidth=2.2, alpha=0.6)
        ax.plot(drawn["estimate"], drawn["place"], "o", color=color, markersize=5, label=label)
    for row in rows[rows["estimate"] < cut].itertuples():
        color = VERDICTS[row.verdict]
        ax.text(cut, row.place, f"◂ {row.estimate:.1f}", va="center", ha="left", fontsize=7, color=color)
    if rows["published"].notna().any():
        there = rows[rows["published"] >= cut]
        ax.plot(
            there["published"], there["place"], "|", color=INK, markersize=11, markeredgewidth=1.6, label="published"
        )
    ax.set_yticks(rows["place"], ["\n".join(wrap(label, 44, max_lines=2, placeholder=" …")) for label in rows["label"]])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    legend(figure, 5)
    return figure


def pareto(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other one beats, by x: none of a smaller or equal x is at least as accurate."""
    ordered = points.sort_values(["x", "accuracy"], ascending=[True, False], kind="stable")
    return ordered[ordered["accuracy"] > ordered["accuracy"].cummax().shift(fill_value=-1)]


def _scatter(ax: Axes, points: pd.DataFrame, xlabel: str) -> None:
    """Ours filled with error bars, the published hollow, a grey line from one to the other; x is logarithmic over decades."""
    ends = [points[names].astype(float).T for names in (["published_x", "x"], ["published", "accuracy"])]
    ax.plot(*ends, color=MUTED, linewidth=0.7, zorder=1)
    ours, paper = points[points["accuracy"].notna()], points[points["published"].notna()]
    look: dict[str, Any] = {"fmt": "o", "color": "C0", "capsize": 2, "linewidth": 1, "zorder": 3}
    ax.errorbar(ours["x"], ours["accuracy"], ours["sd"], **look, label="ours, mean and standard deviation")
    if len(paper):
        look = {"color": "C1", "markerfacecolor": "none", "zorder": 2}
        ax.plot(paper["published_x"], paper["published"], "s", **look, label="published")
    ax.set(xlabel=xlabel, ylabel="validation accuracy (%)")


def _log_x(ax: Axes, values: pd.Series) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 where the values span more than a factor of 8."""
    if 0 < 8 * values.min() < values.max():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")


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
    kept = points[["accuracy", "published"]].astype(float)
    floor, every = float(kept.max(axis=None)) - 20, int(kept.count().sum())
    low = int((kept < floor).sum(axis=None))
    if 0 < 3 * low <= every:  # a few that hardly learned would press the others together
        points = points.assign(**kept.where(kept >= floor)).dropna(subset=["accuracy", "published"], how="all")
        ax.set_title(f"{low} of {every} points lie below {floor:.0f}% and are not shown")
    _scatter(ax, points, "size of the saved model (MiB)")
    ours = points[points["accuracy"].notna()]
    front = pareto(ours)
    if len(front) > 1:
        look: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "drawstyle": "steps-post", "zorder": 1}
        ax.plot(front["x"], front["accuracy"], color="C0", **look, label="Pareto front of ours")
    for place, point in enumerate(front.itertuples()):
        right = point.x < np.sqrt(float(ours["x"].min()) * float(ours["x"].max()))
        at, side = (7 if right else -7, -10 if place % 2 else 6), "left" if right else "right"
        ax.annotate(point.label, (point.x, point.accuracy), at, textcoords="offset points", fontsize=7, ha=side)
    for label, size, accuracy in elsewhere:
        ax.annotate(label, (size, accuracy), (6, 4), textcoords="offset points", fontsize=7, color=MUTED)
    others = pd.DataFrame(elsewhere, columns=["label", "x", "accuracy"], dtype=object)
    if elsewhere:
        ax.plot(others["x"], others["accuracy"], "D", color=MUTED, zorder=2, label="of others, on test")
    _log_x(ax, pd.concat([points["x"], points["published_x"], others["x"]]).astype(float))
    ax.margins(x=0.12, y=0.15)
    legend(figure, 2 if elsewhere else 3)
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
    _scatter(ax, points, axis)
    _log_x(ax, points["x"])
    if len(points) <= 8 or ax.get_xscale() == "log":
        ax.xaxis.set_major_locator(FixedLocator(points["x"].tolist()))
    ax.margins(x=0.08, y=0.12)
    legend(figure, 3)
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
