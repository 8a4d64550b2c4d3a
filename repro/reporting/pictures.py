"""The pictures of a report: which figures a study gets, from its rows to files' bytes with a caption and a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from repro.reporting import drawing, figures, style
from repro.reporting.beside import Beside
from repro.reporting.figures import Point, Series
from repro.reporting.join import Row, Table, comparable
from repro.reporting.page import Picture
from repro.reporting.tables import over_runs
from repro.spec import flatten


def _picture(slug: str, figure: Figure, caption: str, alt: str) -> Picture:
    return Picture(slug, caption, alt, style.png(figure), style.svg(figure))


def _series(row: Row) -> Series | None:
    curves = tuple(run.curve for run in row.runs if run.curve is not None and len(run.curve.epoch))
    return Series(row.title, curves) if curves else None


def of_study(table: Table, beside: Beside) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """A study's own figures, and those of its variants."""
    slug, title = table.study.study, table.study.title
    series = [(row, one) for row in table.rows if (one := _series(row)) is not None]
    first, folded = [], []
    if series:
        names = ", ".join(one.label for _, one in series)
        figure = figures.study_curves([one for _, one in series], title)
        caption = f"{title}: loss and accuracy over epochs. Bands: one standard deviation; pale: some runs have ended."
        first.append(_picture(f"{slug}-curves", figure, caption, f"Four panels of curves over epochs, for {names}"))
    if table.study.axis is not None and (points := _along(table, table.study.axis)):
        figure = figures.accuracy_against_value(points, table.study.axis, title)
        alt = f"Validation accuracy against {table.study.axis}: {_told(points)}"
        first.append(_picture(f"{slug}-axis", figure, f"{title}: accuracy against {table.study.axis}.", alt))
    for row, one in series:
        alt = f"Training and validation loss and accuracy of {row.title} over epochs"
        name = f"{slug}-{row.variant}"
        folded.append(_picture(f"{name}-curves", figures.variant_curves(one), f"{row.title}: curves.", alt))
    for row in table.rows:
        model = beside.architecture(row.runs[0]) if row.runs else None
        if model is not None:
            layers = ", ".join(dict.fromkeys(layer.module for layer in model.layers))
            additions = f"; residual additions around {', '.join(name for name, *_ in model.residual)}" * bool(
                model.residual
            )
            figure = drawing.architecture(model, row.title)
            caption = f"{row.title}: {model.parameters:,} parameters, {model.multiply_adds:,} multiply-adds an image."
            folded.append(
                _picture(f"{slug}-{row.variant}-architecture", figure, caption, f"Blocks {layers}{additions}")
            )
    return tuple(first), tuple(folded)


def overall(tables: Sequence[Table], beside: Beside, best: str | None) -> Iterator[Picture]:
    """Accuracy against size over all studies of one setting, the best model's confusion matrix, samples of the data."""
    one_setting = comparable(tables)
    rows = {
        (row.spec.model, row.spec.data, row.spec.optimizer, row.spec.training): row
        for table in reversed(one_setting)
        for row in reversed(table.rows)
    }
    measured = [(row, size) for row in rows.values() if (size := over_runs(row, "model_size_legacy_mib")) is not None]
    points = [_point(row, size.estimate, row.published.size) for row, size in measured][::-1]
    if points:
        figure = figures.accuracy_against_size(points, "Accuracy against size")
        caption = "Validation accuracy against the size of the saved model, ours and the published."
        if left_out := [table.study.title for table in tables if table.setting_id != one_setting[0].setting_id]:
            caption += f" Left out, in another setting or without a run: {', '.join(left_out)}."
        yield _picture(
            "accuracy_against_size", figure, caption, f"Validation accuracy and size: {_told(points, ' MiB')}"
        )
    shown = next((row for table in tables for row in table.rows if best in {run.run_id for run in row.runs}), None)
    counts = beside.confusion(shown.runs[0]) if shown is not None else None
    if shown is not None and counts is not None:
        title = f"{shown.title}, seed {shown.runs[0].seed}"
        figure = figures.confusion(counts, shown.known.classes, title)
        right = sum(line[place] for place, line in enumerate(counts)) / max(sum(map(sum, counts)), 1)
        caption = f"Confusion on the test split: {title}."
        yield _picture("confusion", figure, caption, f"Confusion matrix; {right:.1%} lie on the diagonal")
    if beside.samples is not None:
        images, labels = beside.samples
        names = ", ".join(sorted(set(labels)))
        figure = figures.samples(images, labels, "Samples of the data set")
        yield _picture("samples", figure, "Samples of the data set, a row a class.", f"Images of {names}")


def _along(table: Table, axis: str) -> list[Point]:
    """The rows that differ in the axis alone; where several groups do so, the largest one."""
    groups: dict[str, list[Point]] = {}
    for row in table.rows:
        settings = flatten(row.spec)
        if isinstance(value := settings.pop(axis, None), (int, float)):
            groups.setdefault(repr(settings), []).append(_point(row, float(value), None))
    points = max(groups.values(), key=len, default=[])
    return [point for point in points if point.accuracy is not None or point.published_accuracy is not None]


def _point(row: Row, x: float, published_x: float | None) -> Point:
    found = over_runs(row, "best_val_accuracy", 100)
    mean, sd = (None, None) if found is None else (found.estimate, found.sd)
    label = row.title if any(map(str.isalpha, row.title)) else f"{row.study} {row.title}"
    return Point(label, x, mean, sd, published_x, row.published.accuracy)


def _told(points: Sequence[Point], unit: str = "") -> str:
    told = [
        f"{point.label} {point.accuracy:.1f}% at {point.x:g}{unit}" for point in points if point.accuracy is not None
    ]
    return "; ".join(told)
