"""From a YAML file to the runs of a sweep: inheritance, selection, overrides, seeds, and the plan that is stored."""

from __future__ import annotations

import copy
import functools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import declarations, studies
from repro.errors import InputError
from repro.published import Claim, Protocol, Published
from repro.spec import flatten
from repro.studies import Plan
from repro.study import Study, Variant

HEAD = "study: mine\ntitle: Mine\nquestion: Does it work?\n"
ROW = "variants: {row: {title: Row, base: reproducibility/squeezenet%s}}\n"


@pytest.fixture
def declare(tmp_path):
    """Loads a study of one's own from the lines that follow its head."""

    def load(text: str, name: str = "own.yaml") -> Study:
        path = tmp_path / name
        path.write_text(HEAD + text)
        return studies.load(path)

    return load


def refused(load, text: str) -> str:
    with pytest.raises(InputError) as excinfo:
        load(text)
    message = str(excinfo.value)
    assert len(message.splitlines()) == 1, message
    return message


class TestInheritance:
    def test_a_variant_is_its_base_with_its_own_settings_on_top(self, declare):
        study = declare(
            "base: small\n"
            "variants:\n"
            "  small: {title: S, base: reproducibility/squeezenet_bn, set: {model.fire_modules: 4, model.dropout: 0.1}}\n"
            "  other: {title: O, set: {model.dropout: 0.2}}\n"
            "  third: {title: T, base: other, set: {model.residual: simple}}\n"
        )
        assert studies.settings(study, "third") == {
            "model.name": "squeezenet",
            "model.batch_norm": "all",
            "model.fire_modules": 4,
            "model.dropout": 0.2,
            "model.residual": "simple",
            "optimizer.weight_decay": 0.0002,
        }

    def test_another_model_inherits_nothing_of_the_former_one(self):
        reproducibility = studies.load("reproducibility")
        decay = {"optimizer.weight_decay": 0.0002}  # set for the first row, and of no model
        alexnet_bn = {"model.name": "alexnet", "model.batch_norm": "all"}
        assert studies.settings(reproducibility, "alexnet_bn") == alexnet_bn | decay
        assert studies.settings(reproducibility, "squeezenet") == {"model.name": "squeezenet"} | decay

    def test_the_base_of_a_variant_is_what_it_is_compared_with(self, declare):
        study = declare(
            "base: one\nvariants:\n"
            "  one: {title: 1, base: reproducibility/squeezenet}\n"
            "  two: {title: 2}\n  three: {title: 3, base: two}\n".replace("title: ", "title: no ")
        )
        compared = {slug: studies.compared_with(study, slug) for slug in study.variants}
        assert compared == {"one": "reproducibility/squeezenet", "two": "mine/one", "three": "mine/two"}

    @pytest.mark.parametrize("against", ["one", "mine/one"])
    def test_against_is_what_all_rows_but_itself_are_compared_with(self, declare, against):
        study = declare(
            f"against: {against}\nvariants:\n"
            "  one: {title: I, base: reproducibility/squeezenet}\n  two: {title: II, base: reproducibility/alexnet}\n"
        )
        assert [studies.compared_with(study, slug) for slug in study.variants] == [None, "mine/one"]
        assert studies.based_on(study, "two") == "reproducibility/alexnet"

    @pytest.mark.parametrize(
        ("variants", "circle"),
        [
            ("{a: {title: A, base: b}, b: {title: B, base: a}}", "mine/a -> mine/b -> mine/a"),
            ("{a: {title: A, base: b}, b: {title: B, base: c}, c: {title: C, base: b}}", "mine/b -> mine/c -> mine/b"),
        ],
    )
    def test_a_circle_is_named(self, declare, variants, circle):
        assert "is circular (" in (said := refused(declare, f"variants: {variants}\n"))
        assert circle in said

    def test_a_base_of_itself_is_no_base(self, declare):
        assert (
            studies.based_on(
                declare(
                    "base: row\n"
                    + ROW.replace(", base: reproducibility/squeezenet%s", "%s") % ", set: {model.name: alexnet}"
                ),
                "row",
            )
            is None
        )


