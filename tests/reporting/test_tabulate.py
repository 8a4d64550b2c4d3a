"""Tables over the runs of any experiment: the numbers are scipy's, and what does not fit is named."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from repro.errors import InputError
from repro.reporting import tabulate
from repro.reporting.conditions import metrics, pairs

RANDOM = np.random.default_rng(5)
ACC = {
    (model, lr): 0.8 + shift + RANDOM.normal(0, 0.01, 4)
    for model, shift in (("a", 0.0), ("b", 0.02), ("c", -0.01))
    for lr in ("0.1", "0.01")
}


def frame(**columns):
    """A run for every model, learning rate and seed, newest first, as mlflow.search_runs names the columns."""
    rows = [
        {"run_id": f"{model}{lr}s{seed}", "run_name": "r", "status": "FINISHED", "data": "images 12ab", "url": None,
         "params.model": model, "params.lr": lr, "params.seed": str(seed), "params.batch": "64", "metrics.acc": value}
        for (model, lr), values in ACC.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


def no_history(_ids, _names):
    raise AssertionError("the last values need no history")


def made(runs, by="params.model,params.lr", metric="acc", histories=no_history, **asked):
    return tabulate.tabulate(runs, histories, by=by.split(","), wanted=metrics(metric), seed="params.seed", **asked)


def row(groups, *values):
    found = groups.frame
    for name, value in zip(groups.by, values, strict=True):
        found = found[found[name] == value]
    return found.iloc[0]


def test_means_and_pooled_intervals_are_those_of_scipy():
    groups = made(frame())
    assert groups.warnings == ()
    assert list(groups.frame["label"])[:2] == ["model=a, lr=0.01", "model=a, lr=0.1"], "numbers by their size"
    pooled = np.sqrt(np.mean([values.var(ddof=1) for values in ACC.values()]))
    for key, values in ACC.items():
        found = row(groups, *key)
        assert (found["n"], found["acc_base"]) == (4, "")
        assert found["acc_mean"] == pytest.approx(values.mean())
        assert found["acc_sd"] == pytest.approx(values.std(ddof=1))
        low, high = scipy.stats.t.interval(0.95, 18, values.mean(), pooled / 2)
        assert (found["acc_low"], found["acc_high"]) == (pytest.approx(low), pytest.approx(high))
    assert groups.columns == ["params.model", "params.lr", "n"] + [
        f"acc_{part}" for part in ("mean", "sd", "low", "high", "diff", "diff_low", "diff_high", "diff_p")
    ]
    assert groups.frame["acc_diff"].isna().all()


def test_differences_are_dunnett_s_within_each_combination_of_the_other_columns():
    groups = made(frame(), baseline={"params.model": "a"})
    for lr in ("0.1", "0.01"):
        base = ACC["a", lr]
        expected = scipy.stats.dunnett(ACC["b", lr], ACC["c", lr], control=base)
        interval = expected.confidence_interval(0.95)
        for place, model in enumerate("bc"):
            found = row(groups, model, lr)
            assert found["acc_base"] == f"model=a, lr={lr}"
            assert found["acc_diff"] == pytest.approx(ACC[model, lr].mean() - base.mean())
            assert found["acc_diff_p"] == pytest.approx(expected.pvalue[place], abs=1e-3)
            assert found["acc_diff_low"] == pytest.approx(interval.low[place], abs=2e-4)
            assert found["acc_diff_high"] == pytest.approx(interval.high[place], abs=2e-4)
        assert np.isnan(row(groups, "a", lr)["acc_diff"])
    whole = made(frame(), baseline={"params.model": "a", "params.lr": "0.1"})
    assert set(whole.frame["acc_base"]) == {"model=a, lr=0.1", ""}
    expected = scipy.stats.dunnett(*(ACC[key] for key in ACC if key != ("a", "0.1")), control=ACC["a", "0.1"])
    ps = [row(whole, *key)["acc_diff_p"] for key in ACC if key != ("a", "0.1")]
    assert ps == pytest.approx(expected.pvalue, abs=1e-3)


def test_pairs_of_seeds_are_tested_together():
    groups = made(frame(), baseline={"params.model": "a"}, paired=True)
    found, (ours, theirs) = row(groups, "b", "0.1"), (ACC["b", "0.1"], ACC["a", "0.1"])
    expected = scipy.stats.ttest_rel(ours, theirs)
    assert found["acc_diff_p"] == pytest.approx(min(1, 2 * expected.pvalue))
    low, high = expected.confidence_interval(1 - 0.05 / 2)
    assert (found["acc_diff_low"], found["acc_diff_high"]) == (pytest.approx(low), pytest.approx(high))
    assert "paired by seed" in groups.header
    alone = made(frame()[1:], baseline={"params.model": "a"}, paired=True)
    assert row(alone, "b", "0.1")["acc_diff"] == pytest.approx((ours - theirs)[1:].mean())
    (lost,) = alone.warnings
    assert lost.startswith("acc: runs whose seed the other group lacks are left out (model=a, lr=0.1, model=b, lr=0.1")


@pytest.mark.parametrize("unseeded", ["a", "b", "ab", "abc"])
def test_a_group_without_seeds_has_no_pairs_and_is_named(unseeded):
    runs = frame()
    runs.loc[runs["params.model"].isin([*unseeded]), "params.seed"] = None
    groups = made(runs, baseline={"params.model": "a"}, paired=True)
    compared = {model for model in "bc" if not np.isnan(row(groups, model, "0.1")["acc_diff"])}
    assert compared == ({"c"} if unseeded == "b" else set())
    assert len(groups.warnings) == 2, "one a base"
    assert all("model=b" in line and ("model=c" in line) == ("a" in unseeded) for line in groups.warnings)


def points(*values, steps=None):
    steps = range(len(values)) if steps is None else steps
    return np.array([(step, 100 + place, value) for place, (step, value) in enumerate(zip(steps, values, strict=True))])


@pytest.mark.parametrize(
    ("text", "expected", "lower"),
    [
        ("acc", 0.5, False),
        ("metrics.acc:max", 0.9, False),
        ("acc:min", 0.1, True),
        ("acc:last:min", 0.5, True),
        ("acc:at=20", 0.7, False),
        ("acc:at=20:min", 0.7, True),
    ],
)
def test_a_value_is_picked_from_a_history_with_gaps_and_broken_points(text, expected, lower):
    history = points(0.1, np.nan, 0.9, 0.3, 0.7, np.inf, 0.5, steps=(0, 3, 5, 20, 20, 21, 30))
    runs = pd.DataFrame({"run_id": ["r"], "status": "FINISHED", "params.model": "a", "metrics.acc": 0.5})
    groups = tabulate.tabulate(runs, lambda *_: {"r": {"acc": history}}, by=["params.model"], wanted=metrics(text))
    assert groups.frame["acc_mean"].item() == expected
    assert groups.metrics[0].lower is lower
    broken = ("acc: points that are not finite are skipped in 1 runs",)
    assert groups.warnings == (broken if text in {"metrics.acc:max", "acc:min"} else ())
    assert (", lower is better" in groups.header) is lower


def test_one_metric_may_be_picked_twice():
    runs = pd.DataFrame({"run_id": ["r"], "status": "FINISHED", "params.model": "a", "metrics.acc": 0.5})
    wanted = metrics("acc:max, acc:at=1")
    groups = tabulate.tabulate(runs, lambda *_: {"r": {"acc": points(0.7, 0.6)}}, by=["params.model"], wanted=wanted)
    assert groups.frame[["acc_max_mean", "acc_at_1_mean"]].to_numpy().tolist() == [[0.7, 0.6]]


def test_a_missing_step_is_a_missing_value():
    runs = frame()[:2]
    histories = {"a0.1s0": {"acc": points(0.7)}, "a0.1s1": {"acc": points(0.7, 0.6)}}
    groups = made(runs, metric="acc:at=1", histories=lambda *_: histories)
    assert groups.warnings == ("all metrics: missing or not finite; left out there: a0.1s0",)
    assert groups.frame["n"].item() == 1


def test_what_does_not_fit_is_named():
    runs = frame(**{"tags.mlflow.source.git.commit": "abcdef0123456", "metrics.loss": 1.0})
    runs.loc[0, "tags.mlflow.source.git.commit"] = "0123456789abc"
    runs.loc[1, "params.batch"] = "32"
    runs.loc[2, "status"] = "FAILED"
    runs.loc[3, "metrics.loss"] = np.inf
    runs.loc[4, "data"] = "images 34cd"
    again = runs.loc[[5]].assign(run_id="newer", **{"metrics.acc": 0.5})
    parent = again.assign(run_id="parent", **{"metrics.acc": np.nan, "metrics.loss": np.nan})
    empty = parent.assign(run_id="empty")
    runs["tags.mlflow.parentRunId"] = "parent"
    groups = made(pd.concat([again, parent, empty, runs]), metric="acc,loss:last:min")
    told = dict(line.split(": ", 1) for line in groups.warnings)
    assert told == {
        "1 unfinished runs are left out (a --filter on status keeps them)": "a0.1s2 FAILED",
        "all metrics": "missing or not finite; left out there: empty",
        "loss": "missing or not finite; left out there: a0.1s3",
        "repeated seeds": "the newest run counts; left out: model=a, lr=0.01, seed 1: a0.01s1",
        "data differs between runs of one group, in model=a, lr=0.01": "images 12ab, images 34cd",
        "params.batch differs between runs of one group, in model=a, lr=0.1": "64, 32",
        "runs of several commits": "abcdef012, 012345678",
        "data set images has several digests": "images 12ab, images 34cd",
    }
    found = row(groups, "a", "0.01")
    assert found["acc_mean"] == pytest.approx(np.mean([0.5, *np.delete(ACC["a", "0.01"], 1)]))
    assert made(runs, every=True).frame["n"].tolist() == [4] * 6


def test_a_group_without_its_baseline_is_not_compared():
    runs = frame()
    groups = made(runs[~((runs["params.model"] == "a") & (runs["params.lr"] == "0.1"))], baseline={"params.model": "a"})
    assert groups.warnings == ("the baseline model=a, lr=0.1 has no run; nothing is compared with it",)
    assert np.isnan(row(groups, "b", "0.1")["acc_diff"])
    assert not np.isnan(row(groups, "b", "0.01")["acc_diff"])


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("n >= 4 and params.model = 'b'", 2),
        ("params.model in ('a', 'c') and not (`params.lr` < 0.05 or \"acc_mean\" < 0.795)", 1),
        ("params.model = 'n' or params.model LIKE 'B'", 2),
        ("params.model != 'b' and params.lr=1e-1", 2),
        ("acc_mean > 0.81 AND acc_mean<1", 2),
        ("params.lr < 0.05", 3),
        ("acc_diff_p <= 1", 4),
    ],
)
def test_where_keeps_rows_and_changes_no_number(where, left):
    every = made(frame(), baseline={"params.model": "a"})
    some = made(frame(), baseline={"params.model": "a"}, where=where)
    assert len(some.frame) == left
    assert some.frame.equals(every.frame.loc[some.frame.index])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"where": "n >"}, "--where 'n >': near \")\": syntax error (example: n >= 3 and params.model = 'resnet18')"),
        ({"where": "n > 1); DROP TABLE groups; --"}, "--where 'n > 1); DROP TABLE groups; --': "),
        ({"where": "load_extension('a')"}, "--where \"load_extension('a')\": not authorized"),
        ({"where": "m > 1"}, "unknown column of --where 'm'"),
        ({"where": "params.model = b"}, "unknown column of --where 'b'"),
        ({"where": "n > 9"}, "--where n > 9: no group is left"),
        ({"where": "n.__class__ > 1"}, "unknown column of --where 'n.__class__'"),
        ({"by": "params.modle"}, "unknown column 'params.modle'; did you mean 'params.model'?"),
        ({"metric": "accuracy"}, "unknown metric 'accuracy'; did you mean 'acc'? (allowed: acc)"),
        ({"metric": "acc:top"}, "unknown value of acc 'top' (allowed: at=STEP, last, max, min)"),
        ({"baseline": {"params.seed": "0"}}, "unknown column of --baseline 'params.seed'"),
        ({"baseline": {"params.model": "z"}}, "unknown value of params.model 'z' (allowed: a, b, c)"),
        ({"paired": True}, "--paired needs --seed and --baseline, too"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(asked, said):
    with pytest.raises(InputError, match=re.escape(said)) as error:
        made(frame(), **asked)
    assert "\n" not in str(error.value)


def test_options_that_name_nothing():
    assert pairs("params.layers=[1,2],params.lr=0.1") == {"params.layers": "[1,2]", "params.lr": "0.1"}
    assert pairs("") == {}
    for wrong in (
        lambda: metrics(" ,"),
        lambda: metrics("acc,acc"),
        lambda: metrics("val/acc,val_acc"),
        lambda: pairs("params.model"),
    ):
        with pytest.raises(InputError, match=r"example: "):
            wrong()
    with pytest.raises(InputError, match="no runs found"):
        made(frame()[:0])
    with pytest.raises(InputError, match=r"no run has a value of acc; 24 unfinished runs are left out"):
        made(frame(status="RUNNING"))


def test_a_report_has_every_form_and_is_the_same_twice(tmp_path):
    runs = frame(**{"metrics.a <b> & $c_d$": [*map(len, frame()["run_id"])], "url": "https://here/#/run"})
    histories = {run: {"acc": points(0.1, 0.4, 0.9), "a <b> & $c_d$": points(1)} for run in runs["run_id"]}

    def written(out):
        asked = {"metric": "acc:max,a <b> & $c_d$:last:min", "histories": lambda *_: histories}
        groups = made(runs, baseline={"params.model": "a"}, **asked)
        paths = tabulate.write(tmp_path / out, groups, "my <i>runs</i>", asked["histories"])
        return {path.relative_to(tmp_path / out).as_posix(): path.read_bytes() for path in paths}

    files = written("first")
    assert files == written("first") == written("second")
    forms = {f"tables/groups.{end}" for end in ("csv", "md", "tex", "html")} | {"tables/runs.csv"}
    figures = {f"figures/{name}.{end}" for end in ("png", "svg", "pdf")
               for name in ("acc-forest", "acc-curves", "a_b_c_d_-forest")}  # fmt: skip
    assert set(files) == forms | figures | {"index.html", "report.md", "values.json", "values.tex", "files.txt"}
    page = files["index.html"].decode()
    assert "<b>" not in page
    assert "my &lt;i&gt;runs" in page
    assert page.count("<svg") == 3
    assert 'href="https://here/#/run"' in page
    csv = pd.read_csv(tmp_path / "first/tables/groups.csv", dtype={"params.lr": str})
    assert list(csv)[:5] == ["params.model", "params.lr", "n", "acc_mean", "acc_sd"]
    cited = json.loads(files["values.json"])
    assert cited["b/0.1.acc_mean"] == 0.9
    assert cited["b/0.1.n"] == 4
    assert r"\csname repro:b/0.1.acc_mean\endcsname{0.9" in files["values.tex"].decode()
    assert b"begin{tabular}" in files["tables/groups.tex"]


def test_a_forest_plot_is_coloured_by_what_is_better():
    from repro.reporting import pictures

    for wanted, word in (("acc", "better"), ("acc:last:min", "worse")):
        groups = made(frame(), metric=wanted, baseline={"params.model": "a", "params.lr": "0.1"})
        (forest,) = pictures.of_groups(groups.frame, "acc", groups.metrics[0].lower, 3)
        rows, *_ = forest.given
        assert len(rows) == 3
        assert forest.caption.endswith("The first 3 of 5 groups.")
        assert set(rows["verdict"]) <= {word, "undecided", {"better": "worse", "worse": "better"}[word]}
        assert rows[rows["label"] == "model=b, lr=0.01"]["verdict"].item() == word


def test_names_of_any_length_and_signs_have_files_and_keys_of_their_own(tmp_path):
    long = "m" * 250  # what MLflow takes
    runs = frame(**{f"metrics.{long}": 1.0, "params.model": [*"ab"] * 12, "params.lr": "0.1"})
    runs["params.model"] = runs["params.model"].map({"a": "x y", "b": "x_y"})
    runs[f"metrics.{long}"] += np.arange(len(runs))
    histories = {run: {long: points(1, 2)} for run in runs["run_id"]}
    groups = made(runs.assign(**{"params.seed": range(len(runs))}), metric=long, baseline={"params.model": "x y"})
    names = [path.name for path in tabulate.write(tmp_path, groups, "one", lambda *_: histories)]
    assert len([name for name in names if name.startswith("mmm")]) == 6 and max(map(len, names)) < 210
    cited = json.loads((tmp_path / "values.json").read_text())
    assert [cited[f"{key}.n"] for key in ("x_y/0.1", "x_y/0.1_1")] == [12, 12]


def test_an_experiment_of_single_runs_has_means_alone(tmp_path):
    runs = frame()[::4]
    groups = made(runs, baseline={"params.model": "a"})
    assert groups.frame[["acc_sd", "acc_low", "acc_diff_low"]].isna().all(axis=None)
    assert groups.frame["acc_diff"].notna().sum() == 4
    paths = tabulate.write(tmp_path, groups, "one", lambda ids, _: {run: {"acc": points(1)} for run in ids})
    assert not any("curves" in path.name for path in paths)
    assert Path(tmp_path / "tables/groups.md").read_text().count("±") == 1, "in the header alone"
