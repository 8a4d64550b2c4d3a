"""Tables: what stands in them, in four forms, whatever the names hold; golden files hold the bytes."""

import csv
import html.parser
import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from repro.published import Published
from repro.reporting import evidence, join, page, sheets, tables
from repro.reporting.frame import Beside, Predictions
from repro.reporting.sheets import Column, Sheet
from repro.study import Study
from tests.golden import held_against

GOLDEN = Path(__file__).parent / "golden"
NASTY = (
    r"a|b <script>alert(1)</script> & 100% _x_ #1 $\alpha$ ~^{}[y](z) `c` *d* \end{document} -- “é” 模型 " + "\n\x00two"
)
TEX = shutil.which("pdflatex")
DOCUMENT = "\\documentclass[twocolumn]{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n"


def steady(planned):
    """Metrics that depend on the variant's place and the seed alone."""
    size = planned.published.size or 2.0
    accuracy = (planned.published.accuracy or 70.0) / 100 + (0.002, -0.001, 0.003)[planned.seed % 3]
    return {
        "best_val_accuracy": accuracy,
        "test_accuracy": accuracy - 0.01 + 0.001 * (planned.seed * len(planned.variant) % 5),
        "test_loss": 0.8,
        "mean_epoch_seconds": 20.0 + planned.seed,
        "model_size_legacy_mib": size,
        "model_size_mib": size + 0.02,
    }


@pytest.fixture
def first_table(store):
    contents = store.sweep("reproducibility", metrics=steady).contents()
    return join.tables(contents)[0]


def sheet_of(table, *chosen):
    return tables.study_sheet(table, tables.study_frame(table), chosen or tables.ON_PAGE)


def shown(sheet, row):
    """A row as {name of the column: text}."""
    columns, rows = sheet.cells
    return {column.name: cell for column, cell in zip(columns, rows[row], strict=True)}


def columns_of(*names, **kinds):
    return tuple(
        Column(name, name, lambda row, name=name: str(row[name]), kind=kinds.get(name, "number")) for name in names
    )


def nasty_sheet():
    frame = pd.DataFrame(
        {"name": [NASTY, NASTY, "[y]"], "value": ["1", "", "*"], "why": [NASTY, "", ""], "v": [NASTY, "", "x"]}
    )
    columns = columns_of("name", "value", "why", "v", name="name", why="prose", v="verdict")
    linked = Column("name", NASTY, lambda row: row["name"], "", "name", NASTY, "url")
    frame["url"] = ["javascript:alert(1)", 'http://host/?a=1&b="2"', None]
    return Sheet("nasty", NASTY, NASTY, (linked, *columns[1:]), frame, (NASTY,))