BAD = [  # what follows the head, what the line says behind the file's name
    ("", "variants: is required"),
    ("variants: {}", "variants: got {} (allowed: at least 1 entry)"),
    ("variants: [a]", "variants: got ['a'] (allowed: a group of settings)"),
    (
        "varaints: {}",
        "unknown key 'varaints'; did you mean 'variants'? (allowed: against, axis, base, claims,",
    ),
    ("variants: {Bad Slug: {title: A}}", "variants: key 'Bad Slug' (allowed: text that matches ^[a-z0-9][a-z0-9_]*$)"),
    ("variants: {on: {title: A}}", "variants: key True (allowed: text, in quotes)"),
    (
        "variants: {squeezenet: {titel: A}}",
        "variants.squeezenet: unknown key 'titel'; did you mean 'title'? (allowed: base,",
    ),
    ("variants: {adam: {title: 5}}", "variants.adam.title: got 5 (allowed: text, in quotes)"),
    ("variants: {title: {title: ''}}", "variants.title.title: got '' (allowed: at least 1 character)"),
    ("variants: {row: {title: Row}}", "variants.row: model: is required"),
    ("variants: {row: 5}", "variants.row: got 5 (allowed: a group of settings)"),
    (ROW % ", set: 5", "variants.row.set: got 5 (allowed: a group of settings)"),
    (ROW % ", set: {5: 1}", "variants.row.set: key 5 (allowed: text, in quotes)"),
    (ROW % ", set: {seed: 1}", "variants.row.set: seed cannot be set here"),
    (
        ROW % ", set: {model: {dropout: 0}}",
        "variants.row: 'model': got {'dropout': 0}; use dotted names, for example model",
    ),
    (ROW % ", set: {model.dropuot: 0}", "variants.row: model: unknown key 'dropuot'; did you mean 'dropout'?"),
    (
        ROW % ", set: {model.dropout: 2024-01-01}",
        "variants.row: model.dropout: got datetime.date(2024, 1, 1) (allowed: a",
    ),
    (ROW % ", labels: {batchnorm: on}", "variants.row.labels.batchnorm: got True (allowed: text, in quotes)"),
    (ROW % ", published: {acuracy: 1}", "variants.row.published: unknown key 'acuracy'; did you mean 'accuracy'?"),
    (
        ROW % ", published: {accuracy: 101}",
        "variants.row.published.accuracy: got 101 (allowed: a number, at least 0 and at",
    ),
    (
        ROW % ", published: {accuracy: 0.741}",
        "published.accuracy: 0.741 looks like a share (allowed: percent, as 74.1)",
    ),
    (
        ROW % ", published: {accuracy: .nan}",
        "variants.row.published.accuracy: got nan (allowed: a number, at least 0 and",
    ),
    (
        ROW % ", published: {epochs: 1.5}",
        "variants.row.published.epochs: got 1.5 (allowed: a whole number, at least 1)",
    ),
    (
        ROW % ", published: {text: {note: 1}}",
        "variants.row.published.text: unknown number 'note' (allowed: accuracy, epoch",
    ),
    (ROW % ", published: {text: {size: big}}", "variants.row.published.text.size: got 'big' (allowed: a number)"),
    (
        ROW.replace("squeezenet", "squeeznet") % "",
        "variants.row.base: unknown variant of reproducibility 'squeeznet'; did",
    ),
    (
        ROW.replace("reproduci", "reproduca") % "",
        "variants.row.base: unknown study 'reproducability'; did you mean 'repro",
    ),
    (ROW.replace("/squeezenet", "/a/b") % "", "variants.row.base: unknown variant of reproducibility 'a/b'"),
    (ROW.replace("reproducibility/squeezenet", "/") % "", "variants.row.base: unknown study ''"),
    (
        ROW.replace("reproducibility/squeezenet", "nope") % "",
        "variants.row.base: unknown variant of mine 'nope' (allowed: row)",
    ),
    (
        "base: nope\n" + ROW.replace("base: ", "note: ") % "",
        "variants.row.base: unknown variant of mine 'nope' (allowed: r",
    ),
    ("against: nope\n" + ROW % "", "against: unknown variant of mine 'nope' (allowed: row)"),
    (
        "against: reproducibility/nope\n" + ROW % "",
        "against: unknown variant of reproducibility 'nope' (allowed: alexnet,",
    ),
    ("against: nope/row\n" + ROW % "", "against: unknown study 'nope' (allowed: ablation,"),
    ("axis: model.droput\n" + ROW % "", "axis: unknown setting 'model.droput'; did you mean 'model.dropout'?"),
    ("section: 5.2\n" + ROW % "", "section: got 5.2 (allowed: text, in quotes)"),
    ("table: one\n" + ROW % "", "table: got 'one' (allowed: a whole number)"),
    (
        ROW.replace("{row:", f"{{{'a' * 81}:") % "",
        f"variants: key '{'a' * 37}...{'a' * 38}' (allowed: at most 80 characters)",
    ),
    ("study: other\n" + ROW % "", "not valid YAML at line 4, column 1: key 'study' stands twice"),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said[:60] for _, said in BAD])
