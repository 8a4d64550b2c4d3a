"""A network as a drawing: `layout` says where its boxes, arrows and arcs stand, `architecture` draws them.

A block is what the layers of one module make together: a convolution, a Fire module, a linear layer; pools stand between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from repro.records import Architecture, Layer
from repro.reporting.style import MUTED, styled

Kind = Literal["conv", "fire", "linear", "pool", "end"]

_WIDTH, _LEFT, _RIGHT = 10.0, 1.2, 9.7
_HEIGHTS = {"pool": 0.68, "end": 0.68}
_FILLS = {"conv": "#cfe3f1", "fire": "#fbe0c4", "linear": "#d5eadf", "pool": "#eeeef2", "end": "#ffffff"}
_GAP = 0.5


@dataclass(frozen=True, slots=True)
class Box:
    """A block; (x, y) is its upper left corner, y grows downwards."""

    kind: Kind
    name: str
    detail: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Arc:
    """A residual addition: the path from in front of a block to the addition behind it."""

    kind: str
    module: str
    path: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The drawing in units of a block's height."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[tuple[float, float], tuple[float, float]], ...]
    """(start, end) of the lines between consecutive blocks."""
    arcs: tuple[Arc, ...]


def layout(model: Architecture) -> Layout:
    """Blocks from the input downwards, what is computed in them and the shape that leaves them."""
    described: list[tuple[Kind, str, str]] = [("end", "input", _shape(model.input))]
    for _, layers in groupby(model.layers, key=lambda layer: (layer.module, layer.kind in {"max_pool", "avg_pool"})):
        if (block := _block(list(layers))) is not None:
            described.append(block)
    boxes: list[Box] = []
    y = 0.1
    for kind, name, detail in described:
        height = _HEIGHTS.get(kind, 1.0)
        boxes.append(Box(kind, name, detail, _LEFT, y, _RIGHT - _LEFT, height))
        y += height + _GAP
    middle = (_LEFT + _RIGHT) / 2
    arrows = tuple(((middle, above.y + above.height), (middle, below.y)) for above, below in pairwise(boxes))
    placed = {box.name: box for box in boxes}
    arcs = tuple(_arc(placed[module], kind, middle) for module, kind, _ in model.residual if module in placed)
    return Layout(_WIDTH, y - _GAP + 0.1, tuple(boxes), arrows, arcs)


def _block(layers: Sequence[Layer]) -> tuple[Kind, str, str] | None:
    """What stands in a block's box; None for layers that compute nothing worth one (dropout, an addition)."""
    module, leaves = layers[0].module, _shape(layers[-1].output)
    weighted = [layer for layer in layers if layer.kind in {"conv", "linear"}]
    if layers[0].kind in {"max_pool", "avg_pool"}:
        over_all = layers[0].kind == "avg_pool"
        name = "global average pool" if over_all else f"max pool {layers[0].kernel}x{layers[0].kernel}"
        return "pool", name, leaves
    if not weighted:
        return None
    norm = " + BN" if any(layer.kind == "batch_norm" for layer in layers) else ""
    if weighted[0].kind == "linear":
        return "linear", module, f"{weighted[0].output[0]}"
    if module.startswith("fire"):
        squeeze, *expand = [layer for layer in weighted if ".bypass" not in layer.name]
        wide = " + ".join(f"{layer.output[0]} ({layer.kernel}x{layer.kernel})" for layer in expand)
        return "fire", module, f"{squeeze.output[0]} ▸ {wide}{norm} → {leaves}"
    conv = weighted[0]
    stride = f", stride {conv.stride}" if conv.stride not in {None, 1} else ""
    return "conv", module, f"{conv.output[0]} of {conv.kernel}x{conv.kernel}{stride}{norm} → {leaves}"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _arc(box: Box, kind: str, middle: float) -> Arc:
    out, top, bottom = _LEFT - 0.7, box.y - 0.1, box.y + box.height + 0.17
    return Arc(kind, box.name, ((middle, top), (out, top), (out, bottom), (middle, bottom)))


@styled()
def architecture(model: Architecture, title: str) -> Figure:
    """A network as a column of blocks, its Fire modules with squeeze and expand widths, residual additions as arcs."""
    plan = layout(model)
    figure = Figure(figsize=(4.1, 0.45 + 0.36 * plan.height))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1 - 0.42 / figure.get_figheight()))
    ax.set(xlim=(0, plan.width), ylim=(plan.height, 0))
    ax.set_axis_off()
    figure.text(0.03, 1 - 0.1 / figure.get_figheight(), title, va="top", fontsize=10, fontweight="bold")
    for box in plan.boxes:
        rounded = FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=0.12", facecolor=_FILLS[box.kind],
            edgecolor=MUTED, linewidth=0.8, mutation_aspect=1,
        )  # fmt: skip
        ax.add_patch(rounded)
        middle = box.y + box.height / 2
        ax.text(
            box.x + 0.2,
            middle,
            box.name,
            va="center",
            fontsize=8,
            fontweight="bold" if box.kind in {"conv", "fire", "linear"} else "normal",
        )
        ax.text(box.x + box.width - 0.2, middle, box.detail, va="center", ha="right", fontsize=7)
    for start, end in plan.arrows:
        ax.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, color=MUTED, lw=0.8)
        )
    for arc in plan.arcs:
        dash = "-" if arc.kind == "identity" else "--"
        ax.plot(*zip(*arc.path, strict=True), color="C1", linewidth=1.2, linestyle=dash, solid_joinstyle="round")
        ax.plot(*arc.path[-1], marker="o", color="C1", markersize=7, markerfacecolor="white", markeredgewidth=1)
        ax.plot(*arc.path[-1], marker="+", color="C1", markersize=5, markeredgewidth=1)
        if arc.kind != "identity":
            ax.text(arc.path[1][0] - 0.05, sum(y for _, y in arc.path[1:3]) / 2, "1x1", fontsize=6, ha="right")
    return figure
