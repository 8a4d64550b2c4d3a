import re
from dataclasses import replace

import numpy as np
import pytest

from repro.errors import InputError
from repro.reporting.join import keys, tables
from repro.rows import Contents, SweepRow
from repro.studies import dump, load, restore
from repro.study import Study
from repro.validation import validated


def variants(table):
    return {row.variant: [run.seed for run in row.runs] for row in table.rows}


def test_rows_stand_in_the_studys_order_with_runs_by_seed(store):
    store.sweep("reproducibility", seeds=(2, 0))
    store.sweep("reproducibility", seeds=(1,), variants=("squeezenet_bn", "alexnet"))
    (table,) = tables(store.contents())
    assert variants(table) == {
        "alexnet": [0, 1, 2],
        "alexnet_bn": [0, 2],
        "squeezenet": [0, 2],
        "squeezenet_bn": [0, 1, 2],
    }
    assert [row.missing for row in table.rows] == [()] * 4
    assert table.rows[0].spec.seed == 0
    assert table.notes == ()


def test_sweeps_of_single_variants_make_one_table_of_all_that_was_planned(store):
    store.sweep("residual", seeds=(0,), variants=("residual_2_added",))
    store.sweep("residual", seeds=(0,), variants=("residual",))
    (table,) = tables(store.contents())
    assert variants(table) == {"residual": [0], "residual_2_added": [0]}


def test_a_run_serves_every_row_with_its_key(store):
    store.sweep("reproducibility", variants=("squeezenet_bn",))
    store.sweep("squeeze_ratio", variants=("sr_0125",))
    reproducibility, squeeze_ratio = tables(store.contents())
    assert len(store.runs) == 3
    assert [run.record for run in squeeze_ratio.rows[0].runs] == [run.record for run in reproducibility.rows[0].runs]
    assert squeeze_ratio.rows[0].base is None  # its base is the same question


def test_the_base_that_another_study_trained_stands_in_the_table(store):
    store.sweep("reproducibility", seeds=(0, 1))
    store.sweep("squeeze_ratio", seeds=(0, 1, 2), variants=("sr_025",))
    _, squeeze_ratio = tables(store.contents())
    assert variants(squeeze_ratio) == {"sr_0125": [0, 1], "sr_025": [0, 1, 2]}
    assert squeeze_ratio.rows[0].missing == (), "nobody asked for its seed 2"
    assert squeeze_ratio.notes == ()


def test_the_latest_sweeps_setting_is_shown_and_the_other_named(store):
    store.sweep("reproducibility", seeds=(0,))
    store.sweep("reproducibility", seeds=(0, 1), overrides={"training.epochs": 3, "data.dataset": "digits"})
    store.sweep("residual", seeds=(0,))
    first, second = tables(store.contents())
    assert (first.study.study, first.setting.values["training.epochs"]) == ("reproducibility", 3)
    assert first.setting.words.startswith("digits (")
    assert first.setting.changes == ("data.dataset=digits", "training.epochs=3")
    assert second.setting.changes == ()
    assert [note for note in first.notes if "also run in another setting" in note and second.setting.id in note]
    assert {run.seed for row in first.rows for run in row.runs} == {0, 1}
    (other,) = tables(store.contents(), ["reproducibility"], setting=second.setting.id)
    assert (other.setting.id, other.rows[0].runs[0].seed) == (second.setting.id, 0)
    with pytest.raises(InputError, match=f"residual was not swept in setting {first.setting.id}"):
        tables(store.contents(), ["residual"], setting=first.setting.id)


def test_a_setting_without_a_finished_run_hides_none(store):
    store.sweep("best", seeds=(0,))
    store.sweep("best", seeds=(0,), overrides={"training.epochs": 3}, unfinished={("best", 0)})
    (table,) = tables(store.contents())
    assert (table.setting.values["training.epochs"], len(table.rows[0].runs)) == (100, 1)
    assert any("also run in another setting" in note for note in table.notes)


def test_other_data_is_another_setting(store):
    store.sweep("best", seeds=(0,))
    sweep = store.sweeps[0]
    text = dump(sweep.plan)
    text = text.replace(sweep.plan.runs[0].spec.data.digest, "f" * 64)
    other = restore(text.replace(sweep.plan.runs[0].key, "f" * 16), "test")
    store.sweeps.append(SweepRow("later", "1", sweep.started_ms + 1, other))
    (table,) = tables(store.contents())
    assert any("also run in another setting: cifar10 (ffffffff)" in note for note in table.notes)
    (other,) = re.findall(r"--setting (\w+)", " ".join(table.notes))
    (table,) = tables(store.contents(), setting=other)
    assert table.setting.values["data.digest"] == "f" * 64
    assert table.rows[0].runs == ()


def test_a_swept_training_setting_stays_one_table(store):
    study = validated(
        Study,
        {
            "study": "batches",
            "title": "Batch size",
            "question": "?",
            "base": "b_50",
            "axis": "training.batch_size",
            "variants": {
                "b_50": {"title": "50", "base": "reproducibility/squeezenet"},
                "b_100": {"title": "100", "set": {"training.batch_size": 100}},
            },
        },
        "test",
    )
    store.sweep(study, seeds=(0,), variants=("b_100",)).sweep(study, seeds=(0,), variants=("b_50",))
    (table,) = tables(store.contents())
    assert [(row.variant, row.spec.training.batch_size) for row in table.rows] == [("b_50", 50), ("b_100", 100)]
    assert table.setting.changes == ()
    assert table.notes == ("100: declared with training.batch_size=100",), "and of no other setting"