def test_a_bad_declaration_is_one_line_with_its_own_file(declare, tmp_path, text, said):
    message = refused(declare, text)
    assert message.startswith(f"{tmp_path / 'own.yaml'}: {said}")


def test_a_slug_is_no_longer_than_the_name_of_a_file_may_be(tmp_path):
    """A longer one would be trained, and then no report could be written."""
    path = tmp_path / "own.yaml"
    path.write_text(f"study: {'a' * 300}\ntitle: T\nquestion: Q\n{ROW % ''}\n")
    assert "study: got 'aaa" in refused(studies.load, str(path))
    assert "(allowed: at most 80 characters)" in refused(studies.load, str(path))
    path.write_text(path.read_text().replace("a" * 300, "a" * 80))
    assert studies.load(path).study == "a" * 80


@pytest.mark.parametrize("whole", ["", "5", "[1]", "null", "'text'"])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path, whole):
    path = tmp_path / "own.yaml"
    path.write_text(whole)
    assert "(allowed: a group of settings)" in refused(studies.load, str(path))


def test_aliases_without_end_are_refused_at_once(declare):
    bomb = "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    message = refused(declare, f"section: &a0 x\nvariants:\n{bomb}")
    assert "variants.a1: got ['x', 'x'" in message
    assert len(message) < 500


class TestLoad:
    def test_a_path_is_a_study_of_ones_own(self, declare):
        assert declare(ROW % "").study == "mine"
        assert declare(ROW % "", "own.yml").variants["row"].title == "Row"

    @pytest.mark.parametrize("name", ["residul", "", ".", "/tmp", "../experiments/residual", "x" * 5_000, "a\0b"])
    def test_a_name_that_is_no_study_lists_them(self, name):
        message = refused(studies.load, name)
        assert message.startswith("unknown study ")
        assert "(allowed: ablation, augmentation, batch_norm, best, demo, " in message

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        assert refused(studies.load, str(tmp_path / "none.yaml")).startswith(
            f"{tmp_path / 'none.yaml'}: cannot be read"
        )

    def test_declared_studies_come_in_the_papers_order(self):
        declared = studies.declared()
        assert [study.table for study in declared[:7]] == [1, 2, 3, 4, 5, 6, 7]
        assert {study.table for study in declared[7:]} == {None}
        assert declared[-1].study == "best"

    def test_a_study_is_frozen(self, declare):
        with pytest.raises(ValueError, match="frozen"):
            declare(ROW % "").title = "Other"


