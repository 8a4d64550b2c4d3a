"""A network as a drawing: `layout` says where its boxes, lines and arcs stand, `architecture` draws them.

A block is what the layers of one module make together: a convolution, a linear layer, or a Fire module with its squeeze
layer above its branches; pools stand between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from repro.records import Architecture, Layer
from repro.reporting.style import MUTED, styled

Kind = Literal["conv", "squeeze", "expand", "linear", "pool", "end"]
Path = tuple[tuple[float, float], ...]

_WIDTH, _LEFT, _RIGHT = 10.0, 1.2, 9.7
_MIDDLE = (_LEFT + _RIGHT) / 2
_HEIGHTS = {"pool": 0.68, "end": 0.68}
_FILLS = {
    "conv": "#cfe3f1", "squeeze": "#fbe0c4", "expand": "#fbe0c4", "linear": "#d5eadf", "pool": "#eeeef2", "end": "#ffffff",
}  # fmt: skip
_GAP = 0.5


@dataclass(frozen=True, slots=True)
class Box:
    """A box; (x, y) is its upper left corner, y grows downwards."""

    kind: Kind
    name: str
    detail: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The drawing in units of a block's height."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[Path] = field(default_factory=list)
    lines: list[Path] = field(default_factory=list)
    """From a squeeze layer to its branches, and from those together again."""
    arcs: list[tuple[str, str, Path]] = field(default_factory=list)
    """(module, identity or conv1x1, path) of each residual addition, from in front of a module to behind it."""

    @property
    def height(self) -> float:
        """Of the whole drawing."""
        return max(box.y + box.height for box in self.boxes) + 0.3


def layout(model: Architecture) -> Layout:
    """Blocks from the input downwards, what is computed in them and the shape that leaves them."""
    plan = Layout()
    residual = {module: kind for module, kind, _ in model.residual}
    y = _block(plan, "end", "input", _shape(model.input), 0.1)
    for (module, _), group in groupby(model.layers, key=lambda layer: (layer.module, layer.kind.endswith("_pool"))):
        layers, top = list(group), y + _GAP
        below = _module(plan, layers, top)
        if below is None:
            continue
        plan.arrows.append(((_MIDDLE, y), (_MIDDLE, top)))
        if module in residual:
            out, start, end = _LEFT - 0.7, top - 0.1, below + 0.17
            path = ((_MIDDLE, start), (out, start), (out, end), (_MIDDLE, end))
            plan.arcs.append((module, residual[module], path))
        y = below
    return plan


def _module(plan: Layout, layers: Sequence[Layer], y: float) -> float | None:
    """Adds what the layers make together; its lower edge, None where that is not worth a box (dropout, an addition)."""
    module, leaves = layers[0].module, _shape(layers[-1].output)
    weighted = [layer for layer in layers if layer.kind in {"conv", "linear"} and ".bypass" not in layer.name]
    if layers[0].kind.endswith("_pool"):
        over_all = layers[0].kind == "avg_pool"
        name = "global average pool" if over_all else f"max pool {layers[0].kernel}x{layers[0].kernel}"
        return _block(plan, "pool", name, leaves, y)
    if not weighted:
        return None
    norm = " + BN" if any(layer.kind == "batch_norm" for layer in layers) else ""
    first, *branches = weighted
    if first.kind == "linear":
        return _block(plan, "linear", module, f"{first.output[0]}", y)
    if not module.startswith("fire") or not branches:
        stride = f", stride {first.stride}" if first.stride not in {None, 1} else ""
        return _block(
            plan, "conv", module, f"{first.output[0]} of {first.kernel}x{first.kernel}{stride}{norm} → {leaves}", y
        )
    width = (_RIGHT - _LEFT - 0.3 * (len(branches) - 1)) / len(branches)
    squeezed = f"{module}  squeeze {first.output[0]} ({first.kernel}x{first.kernel})"
    plan.boxes.append(Box("squeeze", squeezed, "", _MIDDLE - 2.6, y, 5.2, 0.8))
    for place, layer in enumerate(branches):
        x = _LEFT + place * (width + 0.3)
        plan.boxes.append(
            Box("expand", f"{layer.output[0]} ({layer.kernel}x{layer.kernel})", "", x, y + 1.15, width, 0.8)
        )
        plan.lines.append(((_MIDDLE, y + 0.8), (x + width / 2, y + 1.15)))
        plan.lines.append(((x + width / 2, y + 1.95), (_MIDDLE, y + 2.3)))
    return _block(plan, "end", "concatenation" + norm, leaves, y + 2.3)


def _block(plan: Layout, kind: Kind, name: str, detail: str, y: float) -> float:
    height = _HEIGHTS.get(kind, 1.0)
    plan.boxes.append(Box(kind, name, detail, _LEFT, y, _RIGHT - _LEFT, height))
    return y + height


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


@styled()
def architecture(model: Architecture, title: str) -> Figure:
    """A network as a column of blocks, Fire modules with their branches, residual additions as arcs."""
    plan = layout(model)
    figure = Figure(figsize=(4.1, 0.45 + 0.3 * plan.height))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1 - 0.42 / figure.get_figheight()))
    ax.set(xlim=(0, _WIDTH), ylim=(plan.height, 0))
    ax.set_axis_off()
    figure.text(0.03, 1 - 0.1 / figure.get_figheight(), title, va="top", fontsize=10, fontweight="bold")
    for box in plan.boxes:
        ax.add_patch(Rectangle((box.x, box.y), box.width, box.height, fc=_FILLS[box.kind], ec=MUTED, linewidth=0.8))
        middle, weight = box.y + box.height / 2, "bold" if box.kind in {"conv", "linear"} else "normal"
        if not box.detail:
            ax.text(box.x + box.width / 2, middle, box.name, va="center", ha="center", fontsize=7)
            continue
        ax.text(box.x + 0.2, middle, box.name, va="center", fontsize=8, fontweight=weight)
        ax.text(box.x + box.width - 0.2, middle, box.detail, va="center", ha="right", fontsize=7)
    ax.add_collection(LineCollection([*plan.lines, *plan.arrows], colors=MUTED, linewidths=0.8))
    heads = [(x, y - 0.09) for _, (x, y) in plan.arrows]
    ax.plot(*zip(*heads, strict=True), "v", color=MUTED, markersize=3.5)
    for _, kind, path in plan.arcs:
        dash = "-" if kind == "identity" else "--"
        ax.plot(*zip(*path, strict=True), color="C1", linewidth=1.2, linestyle=dash, solid_joinstyle="round")
        ax.plot(*path[-1], marker="o", color="C1", markersize=7, markerfacecolor="white", markeredgewidth=1)
        ax.plot(*path[-1], marker="+", color="C1", markersize=5, markeredgewidth=1)
        if kind != "identity":
            ax.text(path[1][0] - 0.05, sum(y for _, y in path[1:3]) / 2, "1x1", fontsize=6, ha="right")
    return figure
