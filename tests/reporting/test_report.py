"""The report as a folder: complete, the same twice, whole or not at all, and sound on poor stores."""

import dataclasses
import re

import numpy as np
import pytest

from repro.errors import InputError
from repro.records import Architecture, Layer
from repro.reporting import report, statements
from repro.reporting.audit import Finding
from repro.reporting.beside import Beside
from repro.rows import Contents
from repro.studies import Study

PAPER = statements.load()
FINDING = Finding("copied", ("a/b",), "1.0", "2.0", "Two numbers | <b>agree</b>.")


def beside(asked):
    conv = Layer("conv1.conv", "conv", "conv1", (3, 32, 32), (96, 13, 13), 7, 2, 0, 1, 1)

    def architecture(run):
        asked.append(run.run_id)
        return Architecture("squeezenet", (3, 32, 32), (conv,), (), 1, 1)

    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    return Beside(architecture, lambda _: np.eye(10, dtype=int).tolist(), (images, ["cat", "dog"] * 2))


def test_every_table_in_four_forms_and_every_figure_in_two(paper_contents, tmp_path):
    asked = []
    written = report.write(
        tmp_path, paper_contents, PAPER, studies=["learning_rate", "best"], findings=[FINDING], beside=beside(asked)
    )
    names = {path.relative_to(tmp_path).as_posix() for path in written.paths}
    assert names == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    for table in ("table7_learning_rate", "table_best", "claims", "audit", "runs"):
        assert {f"tables/{table}.{end}" for end in ("md", "csv", "tex", "html")} <= names
    rows = ["lr_001", "lr_005", "lr_01", "lr_02", "lr_05"]
    figures = {
        "learning_rate-curves",
        "learning_rate-axis",
        "accuracy_against_size",
        "confusion",
        "samples",
        "best-curves",
    }
    figures |= {f"learning_rate-{row}-{what}" for row in rows for what in ("curves", "architecture")}
    figures |= {"best-best-curves", "best-best-architecture"}
    assert {name for name in names if name.startswith("figures/")} == {
        f"figures/{name}.{end}" for name in figures for end in ("png", "svg")
    }
    assert len(asked) == len(rows) + 1


def test_the_same_rows_give_the_same_bytes(paper_contents, tmp_path):
    for out in ("first", "second"):
        report.write(tmp_path / out, paper_contents, PAPER, studies=["best"])
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / out).rglob("*.*")} for out in ("first", "second"))
    assert first == second


def test_without_figures_none_is_drawn_and_nothing_is_fetched(paper_contents, tmp_path):
    asked = []
    report.write(tmp_path, paper_contents, PAPER, with_figures=False, beside=beside(asked))
    assert not (tmp_path / "figures").exists()
    assert not (tmp_path / "tables" / "audit.md").exists()  # no audit was made, so none may be read as clean
    assert asked == []


def test_the_summary_fits_mlflow_and_says_what_it_leaves_out(paper_contents, tmp_path):
    written = report.write(tmp_path, paper_contents, PAPER, with_figures=False)
    assert len(written.summary) <= 8_000
    assert written.summary.startswith(f"**{written.answer.headline}**")
    assert "more tables are among the artifacts" in written.summary
    assert "Table 1. Reproducibility" in written.summary


def test_an_interrupted_report_leaves_the_former_files_whole(paper_contents, tmp_path, monkeypatch):
    written = report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    before = {path: path.read_bytes() for path in written.paths}
    replaced = []

    def interrupted(part, content):
        replaced.append(part)
        with part.open("wb") as file:
            file.write(content[:10])
            if len(replaced) == 5:
                raise KeyboardInterrupt
            file.write(content[10:])

    monkeypatch.setattr(report.Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_a_former_report_left_is_removed_and_nothing_else(paper_contents, tmp_path):
    written = report.write(tmp_path, paper_contents, PAPER, studies=["best", "ablation"], with_figures=False)
    assert tmp_path / "tables" / "table2_ablation.md" in written.paths
    (tmp_path / "tables" / "mine.md").write_text("notes")
    (tmp_path / "outside.md").write_text("notes")
    with (tmp_path / report.LISTED).open("ab") as file:
        file.write(b"outside.md\ntables/../outside.md\n\xff\n")
    written = report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    kept = {tmp_path / "tables" / "mine.md", tmp_path / "outside.md"}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*written.paths} | kept


def test_the_audit_tells_of_the_studies_wanted_and_says_of_how_many(paper_contents, tmp_path):
    findings = [FINDING, dataclasses.replace(FINDING, where=("section 5", "best/best"))]
    report.write(tmp_path, paper_contents, PAPER, studies=["best"], findings=findings, with_figures=False)
    told = (tmp_path / "tables" / "audit.md").read_text()
    assert "1 of 2 inconsistencies" in told
    assert told.count("copied") == 1
    report.write(tmp_path, paper_contents, PAPER, findings=findings, with_figures=False)
    assert "2 inconsistencies" in (tmp_path / "tables" / "audit.md").read_text()


def test_settings_are_not_ranked_together(store, tmp_path):
    own = [
        Study.model_validate(
            {
                "study": name, "title": name.title(), "question": "?",
                "variants": {"only": {"title": f"Only {name}", "set": {"model.name": "squeezenet", "model.first_filters": 17}}},
            }
        )
        for name in ("worse", "zbetter")
    ]  # fmt: skip
    store.sweep(own[0], overrides={"training.epochs": 3}, metrics=lambda _: {"best_val_accuracy": 0.5}, again=True)
    store.sweep(own[1], overrides={"training.epochs": 9}, metrics=lambda _: {"best_val_accuracy": 0.6}, again=True)
    written = report.write(tmp_path, store.contents(), PAPER)
    assert written.answer.headline == "Worse: Only worse reaches 50.00%"
    page = written.index.read_text()
    assert "Left out, in another setting or without a run: Zbetter." in page