class TestSelect:
    @pytest.mark.parametrize(
        ("labels", "chosen"),
        [
            ({}, ["fire_added", "fire_added_bn", "fire_removed", "fire_removed_bn"]),
            ({"fire": "all", "batchnorm": "both"}, ["fire_added", "fire_added_bn", "fire_removed", "fire_removed_bn"]),
            ({"fire": "removed"}, ["fire_removed", "fire_removed_bn"]),
            ({"fire": "added", "batchnorm": "both"}, ["fire_added", "fire_added_bn"]),
            ({"batchnorm": "off"}, ["fire_added", "fire_removed"]),
            ({"fire": "removed", "batchnorm": "on"}, ["fire_removed_bn"]),
        ],
    )
    def test_labels_choose_rows_of_the_ablation(self, labels, chosen):
        assert list(studies.select(studies.load("ablation"), labels)) == chosen

    @pytest.mark.parametrize(
        ("labels", "chosen"),
        [
            ({"model": "alexnet"}, ["alexnet", "alexnet_bn"]),
            ({"model": "squeezenet", "batchnorm": "on"}, ["squeezenet_bn"]),
            ({"model": "all", "batchnorm": "off"}, ["alexnet", "squeezenet"]),
        ],
    )
    def test_labels_choose_rows_of_the_reproducibility(self, labels, chosen):
        assert list(studies.select(studies.load("reproducibility"), labels)) == chosen

    def test_names_choose_in_the_studys_order(self):
        study = studies.load("residual")
        assert studies.select(study, variants=["residual_2_removed", "residual"]) == ("residual", "residual_2_removed")
        assert studies.select(study, variants=["all"]) == tuple(study.variants)

    @pytest.mark.parametrize(
        ("labels", "variants", "said"),
        [
            (
                {"fire": "remved"},
                [],
                "fire: unknown value 'remved'; did you mean 'removed'? (allowed: added, all, removed)",
            ),
            ({"batchnorm": "true"}, [], "batchnorm: unknown value 'true' (allowed: both, off, on)"),
            (
                {},
                ["fire_remved"],
                "unknown variant of ablation 'fire_remved'; did you mean 'fire_removed'? (allowed: all,",
            ),
            ({"fire": "added"}, ["fire_removed"], "ablation: no variant has all of"),
        ],
    )
    def test_what_chooses_nothing_is_one_line(self, labels, variants, said):
        with pytest.raises(InputError, match=re.escape(said)) as excinfo:
            studies.select(studies.load("ablation"), labels, variants)
        assert len(str(excinfo.value).splitlines()) == 1


class TestOverrides:
    @pytest.mark.parametrize(
        ("text", "overrides"),
        [
            ("", {}),
            (" , ,", {}),
            ("model.first_kernel=5,model.residual=simple", {"model.first_kernel": 5, "model.residual": "simple"}),
            ("model.pools=[conv1, fire4],seed.x=1", {"model.pools": ["conv1", "fire4"], "seed.x": 1}),
            ("model.pools=[]", {"model.pools": []}),
            ("a=[[1,2],[3,4]],b={c: [1,2], d: 3}", {"a": [[1, 2], [3, 4]], "b": {"c": [1, 2], "d": 3}}),
            (" optimizer.lr = 1e-3 ", {"optimizer.lr": 0.001}),
            ("a=true,b=null,c='5',d=", {"a": True, "b": None, "c": "5", "d": None}),
            ("a=b=c", {"a": "b=c"}),
        ],
    )
    def test_values_are_yaml_and_brackets_hold_together(self, text, overrides):
        assert declarations.parse_overrides(text) == overrides

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("model.first_kernel", "set: 'model.first_kernel' is not name=value (example: model.first_kernel=5,"),
            ("=5", "set: '=5' is not name=value"),
            ("a=1,b", "set: 'b' is not name=value"),
            ("seed=3", "set: seed cannot be set here; seeds are given with --seeds"),
            ("semantics=1", "set: semantics cannot be set here"),
            ("a=1,a=2", "set: 'a' is given twice"),
            ("a=[1,2", "set: 'a': '[1,2' (examples: 5, 0.25, simple, [fire3, fire5]): not valid YAML at line 1"),
            ("a=!!python/name:os", "could not determine a constructor for the tag"),
            ("a=\nb: 'c", "not valid YAML"),
        ],
    )
    def test_what_is_no_setting_is_one_line(self, text, said):
        with pytest.raises(InputError, match=re.escape(said)) as excinfo:
            declarations.parse_overrides(text)
        assert len(str(excinfo.value).splitlines()) == 1

    @given(st.text() | st.text("ab=,[]{}() '\"\n:#&*!1.-"))
    def test_no_text_raises_anything_but_one_line(self, text):
        try:
            declarations.parse_overrides(text)
        except InputError as error:
            assert len(str(error).splitlines()) == 1

    @given(
        st.dictionaries(
            st.from_regex(r"[a-z]{1,8}\.[a-z_]{1,8}", fullmatch=True),
            st.recursive(
                st.integers()
                | st.booleans()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.sampled_from("xyz"),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=2),
                max_leaves=6,
            ),
        )
    )
    def test_what_is_formatted_is_parsed(self, overrides):
        text = ",".join(f"{name}={json.dumps(value)}" for name, value in overrides.items())
        assert declarations.parse_overrides(text) == overrides


