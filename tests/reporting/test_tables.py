"""Tables: what stands in them, in four forms, whatever the names hold; golden files hold the bytes."""

import csv
import html.parser
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from repro.reporting import join, sheets, tables
from repro.reporting.evidence import runs_sheet
from repro.reporting.sheets import FORMS, Column, Link, Sheet
from repro.studies import Study
from tests.golden import held_against

GOLDEN = Path(__file__).parent / "golden"
NASTY = (
    r"a|b <script>alert(1)</script> & 100% _x_ #1 $\alpha$ ~^{}[y](z) `c` *d* \end{document} -- “é” 模型 " + "\n\x00two"
)
TEX = shutil.which("pdflatex")


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


def cells(sheet, row):
    """A row as {"group: column": text}."""
    names = [f"{column.group}: {column.name}" if column.group else column.name for column in sheet.columns]
    return dict(zip(names, sheet.rows[row], strict=True))


def nasty_sheet():
    columns = (
        Column("name", kind="name"),
        Column(NASTY, NASTY),
        Column("why", kind="prose"),
        Column("v", "", "verdict"),
    )
    rows = ((NASTY, "1", NASTY, NASTY), (Link(NASTY, "javascript:alert(1)"), "", "", ""), ("[y]", "*", "", "x"))
    return Sheet("nasty", NASTY, NASTY, columns, rows, (NASTY,), ({"name": NASTY, "value": 1.5},))


@pytest.mark.parametrize("form", FORMS)
def test_a_study_s_table_is_the_golden_one(first_table, form):
    sheet = tables.study_sheet(first_table)
    held_against(GOLDEN / f"{sheet.slug}.{form}", FORMS[form](sheet))


def test_the_paper_s_columns_stand_beside_ours(first_table):
    sheet = tables.study_sheet(first_table)
    found = cells(sheet, 2)
    assert found["n"] == "3"
    assert found["Validation (%): mean ± sd"] == "70.89 ± 0.21"  # 70.96, 70.66, 71.06
    assert found["Validation (%): 95% interval"] == "70.38 to 71.41"  # 70.8933 ± 4.3027 * 0.2082 / sqrt(3)
    assert found["Validation (%): published"] == "70.76"
    assert found["Validation (%): 95% of one run"] == "69.26 to 72.52"  # of 70.8933, s 0.2082 on halves of 10,000
    assert found["Validation (%): verdict"] == "consistent"
    assert found["Best epoch: published"] == "30"
    assert found["Seconds an epoch: ours"] == "21.00 ± 1.00"
    assert found["Size (MiB): published"] == "2.95"
    assert found["Size (MiB): × smaller"] == "30.1"
    assert found["Test minus base: points"] == "−4.86"
    assert found["Test minus base: base"] == "AlexNet"
    assert "the paper's text says otherwise: epochs 84, seconds an epoch 25.26" in " ".join(sheet.footnotes)
    for part in ("cifar10", "n = 3", "95% t interval", "Commit c0ffeec0f", "Test CPU, 4 cores, 2 side by side"):
        assert part in sheet.header


def test_one_seed_has_no_interval_no_deviation_and_no_p(store):
    table = join.tables(store.sweep("reproducibility", seeds=(0,)).contents())[0]
    found = cells(tables.study_sheet(table), 1)
    assert found["Validation (%): 95% interval"] == "n = 1"
    assert "±" not in found["Validation (%): mean ± sd"]
    assert "Test minus base: p (Holm)" not in found
    assert found["Validation (%): verdict"] == "undecided"


def test_a_table_says_why_nothing_is_decided_and_how_many_pairs_a_difference_has(store):
    store.sweep("reproducibility", unfinished={("alexnet", 2), ("squeezenet_bn", 0), ("squeezenet_bn", 1)})
    sheet = tables.study_sheet(join.tables(store.contents())[0])
    assert "undecided: n = 2, 3 runs are needed" in " ".join(sheet.footnotes)
    notes = [note for note in sheet.footnotes if "runs are needed" in note]
    assert [cells(sheet, row)[""][-4:].strip() for row in (0, 3)] == [note.split()[0] for note in notes]
    assert cells(sheet, 1)["Validation (%): 95% of one run"].count(" to ") == 1
    assert (cells(sheet, 2)["n"], cells(sheet, 2)["Test minus base: pairs"]) == ("3", "2"), "AlexNet has two seeds"
    brief = tables.study_sheet(join.tables(store.contents())[0], brief=True)
    assert any("runs are needed" in note for note in brief.footnotes)


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    assert [tables.signed(value) for value in (-0.001, 0.0, 0.004, -0.006, 10.0)] == [
        "0.00",
        "0.00",
        "0.00",
        "−0.01",
        "+10.00",
    ]