FORMS = {
    "csv": lambda sheet: sheets.csv(sheet.frame, tables.CONTRACT),
    "md": sheets.markdown,
    "tex": sheets.latex,
    "html": page.table,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_study_s_table_is_the_golden_one(first_table, form):
    sheet = sheet_of(first_table)
    held_against(GOLDEN / f"{sheet.slug}.{form}", FORMS[form](sheet))


def test_the_narrow_table_for_a_paper_is_the_golden_one(first_table):
    sheet = sheet_of(first_table, *tables.PAPER)
    held_against(GOLDEN / "reproducibility-paper.tex", sheets.latex(sheet, "one column"))


def test_the_csv_has_the_columns_of_the_contract_unrounded(first_table):
    rows = list(csv.DictReader(io.StringIO(FORMS["csv"](sheet_of(first_table)))))
    assert [row["variant"] for row in rows] == ["alexnet", "alexnet_bn", "squeezenet", "squeezenet_bn"]
    assert tuple(rows[0]) == tables.CONTRACT
    row = rows[2]
    assert float(row["val_mean"]) == pytest.approx(70.76 + 0.4 / 3, abs=1e-12)
    assert float(row["val_sd"]) == pytest.approx(0.2081666, abs=1e-6)
    assert (row["n"], row["published_val"], row["published_epoch"], row["published_test"]) == ("3", "70.76", "30", "")
    assert (row["verdict"], row["base"], row["precision"]) == ("consistent", "reproducibility/alexnet", "fp32")
    assert float(row["predicted_low"]) < 70.76 < float(row["predicted_high"])
    assert float(row["test_diff_low"]) < float(row["test_diff"]) < float(row["test_diff_high"]) < 0
    assert 0 <= float(row["test_diff_p"]) < 0.01
    assert row["hardware"] == "Test CPU, 4 cores"
    assert row["title"] == "SqueezeNet", "without the marks of the notes"
    assert rows[3]["changed"] == "batch norm all"


@pytest.mark.parametrize(("mib", "text"), [(2.9, "2.90"), (0.1, "0.10"), (0.00389, "0.0039"), (None, "")])
def test_a_small_size_has_more_decimals(mib, text):
    assert tables.size(mib) == text


def test_the_paper_s_columns_stand_beside_ours(first_table):
    sheet = sheet_of(first_table)
    found = shown(sheet, 2)
    assert found["val"] == "70.89 ± 0.21"  # 70.96, 70.66, 71.06
    assert (found["published_val"], found["verdict"], found["published_epoch"]) == ("70.76", "consistent", "30")
    assert (found["epoch_seconds"], found["published_size"], found["times_smaller"]) == ("21.00", "2.95", "30.1")
    assert re.fullmatch(r"−4\.\d\d \(−\d\.\d\d to −\d\.\d\d\)", found["test_diff"])
    assert "the paper's text gives other values: epochs 84, seconds per epoch 25.26" in " ".join(sheet.notes)
    for part in (
        "cifar10",
        "95% prediction interval",
        "base (AlexNet; SqueezeNet)",
        "Commit c0ffeec0f",
        "Test CPU",
    ):
        assert part in sheet.header


def test_the_noise_over_other_images_stands_beside_a_difference(store):
    store.sweep("reproducibility")
    random = np.random.default_rng(0)
    shares = {variant: random.random(5000) for variant in ("alexnet", "squeezenet")}

    def predictions(run):
        if run.variant not in shares:
            return None
        right = (random.random(5000) < shares[run.variant]).astype(np.int64)
        return Predictions(right, np.ones(5000, np.int64), right, np.ones(5000, np.int64))

    table = join.tables(store.contents(), beside=Beside(predictions=predictions))[0]
    sheet = tables.study_sheet(table, tables.study_frame(table))
    expected = 196 * math.sqrt(2 * (1 / 12) / 5000)  # two independent uniform probabilities
    assert float(shown(sheet, 2)["image_noise"]) == pytest.approx(expected, rel=0.05)
    assert shown(sheet, 3)["image_noise"] == ""
    assert "| ± images |" in sheets.markdown(sheet)


def test_published_numbers_stand_beside_rows_of_the_published_setting_alone(store):
    store.sweep("reproducibility", overrides={"training.precision": "bf16"})
    frame = tables.study_frame(join.tables(store.contents())[0])
    published = [name for name in tables.CONTRACT if name.startswith("published")]
    assert frame[published].isna().all(axis=None)
    assert set(frame["verdict"]) == set(frame["size_verdict"]) == {""}
    assert set(frame["precision"]) == {"bf16"}
    assert "published" not in str(list(frame["notes"])), "nor what is said of them"


def test_several_bases_are_told_apart(store, first_table):
    sheet = sheet_of(first_table)
    assert [shown(sheet, row)["base"] for row in range(4)] == ["", "AlexNet", "AlexNet", "SqueezeNet"]
    assert "Differences on test from each row's base (AlexNet; SqueezeNet)" in sheet.header
    assert "simultaneous over the rows with one base." in sheet.header
    single = sheet_of(join.tables(store.sweep("squeeze_ratio").contents(), ["squeeze_ratio"])[0])
    assert "base" not in shown(single, 0)
    contents = (
        type(store)().sweep("reproducibility", unfinished=[("squeezenet_bn", seed) for seed in range(3)]).contents()
    )
    assert "Differences on test from AlexNet," in sheet_of(join.tables(contents)[0]).header, (
        "one without a run names none"
    )
    assert "simultaneous within this table." in single.header


def test_a_bound_stands_where_no_accuracy_was_published(store):
    frame = tables.study_frame(join.tables(store.sweep("optimizer", seeds=(0,)).contents())[0])
    assert [*frame["at_most"]] == [value == 14.76 for value in frame["published_val"]]
    assert 1 < frame["at_most"].sum() < len(frame)
    assert Published(accuracy=70.0, accuracy_at_most=80.0).bound is None


def test_one_seed_has_no_interval_no_deviation_and_no_p(store):
    table = join.tables(store.sweep("reproducibility", seeds=(0,)).contents())[0]
    found = shown(sheet_of(table), 1)
    assert "±" not in found["val"]
    assert "(" not in found["test_diff"]
    assert found["verdict"] == "undecided"
    assert any(note.startswith("[1] undecided") or "undecided:" in note for note in sheet_of(table).notes)


def test_what_is_missing_or_went_wrong_is_said_and_breaks_nothing(store):
    def metrics(planned):
        return {"test_accuracy": None, "model_size_legacy_mib": None} if planned.variant == "alexnet_bn" else {}

    store.sweep(
        "reproducibility", metrics=metrics, outcome="diverged", unfinished={("squeezenet", 1), ("squeezenet", 2)}
    )
    sheet = sheet_of(join.tables(store.contents())[0])
    assert shown(sheet, 0)["outcome"] == "3 diverged"
    assert shown(sheet, 1)["test"] == ""
    assert shown(sheet, 2)["outcome"] == "1 diverged, 1 of 3 runs"
    assert any("AlexNet, batchnorm, seed 0" in note and "test_accuracy" in note for note in sheet.notes)
    for form in FORMS.values():
        assert "nan" not in re.sub("significant|alternan", "", form(sheet).lower())


def test_a_run_that_the_limit_of_epochs_ended_is_marked(store):
    table = join.tables(store.sweep("best", epochs=100).contents())[0]
    assert shown(sheet_of(table), 0)["outcome"] == "epoch limit"


def test_without_a_run_of_alexnet_sizes_are_compared_with_the_published_one(store):
    table = join.tables(store.sweep("best").contents())[0]
    assert shown(sheet_of(table), 0)["times_smaller"] == f"{88.78 / 1.37:.1f}"
    quick = join.tables(store.sweep("best", overrides={"training.epochs": 20}).contents())[0]
    assert shown(sheet_of(quick), 0)["times_smaller"] == f"{88.78 / 1.37:.1f}"


def test_a_difference_has_one_minus_sign_and_its_sign():
    form = sheets.number(sign=True)
    assert [form(value) for value in (-0.006, 10.0, None, float("nan"))] == ["−0.01", "+10.00", "", ""]
    assert [form(value) for value in (-0.001, 0.0, 0.004)] == ["0.00"] * 3


def test_runs_and_epochs_are_tidy_and_hold_the_base_s_runs(store):
    store.sweep("reproducibility", seeds=(0, 1), variants=("squeezenet_bn",)).sweep("residual", seeds=(0,))
    found = join.tables(store.contents(), ["residual"])
    runs = evidence.runs_frame(found, "http://localhost:5000/")
    rows = list(csv.DictReader(io.StringIO(sheets.csv(runs, evidence.RUN_COLUMNS))))
    assert tuple(rows[0]) == evidence.RUN_COLUMNS
    assert len({row["run_id"] for row in rows}) == len(rows) == len(store.runs)
    assert {row["fold"] for row in rows} == {""}
    assert {row["setting"] for row in rows} == {found[0].setting.id}
    assert all(row["hardware"] and row["concurrent"] and float(row["size_mib"]) > 0 for row in rows)
    assert {(row["dataset"], row["epochs_max"], row["epochs_run"]) for row in rows} == {("cifar10", "100", "6")}
    assert [row["seed"] for row in rows if row["study"] == "reproducibility"] == ["0", "1"], "the base's"
    epochs = evidence.epochs_frame(runs)
    assert len(epochs) == 6 * len(rows)
    assert epochs["val_accuracy"].between(20, 100).all()
    assert sheets.csv(epochs, list(epochs.columns)).splitlines()[0] == (
        "study,variant,seed,fold,run_id,epoch,train_loss,train_accuracy,val_loss,val_accuracy,epoch_seconds"
    )
    assert evidence.runs_sheet(runs).links()[0] == f"http://localhost:5000/#/experiments/1/runs/{rows[0]['run_id']}"
    assert "compare-runs?runs=%5B%22" in evidence.compare_url("http://localhost:5000/", runs["record"])


def test_markdown_keeps_its_columns_whatever_the_names_hold():
    lines = sheets.markdown(nasty_sheet()).splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 5
    for line in body:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 5
    assert "<script" not in "\n".join(lines).replace("\\<", "")
    assert "](javascript" not in "\n".join(lines)


def test_html_holds_no_markup_but_its_own():
    class Tags(html.parser.HTMLParser):
        seen, text, links = [], [], []

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)
            self.links += [value for name, value in attrs if name == "href"]
            assert not any(name.startswith("on") for name, _ in attrs)

        def handle_data(self, data):
            self.text.append(data)

    parser = Tags()
    parser.feed(page.table(nasty_sheet()))
    own = {
        "figure",
        "figcaption",
        "strong",
        "span",
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "a",
    }
    assert set(parser.seen) <= own
    assert sheets.plain(NASTY) in parser.text
    assert parser.links == ['http://host/?a=1&b="2"']