class TestSeeds:
    @pytest.mark.parametrize(
        ("text", "seeds"),
        [
            ("0", (0,)),
            ("0,1,2", (0, 1, 2)),
            ("0-3", (0, 1, 2, 3)),
            ("0, 3 ,7-9", (0, 3, 7, 8, 9)),
            ("5,0-2,1", (5, 0, 1, 2)),
        ],
    )
    def test_lists_and_ranges(self, text, seeds):
        assert declarations.parse_seeds(text) == seeds

    @given(st.lists(st.tuples(st.integers(0, 2**31 - 41), st.integers(0, 40)), min_size=1, max_size=8))
    def test_what_is_formatted_is_parsed_in_order_each_once(self, ranges):
        text = ",".join(f"{low}-{low + length}" if length else f"{low}" for low, length in ranges)
        wanted = [seed for low, length in ranges for seed in range(low, low + length + 1)]
        assert declarations.parse_seeds(text) == tuple(dict.fromkeys(wanted))

    @pytest.mark.parametrize(
        "text",
        ["", ",", "a", "0,", "1.0", "-1", "3-1", "0-", "-", "0--3", "1e3", "0x1", "²", "٣", "0 1", "2147483648",
         "0-10000", "0-9999,10000", "9" * 5_000, "0-" + "9" * 10, "1_000", "\n", "0\n1"],
    )  # fmt: skip
    def test_what_is_no_seed_is_one_line_with_examples(self, text):
        message = refused(declarations.parse_seeds, text)
        assert message.startswith("seeds: ")
        assert "examples: 0,1,2 or 0-9" in message
        assert len(message) < 300

    @given(st.text() | st.text("0123456789,- "))
    def test_no_text_raises_anything_but_one_line(self, text):
        try:
            seeds = declarations.parse_seeds(text)
        except InputError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert seeds
            assert all(0 <= seed < 2**31 for seed in seeds)

    def test_the_largest_seed_is_one_of_a_run(self):
        (seed,) = declarations.parse_seeds(str(2**31 - 1))
        study = studies.load("reproducibility")
        assert studies.plan([(study, ["alexnet"])], seeds=[seed]).runs[0].spec.seed == 2**31 - 1


load = functools.cache(studies.load)


def planned(*names: str, seeds=(0,), **given_arguments) -> Plan:
    chosen = [(study, studies.select(study)) for study in map(load, names)]
    return studies.plan(chosen, seeds=seeds, **given_arguments)


