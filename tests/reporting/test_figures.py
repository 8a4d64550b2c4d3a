"""Figures: the same values give the same bytes, odd values break nothing, and what is drawn is what was given."""

import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from repro.records import Architecture, Layer
from repro.reporting import drawing, figures, page, style
from repro.reporting.figures import Point, Series
from repro.rows import Curve
from tests.golden import held_against


def curve(epochs, best=0.7, **replaced):
    epoch = np.arange(1, epochs + 1)
    rise = best * (1 - 0.6 * np.exp(-epoch / 4.0))
    arrays = {
        "epoch": epoch.astype(np.int64),
        "train_loss": 2.3 * np.exp(-epoch / 9.0),
        "train_accuracy": rise + 0.03,
        "val_loss": 2.3 * np.exp(-epoch / 12.0),
        "val_accuracy": rise,
        "epoch_seconds": np.full(epochs, 30.0),
    }
    return Curve(**arrays | replaced)


def fire(name, squeeze, width, size, kind="identity"):
    """The layers of a Fire module as an architecture lists them."""
    half, shape = width // 2, (width, size, size)

    def layer(part, of, output, kernel=None, padding=None):
        return Layer(f"{name}.{part}", of, name, (96, size, size), output, kernel, 1, padding, 10, 100)

    parts = [
        layer("squeeze.conv", "conv", (squeeze, size, size), 1, 0),
        layer("small", "conv", (half, size, size), 1, 0),
        layer("large", "conv", (half, size, size), 3, 1),
        layer("concat", "concat", shape),
        layer("bn", "batch_norm", shape),
    ]
    if kind != "none":
        parts += [layer("bypass.conv", "conv", shape, 1, 0)] * (kind == "conv1x1") + [layer("add", "add", shape)]
    return parts


@pytest.fixture
def network():
    conv = Layer("conv1.conv", "conv", "conv1", (3, 32, 32), (96, 13, 13), 7, 2, 0, 14208, 2384928)
    pool = Layer("pool1", "max_pool", "pool1", (96, 13, 13), (96, 6, 6), 3, 2, 0, 0, 0)
    dropout = Layer("dropout", "dropout", "dropout", (128, 6, 6), (128, 6, 6), None, None, None, 0, 0)
    end = Layer("pool10", "avg_pool", "pool10", (10, 6, 6), (10,), None, None, None, 0, 0)
    layers = (conv, pool, *fire("fire2", 16, 128, 6, "conv1x1"), *fire("fire3", 16, 128, 6), dropout, end)
    residual = (("fire2", "conv1x1", "fire2"), ("fire3", "identity", "fire3"))
    return Architecture("squeezenet", (3, 32, 32), layers, residual, 1, 1)


SERIES = [Series("SqueezeNet", (curve(12), curve(9, 0.72))), Series("_under $score$", (curve(6, 0.65),))]
POINTS = [
    Point("AlexNet", 88.78, 75.4, 0.4, 88.78, 75.42),
    Point("SqueezeNet", 2.83, 70.7, None, 2.95, 70.76),
    Point("planned only", 1.4, None, None, 1.4, 75.42),
    Point("chance", 3.3, 10.0, 0.0, 3.4, 10.0),
]


def drawn(network):
    images = np.arange(12 * 32 * 32 * 3, dtype=np.uint32).reshape(12, 32, 32, 3).astype(np.uint8)
    return {
        "variant": figures.variant_curves(SERIES[0]),
        "study": figures.study_curves(SERIES, "A study with $ and %"),
        "size": figures.accuracy_against_size(POINTS, "Sizes"),
        "axis": figures.accuracy_against_value(POINTS, "optimizer.final_lr", "Rates"),
        "confusion": figures.confusion([[40, 2], [0, 41]], ("cat", "dog"), "Best"),
        "samples": figures.samples(images, ["cat", "dog"] * 6, "Samples"),
        "architecture": drawing.architecture(network, "Residual"),
    }


def test_the_same_values_give_the_same_bytes_whatever_the_user_s_own_style(network):
    first = {name: (style.png(figure), style.svg(figure)) for name, figure in drawn(network).items()}
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None, "lines.linewidth": 9}):
        second = {name: (style.png(figure), style.svg(figure)) for name, figure in drawn(network).items()}
    assert [name for name in first if first[name] != second[name]] == []
    assert len({png for png, _ in first.values()}) == len(first)
    for png, svg in first.values():
        assert png.startswith(b"\x89PNG")
        assert b"<dc:date>" not in svg
        assert b"atplotlib v" not in svg + png


@pytest.mark.skipif(mpl.__version__ != "3.11.2", reason="the golden figure was drawn by matplotlib 3.11.2")
def test_a_figure_is_the_golden_one():
    points = [Point(str(x), x, y, 0.5, None, y + 1) for x, y in ((0.01, 59.0), (0.05, 43.1), (0.1, 69.0), (0.5, 14.8))]
    svg = style.svg(figures.accuracy_against_value(points, "optimizer.final_lr", "Learning rate"))
    held_against(Path(__file__).parent / "golden" / "accuracy_against_value.svg", svg.decode())