@pytest.mark.parametrize(
    ("seeds", "headline"), [((0,), "is highest so far, undecided"), ((0, 1, 2), "is most accurate")]
)
def test_a_winner_is_named_only_where_the_seeds_decide_it(store, tmp_path, seeds, headline):
    variants = {
        name: {"title": name.title(), "set": {"model.name": "squeezenet", "model.first_filters": filters}}
        for name, filters in (("narrow", 17), ("wide", 33))
    }
    own = Study.model_validate({"study": "own", "title": "Own", "question": "?", "variants": variants})

    def metrics(run):
        better = (0.1 + 0.001 * run.seed) * (run.variant == "wide")
        return {"best_val_accuracy": 0.5 + better, "test_accuracy": 0.5 + better}

    store.sweep(own, seeds=seeds, metrics=metrics)
    written = report.write(tmp_path, store.contents(), PAPER, with_figures=False)
    assert written.answer.headline == f"Own: Wide {headline}"
    assert ("Not decided against Narrow: +10.00 points, n = 1 on test" in written.answer.why) == (len(seeds) == 1)


def test_a_folder_that_cannot_be_written_is_one_line(paper_contents, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\); choose another folder with --out"):
        report.write(tmp_path / "file", paper_contents, PAPER, with_figures=False)


def test_an_empty_store_and_an_unknown_study_are_bad_input(paper_contents, tmp_path):
    with pytest.raises(InputError, match="holds no sweep yet"):
        report.write(tmp_path, Contents("sqlite:///x.db", (), (), ()), PAPER)
    with pytest.raises(InputError, match="unknown study of the store 'bests'; did you mean 'best'"):
        report.write(tmp_path, paper_contents, PAPER, studies=["bests"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unfinished", [set(), {(v, s) for v in ("alexnet", "squeezenet") for s in (0, 1, 2)}])
def test_a_store_that_decides_nothing_says_so(store, tmp_path, unfinished):
    store.sweep("reproducibility", variants=("alexnet", "squeezenet"), seeds=(0, 1), unfinished=unfinished)
    written = report.write(tmp_path, store.contents(), PAPER)
    assert written.answer.headline == "Not yet decided: does SqueezeNet match AlexNet?"
    assert written.answer.why in written.index.read_text().replace("&#x27;", "'")


def test_a_refuted_parity_is_the_headline(store, tmp_path):
    def accuracies(planned):
        alexnet = planned.variant == "alexnet"
        return {"test_accuracy": 0.6 + (0.2 + 0.001 * planned.seed) * alexnet}

    store.sweep("reproducibility", "best", metrics=accuracies)
    written = report.write(tmp_path, store.contents(), PAPER, with_figures=False)
    assert written.answer.headline == "Not yet decided: does SqueezeNet match AlexNet?", "some have no run yet"
    assert "without a finished run: ablation/fire_removed_bn" in written.answer.why
    store.sweep("reproducibility", "ablation", "residual", "first_kernel", "best", metrics=accuracies)
    written = report.write(tmp_path, store.contents(), PAPER, with_figures=False)
    assert written.answer.headline == "SqueezeNet does not match AlexNet at 64.8× smaller"


def test_names_of_a_store_stay_inside_the_folder(store, tmp_path):
    contents = store.sweep("best").contents()
    sweep = contents.sweeps[0]
    runs = tuple(run.model_copy(update={"variant": "../../outside"}) for run in sweep.plan.runs)
    hostile = dataclasses.replace(sweep, plan=sweep.plan.model_copy(update={"runs": runs}))
    written = report.write(tmp_path / "report", dataclasses.replace(contents, sweeps=(hostile,)), PAPER)
    assert all(path.resolve().is_relative_to(tmp_path / "report") for path in written.paths)
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


def test_a_study_called_like_a_part_of_the_report_replaces_none(store, tmp_path):
    variants = {"plain": {"title": "Plain", "set": {"model.name": "squeezenet"}}}
    study = Study.model_validate({"study": "claims", "title": "Mine", "question": "why?", "variants": variants})
    written = report.write(tmp_path, store.sweep(study).contents(), PAPER)
    assert len(set(written.paths)) == len(written.paths)
    ids = re.findall(r' id="([^"]+)"', written.index.read_text())
    assert len(set(ids)) == len(ids)


def test_runs_without_histories_give_tables_without_curves(store, tmp_path):
    written = report.write(tmp_path, store.sweep("best", curves=False).contents(), PAPER)
    assert {path.name for path in written.paths if path.suffix == ".svg"} == {"accuracy_against_size.svg"}


def test_a_user_s_study_with_odd_names_is_reported(store, tmp_path):
    title = r"50% of <b>it</b> | $x_1$ & \more"
    variants = {"plain": {"title": title, "set": {"model.name": "squeezenet"}}}
    study = Study.model_validate({"study": "mine", "title": title, "question": title, "variants": variants})
    written = report.write(tmp_path, store.sweep(study).contents(), PAPER)
    assert "<b>it</b>" not in written.index.read_text()
    assert "<b>it</b>" not in written.summary.replace("\\<", "")


def test_a_sweep_s_table_is_short_and_has_its_own_studies_only(store):
    contents = store.sweep("reproducibility").sweep("ablation", unfinished={("fire_added", 1)}).contents()
    text = report.sweep_table(contents.sweeps[0].plan, contents.runs)
    assert text.count("###") == 1
    assert "Table 2. Ablation" in text
    assert "2 of 3 seeds" in text
    assert max(map(len, text.splitlines())) < 700
