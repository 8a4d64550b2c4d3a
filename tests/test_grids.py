"""Variants from `grid` and `zip`: which there are, what they are called, and what stands beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import grids, studies
from repro.errors import InputError
from repro.spec import flatten
from repro.study import Study

HEAD = "study: mine\ntitle: Mine\nquestion: Which?\n"


@pytest.fixture
def load(tmp_path):
    def read(text):
        (tmp_path / "mine.yaml").write_text(HEAD + text)
        return studies.load(str(tmp_path / "mine.yaml"))

    return read


def settings(study):
    """What each variant sets itself."""
    return {slug: dict(row.set) for slug, row in study.variants.items()}


def test_a_grid_is_every_combination_the_last_field_fastest():
    found = grids.expand({"model.dropout": [0.2, 0.5], "optimizer.final_lr": [0.01, 0.1]}, {})
    assert {slug: row["set"] for slug, row in found.items()} == {
        "dropout_0_2_final_lr_0_01": {"model.dropout": 0.2, "optimizer.final_lr": 0.01},
        "dropout_0_2_final_lr_0_1": {"model.dropout": 0.2, "optimizer.final_lr": 0.1},
        "dropout_0_5_final_lr_0_01": {"model.dropout": 0.5, "optimizer.final_lr": 0.01},
        "dropout_0_5_final_lr_0_1": {"model.dropout": 0.5, "optimizer.final_lr": 0.1},
    }
    assert found["dropout_0_2_final_lr_0_01"]["title"] == "dropout 0.2, final_lr 0.01"


def test_a_zip_goes_side_by_side_and_each_of_it_with_all_of_the_grid():
    zipped = {"model.first_kernel": [3, 5], "model.first_stride": [1, 2]}
    alone = [row["set"] for row in grids.expand({}, zipped).values()]
    assert alone == [
        {"model.first_kernel": 3, "model.first_stride": 1},
        {"model.first_kernel": 5, "model.first_stride": 2},
    ]
    both = [row["set"] for row in grids.expand({"model.dropout": [0, 0.5]}, zipped).values()]
    assert both == [one | {"model.dropout": rate} for one in alone for rate in (0, 0.5)]
    assert grids.expand({}, {}) == {}


@pytest.mark.parametrize(
    ("grid", "zipped", "said"),
    [
        ([1], {}, r"grid: got \[1\] \(allowed: fields with lists of values"),
        ({"model.dropout": []}, {}, r"grid.model.dropout: got \[\] \(allowed: a list of values"),
        ({"model.dropout": "0.1"}, {}, r"grid.model.dropout: got '0.1' \(allowed: a list of values"),
        ({"a": [0.1, 0.2, 0.1]}, {}, r"grid\.a: 0\.1 is given twice"),
        ({}, {"a": [1, 2], "b": [1]}, r"zip: its lists must have equal lengths .*\(got 2 of a, 1 of b\)"),
        ({"a": [1]}, {"a": [1]}, "zip: a is also in grid; give it once"),
        ({"a": list(range(5001))}, {"b": [1, 2]}, r"grid: has 10,002 variants \(allowed: at most 10,000\)"),
    ],
)
def test_what_is_no_grid_is_one_line(grid, zipped, said):
    with pytest.raises(ValueError, match=said):
        grids.expand(grid, zipped)


def test_as_many_as_may_be_are_made():
    assert len(grids.expand({"a": list(range(100))}, {"b": list(range(100))})) == grids.MOST


values = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(max_size=100), st.booleans(), st.none(), st.lists(st.integers())
)


def once(values):
    return all(value not in values[:place] for place, value in enumerate(values))


@given(
    st.dictionaries(st.text(max_size=20), st.lists(values, min_size=1, max_size=4).filter(once), min_size=1, max_size=3)
)
def test_names_of_variants_are_such_and_differ_whatever_the_values(grid):
    found = grids.expand(grid, {})
    count = 1
    for one in grid.values():
        count *= len(one)
    assert len(found) == count
    variants = {slug: {**row, "set": {}} for slug, row in found.items()}
    Study(study="mine", title="T", question="Q", variants=variants)  # whose names and titles are checked


def test_values_that_read_alike_and_long_ones_get_other_names():
    assert list(grids.expand({"a": ["1.0", "1-0", "1 0"]}, {})) == ["a_1_0", "row_2", "row_3"]
    assert list(grids.expand({"a": ["x" * 100, "y"]}, {})) == ["row_1", "a_y"]
    assert list(grids.expand({"model.pools": [["conv1", "fire4"], []]}, {})) == ["pools_conv1_fire4", "pools_none"]


class TestStudy:
    def test_the_base_is_the_first_row_unless_it_is_left_out(self, load):
        text = "base: reproducibility/squeezenet_bn\ngrid: {model.dropout: [0.1, 0.2]}\n"
        study = load(text)
        assert list(study.variants) == ["squeezenet_bn", "dropout_0_1", "dropout_0_2"]
        assert study.variants["squeezenet_bn"].published.accuracy == 73.72
        assert study.fields == ("model.dropout",)
        ours = flatten(studies.plan([(study, ["squeezenet_bn"])], seeds=[0]).runs[0].spec)
        assert ours == flatten(
            studies.plan([(studies.load("reproducibility"), ["squeezenet_bn"])], seeds=[0]).runs[0].spec
        )
        plan = studies.plan([(study, tuple(study.variants))], seeds=[0])
        restored = studies.restore(studies.dump(plan), "sweep.json").studies[0]
        assert list(restored.variants) == list(study.variants), "also as it is stored with a sweep"
        left_out = load(text + "include_base: false\n")
        assert list(left_out.variants) == ["dropout_0_1", "dropout_0_2"]
        assert {studies.based_on(left_out, slug) for slug in left_out.variants} == {"reproducibility/squeezenet_bn"}

    def test_a_variant_called_as_the_base_keeps_its_name(self, load):
        study = load(
            "base: reproducibility/squeezenet\nvariants: {squeezenet: {title: Mine, set: {model.dropout: 0.1}}}\n"
        )
        assert list(study.variants) == ["reproducibility_squeezenet", "squeezenet"]

    def test_named_variants_stand_beside_those_of_a_grid_and_win(self, load):
        study = load(
            "base: reproducibility/squeezenet\ninclude_base: false\ngrid: {model.dropout: [0.1, 0.2]}\n"
            "variants: {dropout_0_2: {title: Named, set: {model.dropout: 0.3}}, more: {title: More}}\n"
        )
        assert settings(study) == {
            "dropout_0_1": {"model.dropout": 0.1},
            "dropout_0_2": {"model.dropout": 0.3},
            "more": {},
        }

    def test_every_field_of_a_variant_reaches_its_run(self, load):
        study = load(
            "base: reproducibility/squeezenet\ninclude_base: false\n"
            "zip: {model.first_kernel: [3, 5], model.first_padding: [1, 2]}\ngrid: {training.epochs: [1, 2]}\n"
        )
        runs = studies.plan([(study, tuple(study.variants))], seeds=[0, 1]).runs
        found = [(one.seed, *(flatten(one.spec)[field] for field in study.fields)) for one in runs]
        assert found == [(seed, k, p, e) for seed in (0, 1) for k, p in ((3, 1), (5, 2)) for e in (1, 2)]
        assert len({one.key for one in runs}) == 8

    def test_folds_of_a_study_are_runs_of_their_own(self, load):
        study = load("base: reproducibility/squeezenet\nfolds: 3\ngrid: {model.dropout: [0.1]}\n")
        runs = studies.plan([(study, ["dropout_0_1"])], seeds=[0, 1]).runs
        assert [(one.seed, one.spec.data.fold, one.spec.data.folds) for one in runs] == [
            (seed, fold, 3) for seed in (0, 1) for fold in (0, 1, 2)
        ]
        assert len({one.key for one in runs}) == 6
        assert runs[1].name == "dropout_0_1 seed 0 fold 1"
        five = studies.plan([(study, ["dropout_0_1"])], seeds=[0], overrides={"data.folds": 5})
        assert len(five.runs) == 5

    def test_too_many_runs_are_refused(self, load):
        study = load("base: reproducibility/squeezenet\ngrid: {model.dropout: [0.1, 0.2]}\n")
        with pytest.raises(InputError, match=r"plan: 10,002 runs \(allowed: at most 10,000\)"):
            studies.plan([(study, tuple(study.variants))], seeds=range(3334))
