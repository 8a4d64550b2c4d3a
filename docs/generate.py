"""Rewrites what is generated in the README and docs/: python docs/generate.py; with --check it only says what is stale.

A generated part lies between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function below. No number in the
documents is typed by hand.
"""

from __future__ import annotations

import csv
import re
import statistics
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.testing import CliRunner

if TYPE_CHECKING:
    from repro.training.catalogue import ModelRow

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


@cache
def _catalogue() -> tuple[ModelRow, ...]:
    from repro import studies
    from repro.training.catalogue import catalogue

    return catalogue([study for study in studies.declared() if study.study != "demo"])


def commands() -> str:
    """The help of every command."""
    from repro.cli import cli

    context = click.Context(cli, info_name="repro")
    parts = []
    for name in ["", *cli.list_commands(context)]:
        words = [name, "--help"] if name else ["--help"]
        shown = CliRunner().invoke(cli, words, prog_name="repro", terminal_width=100).output
        parts.append(f"### repro {name}".rstrip() + f"\n\n```\n{shown.rstrip()}\n```\n")
    return "\n".join(parts)


def studies() -> str:
    """The declared studies, one a line."""
    from repro import studies

    rows = ["| study | paper | variants | question |", "| --- | --- | ---: | --- |"]
    for study in studies.declared():
        where = f"Table {study.table}" if study.table else f"section {study.section}" if study.section else ""
        rows.append(f"| `{study.study}` | {where} | {len(study.variants)} | {study.question} |")
    return "\n".join(rows) + "\n"


def study_keys() -> str:
    """Every key of a study's file, as the declarations describe it."""
    from repro.published import Claim, Protocol, Published
    from repro.study import Elsewhere, Study, Variant
    from repro.validation import described

    keys = described("", Study)
    keys |= {name: keys.pop(name) for name in (".elsewhere", ".protocol", ".claims")}  # which the groups below explain
    for group, declaration in {
        "variants.NAME": Variant,
        "variants.NAME.published": Published,
        "elsewhere": Elsewhere,
        "protocol": Protocol,
        "claims.NAME": Claim,
    }.items():
        keys |= described(group, declaration)
    rows = "".join(f"| `{name.removeprefix('.')}` | {meaning} |\n" for name, meaning in keys.items())
    return f"| key | meaning |\n| --- | --- |\n{rows}"