class TestPlan:
    def test_rows_come_seed_by_seed_in_the_tables_order(self):
        runs = planned("ablation", "best", seeds=[3, 0]).runs
        rows = ["fire_added", "fire_added_bn", "fire_removed", "fire_removed_bn", "best"]
        assert [(run.variant, run.seed) for run in runs] == [(row, 3) for row in rows] + [(row, 0) for row in rows]
        assert runs[0].name == "fire_added seed 3"
        assert runs[-1].against == "reproducibility/alexnet"
        assert all(run.spec.seed == run.seed and run.key == run.spec.key for run in runs)

    def test_a_run_of_several_tables_is_trained_once(self):
        plan = planned("reproducibility", "squeeze_ratio", "expand_3x3", seeds=[0, 1])
        same = [run for run in plan.runs if run.key == plan.runs[3].key]
        assert [(run.study, run.variant) for run in same] == [
            ("reproducibility", "squeezenet_bn"),
            ("squeeze_ratio", "sr_0125"),
            ("expand_3x3", "share_50"),
        ]
        assert len(plan.runs) == 24
        assert len(plan.unique) == 20
        assert [run for run in plan.unique if run.key == same[0].key] == same[:1]
        assert [run.key for run in plan.unique] == list(dict.fromkeys(run.key for run in plan.runs))

    def test_overrides_reach_every_run_and_the_setting(self):
        plan = planned("reproducibility", overrides={"training.epochs": 3, "optimizer.final_lr": 0.1})
        for run in plan.runs:
            assert (run.spec.training.epochs, run.spec.optimizer.final_lr) == (3, 0.1)
        assert plan.setting["training.epochs"] == 3
        assert plan.setting["optimizer.final_lr"] == 0.1
        assert plan.setting["data.dataset"] == "cifar10"
        assert not any(name.startswith("model.") for name in plan.setting)

    def test_another_model_for_every_run_drops_what_it_does_not_have(self):
        plan = planned("squeeze_ratio", overrides={"model.name": "alexnet"})
        assert len(plan.unique) == 1

    def test_a_setting_that_a_variant_does_not_have_names_it(self):
        with pytest.raises(InputError, match="reproducibility/alexnet: model: unknown key 'first_kernel'"):
            planned("reproducibility", overrides={"model.first_kernel": 3})

    def test_a_variant_names_no_data_set(self, declare):
        assert "data.dataset cannot be set here; all variants use one data set" in refused(
            declare, ROW % ", set: {data.dataset: digits}"
        )

    def test_a_study_of_ones_own_is_not_called_as_one_of_the_project(self, tmp_path):
        copied = tmp_path / "mine.yaml"
        copied.write_text((studies.DECLARATIONS / "best.yaml").read_text())
        with pytest.raises(InputError, match="study: 'best' is a study of the project; give your own another name"):
            studies.load(copied)

    def test_a_network_that_cannot_be_is_refused_before_anything_is_trained(self):
        said = "residual/residual: model.squeeze_ratio: 0.125 of the 1 expand filters of fire2"
        with pytest.raises(InputError, match=re.escape(said)):
            planned("residual", overrides={"model.base_e": 1})

    def test_a_plan_is_named_by_its_studies_or_as_asked(self):
        assert planned("ablation").name == "ablation"
        assert planned("ablation", "best").name == "ablation+best"
        assert planned("ablation", "best", name="paper").name == "paper"

    def test_every_declared_study_can_be_planned_on_every_data_set(self):
        for dataset in ("cifar10", "digits"):
            plan = planned(*(study.study for study in studies.declared()), overrides={"data.dataset": dataset})
            assert {run.spec.data.dataset for run in plan.runs} == {dataset}


OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "model.fire_modules": st.integers(8, 12),
        "model.dropout": st.floats(0, 1, exclude_max=True),
        "model.pools": st.lists(st.sampled_from(["conv1", "fire2"]), unique=True),
        "data.dataset": st.sampled_from(["cifar10", "digits"]),
        "optimizer.name": st.sampled_from(["adam", "sgd", "adabound"]),
        "optimizer.lr": st.floats(0, 100, exclude_min=True),
        "training.epochs": st.integers(1, 100_000),
    },
)


