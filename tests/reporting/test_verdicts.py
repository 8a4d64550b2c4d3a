"""Verdicts, differences and sizes of the rows of a table, on stores whose numbers are set."""

import math
from dataclasses import replace

import numpy as np
import pytest

from repro.reporting import claims, join, pictures, stats, tables, verdicts
from repro.reporting.frame import Beside, Predictions
from repro.reporting.headline import headline

BN = "reproducibility/squeezenet_bn"


def values(**by_variant):
    """Validation accuracies in percent by variant, one a seed; test is a point below; None: the run stayed at chance."""

    def metrics(planned):
        if planned.variant not in by_variant:
            return {}
        value = by_variant[planned.variant][planned.seed] / 100
        return {"best_val_accuracy": value, "test_accuracy": value - 0.01}

    return metrics


def statistics(store, study="reproducibility", beside=None):
    (table,) = join.tables(store.contents(), [study], None, beside)
    return verdicts.statistics(table)


def known(store, seeds=(0, 1, 2), **kinds):
    numbers = {
        "alexnet": [75.0, 75.4, 75.8],
        "alexnet_bn": [79.0, 79.4, 79.8],
        "squeezenet": [70.0, 70.4, 70.8],
        "squeezenet_bn": [73.0, 73.4, 73.8],
    } | kinds
    return store.sweep("reproducibility", seeds=seeds, metrics=values(**numbers))


def test_the_noise_is_pooled_by_family_and_the_published_number_held_against_the_prediction(store):
    found = statistics(known(store))
    one = found[BN]
    # SqueezeNet with BN alone has 2 degrees of freedom, fewer than 4: all four rows with sd 0.4, 8 degrees of freedom
    seed = (2.306004 * 0.4) ** 2 * (1 + 1 / 3)
    image = 100**2 * 1.959964**2 * 0.734 * 0.266 / 5000  # no predictions: p(1 - p), halves of one set
    assert one.on_val.predicted.half == pytest.approx(math.sqrt(seed + image), rel=1e-5)
    assert "p(1 - p)" in one.on_val.predicted.method
    assert (one.on_val.verdict, one.val.sd) == ("consistent", pytest.approx(0.4))
    assert one.on_val.why.startswith("published 73.72, one more run is expected to reach 71.")
    assert "no number of seeds would tell" in one.on_val.why


@pytest.mark.parametrize(
    ("accuracies", "verdict"), [([80.0, 80.4, 80.8], "ours above"), ([66.0, 66.4, 66.8], "ours below")]
)
def test_below_and_above_say_who_is_below_whom(store, accuracies, verdict):
    assert statistics(known(store, squeezenet_bn=accuracies))[BN].on_val.verdict == verdict


def test_equal_runs_decide_nothing(store):
    equal = {name: [77.02] * 3 for name in ("alexnet", "alexnet_bn", "squeezenet", "squeezenet_bn")}
    one = statistics(known(store, **equal))[BN]
    assert (one.on_val.predicted, one.val.low, one.on_val.verdict) == (None, None, "undecided")
    assert "the spread over seeds is unknown" in one.on_val.why


def test_a_single_run_is_judged_by_the_noise_of_the_others(store):
    known(store)
    store.sweep("residual", seeds=(0,), variants=("residual",))
    one = statistics(store, "residual")["residual/residual"]
    assert (one.val.n, one.val.sd) == (1, None)
    assert one.on_val.verdict == "consistent"
    assert one.difference.half > 0


def test_nothing_published_is_judged_in_another_setting(store):
    store.sweep("reproducibility", overrides={"training.epochs": 3})
    assert {(one.on_val.verdict, one.on_val.why) for one in statistics(store).values()} == {("", "")}


def test_runs_at_chance_do_not_enter_and_stand_for_themselves(store):
    known(store, squeezenet=[10.0, 10.0, 10.0])
    at_chance = [replace(run, outcome="chance") if run.variant == "squeezenet" else run for run in store.runs]
    store.runs = at_chance
    found = statistics(store)
    plain = found["reproducibility/squeezenet"]
    assert (plain.on_val.verdict, plain.on_val.why) == ("ours below", "published 70.76; 3 of 3 runs stayed at chance")
    assert (plain.val.estimate, plain.val.low, plain.difference) == (pytest.approx(10), None, None)
    assert found[BN].on_val.predicted.df == 6  # three rows of 3 runs
    store.sweep("ablation", variants=("fire_added",), outcome="chance", metrics=values(fire_added=[10.0] * 3))
    added = statistics(store, "ablation")["ablation/fire_added"]
    assert (added.on_val.verdict, added.on_val.why) == ("consistent", "published 10; 3 of 3 runs stayed at chance")