def test_csv_gives_every_name_back():
    text = sheets.csv(pd.DataFrame({"name": [NASTY], "value": [1.5]}), ["name", "value"])
    assert list(csv.reader(io.StringIO(text))) == [["name", "value"], [NASTY, "1.5"]]


@pytest.mark.skipif(TEX is None, reason="no pdflatex here (Debian: texlive-latex-recommended)")
def test_latex_compiles_with_booktabs_alone_and_fits_one_column(tmp_path, first_table):
    letters = "".join(map(chr, range(0xA1, 0x180)))
    european = Sheet(
        "letters", letters, letters, columns_of("name", name="name"), pd.DataFrame({"name": [letters]}), ()
    )
    narrow = sheets.latex(sheet_of(first_table, *tables.PAPER), "one column")
    wide = [sheets.latex(sheet) for sheet in (sheet_of(first_table), nasty_sheet(), european)]
    assert "resizebox" not in "".join([narrow, *wide])
    for name, body in (("narrow", narrow), ("wide", "\n".join(wide))):
        path = tmp_path / f"{name}.tex"
        path.write_text(f"{DOCUMENT}\\begin{{document}}\n{body}\\end{{document}}\n", encoding="utf-8")
        command = [TEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", path.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        log = done.stdout.decode(errors="replace")
        assert done.returncode == 0, log[-2000:]
        if name == "narrow":
            assert not re.search(r"Overfull \\hbox \([0-9]{2,}\.", log), "ten points at most"


def test_a_user_s_study_without_published_numbers_has_no_empty_columns(store):
    study = Study.model_validate(
        {
            "study": "mine",
            "title": NASTY,
            "question": "why?",
            "variants": {"plain": {"title": NASTY, "set": {"model.name": "squeezenet"}}},
        }
    )
    sheet = sheet_of(join.tables(store.sweep(study).contents())[0])
    columns, _ = sheet.cells
    assert not any("published" in column.name or column.kind == "verdict" for column in columns)
    assert sheet.slug == "mine"
    assert "Verdict" not in sheet.header
    assert "Differences" not in sheet.header
    for form in FORMS.values():
        assert form(sheet)


def test_the_fields_of_a_grid_are_columns_of_their_own(store):
    study = Study(
        study="grid",
        title="Grid",
        question="Which?",
        base="reproducibility/squeezenet_bn",
        grid={"model.pools": [["conv1"], []], "optimizer.final_lr": [0.01, 0.1]},
        zip={"model.first_kernel": [3, 5], "model.first_stride": [1, 2]},
        variants={"named": {"title": "Named", "set": {"model.name": "alexnet"}}},
    )
    table = join.tables(store.sweep(study, seeds=(0,)).contents())[0]
    sheet = sheet_of(table, *tables.BRIEF)
    heads = [column.alone for column in sheet.cells[0]]
    assert heads[:5] == ["", "first kernel", "first stride", "pools", "final lr"]
    cells = [row[1:5] for row in sheet.cells[1]]
    assert cells[0] == ["3", "1", "conv1", "0.01"]
    assert cells[7] == ["5", "2", "none", "0.1"]
    assert cells[8] == ["", "", "", "0.04"]
    assert sheet_of(table, "n", "val").cells[0][0].alone == "first kernel"
    assert "changed" not in {column.name for column in sheet_of(table).cells[0]}, "the page has a column a field"
    assert tables.study_frame(table)["changed"].str.contains("final lr 0.1").any(), "the CSV has both"


def test_an_epoch_has_a_decimal_only_where_it_is_a_mean_of_several():
    assert [tables.epoch(value) for value in (91.0, 45.5, 100 / 3, None)] == ["91", "45.5", "33.3", ""]
