"""Figures: the same values give the same bytes, odd values break nothing, and what is drawn is what was given."""

import re
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from repro.records import Architecture, Layer
from repro.reporting import drawing, figures, page, style
from repro.reporting.figures import Series
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


SERIES = [Series("SqueezeNet", (curve(12), curve(9, 0.72)), 70.76), Series("_under $score$", (curve(6, 0.65),))]
NAMES = ["label", "x", "accuracy", "sd", "published_x", "published"]
POINTS = pd.DataFrame(
    [
        ("AlexNet", 88.78, 75.4, 0.4, 88.78, 75.42),
        ("SqueezeNet", 2.83, 70.7, None, 2.95, 70.76),
        ("planned only", 1.4, None, None, 1.4, 75.42),
        ("chance", 3.3, 10.0, 0.0, 3.4, 10.0),
    ],
    columns=NAMES,
)
FOREST = pd.DataFrame(
    [
        ("AlexNet", 75.4, 73.1, 77.7, 75.42, "consistent"),
        ("SqueezeNet", 68.2, 66.1, 70.3, 70.76, "ours below"),
        ("one run", 71.0, None, None, None, ""),
        ("chance", 10.0, None, None, 10.0, "undecided"),
    ],
    columns=["label", "estimate", "low", "high", "published", "verdict"],
)


def drawn(network):
    images = np.arange(12 * 32 * 32 * 3, dtype=np.uint32).reshape(12, 32, 32, 3).astype(np.uint8)
    return {
        "variant": figures.variant_curves(SERIES[0]),
        "study": figures.study_curves(SERIES, "A study with $ and %"),
        "size": figures.accuracy_against_size(POINTS, "Sizes"),
        "axis": figures.accuracy_against_value(POINTS, "optimizer.final_lr", "Rates"),
        "forest": figures.forest(FOREST, "A study", "validation accuracy (%)"),
        "confusion": figures.confusion([[40, 2], [0, 41]], ("cat", "dog"), "Best"),
        "samples": figures.samples(images, ["cat", "dog"] * 6, "Samples"),
        "architecture": drawing.architecture(network, "Residual"),
    }


def test_the_same_values_give_the_same_bytes_whatever_the_user_s_own_style(network):
    first = {
        name: tuple(style.saved(figure, form) for form in ("png", "svg", "pdf"))
        for name, figure in drawn(network).items()
    }
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None, "lines.linewidth": 9}):
        second = {
            name: tuple(style.saved(figure, form) for form in ("png", "svg", "pdf"))
            for name, figure in drawn(network).items()
        }
    assert [name for name in first if first[name] != second[name]] == []
    assert len({png for png, *_ in first.values()}) == len(first)
    for png, svg, pdf in first.values():
        assert png.startswith(b"\x89PNG")
        assert b"<dc:date>" not in svg
        assert b"atplotlib v" not in svg + png
        assert b"/CreationDate" not in pdf


def test_a_text_keeps_its_decimals_in_a_small_svg():
    """Coordinates are shortened to tenths of a point, numbers of a title are not."""
    rows = FOREST.assign(label=["final_lr 0.01", "lr 0.0", "(1.25, 0.05)", "x 12.345"])
    svg = style.saved(figures.forest(rows, "Rates from 0.01 to 0.50", "points"), "svg").decode()
    for text in (*rows["label"], "Rates from 0.01 to 0.50"):
        assert f">{text}<" in svg
    assert not re.search(r'd="[^"]*\d\.\d\d', svg)


@pytest.mark.skipif(mpl.__version__ != "3.11.2", reason="the golden figure was drawn by matplotlib 3.11.2")
def test_a_figure_is_the_golden_one():
    rows = [(str(x), x, y, 0.5, x, y + 1) for x, y in ((0.01, 59.0), (0.05, 43.1), (0.1, 69.0), (0.5, 14.8))]
    svg = style.saved(
        figures.accuracy_against_value(pd.DataFrame(rows, columns=NAMES), "optimizer.final_lr", "Learning rate"), "svg"
    )
    held_against(Path(__file__).parent / "golden" / "accuracy_against_value.svg", svg.decode())


def test_runs_stand_by_epoch_and_the_mean_ends_with_the_first_of_them():
    runs = [curve(3), curve(2, val_loss=np.array([1.0, np.nan])), curve(3, val_loss=np.array([3.0, 4.0, np.inf]))]
    grid = Series("three", tuple(runs)).runs("val_loss")
    assert grid.shape == (3, 3)
    assert grid.T.isna().to_numpy().tolist() == [[False] * 3, [False, True, True], [False, False, True]]
    ax = figures.variant_curves(Series("three", (curve(12), curve(9), curve(12)), 70.0)).axes[1]
    thin = [line for line in ax.lines if line.get_linewidth() == 0.6]
    means = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_linewidth() > 1]
    assert len(thin) == 6
    assert [np.isfinite(line.get_ydata()).sum() for line in means] == [9]
    stars = [x for line in ax.lines if line.get_marker() == "*" for x in line.get_xdata()]
    assert stars == [12, 9, 12], "the best epoch of every run"
    assert any(list(line.get_ydata()) == [70.0, 70.0] for line in ax.lines), "the published level"