def test_what_is_missing_or_went_wrong_is_said_and_breaks_nothing(store):
    def metrics(planned):
        return {"test_accuracy": None, "model_size_legacy_mib": None} if planned.variant == "alexnet_bn" else {}

    store.sweep(
        "reproducibility", metrics=metrics, outcome="diverged", unfinished={("squeezenet", 1), ("squeezenet", 2)}
    )
    store.sweep("reproducibility", unfinished={("squeezenet", 1), ("squeezenet", 2)})
    table = join.tables(store.contents())[0]
    sheet = tables.study_sheet(table)
    assert cells(sheet, 0)["outcome"] == "3 diverged"
    assert cells(sheet, 1)["Test (%): mean ± sd"] == ""
    assert cells(sheet, 2)["outcome"] == "1 diverged, 1 of 3 seeds"
    assert any("alexnet_bn seed 0" in note and "test_accuracy" in note for note in sheet.footnotes)
    for form in FORMS.values():
        assert "nan" not in form(sheet).lower()


def test_without_a_run_of_alexnet_sizes_are_compared_with_the_published_one(store):
    table = join.tables(store.sweep("best").contents())[0]
    sheet = tables.study_sheet(table)
    assert cells(sheet, 0)["Size (MiB): × smaller"] == f"{88.78 / 1.37:.1f}"
    assert any("88.78 MiB (as published)" in note for note in sheet.footnotes)


def test_csv_is_unrounded_and_names_its_runs(first_table):
    text = sheets.as_csv(tables.study_sheet(first_table))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["variant"] for row in rows] == ["alexnet", "alexnet_bn", "squeezenet", "squeezenet_bn"]
    assert float(rows[0]["val_accuracy_mean"]) == pytest.approx(75.42 + 0.4 / 3, abs=1e-12)
    assert rows[0]["run_ids"].split() == [run.run_id for run in first_table.rows[0].runs]
    assert rows[0]["data_digest"] == first_table.setting["data.digest"]
    assert rows[0]["verdict_test_accuracy"] == ""


def test_a_run_that_stands_in_several_tables_is_listed_once_and_linked(store):
    contents = store.sweep("reproducibility", "squeeze_ratio", seeds=(0,)).contents()
    sheet = runs_sheet(join.tables(contents), "http://localhost:5000/")
    assert len(sheet.rows) == len({run.run_id for run in contents.runs}) == 7
    links = [row[0] for row in sheet.rows]
    assert f"http://localhost:5000/#/experiments/1/runs/{sheet.records[0]['run_id']}" == links[0].url
    assert not any(isinstance(row[0], Link) for row in runs_sheet(join.tables(contents), None).rows)


def test_markdown_keeps_its_columns_whatever_the_names_hold():
    lines = sheets.as_markdown(nasty_sheet()).splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 5
    for line in body:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 5
    assert "<script" not in "\n".join(lines).replace("\\<", "")
    assert "](javascript" not in "\n".join(lines)


def test_html_holds_no_markup_but_its_own():
    class Tags(html.parser.HTMLParser):
        seen, text = [], []

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)
            assert not any(name.startswith("on") or "javascript" in (value or "") for name, value in attrs)

        def handle_data(self, data):
            self.text.append(data)

    parser = Tags()
    parser.feed(sheets.as_html(nasty_sheet()))
    own = {"figure", "figcaption", "strong", "span", "div", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert set(parser.seen) <= own
    assert sheets.plain(NASTY) in parser.text


def test_csv_gives_every_name_back_on_one_line():
    rows = list(csv.reader(io.StringIO(sheets.as_csv(nasty_sheet()))))
    assert rows == [["name", "value"], [NASTY, "1.5"]]


@pytest.mark.skipif(TEX is None, reason="no pdflatex here (Debian: texlive-latex-recommended)")
def test_latex_compiles_as_it_stands(tmp_path, first_table, store):
    letters = "".join(map(chr, range(0xA1, 0x180)))
    european = Sheet("letters", letters, letters, (Column("name"),), ((letters,),), (), ())
    for sheet in (tables.study_sheet(first_table), nasty_sheet(), european):
        path = tmp_path / f"{sheet.slug}.tex"
        path.write_text(sheets.as_latex(sheet), encoding="utf-8")
        command = [TEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", path.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        assert path.with_suffix(".pdf").stat().st_size > 1000


def test_a_user_s_study_without_published_numbers_has_no_empty_columns(store):
    study = Study.model_validate(
        {
            "study": "mine",
            "title": NASTY,
            "question": "why?",
            "variants": {"plain": {"title": NASTY, "set": {"model.name": "squeezenet"}}},
        }
    )
    sheet = tables.study_sheet(join.tables(store.sweep(study).contents())[0])
    assert not any(column.name in {"published", "verdict"} for column in sheet.columns)
    assert sheet.slug == "table_mine"
    assert "verdicts" not in sheet.header
    assert "differences" not in sheet.header
    for form in FORMS.values():
        assert form(sheet)