def test_runs_that_failed_beside_others_are_named_and_may_be_what_was_published(store):
    known(store)
    store.runs = [
        replace(run, outcome="chance") if run.variant == "squeezenet" and run.seed else run for run in store.runs
    ]
    one = statistics(store)["reproducibility/squeezenet"].on_val
    assert "; 2 of 3 runs stayed at chance, left out" in one.why
    (table,) = join.tables(store.contents(), ["reproducibility"])
    row = tables.study_frame(table).set_index("variant").loc["squeezenet"]
    assert (row["n"], row["outcome"]) == (1, "2 chance")
    assert "2 of 3 runs stayed at chance; left out of n and of all means" in row["notes"]
    store.sweep("ablation", variants=("fire_added",), metrics=values(fire_added=[10.0, 10.0, 66.0]))
    store.runs = [
        replace(run, outcome="chance") if run.variant == "fire_added" and run.seed < 2 else run for run in store.runs
    ]
    added = statistics(store, "ablation")["ablation/fire_added"].on_val
    assert (added.verdict, added.why) == ("consistent", "published 10; 2 of 3 runs stayed at chance")


def test_one_run_that_failed_is_not_enough(store):
    known(store)
    store.runs = [
        replace(run, outcome="diverged") for run in store.runs if (run.variant, run.seed) == ("squeezenet", 0)
    ]
    one = statistics(store)["reproducibility/squeezenet"].on_val
    assert (one.verdict, one.why) == ("undecided", "published 70.76; 1 of 1 run diverged; 3 runs are needed")


def test_a_question_that_two_studies_ask_is_pooled_once(store):
    store.sweep("reproducibility", variants=("squeezenet_bn",), seeds=range(5))
    store.sweep("squeeze_ratio", variants=("sr_0125",), seeds=(0, 1, 2))
    store.sweep("expand_3x3", variants=("share_50",), seeds=(3, 4))
    (table, *_) = join.tables(store.contents(), ["squeeze_ratio"])
    noises = verdicts.Noises(table.setting)
    assert [noises.seeds(row, "val").df for row in (*table.rows, table.setting.row(BN))] == [4, 4]
    assert headline(claims.load(), join.tables(store.contents())).why.startswith("No other network")


def test_no_seeds_tell_a_bound_apart_from_what_lies_below_it(store):
    known(store, seeds=(0, 1, 2))
    store.sweep("learning_rate", metrics=lambda planned: {"best_val_accuracy": 0.3 + planned.seed / 100})
    for one in statistics(store, "learning_rate").values():
        assert "would tell" not in one.on_val.why or one.on_val.why.endswith("if the mean stays the same")
    added = next(row for row in join.tables(store.contents(), ["learning_rate"])[0].rows)
    bound = replace(added, published=added.published.model_copy(update={"accuracy": None, "accuracy_at_most": 80.0}))
    setting = join.tables(store.contents(), ["learning_rate"])[0].setting
    judged = verdicts.against_published(bound, "val", verdicts.Noises(setting))
    assert judged.verdict == "consistent" and "seeds" not in judged.why.partition("(n = ")[2].replace(
        "over seeds of other", ""
    )


def test_a_prediction_ends_at_all_images(store):
    known(store, squeezenet_bn=[99.5, 99.6, 99.7])
    assert statistics(store)[BN].on_val.predicted.high == 100.0


def test_what_has_learned_depends_on_the_largest_class(store, monkeypatch):
    (table,) = join.tables(known(store).contents(), ["reproducibility"])
    assert verdicts.learned_from(table.rows[0]) == 20.0
    monkeypatch.setattr(verdicts, "chance", lambda _: 93.0)
    assert verdicts.learned_from(table.rows[0]) == 94.75


def test_predictions_of_failed_runs_do_not_enter(store):
    known(store)
    store.runs = [
        replace(run, outcome="chance") if (run.variant, run.seed) == (BN[16:], 2) else run for run in store.runs
    ]
    right, wrong = np.ones(50, np.int64), np.zeros(50, np.int64)

    def predictions(run):
        given = wrong if run.outcome == "chance" else np.array([1] * 40 + [0] * 10)
        return Predictions(given, right, given, right)

    (table,) = join.tables(store.contents(), ["reproducibility"], None, Beside(predictions=predictions))
    row = table.setting.row(BN)
    assert row.correct("test").shape == (2, 50)
    assert verdicts.Noises(table.setting).images(row, "test").variance is not None