def test_what_variants_set_themselves_is_noted(store):
    rows = {slug: {"title": slug, "set": {"training.epochs": 7}} for slug in ("one", "two")}
    declared = {"study": "short", "title": "Short", "question": "?", "base": "reproducibility/squeezenet"}
    store.sweep(validated(Study, declared | {"variants": rows}, "test"), seeds=(0,))
    (table,) = tables(store.contents())
    assert table.setting.changes == ()
    assert [note for note in table.notes if "declared with" in note] == [
        "one: declared with training.epochs=7",
        "two: declared with training.epochs=7",
    ]


def test_a_base_in_another_study_is_found_by_its_declaration(store):
    overrides = {"training.epochs": 2}
    store.sweep("demo", seeds=(0, 1), overrides=overrides, variants=("squeezenet_bn",))
    store.sweep("residual", seeds=(1,), overrides=overrides, variants=("residual",))
    residual = tables(store.contents(), ["residual"])[0]
    base = residual.base(residual.rows[0])
    assert (base.name, [run.seed for run in base.runs]) == ("reproducibility/squeezenet_bn", [0, 1])
    assert residual.setting.row("reproducibility/alexnet").runs == ()
    assert residual.setting.row("reproducibility/nothing") is None
    assert keys(store.contents(), ["residual"]) == {run.key for run in store.runs}, "those of the base, too"


def test_the_latest_of_two_runs_of_one_key_counts(store):
    store.sweep("best", seeds=(0,)).sweep("best", seeds=(0,), again=True)
    (table,) = tables(store.contents())
    assert table.rows[0].runs[0].record.run_id == store.runs[1].run_id
    assert [note for note in table.notes if "2 finished runs of key" in note and store.runs[1].run_id in note]


def test_a_declaration_that_changed_does_not_mix_with_the_former_one(store):
    old = load("first_kernel")
    changed = old.variants["kernel_3"].model_copy(update={"set": {"model.first_kernel": 4}})
    new = old.model_copy(update={"variants": {**old.variants, "kernel_3": changed}})
    store.sweep(old, seeds=(0, 1), variants=("kernel_3",)).sweep(new, seeds=(0,), variants=("kernel_3",))
    (table,) = tables(store.contents())
    assert table.rows[0].spec.model.first_kernel == 4
    assert [run.seed for run in table.rows[0].runs] == [0]
    assert table.notes == (
        "3x3 starting kernel size: declared differently in an earlier sweep, whose runs are left out",
    )


def test_what_is_unfinished_missing_or_broken_is_one_line_each(store):
    broken = {"test_accuracy": float("nan"), "best_val_accuracy": None}
    store.sweep("learning_rate", variants=("lr_05",), unfinished={("lr_05", 1)}, metrics=lambda run: broken)
    store.sweep("learning_rate", seeds=(3,), variants=("lr_05",), outcome="diverged")
    run = store.runs[-1]
    doubled = np.array([1, 2, 2, 3, 4, 5], dtype=np.int64)
    store.runs[-1] = replace(run, curve=replace(run.curve, epoch=doubled))
    (table,) = tables(store.contents())
    assert table.notes == (
        "0.5: no finished run yet for seed 1",
        "0.5, seed 0: test_accuracy, best_val_accuracy missing or not finite; left out",
        "0.5, seed 2: test_accuracy, best_val_accuracy missing or not finite; left out",
        "0.5, seed 3: diverged (a loss was not finite)",
        "0.5, seed 3: some epochs were recorded twice",
    )


def test_an_empty_store_and_unknown_names_are_one_line(store):
    with pytest.raises(InputError, match=r"sqlite:///made_up\.db: has no sweep yet; train one first"):
        tables(store.contents())
    contents = store.sweep("best", seeds=(0,)).contents()
    with pytest.raises(InputError, match="unknown study of the store 'besst'; did you mean 'best'"):
        tables(contents, ["besst"])
    with pytest.raises(InputError, match=r"unknown setting 'abc' .allowed: [0-9a-f]{8}."):
        tables(contents, setting="abc")


def test_nothing_finished_yet_is_a_table_without_runs(store):
    every = {("best", seed) for seed in range(3)}
    (table,) = tables(store.sweep("best", unfinished=every).contents())
    assert (table.rows[0].runs, table.rows[0].missing) == ((), ((None, 0), (None, 1), (None, 2)))


def test_the_order_in_which_a_store_lists_things_does_not_matter(paper_contents):
    turned = Contents(paper_contents.uri, paper_contents.sweeps[::-1], paper_contents.runs[::-1], ())
    one, other = (
        [(table.setting.id, table.rows, table.notes) for table in tables(given)] for given in (turned, paper_contents)
    )
    assert one == other
    assert [table.study.table for table in tables(turned)] == [1, 2, 3, 4, 5, 6, 7, None, None, None]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_runs_of_folds_stand_in_one_row_by_fold_and_seed(store):
    store.sweep("best", seeds=(0, 1))
    sweep = store.sweeps[0]
    folds = [
        run.model_copy(update={"spec": (spec := run.spec.of(run.seed, fold)), "key": spec.key})
        for run in sweep.plan.runs
        for fold in (0, 1)
    ]
    store.sweeps = [replace(sweep, plan=sweep.plan.model_copy(update={"runs": tuple(folds[:3])}))]
    store.runs = [replace(store.runs[0], key=run.key, run_id=run.key, seed=run.seed) for run in folds[:2]]
    (table,) = tables(store.contents())
    (row,) = table.rows
    assert [(run.fold, run.seed) for run in row.runs] == [(0, 0), (1, 0)]
    assert row.missing == ((0, 1),)
    assert replace(store.runs[0], fold=1).name == "best seed 0 fold 1"
    assert "no finished run yet for seed 1 fold 0" in table.notes[0]