def models() -> str:
    """Parameters and sizes of every declared variant, beside the published size."""
    rows = [
        "| study | variant | parameters | multiply-adds | MiB | published | fits |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in _catalogue():
        published = "" if row.published is None else f"{row.published:g}"
        fits = {None: "", True: "yes", False: "no"}[row.fits]
        cells = [row.study, row.title, f"{row.parameters:,}", f"{row.multiply_adds:,}", f"{row.size_legacy_mib:.3f}"]
        rows.append(f"| {' | '.join([*cells, published, fits])} |")
    return "\n".join(rows) + "\n"


def names() -> str:
    """Every param, metric, tag and artifact in MLflow."""
    from repro.tracking import names as tracked

    return tracked.markdown()


def speed() -> str:
    """The benchmark's latest figures beside what is required of them."""
    from benchmarks import record, report

    return report.markdown(record.read())


def speed_summary() -> str:
    """How many times faster than the usual loop, in a row."""
    from benchmarks import record, report

    return report.summary(record.read())


def where_time_goes() -> str:
    """The profile of a step."""
    from benchmarks import record, report

    return report.where_time_goes(record.read())


def products_by_layer() -> str:
    """Single layers, by torch's ways and this project's."""
    from benchmarks import record, report

    return report.products_by_layer(record.read())


def mechanisms() -> str:
    """What each mechanism of a step gains."""
    from benchmarks import record, report

    return report.mechanisms(record.read())


def history() -> str:
    """How many times faster than the usual loop, by record."""
    from benchmarks import record, report

    return report.history(record.read())


def store_scale() -> str:
    """How long it takes to read a large store."""
    from benchmarks import record, store_scale

    return store_scale.markdown(record.read(store_scale.RECORD))


RESULTS = ROOT / "results"


def _tables() -> list[dict[str, str]]:
    """The rows of the results' tables that have runs, study by study."""
    from repro import studies

    paths = [RESULTS / f"tables/{study.study}.csv" for study in studies.declared()]
    rows = [row for path in paths if path.is_file() for row in csv.DictReader(path.read_text().splitlines())]
    marked = re.compile(r"( \[\d+\])+$")  # the marks of a table's notes
    return [row | {"title": marked.sub("", row["title"])} for row in rows if row["n"] != "0"]


def _rows() -> list[dict[str, str]]:
    """The same, a row that stands in several tables once."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in _tables():
        found.setdefault(tuple(row[name] for name in ("n", "val_mean", "test_mean", "best_epoch", "parameters")), row)
    return list(found.values())


def results() -> str:
    """What the runs on CIFAR-10 gave, from the tables that `compare` wrote into results/."""
    lines = [
        "| study | | runs | validation (%) | one more run (95%) | published | verdict | test (%) | MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in _rows():
        cells = [
            f"`{row['study']}`",
            row["title"],
            row["n"],
            _percent(row["val_mean"], row["val_sd"]),
        ]
        ends = [f"{float(row[name]):.2f}" for name in ("predicted_low", "predicted_high") if row[name]]
        cells += [" to ".join(ends), _percent(row["published_val"]), row["verdict"]]
        cells += [_percent(row["test_mean"], row["test_sd"])]
        cells.append(f"{float(row['size_mib']):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    forest = RESULTS / "figures/forest.svg"
    picture = "![Published accuracies beside ours](results/figures/forest.svg)\n\n" if forest.is_file() else ""
    headline, words, _, facts = (RESULTS / "report.md").read_text().split("\n\n")[:4]
    return f"**{headline.lstrip('# ')}.** {words}\n\n{facts}\n\n{picture}" + "\n".join(lines) + "\n"


def answer() -> str:
    """The report in Markdown, as `compare` wrote it into results/."""
    return re.sub(r"^#", "##", (RESULTS / "report.md").read_text(), flags=re.MULTILINE)


def not_run() -> str:
    """Which of the declared rows have no run yet, in a sentence."""
    from repro import studies

    have = {(row["study"], row["variant"]) for row in _tables()}
    asked = [study for study in studies.declared() if study.study != "demo"]
    told, count, every = [], 0, 0
    for study in asked:
        missing = [slug for slug in study.variants if (study.study, slug) not in have]
        names = "all" if len(missing) == len(study.variants) else ", ".join(f"`{slug}`" for slug in missing)
        told += [f"- {study.title}: {names}"] if missing else []
        count, every = count + len(missing), every + len(study.variants)
    told.insert(0, f"{count} of {every} declared rows have no finished run yet.\n")
    return "\n".join(told) + "\n" if count else "Every declared row has a finished run.\n"


def early_epochs() -> str:
    """What our runs had reached by the epoch in which the paper's run was best."""
    lines = [
        "| | published: best epoch | accuracy (%) | ours by that epoch (%) | at its best (%) | in epoch |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    reached: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for point in csv.DictReader((RESULTS / "tables/epochs.csv").open()):
        curves = reached.setdefault((point["study"], point["variant"]), {})
        curves.setdefault(point["run_id"], {})[int(point["epoch"])] = float(point["val_accuracy"])
    earlier = count = 0
    for row in _rows():
        curves = reached.get((row["study"], row["variant"]), {}).values()
        if (epoch := row["published_epoch"]) and curves:
            by_then = statistics.mean(max(v for at, v in one.items() if at <= float(epoch)) for one in curves)
            cells = [row["title"], epoch, _percent(row["published_val"]), f"{by_then:.2f}", _percent(row["val_mean"])]
            lines.append(f"| {' | '.join(cells)} | {float(row['best_epoch']):.3g} |")
            count, earlier = count + 1, earlier + (float(epoch) < float(row["best_epoch"]))
    told = f"In {earlier} of {count} rows the published best epoch is earlier than ours (mean over seeds).\n\n"
    return told + "\n".join(lines) + "\n"


def time_of_ablation() -> str:
    """How long the six runs of `mlflow run . -e ablation -P fire=removed` take at most, by the benchmark."""
    from benchmarks import record, report

    records = record.read()
    record_of_rates, throughput = report.newest(records, "throughput")
    found = report.rates(throughput, "ours", "squeezenet_bn")
    if record_of_rates is None or not found:
        return ""
    machine = record_of_rates["machine"]["hardware"]
    rate = statistics.median(found.values())
    hours = 6 * 100 * report.EPOCH_IMAGES / rate / 3600
    return (
        "`mlflow run . -e ablation -P fire=removed` trains two variants with three seeds. On\n"
        f"{machine}, where SqueezeNet with batch normalization trains on {rate:,.0f} images per second, all six take at\n"
        f"most {hours:.1f} hours, less with early stopping; with `-P seeds=0 -P epochs=20`, {4 * hours:.0f} minutes.\n"
    )


def _percent(mean: str, sd: str = "") -> str:
    """A mean with its standard deviation, to two decimals; empty where there is none."""
    return (f"{float(mean):.2f}" if mean else "") + (f" ± {float(sd):.2f}" if sd else "")


GENERATED: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        commands,
        studies,
        study_keys,
        models,
        names,
        speed,
        speed_summary,
        where_time_goes,
        products_by_layer,
        mechanisms,
        history,
        store_scale,
        results,
        answer,
        not_run,
        early_epochs,
        time_of_ablation,
    )
}


def built_models() -> str:
    """What the audit knows of the declared models: `experiments/claims/models.json`."""
    from repro import built

    return built.text({(row.study, row.variant): row for row in _catalogue()})


def badges() -> str:
    """Licence, Python and what CI runs, as one picture: `docs/images/badges.svg`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = {"licence": project["license"], "Python": project["requires-python"].replace(">=", "≥ "), "CI": ".ci/run"}
    parts, x = [], 0
    for name, value in told.items():
        split, width = 8 * len(name) + 12, 8 * (len(name) + len(value)) + 24
        parts.append(f'<rect x="{x}" width="{width}" height="20" rx="3" fill="#555"/>')
        parts.append(f'<rect x="{x + split}" width="{width - split}" height="20" rx="3" fill="#2a7f62"/>')
        parts.append(f'<text x="{x + 6}" y="14">{name}</text><text x="{x + split + 6}" y="14">{value}</text>')
        x += width + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x}" height="20" font-family="Verdana,sans-serif" font-size="12"'
        f' fill="#fff">\n{chr(10).join(parts)}\n</svg>\n'
    )


def main() -> int:
    """Rewrites every document, or with --check returns 1 where one is stale."""
    from repro import built

    fresh_texts = {built.FILE: built_models(), ROOT / "docs/images/badges.svg": badges()}
    for path in [ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        fresh_texts[path] = MARKED.sub(
            lambda m: f"<!-- generated: {m[1]} -->\n{GENERATED[m[1]]()}<!-- end -->", path.read_text()
        )
    stale = []
    for path, fresh in fresh_texts.items():
        if not path.is_file() or fresh != path.read_text():
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(fresh)
    for path in stale:
        click.echo(f"{path.relative_to(ROOT)}: {'is stale, run `make docs`' if '--check' in sys.argv else 'rewritten'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