def test_rows_of_one_base_share_their_simultaneous_intervals(store):
    known(store)
    store.sweep("residual")
    found = statistics(store, "residual")
    base = found["residual/residual"]
    others = [one.difference for name, one in found.items() if name != "residual/residual"]
    assert base.difference.method == stats.DIFFERENCE  # the only row against SqueezeNet with batch normalization
    assert {one.method for one in others} == {stats.DUNNETT}
    plain = stats.difference([1.0] * 3, [0.0] * 3, stats.Noise(others[0].error / math.sqrt(2 / 3), others[0].df))
    assert others[0].half > plain.half


def test_predictions_give_the_variance_over_images_and_the_noise_of_a_difference(store):
    known(store)
    random = np.random.default_rng(0)
    p = random.beta(0.74, 0.26, 5000)

    def predictions(run):
        correct = (random.random(5000) < p).astype(np.int64)
        return Predictions(correct, np.ones(5000, np.int64), correct, np.ones(5000, np.int64))

    found = statistics(store, beside=Beside(predictions=predictions))[BN]
    assert found.on_val.predicted.method == stats.PREDICTION
    assert found.image_noise < 0.7  # networks that are alike on every image
    without = statistics(store)[BN]
    assert found.on_val.predicted.half < without.on_val.predicted.half
    assert without.image_noise is None


def test_sizes_fit_within_one_unit_of_the_last_digit(store):
    store.sweep("reproducibility", metrics=lambda planned: {"model_size_legacy_mib": 2.902})
    found = statistics(store)[BN]
    assert found.size_verdict == "differs"


def test_folds_are_paired_after_averaging_over_seeds_and_held_against_nothing_published(store):
    percent = {"squeezenet_bn": [70.0, 71.0, 72.0], "residual": [72.0, 73.5, 74.0]}

    def metrics(planned):
        value = (percent[planned.variant][planned.spec.data.fold] + (-0.1, 0.1)[planned.seed]) / 100
        return {"best_val_accuracy": value + 0.01, "test_accuracy": value}

    for study, variant in (("reproducibility", "squeezenet_bn"), ("residual", "residual")):
        store.sweep(study, variants=(variant,), seeds=(0, 1), overrides={"data.folds": 3}, metrics=metrics)
    same = Predictions(*[np.ones(50, np.int64)] * 4)
    one = statistics(store, "residual", Beside(predictions=lambda _: same))["residual/residual"]
    assert (one.on_val.verdict, one.on_val.predicted, one.image_noise) == ("", None, None), (
        "folds hold other images each"
    )
    assert (one.val.n, one.val.method) == (3, stats.HELD_OUT)
    differences = np.array([2.0, 2.5, 2.0])
    half = 4.302653 * differences.std(ddof=1) * math.sqrt(1 / 3)
    assert one.test.method == one.difference.method == stats.FOLDS, "every fold's network sees the same test images"
    held_out = 4.302653 * np.std([73.0, 74.5, 75.0], ddof=1) * math.sqrt(1 / 3 + 1 / 2)
    assert one.val.half == pytest.approx(held_out, rel=1e-5), "those of validation are held out"
    assert one.difference.estimate == pytest.approx(differences.mean())
    assert one.difference.half == pytest.approx(half, rel=1e-5)
    (table,) = join.tables(store.contents(), ["residual"])
    paper = claims.load()
    found = next(claim for claim in claims.judge(paper, [table]) if claim.slug == "residual_helps")
    assert "95% +1.45 to +2.88, folds = 3" in found.why
    assert found.needed == "", "more seeds tell nothing of other folds"
    answer = headline(paper, [table]).headline
    assert answer == "Residual reaches 74.2% on validation with 3 folds"
    frame = tables.study_frame(table)
    header, drawn = tables.study_sheet(table, frame).header, next(pictures.of_study(table, frame))
    assert "± sd over folds, averaged over seeds." in header
    assert "Differences on test from SqueezeNet, batchnorm, paired by fold, each with its own 95% interval." in header
    assert drawn.caption.endswith("from SqueezeNet, batchnorm on test, paired by fold, each with its own 95% interval.")
