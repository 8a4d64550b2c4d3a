"""The report as a folder: complete, the same twice, whole or not at all, and sound on poor stores."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from repro.errors import InputError
from repro.records import Architecture, Layer
from repro.reporting import claims, figures, folder, pictures, report, style
from repro.reporting.frame import Beside
from repro.rows import Contents
from repro.studies import load
from repro.study import Study

PAPER = claims.load()


def beside(asked):
    conv = Layer("conv1.conv", "conv", "conv1", (3, 32, 32), (96, 13, 13), 7, 2, 0, 1, 1)

    def architecture(run):
        asked.append(run.run_id)
        return Architecture("squeezenet", (3, 32, 32), (conv,), (), 1, 1)

    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    return Beside(
        architecture, lambda _: np.eye(10, dtype=int).tolist(), weights=lambda run: f"weights of {run.run_id}",
        samples=(images, ["cat", "dog"] * 2),
    )  # fmt: skip


def test_every_table_in_four_forms_and_every_figure_in_three(paper_contents, tmp_path):
    asked = []
    written = report.write(tmp_path, paper_contents, PAPER, studies=["learning_rate", "best"], beside=beside(asked))
    names = {path.relative_to(tmp_path).as_posix() for path in written.paths}
    assert names == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    for table in ("learning_rate", "best", "audit", "runs"):
        assert {f"tables/{table}.{end}" for end in ("md", "csv", "tex", "html")} <= names
    assert {"tables/epochs.csv", "values.tex", "values.json", "claims.json", "files.txt", "report.md"} <= names
    rows = ["lr_001", "lr_005", "lr_01", "lr_02", "lr_05"]
    figures = {
        "answer",
        "forest",
        "learning_rate-forest",
        "learning_rate-curves",
        "learning_rate-axis",
        "accuracy_against_size",
    }
    figures |= {f"learning_rate-{row}-{what}" for row in rows for what in ("curves", "architecture", "confusion")}
    figures |= {f"best-best-{what}" for what in ("curves", "architecture", "confusion")} | {
        "best-forest",
        "best-curves",
    }
    assert {name for name in names if name.startswith("figures/")} == {
        f"figures/{name}.{end}" for name in figures for end in ("png", "svg", "pdf")
    } | {"figures/samples.png"}
    assert len(asked) == len(rows) + 1
    assert re.match(r"(not )?(supported|undecided): the final model \(6 mod", written.facts["The paper's main claim"])


def test_models_that_a_study_names_from_elsewhere_are_in_the_figure_of_sizes(store, tmp_path):
    older = load("frontier").model_copy(update={"elsewhere": ()})  # a plan of a version that named none
    report.write(tmp_path, store.sweep(older, seeds=(0,)).contents(), PAPER, studies=["frontier"])
    drawn = (tmp_path / "figures/accuracy_against_size.svg").read_text()
    assert "Caffe cifar10_quick (2014)" in drawn
    page = (tmp_path / "index.html").read_text()
    assert "Caffe cifar10_quick (2014) 75.33% on test at 0.56 MiB; cuda-convnet (2011) 82% on test at 0.34 MiB" in page


def test_the_answer_of_a_study_beyond_the_paper_stands_under_the_headline(store, tmp_path):
    def accuracy(planned):
        value = (0.80 if planned.study == "frontier" else 0.75) + 0.002 * planned.seed
        return {
            "test_accuracy": value,
            "best_val_accuracy": value,
            "model_size_legacy_mib": 88.8 if planned.variant == "alexnet" else 0.2,
        }

    contents = store.sweep("reproducibility", "frontier", variants=("alexnet", "width_64"), metrics=accuracy).contents()
    written = report.write(tmp_path, contents, PAPER, with_figures=False)
    told = "32 filters, modules of 64, 64, 96, 96 matches AlexNet at 1/444 of its size"
    assert written.facts["Smallest model that matches AlexNet"] == told
    page = (tmp_path / "index.html").read_text()
    assert f"<dd>{told}</dd>" in page
    assert f"<p>How small can a SqueezeNet be and still reach the accuracy of AlexNet? {told}. 32 filters, " in page
    assert f"- Smallest model that matches AlexNet: {told}\n" in (tmp_path / "report.md").read_text()
    alone = report.write(tmp_path, contents, PAPER, studies=["frontier"], with_figures=False)
    assert (alone.answer.headline, "Smallest model that matches AlexNet" in alone.facts) == (told, False)


def test_a_report_of_own_studies_says_the_answer_of_each_once(store, tmp_path):
    rows = ("plain", "crop_flip_cosine", "width_64")

    def accuracy(planned):
        return {"test_accuracy": (0.7 if planned.variant == "crop_flip_cosine" else 0.8) + 0.001 * planned.seed}

    contents = store.sweep("augmentation", "frontier", variants=rows, metrics=accuracy).contents()
    written = report.write(tmp_path, contents, PAPER, with_figures=False)
    told = "15 epochs, crops and flips, cosine schedule is 10.00 points less accurate than 15 epochs"
    assert written.answer.headline == told, "the base of the study, not that of its base"
    assert "Augmentation and schedule in 15 epochs" not in written.facts, "it is the headline"


def test_the_same_rows_give_the_same_bytes(paper_contents, tmp_path):
    for out in ("first", "second"):
        report.write(tmp_path / out, paper_contents, PAPER, studies=["best"])
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / out).rglob("*.*")} for out in ("first", "second"))
    assert first == second


def test_figures_are_drawn_again_only_where_they_would_change(store, tmp_path, monkeypatch):
    drawn = []
    made = figures.saved
    monkeypatch.setattr(style, "saved", lambda figure, form: drawn.append(form) or made(figure, form))

    def written(**sweep):
        drawn.clear()
        contents = store.sweep("best", **sweep).contents()
        report.write(tmp_path, contents, PAPER, studies=["best"], beside=beside([]))
        return {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}

    first = written(seeds=(0,))
    assert len(drawn) == 3 * 5 + 1, "forest, curves, and three of the variant; samples as PNG"
    assert written(seeds=(0,)) == first
    assert drawn == []
    (tmp_path / "figures" / "best-forest.svg").write_text("changed by hand")
    assert written(seeds=(0,)) == first
    assert drawn == ["png", "svg", "pdf"]
    written(seeds=(1,))
    assert len(drawn) == 3 * 4, "all but the samples and the architecture"


def test_figures_of_several_processes_are_the_same(store, tmp_path, monkeypatch):
    contents = store.sweep("best", seeds=(0,)).contents()
    monkeypatch.setattr(pictures, "_EACH", 3)

    def written(out, processes):
        report.write(tmp_path / out, contents, PAPER, studies=["best"], beside=beside([]), processes=processes)
        return {path.name: path.read_bytes() for path in (tmp_path / out).rglob("*.*")}

    here = written("one", 1)

    def refused(*_):
        raise OSError("no more processes")

    with monkeypatch.context() as patched:
        patched.setattr(pictures, "ProcessPoolExecutor", refused)
        assert written("refused", 2) == here, "then they are drawn here"
    monkeypatch.setattr(style, "saved", refused)  # not in the other processes, which begin anew
    assert written("two", 2) == here


def test_without_figures_none_is_drawn_and_nothing_is_fetched(paper_contents, tmp_path):
    asked = []
    report.write(tmp_path, paper_contents, PAPER, with_figures=False, beside=beside(asked))
    assert not (tmp_path / "figures").exists()
    assert asked == []


def test_the_summary_fits_mlflow_and_says_what_it_leaves_out(paper_contents, tmp_path):
    written = report.write(tmp_path, paper_contents, PAPER, with_figures=False)
    assert len(written.summary) <= 8_000
    assert written.summary.startswith(f"**{written.answer.headline}**")
    assert "more tables are among the artifacts" in written.summary
    assert "Table 1. Reproducibility" in written.summary


def test_the_report_in_markdown_holds_the_answer_all_tables_and_all_claims(paper_contents, tmp_path):
    written = report.write(tmp_path, paper_contents, PAPER, studies=["best", "first_kernel"], beside=Beside())
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(f"# {written.answer.headline}\n")
    assert (tmp_path / re.search(r"!\[[^]]+\]\((.*)\)", text)[1]).is_file()
    for sheet in written.sheets:
        assert sheet.title in text
    claimed = json.loads((tmp_path / "claims.json").read_text())
    counted = {verdict: sum(claim["verdict"] == verdict for claim in claimed) for verdict in ("supported", "undecided")}
    for verdict, count in counted.items():
        part = text.partition(f"## Claims: {verdict}\n\n")[2].partition("\n\n")[0]
        assert len(part.splitlines()) == count > 0


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
    assert tmp_path / "tables" / "ablation.md" in written.paths
    (tmp_path / "tables" / "mine.md").write_text("notes")
    (tmp_path / "outside.md").write_text("notes")
    with (tmp_path / folder.LISTED).open("ab") as file:
        file.write(b"outside.md\ntables/../outside.md\n\xff\n")
    written = report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    kept = {tmp_path / "tables" / "mine.md", tmp_path / "outside.md"}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*written.paths} | kept


@pytest.mark.parametrize("name", ["index.html", "tables/best.csv", "values.json", "files.txt"])
def test_a_file_that_no_report_wrote_is_never_overwritten(paper_contents, tmp_path, name):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "plot.png").write_bytes(b"mine")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("index.html\nfigures/plot.png\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"contains {name}, not written by a report; choose another folder with --out"):
        report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_files_in_the_folder_do_not_matter(paper_contents, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "plot.png").write_bytes(b"mine")
    for _ in range(2):
        report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    assert (tmp_path / "figures" / "plot.png").read_bytes() == b"mine"


def test_the_folder_of_an_earlier_version_is_taken_over(paper_contents, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "index.html").write_text('<p class="kicker">Reproduction of: A paper</p>')
    (tmp_path / "tables" / "table_best.md").write_text("old")
    (tmp_path / "tables" / "mine.md").write_text("mine")
    (tmp_path / "files.txt").write_text("index.html\ntables/table_best.md\n")
    written = report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*written.paths} | {tmp_path / "tables/mine.md"}


def test_an_interrupted_first_report_is_written_again_in_place(paper_contents, tmp_path, monkeypatch):
    put, done = folder._put, []

    def interrupted(path, content):
        done.append(path)
        if len(done) == 4:
            raise KeyboardInterrupt
        return put(path, content)

    monkeypatch.setattr(folder, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False)
    monkeypatch.undo()
    assert report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False).index.is_file()


def test_the_audit_tells_of_the_studies_that_are_shown(paper_contents, tmp_path):
    counts = []
    for studies in (["residual"], None):
        report.write(tmp_path, paper_contents, PAPER, studies=studies, with_figures=False)
        counts.append((tmp_path / "tables" / "audit.md").read_text().count("| "))
    assert 0 < counts[0] < counts[1]


def test_columns_of_the_latex_tables_are_chosen(paper_contents, tmp_path):
    def tex(**chosen):
        report.write(tmp_path, paper_contents, PAPER, studies=["best"], with_figures=False, **chosen)
        return (tmp_path / "tables" / "best.tex").read_text()

    assert "\\begin{table}" in tex()
    assert "\\begin{table*}" in (full := tex(preset="full"))
    assert "million MACs" in full
    assert " & n & parameters" in tex(columns=["title", "n", "parameters"])
    with pytest.raises(InputError, match="unknown column 'paramters'; did you mean 'parameters'"):
        tex(columns=["paramters"])


def test_every_number_has_a_key_and_every_claim_its_runs(paper_contents, tmp_path):
    report.write(tmp_path, paper_contents, PAPER, studies=["residual"], with_figures=False, beside=beside([]))
    values = json.loads((tmp_path / "values.json").read_text())
    assert values["residual_2_removed.n"] == values["residual/residual_2_removed.n"] == 3
    assert 74 < values["residual_2_removed.val"] < 77
    assert {f"residual.{name}" for name in ("val_sd", "test", "diff", "diff_low", "verdict", "smaller")} <= set(values)
    tex = (tmp_path / "values.tex").read_text()
    assert f"repro:residual_2_removed.val\\endcsname{{{values['residual_2_removed.val']:.2f}}}" in tex
    judged = json.loads((tmp_path / "claims.json").read_text())
    assert judged
    one = next(claim for claim in judged if claim["runs"])
    assert one["verdict"] in {"supported", "not supported", "undecided"}
    assert one["runs"][0]["weights"] == f"weights of {one['runs'][0]['run_id']}"
    assert one["runs"][0]["commit"].startswith("c0ffee")
    assert values[f"claims.{one['claim']}.verdict"] == one["verdict"]


def test_a_short_key_that_two_studies_share_is_left_out(store, tmp_path):
    store.sweep("reproducibility", "demo", variants=("squeezenet", "squeezenet_bn"), seeds=(0,))
    report.write(tmp_path, store.contents(), PAPER, with_figures=False)
    values = json.loads((tmp_path / "values.json").read_text())
    assert "demo/squeezenet.val" in values
    assert "squeezenet.val" not in values


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here (Debian: texlive-latex-recommended)")
def test_a_paragraph_of_a_paper_types_no_number(paper_contents, tmp_path):
    report.write(tmp_path, paper_contents, PAPER, studies=["residual"], with_figures=False)
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    document = re.search(r"```latex\n(.*?)```", text, re.DOTALL)[1].replace("report/", "")
    assert r"\repro{residual_2_removed.val}" in document
    (tmp_path / "paper.tex").write_text(document)
    for source, code in (("paper.tex", 0), ("typo.tex", 1)):
        (tmp_path / "typo.tex").write_text(document.replace("removed.val}", "removed.vla}"))
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", source]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout.decode(errors="replace")[-2000:]
    assert b"unknown key 'residual_2_removed.vla'" in done.stdout


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
    assert "Worse" in written.answer.headline or "worse" in written.answer.headline
    assert 'id="figure-forest"' not in written.index.read_text(), "two settings are not in one plot"


def test_a_folder_that_cannot_be_written_is_one_line(paper_contents, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written \(File exists\); choose another folder with --out"):
        report.write(tmp_path / "file", paper_contents, PAPER, with_figures=False)


def test_an_empty_store_and_an_unknown_study_are_bad_input(paper_contents, tmp_path):
    with pytest.raises(InputError, match="has no sweep yet"):
        report.write(tmp_path, Contents("sqlite:///x.db", (), (), ()), PAPER)
    with pytest.raises(InputError, match="unknown study of the store 'bests'; did you mean 'best'"):
        report.write(tmp_path, paper_contents, PAPER, studies=["bests"])
    assert list(tmp_path.iterdir()) == []


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
    assert (tmp_path / "tables" / "study_claims.csv").read_text().startswith("study,variant,")
    ids = re.findall(r' id="([^"]+)"', written.index.read_text())
    assert len(set(ids)) == len(ids)


def test_runs_without_histories_give_tables_without_curves(store, tmp_path):
    written = report.write(tmp_path, store.sweep("best", curves=False).contents(), PAPER)
    assert {path.name for path in written.paths if path.suffix == ".svg"} == {"best-forest.svg"}


def test_a_user_s_study_with_odd_names_is_reported(store, tmp_path):
    title = r"50% of <b>it</b> | $x_1$ & \more"
    variants = {"plain": {"title": title, "set": {"model.name": "squeezenet"}}}
    study = Study.model_validate({"study": "mine", "title": title, "question": title, "variants": variants})
    written = report.write(tmp_path, store.sweep(study).contents(), PAPER)
    assert "<b>it</b>" not in written.index.read_text()
    assert "<b>it</b>" not in written.summary.replace("\\<", "")


def test_a_sweep_s_table_is_short_and_has_its_own_studies_only(store):
    contents = store.sweep("reproducibility").sweep("ablation", unfinished={("fire_added", 1)}).contents()
    text = report.swept(contents.sweeps[0].plan, contents.runs)[0]
    assert text.count("###") == 1
    assert "Table 2. Ablation" in text
    assert "2 of 3 runs" in text
    assert max(map(len, text.splitlines())) < 700