def test_mean_and_deviation_count_the_runs_that_reached_an_epoch():
    runs = [curve(3), curve(2, val_loss=np.array([1.0, np.nan])), curve(3, val_loss=np.array([3.0, 4.0, np.inf]))]
    epochs, mean, sd, n = figures.over_seeds(runs, "val_loss")
    first = 2.3 * np.exp(-1 / 12.0)
    assert epochs.tolist() == [1, 2, 3]
    assert n.tolist() == [3, 2, 1]
    assert mean[0] == pytest.approx((first + 1 + 3) / 3)
    assert sd[0] == pytest.approx(np.std([first, 1, 3], ddof=1))
    assert np.isnan(sd[2])


def test_the_frontier_holds_what_no_other_model_beats():
    assert figures.pareto([(3, 70), (1, 60), (2, 75), (2, 74), (9, 75), (10, 80)]) == [(1, 60), (2, 75), (10, 80)]


def test_an_exploding_loss_is_cut_and_the_cut_is_said():
    wild = curve(4, train_loss=np.array([2.3, 1e9, np.nan, np.inf]))
    figure = figures.study_curves([Series("wild", (wild,)), Series("tame", (curve(4),))], "Losses")
    loss = figure.axes[2]
    assert loss.get_ylim()[1] < 10
    assert "cut at" in loss.get_title(loc="left")


def test_curves_of_nothing_but_broken_numbers_are_still_a_figure():
    nothing = np.full(3, np.nan)
    broken = curve(3, train_loss=nothing, val_loss=nothing, train_accuracy=nothing, val_accuracy=nothing)
    assert figures.run_curves(broken, "broken").startswith(b"\x89PNG")
    assert figures.run_curves(curve(0), "no epoch").startswith(b"\x89PNG")


@pytest.mark.parametrize("sizes", [(2.9, 2.84, 1.4), (2.9, 88.8, 0.5)], ids=["linear", "logarithmic"])
def test_names_stand_at_their_points(sizes):
    points = [Point(f"of {size}", size, 70.0 + number, 0.5, None, None) for number, size in enumerate(sizes)]
    ax = figures.accuracy_against_size(points, "Sizes").axes[0]
    named = {text.get_text(): text.xy for text in ax.texts}
    assert named == {point.label: (point.x, point.accuracy) for point in points}


def test_every_name_is_in_the_legend_and_none_is_read_as_mathematics():
    figure = figures.study_curves(SERIES, "Names")
    names = [text.get_text().strip() for legend in figure.legends for text in legend.get_texts()]
    assert names == ["SqueezeNet", "_under $score$"]
    assert b"_under $score$" in style.svg(figure)


def test_points_too_low_to_show_are_counted():
    ax = figures.accuracy_against_size(POINTS, "Sizes").axes[0]
    assert ax.get_title(loc="left").startswith("2 of 7 points lie below 55%")


def test_samples_stand_a_row_a_class():
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    images[1] = 200
    shown = figures.samples(images, ["dog", "cat", "dog", "dog"], "Samples").axes[0].images[0].get_array()
    assert shown.shape == (2 * 34 - 2, 10 * 34 - 2, 3)
    assert (shown[:32, :32] == 200).all()  # cat comes first
    assert (shown[34:, : 2 * 34 + 32] == 0).sum() == 3 * 32 * 32 * 3


def test_a_drawing_has_a_block_a_module_and_an_arc_an_addition(network):
    plan = drawing.layout(network)
    assert [box.name for box in plan.boxes] == [
        "input",
        "conv1",
        "max pool 3x3",
        "fire2",
        "fire3",
        "global average pool",
    ]
    assert plan.boxes[3].detail == "16 ▸ 64 (1x1) + 64 (3x3) + BN → 128 × 6 × 6"
    assert plan.boxes[1].detail == "96 of 7x7, stride 2 → 96 × 13 × 13"
    assert [(arc.module, arc.kind) for arc in plan.arcs] == [("fire2", "conv1x1"), ("fire3", "identity")]
    for arc, box in zip(plan.arcs, plan.boxes[3:5], strict=True):
        assert arc.path[0][1] < box.y
        assert arc.path[-1][1] > box.y + box.height
    assert plan.arcs[0].path[-1][1] < plan.arcs[1].path[0][1]  # an addition comes before the next branch
    assert plan.height > plan.boxes[-1].y + plan.boxes[-1].height


def test_the_page_turns_every_grey_of_the_style_sheet_for_dark_screens():
    assert {style.INK, style.GRID, "#ffffff"} <= set(page.DARK)
    sheet = style.rules()
    assert sheet["text.color"] == sheet["axes.labelcolor"] == style.INK
    cycle = {color.lower() for color in sheet["axes.prop_cycle"].by_key()["color"]}
    assert {"#0072b2", "#d55e00"} <= cycle & set(page.DARK)


def test_a_study_s_figure_is_quick(network):
    many = [Series(f"variant {i}", tuple(curve(100) for _ in range(3))) for i in range(6)]
    style.svg(figures.study_curves(many, "warm"))
    started = time.process_time()
    figure = figures.study_curves(many, "A study")
    style.png(figure)
    style.svg(figure)
    assert time.process_time() - started < 1.5  # 0.25 s where nothing else runs


def test_pyplot_is_never_loaded():
    code = (
        "import sys, repro.reporting.pictures; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