def test_a_forest_has_a_line_a_row_in_the_verdict_s_colour():
    figure = figures.forest(FOREST, "A study", "validation accuracy (%)")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(FOREST["label"])
    bars = {}
    for lines in ax.collections:
        color = mpl.colors.to_hex(lines.get_color()[0]).upper()
        bars[color] = [segment[:, 0].tolist() for segment in lines.get_segments() if len(segment)]
    one, other = (figures.VERDICTS[verdict] for verdict in ("consistent", "ours below"))
    assert (bars[one], bars[other]) == ([[73.1, 77.7]], [[66.1, 70.3]])
    ticks = [x for line in ax.lines if line.get_marker() == "|" for x in line.get_xdata()]
    assert ticks == [75.42, 70.76]
    assert [text.get_text() for text in ax.texts] == ["◂ 10.0"], "far off, so that it presses nothing together"
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["consistent", "ours below", "undecided", "published"]
    differences = FOREST.assign(published=None, verdict="", estimate=[-3.0, 1.0, 0.5, -40.0], low=None, high=None)
    figure = figures.forest(differences, "A study", "points", zero=True)
    assert list(figure.axes[0].texts) == []
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours, without an interval"]
    alone = figures.forest(differences[:1], "A study", "points", zero=True).axes[0].get_xlim()
    assert alone[0] < -3 and alone[1] > 0, "a single difference is seen from zero"


def test_the_frontier_holds_what_no_other_model_beats():
    points = pd.DataFrame({"x": [3, 1, 2, 2, 9, 10], "accuracy": [70, 60, 75, 74, 75, 80]})
    assert figures.pareto(points).to_numpy().tolist() == [[1, 60], [2, 75], [10, 80]]


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


@pytest.mark.parametrize("sizes", [(1.0, 2.0, 2.5), (0.5, 3.0, 90.0)], ids=["linear", "logarithmic"])
def test_names_of_the_frontier_stand_at_their_points(sizes):
    rows = [(f"model {number}", size, 70.0 + number, 0.5, None, None) for number, size in enumerate(sizes)]
    rows.append(("beaten", sizes[-1], 60.0, None, None, None))
    ax = figures.accuracy_against_size(pd.DataFrame(rows, columns=NAMES), "Sizes").axes[0]
    named = {text.get_text(): text.xy for text in ax.texts}
    assert named == {label: (size, accuracy) for label, size, accuracy, *_ in rows[:-1]}


def test_models_of_others_stand_at_their_size_and_are_told_apart():
    figure = figures.accuracy_against_size(POINTS, "Sizes", [("Theirs (2014)", 0.5, 75.3)])
    assert ("Theirs (2014)", (0.5, 75.3)) in [(text.get_text(), text.xy) for text in figure.axes[0].texts]
    assert "of others, on test" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_name_is_in_the_legend_and_none_is_read_as_mathematics():
    figure = figures.study_curves(SERIES, "Names")
    names = [text.get_text().strip() for legend in figure.legends for text in legend.get_texts()]
    assert names == ["SqueezeNet", "_under $score$", "best epoch of a run", "published"]
    assert b"_under $score$" in style.saved(figure, "svg")


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


def test_a_drawing_has_a_block_a_module_branches_in_a_fire_module_and_an_arc_an_addition(network):
    plan = drawing.layout(network)
    assert [box.name for box in plan.boxes] == [
        "input",
        "conv1",
        "max pool 3x3",
        "fire2  squeeze 16 (1x1)",
        "64 (1x1)",
        "64 (3x3)",
        "concatenation + BN",
        "fire3  squeeze 16 (1x1)",
        "64 (1x1)",
        "64 (3x3)",
        "concatenation + BN",
        "global average pool",
    ]
    assert plan.boxes[1].detail == "96 of 7x7, stride 2 → 96 × 13 × 13"
    squeeze, small, large, joined = plan.boxes[3:7]
    assert squeeze.y < small.y == large.y < joined.y
    assert small.x + small.width < large.x, "side by side"
    assert len(plan.lines) == 8, "to each branch and from it"
    assert joined.detail == "128 × 6 × 6"
    assert [(module, kind) for module, kind, _ in plan.arcs] == [("fire2", "conv1x1"), ("fire3", "identity")]
    (_, _, first), (_, _, second) = plan.arcs
    assert first[0][1] < squeeze.y
    assert joined.y + joined.height < first[-1][1] < second[0][1], "an addition comes before the next branch"
    assert plan.height > plan.boxes[-1].y + plan.boxes[-1].height


def test_the_page_turns_every_grey_of_the_style_sheet_for_dark_screens():
    assert {style.INK, style.GRID, "#ffffff"} <= set(page.DARK)
    sheet = style.rules()
    assert sheet["text.color"] == sheet["axes.labelcolor"] == style.INK
    cycle = {color.lower() for color in sheet["axes.prop_cycle"].by_key()["color"]}
    assert {"#0072b2", "#d55e00"} <= cycle & set(page.DARK)


def test_a_study_s_figure_is_quick(network):
    many = [Series(f"variant {i}", tuple(curve(100) for _ in range(3))) for i in range(6)]
    seconds = []
    for _ in range(4):
        started = time.process_time()
        figure = figures.study_curves(many, "A study")
        style.saved(figure, "png")
        style.saved(figure, "svg")
        seconds.append(time.process_time() - started)
    assert (
        min(seconds) < 1.5
    )  # 0.25 s where nothing else runs; one of several may collect the garbage of all tests before


def test_pyplot_is_never_loaded():
    code = (
        "import sys, repro.reporting.pictures; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