class TestStoredPlan:
    @given(OVERRIDES, st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True))
    def test_restore_undoes_dump(self, overrides, seeds):
        plan = planned("residual", seeds=seeds, overrides=overrides)
        restored = studies.restore(studies.dump(plan), "sweep.json")
        assert restored == plan
        assert studies.dump(restored) == studies.dump(plan)
        assert [flatten(run.spec) for run in restored.runs] == [flatten(run.spec) for run in plan.runs]

    def test_every_declared_study_survives(self):
        plan = planned(*(study.study for study in studies.declared()), name="paper")
        assert studies.restore(studies.dump(plan), "sweep.json") == plan

    def test_what_other_programs_read_stands_in_it(self):
        stored = json.loads(studies.dump(planned("best", overrides={"training.epochs": 2})))
        assert stored["schema"] == 1
        assert stored["setting"]["training.epochs"] == 2
        (run,) = stored["runs"]
        assert run["published"] == {
            "accuracy": 78.12,
            "test_accuracy": 76.34,
            "epochs": 89,
            "epoch_seconds": 27.94,
            "size": 1.37,
        }
        assert run["spec"]["model"]["first_kernel"] == 5
        assert re.fullmatch("[0-9a-f]{16}", run["key"])

    @pytest.mark.parametrize("schema", [2, 0, "1", None, [1]])
    def test_a_schema_that_is_not_known_says_what_to_do(self, schema):
        text = json.dumps(json.loads(studies.dump(planned("best"))) | {"schema": schema})
        said = "sweep.json: schema .* of a sweep's plan is not known \\(allowed: 1\\); update repro"
        with pytest.raises(InputError, match=said):
            studies.restore(text, "sweep.json")

    @pytest.mark.parametrize(
        "text", ["", "{", "null", "[]", "5", '"schema"', "{}", '{"schema": 1}', "[" * 20_000, "\0"]
    )
    def test_what_is_no_plan_is_one_line(self, text):
        with pytest.raises(InputError) as excinfo:
            studies.restore(text, "sweep.json")
        assert str(excinfo.value).startswith("sweep.json: ")
        assert len(str(excinfo.value).splitlines()) == 1

    @given(st.data())
    def test_damage_anywhere_is_one_line_or_harmless(self, data):
        stored = copy.deepcopy(STORED)
        node, path = stored, []
        while isinstance(node, dict | list) and node and (not path or data.draw(st.booleans())):
            step = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            path.append(step)
            parent, node = node, node[step]
        damage = data.draw(st.sampled_from(["drop", None, 5, "text", [], {}, [[]], {"x": 1}, -1.5, True]))
        if damage == "drop":
            del parent[path[-1]]
        else:
            parent[path[-1]] = damage
        try:
            plan = studies.restore(json.dumps(stored), "sweep.json")
            assert plan.runs
            assert studies.restore(studies.dump(plan), "sweep.json") == plan
        except InputError as error:
            assert str(error).startswith("sweep.json: ")
            assert len(str(error).splitlines()) == 1

    @given(st.integers(0, 10**6), st.integers(0, 10**6))
    def test_a_stored_plan_that_was_cut_is_one_line(self, start, length):
        text = json.dumps(STORED)
        start %= len(text)
        cut = text[:start] + text[start + 1 + length % len(text) :]
        try:
            studies.restore(cut, "sweep.json")
        except InputError as error:
            assert len(str(error).splitlines()) == 1


STORED = json.loads(studies.dump(planned("best", "ablation", seeds=[0, 1])))


@pytest.mark.parametrize("declaration", [Study, Variant, Published, Protocol, Claim])
def test_every_key_of_a_study_is_described(declaration):
    assert [name for name, field in declaration.model_fields.items() if not field.description] == []
