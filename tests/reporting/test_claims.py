"""Claims as contrasts, judged on stores whose numbers are set; the headline; what a declaration refuses."""

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from repro import studies
from repro.errors import InputError
from repro.published import Claim, Ends, Paper, Protocol, Published
from repro.reporting import claims, join, pictures, samplesize, stats, tables, verdicts
from repro.reporting.claims import judge
from repro.reporting.frame import Beside
from repro.reporting.headline import headline
from repro.validation import validated

SQ, BN, ALEX = "reproducibility/squeezenet", "reproducibility/squeezenet_bn", "reproducibility/alexnet"
SPREAD = (-0.4, 0.0, 0.4)
BUILDERS = []


@pytest.fixture(autouse=True)
def _builder(store):
    """Lets `store_of` make stores as the fixture `store` does."""
    BUILDERS[:] = [type(store)]


def store_of(test, *studies_, spread=SPREAD, outcomes=None, setting=None, **metrics):
    """Test accuracies in percent by variant, each with the same spread over three seeds; validation is the same."""
    builder = BUILDERS[0]()

    def set_metrics(planned):
        found = {name: values[planned.variant] for name, values in metrics.items() if planned.variant in values}
        if planned.variant in test:
            accuracy = (test[planned.variant] + spread[planned.seed % len(spread)]) / 100
            found |= {"test_accuracy": accuracy, "best_val_accuracy": accuracy}
        return found

    builder.sweep(*(studies_ or ("reproducibility",)), seeds=range(len(spread)), metrics=set_metrics, overrides=setting)
    builder.runs = [replace(run, outcome=(outcomes or {}).get(run.variant, "finished")) for run in builder.runs]
    return builder.contents()


def judged(claim, contents, asked=None):
    paper = Paper(paper="P", protocol=Protocol(seeds=3, images=5000), claims={"it": validated(Claim, claim, "claim")})
    (one,) = judge(paper, join.tables(contents, asked))
    return one


# With sd 0.4 pooled over four rows (8 degrees of freedom) a difference of two rows of three has half-width
# 2.306 * 0.4 * sqrt(2/3) = 0.753 points.
ROWS = {"alexnet": 75.0, "alexnet_bn": 79.0, "squeezenet": 70.0, "squeezenet_bn": 73.0}


@pytest.mark.parametrize(
    ("second", "margin", "direction", "verdict"),
    [
        (74.0, 0, "lower", "supported"),
        (72.0, 0, "lower", "not supported"),
        (73.5, 0, "lower", "undecided"),
        (72.3, -1, "higher", "supported"),
        (73.1, -1, "higher", "supported"),
        (73.5, -1, "higher", "undecided"),
        (74.8, -1, "higher", "not supported"),
        (74.6, -1, "higher", "undecided"),  # clearly lower than 0, but not than the margin
        (73.2, 1, "alike", "supported"),
        (73.6, 1, "alike", "undecided"),
        (75.0, 1, "alike", "not supported"),
    ],
)
def test_a_contrast_is_tested_against_its_margin(second, margin, direction, verdict):
    claim = {"says": "s", "direction": direction, "margin": margin, "all": [[BN, SQ]]}
    one = judged(claim, store_of(ROWS | {"squeezenet": second}))
    assert one.verdict == verdict
    assert one.statistic == pytest.approx(73 - second)
    assert one.high - one.low == pytest.approx(2 * 0.753, abs=0.001)
    assert (one.n, one.unit, one.margin) == (3, "points", margin)
    assert bool(one.needed) == (verdict == "undecided")
    assert ("would decide it if the means stay the same" in one.why) == (verdict == "undecided")


def test_the_words_name_who_is_more_accurate_and_what_n_can_tell():
    one = judged({"says": "s", "all": [[BN, SQ]]}, store_of(ROWS | {"squeezenet": 73.4}))
    assert one.why == (
        "SqueezeNet, batchnorm is 0.40 points less accurate than SqueezeNet (95% −1.15 to +0.35, n = 3);"
        " 11 seeds per row would decide it if the means stay the same"
    )
    assert one.needed == "11 seeds per row"
    assert len(one.runs) == 6


def test_all_of_needs_every_contrast_and_is_refuted_after_holms_correction():
    pairs = [[BN, SQ], ["reproducibility/alexnet_bn", ALEX]]
    claim = {"says": "s", "all": pairs}
    contents = store_of(ROWS)
    assert judged(claim, contents).verdict == "supported"
    single = [run for run in contents.runs if run.variant != "alexnet_bn" or run.seed == 0]
    one = judged(claim, replace(contents, runs=tuple(single)))
    assert (one.verdict, one.n) == ("supported", 1), "the fewest runs of the contrasts that decide"
    assert judged(claim, store_of(ROWS | {"alexnet": 78.7})).verdict == "undecided"
    against = ROWS | {"alexnet": 79.95}  # p = 0.022 one-sided, 0.044 of two
    assert judged({"says": "s", "all": pairs[1:]}, store_of(against)).verdict == "not supported"
    assert judged(claim, store_of(against)).verdict == "undecided"
    assert judged(claim, store_of(ROWS | {"alexnet": 81})).verdict == "not supported"


def test_any_of_needs_one_contrast_after_holms_correction_and_is_refuted_by_all():
    pairs = [[BN, ALEX], [SQ, ALEX]]
    claim = {"says": "s", "any": pairs}
    assert judged(claim, store_of(ROWS)).verdict == "not supported"
    open_ = judged(claim, store_of(ROWS | {"squeezenet_bn": 75.0}))
    assert open_.verdict == "undecided"
    assert open_.why.startswith("SqueezeNet, batchnorm"), "SqueezeNet alone is refuted, which leaves nothing open"
    just = ROWS | {"squeezenet_bn": 75.8}  # p = 0.020 one-sided, 0.040 of two
    assert judged({"says": "s", "any": pairs[:1]}, store_of(just)).verdict == "supported"
    assert judged(claim, store_of(just)).verdict == "undecided"
    assert judged(claim, store_of(ROWS | {"squeezenet_bn": 77.0})).verdict == "supported"


def test_best_and_ordered_are_contrasts_of_their_rows():
    best = validated(Claim, {"says": "s", "best": BN, "than": [SQ, ALEX]}, "claim")
    assert [(one.first, one.second, one.margin) for one in best.contrasts] == [(BN, SQ, 0), (BN, ALEX, 0)]
    ordered = validated(Claim, {"says": "s", "ordered": [SQ, BN, ALEX], "slack": 1}, "claim")
    assert [(one.first, one.second, one.margin) for one in ordered.contrasts] == [
        (BN, SQ, -1),
        (ALEX, BN, -1),
        (ALEX, SQ, 0),
    ]
    strict = validated(Claim, {"says": "s", "ordered": [SQ, BN, ALEX]}, "claim")
    assert [one.margin for one in strict.contrasts] == [0, 0]
    rising = {"says": "s", "ordered": [SQ, BN, ALEX], "slack": 1}
    assert judged(rising, store_of(ROWS | {"alexnet": 72.9})).verdict == "supported"
    assert judged(rising, store_of(ROWS | {"alexnet": 71})).verdict == "not supported"


def test_sizes_need_one_run_and_no_interval():
    sizes = {"model_size_legacy_mib": {"squeezenet": 2.8, "squeezenet_bn": 2.9, "alexnet": 88.8}}
    contents = store_of({}, spread=(0.0,), **sizes)
    one = judged({"says": "s", "metric": "size", "all": [[BN, SQ]]}, contents)
    assert (one.verdict, one.why) == ("supported", "SqueezeNet, batchnorm is 0.10 MiB larger than SqueezeNet")
    for times, verdict in ((31, "supported"), (32, "not supported")):
        ratio = judged({"says": "s", "ratio": {"of": ALEX, "to": SQ, "times": times}}, contents)
        assert (ratio.verdict, round(ratio.statistic, 1), ratio.unit) == (verdict, 31.7, "times")


def test_how_runs_end_needs_three_of_each():
    claim = {
        "says": "s",
        "section": "5.2",
        "ends": {"rows": ["ablation/fire_added"], "outcomes": ["chance", "diverged"]},
    }
    at_chance = {"fire_added": "chance"}
    assert judged(claim, store_of({}, "ablation", outcomes=at_chance)).verdict == "supported"
    assert judged(claim, store_of({}, "ablation", spread=(0.0, 0.1), outcomes=at_chance)).verdict == "undecided"
    assert judged(claim, store_of({}, "ablation")).verdict == "not supported"


def test_a_row_that_never_learned_is_less_accurate_than_one_that_did():
    for outcomes, verdict in (
        ({"squeezenet": "chance"}, "supported"),
        ({"squeezenet_bn": "diverged"}, "not supported"),
        ({"squeezenet": "chance", "squeezenet_bn": "chance"}, "undecided"),
    ):
        one = judged({"says": "s", "all": [[BN, SQ]]}, store_of(ROWS, outcomes=outcomes))
        assert one.verdict == verdict
        assert "3 of 3 runs" in one.why
    few = store_of(ROWS, spread=(0.0, 0.2), outcomes={"squeezenet": "chance"})
    assert judged({"says": "s", "all": [[BN, SQ]]}, few).verdict == "undecided"


def test_equal_runs_decide_nothing():
    one = judged({"says": "s", "all": [[BN, SQ]]}, store_of(ROWS, spread=(0.0, 0.0, 0.0)))
    assert (one.verdict, one.low, one.needed) == ("undecided", None, "")
    assert "the spread over seeds is unknown" in one.why


def test_times_are_compared_on_one_kind_of_hardware():
    claim = {"says": "s", "metric": "epoch_seconds", "all": [[SQ, ALEX]]}
    contents = store_of(ROWS)
    assert judged(claim, contents).verdict == "supported"
    mixed = tuple(replace(run, hardware="other") if run.variant == "alexnet" else run for run in contents.runs)
    one = judged(claim, replace(contents, runs=mixed))
    assert (one.verdict, "different hardware" in one.why) == ("undecided", True)
    assert (one.needed, one.statistic) == ("", None), "no number of seeds makes the times comparable"


def test_the_papers_claims_are_judged_in_its_own_setting_and_ones_own_in_any():
    contents = store_of(ROWS, setting={"training.epochs": 3})
    paper = judged({"says": "s", "section": "5.1", "all": [[BN, SQ]]}, contents)
    assert (paper.verdict, paper.why.startswith("run with training.epochs=3, not in the setting")) == (
        "undecided",
        True,
    )
    assert judged({"says": "s", "all": [[BN, SQ]]}, contents).verdict == "supported"
    sizes = {"says": "s", "section": "5.1", "metric": "size", "all": [[SQ, ALEX]]}
    assert judged(sizes, contents).verdict == "not supported"


def test_claims_are_those_about_the_studies_asked_for(paper_contents):
    paper = claims.load()
    asked = judge(paper, join.tables(paper_contents, ["first_kernel"]))
    assert [one.slug for one in asked] == ["first_kernel_5", "parity_batch_norm"]
    every = judge(paper, join.tables(paper_contents))
    assert {one.slug for one in every} == set(paper.claims)
    assert judge(paper, join.tables(store_of({}, "demo"))) == ()


def test_the_claims_of_the_paper_that_were_missing_are_declared():
    declared = claims.load().claims
    assert declared["adam_and_sgd_do_not_train"].ends.outcomes == ("chance", "diverged")
    assert declared["modules_make_no_difference"].direction == "alike"
    assert {one.metric for one in declared.values()} >= {
        "epoch_seconds",
        "best_epoch",
        "training_seconds",
        "gap",
        "size",
    }
    assert declared["batch_norm_inside"].all == (("batch_norm/bn_fire", "batch_norm/bn_none"),)


MINE = """
study: mine
title: Mine
question: Q?
base: reproducibility/squeezenet_bn
variants:
  wide: {title: Wide, set: {model.first_filters: 128}, published: {accuracy: 74.0}}
claims:
  wide_helps:
    says: wider is better
    all: [[mine/wide, reproducibility/squeezenet_bn]]
"""


def own(tmp_path, text=MINE):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return studies.load(path)


def test_holms_correction_is_counted_in_and_named():
    claim = {"says": "s", "best": BN, "than": [SQ, ALEX, "reproducibility/alexnet_bn"]}
    one = judged(claim, store_of({BN[16:]: 73.0, SQ[16:]: 73.85, ALEX[16:]: 72.5, "alexnet_bn": 72.9}))
    assert one.verdict == "undecided"
    assert "SqueezeNet (95% −1.60 to −0.10, n = 3)" in one.why
    assert "Holm's correction for 3 comparisons leaves it open; 5 seeds per row would decide it" in one.why
    assert samplesize.runs_to_tell(0.85, stats.Noise(0.4, 8)) == 3, "without it"


def test_runs_that_failed_beside_others_that_learned_are_named():
    contents = store_of(ROWS)
    runs = [
        replace(run, outcome="chance") if (run.variant, run.seed) == ("squeezenet", 1) else run for run in contents.runs
    ]
    one = judged({"says": "s", "all": [[BN, SQ]]}, replace(contents, runs=tuple(runs)))
    assert (one.verdict, one.why.count("; SqueezeNet: 1 of 3 runs stayed at chance, left out")) == ("supported", 1)


def test_the_spread_of_other_networks_alone_decides_no_claim():
    builder = BUILDERS[0]()
    builder.sweep(
        "reproducibility",
        variants=("squeezenet", "alexnet"),
        seeds=(0,),
        metrics=lambda one: {"test_accuracy": 0.5 if one.variant == "squeezenet" else 0.9},
    )
    builder.sweep("residual")
    one = judged({"says": "s", "direction": "lower", "all": [[SQ, ALEX]]}, builder.contents())
    assert one.verdict == "undecided"
    assert "n = 1), with the spread of other networks; two runs of either are needed; 2 seeds per row" in one.why


def test_rows_of_one_title_are_two_in_a_claim_on_ends():
    (table, *_) = join.tables(store_of(ROWS, outcomes={"squeezenet": "diverged"}))
    rows = [replace(table.setting.row(name), title="Same") for name in (SQ, BN)]
    step = claims._ends(Ends(rows=(SQ, BN), outcomes=("finished",)), rows)
    assert (step.against, step.why) == (0.0, "Same: 3 diverged; Same: 3 finished")


def test_a_size_that_is_missing_decides_nothing():
    contents = store_of(ROWS, model_size_legacy_mib={"squeezenet": None})
    one = judged({"says": "s", "metric": "size", "direction": "lower", "all": [[SQ, BN]]}, contents)
    assert (one.verdict, one.why) == ("undecided", "no size of SqueezeNet")


def test_the_papers_studies_are_those_that_it_publishes_numbers_for():
    printed = join.paper_studies()
    assert {study.study for study in studies.declared() if study.table} < printed
    assert {"batch_norm", "best", "optimizer"} < printed
    assert not printed & {"expand_kernels", "weight_decay", "augmentation", "frontier", "demo"}
    contents = store_of(ROWS | {"squeeze_1_expand_1_5": 79.0}, "reproducibility", "expand_kernels", **SIZES)
    assert [table.study.study for table in join.tables(contents) if table.printed] == ["reproducibility"]
    assert "Best of 2 networks on validation: SqueezeNet, batchnorm" in answer(contents).why


def test_a_study_of_ones_own_has_claims_in_the_same_form(tmp_path):
    study = own(tmp_path)
    contents = store_of({"wide": 75.0, "squeezenet_bn": 73.0}, study, "reproducibility")
    (one,) = judge(claims.load(), join.tables(contents, ["mine"]))
    assert (one.slug, one.verdict, one.section) == ("wide_helps", "supported", "")
    digits = store_of(
        {"wide": 73.2, "squeezenet_bn": 73.0}, study, "reproducibility", setting={"data.dataset": "digits"}
    )
    (open_one,) = judge(claims.load(), join.tables(digits, ["mine"]))
    assert re.fullmatch(r"\d+ seeds per row", open_one.needed), "on one's own data, too"
    answer = headline(claims.load(), join.tables(contents, ["mine"]))
    assert answer.headline == "Wide is 2.00 points more accurate than SqueezeNet, batchnorm"


def test_the_documented_study_with_published_numbers_is_judged(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    (block,) = re.findall(r"((?:    .*\n)+)", text[text.index("    # replication.yaml") :])[:1]
    study = own(tmp_path, textwrap.dedent(block))
    contents = store_of({"wide": 72.0, "squeezenet_bn": 73.0}, study, "reproducibility", **SIZES)
    (table,) = join.tables(contents, ["replication"])
    found = verdicts.statistics(table)["replication/wide"]
    assert (found.on_val.verdict, found.size_verdict) == ("ours below", "fits")
    (one,) = judge(claims.load(), [table])
    assert (one.slug, one.verdict, one.margin) == ("wide_helps", "not supported", 0.5)
    keys = set(re.findall(r"^\| `variants\.NAME\.published\.(\w+)`", text, re.MULTILINE))
    assert keys == set(Published.model_fields)
    assert {"protocol.seeds", "protocol.images"} == {f"protocol.{name}" for name in Protocol.model_fields}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[[mine/wide,", "[[mine/wode,"), "claims.wide_helps: unknown variant of mine 'wode'; did you mean 'wide'?"),
        (
            ("reproducibility/squeezenet_bn]]", "mine/wide]]"),
            "mine/wide is compared with itself (allowed: two different",
        ),
        (("[[mine/wide,", "[[wide,"), "'wide' is not a row, study/variant (example: reproducibility/squeezenet_bn)"),
        (("[[mine/wide,", "[[mein/wide,"), "claims.wide_helps: unknown study 'mein'"),
        (
            ("    all:", "    ratio: {of: mine/wide, to: mine/wide, times: 2}\n    all:"),
            "got all, ratio (allowed: one of all",
        ),
        (
            ("says: wider is better", "says: x\n    direction: alike"),
            "margin: got 0 (allowed: above 0 where rows are alike)",
        ),
        (
            ("says: wider is better", "says: x\n    metric: acuracy"),
            "claims.wide_helps.metric: unknown value 'acuracy'",
        ),
        (("all: [[mine/wide, reproducibility/squeezenet_bn]]", "best: mine/wide"), "best and than are given together"),
        (("all: [[mine/wide, reproducibility/squeezenet_bn]]", "all: [[mine/wide]]"), "claims.wide_helps.all"),
        (("says: wider is better", "says: x\n    margn: 1"), "unknown key 'margn'; did you mean 'margin'?"),
    ],
)
def test_what_a_claim_cannot_be_is_told_in_one_line(tmp_path, change, told):
    with pytest.raises(InputError) as caught:
        own(tmp_path, MINE.replace(*change))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def answer(contents, asked=None):
    return headline(claims.load(), join.tables(contents, asked))


SIZES = {
    "model_size_legacy_mib": {
        "alexnet": 88.8,
        "alexnet_bn": 88.8,
        "squeezenet": 2.84,
        "squeezenet_bn": 2.9,
        "best": 1.37,
    }
}


def test_the_headline_names_the_harder_of_validation_and_test():
    both = answer(store_of(ROWS | {"best": 78.5}, "reproducibility", "best", **SIZES))
    assert both.headline == "SqueezeNet matches AlexNet at 1/65 of its size"
    last = "A match is at most 1 point behind our AlexNet on test, and not clearly further behind the published number."
    assert both.why.endswith(last)
    below = answer(store_of(ROWS | {"alexnet": 72.5, "squeezenet_bn": 72.0}, **SIZES))
    assert (
        below.headline
        == "SqueezeNet is 3.4 points less accurate than the published 75.42% on validation, at 1/31 of its size"
    )
    assert "Best of 2 networks on validation: SqueezeNet, batchnorm" in below.why
    test_harder = answer(store_of(ROWS | {"alexnet": 77.5, "squeezenet_bn": 74.5}, **SIZES))
    assert (
        test_harder.headline == "SqueezeNet is 3.0 points less accurate than our AlexNet on test, at 1/31 of its size"
    )
    close = answer(store_of(ROWS | {"squeezenet_bn": 74.8}, **SIZES))
    assert close.headline == "Not yet decided whether SqueezeNet matches AlexNet: −0.2 points on test, 3 seeds"


def test_the_smallest_network_whose_interval_is_a_match_gives_the_headline():
    rows = {"squeezenet": 60.0, "squeezenet_bn": 78.0, "best": 77.5}
    found = answer(store_of(ROWS | rows, "reproducibility", "best", **SIZES))
    assert found.headline == "SqueezeNet matches AlexNet at 1/65 of its size"
    assert found.why.startswith("The smallest of 2 that match, of 3 networks: Residual, 2 layers removed")
    contents = store_of(ROWS | rows, "reproducibility", "best", **SIZES)
    single = [run for run in contents.runs if run.variant != "best" or run.seed == 1]
    found = answer(replace(contents, runs=tuple(single)))
    assert found.headline == "SqueezeNet matches AlexNet at 1/65 of its size (one seed)"
    chance = [replace(run, outcome="chance") if run.variant == "best" and run.seed else run for run in contents.runs]
    found = answer(replace(contents, runs=tuple(chance)))
    assert "Residual, 2 layers removed, 5x5 starting kernel size: 2 of 3 runs stayed at chance, left out." in found.why
    contents = store_of(
        ROWS | rows | {"squeezenet_bn": 77.6}, "reproducibility", "best", spread=(-1.3, 0.0, 1.3), **SIZES
    )
    one_run = [run for run in contents.runs if run.variant != "squeezenet_bn" or run.seed == 1]
    found = answer(replace(contents, runs=tuple(one_run)))
    assert found.why.startswith("The only one of 3 networks that matches: Residual, 2 layers removed")


def test_a_study_of_rows_against_alexnet_asks_whether_a_smaller_network_matches(tmp_path):
    text = MINE.replace("variants:", "against: reproducibility/alexnet\nvariants:").replace(
        "published: {accuracy: 74.0}", ""
    )
    sizes = {"model_size_legacy_mib": SIZES["model_size_legacy_mib"] | {"wide": 0.2}}
    contents = store_of(ROWS | {"wide": 77.0}, "reproducibility", own(tmp_path, text), **sizes)
    found = answer(contents, ["mine"])
    assert found.headline == "Wide matches AlexNet at 1/444 of its size"
    parameters = r"It has [\d,]{7} parameters \(0\.20 MiB\); AlexNet has 23,[\d,]{7} parameters \(88\.80 MiB\)\."
    assert re.search(parameters, found.why)
    other = store_of(
        ROWS | {"wide": 77.0}, "reproducibility", own(tmp_path, text), setting={"training.epochs": 3}, **sizes
    )
    assert answer(other, ["mine"]).headline == "Wide is 2.00 points more accurate than AlexNet with an epoch limit of 3"


def test_the_noise_of_other_families_alone_gives_no_headline():
    contents = store_of(ROWS | {"best": 79.0}, "reproducibility", "best", **SIZES)
    single = [run for run in contents.runs if run.variant == "squeezenet" or run.seed == 1]
    found = answer(replace(contents, runs=tuple(single)))
    assert found.headline == "Not yet decided whether SqueezeNet matches AlexNet: +4.0 points on test, one seed"
    assert "n = 1), with the spread of other networks; two runs of either are needed; the interval is" in found.why
    (picture,) = pictures.of_answer(found)
    assert "a match" not in {*picture.given[0]["verdict"]}, "as the headline has none"
    single = [run for run in contents.runs if run.variant != "alexnet" or run.seed == 1]
    assert answer(replace(contents, runs=tuple(single))).headline.startswith("SqueezeNet matches AlexNet")


def test_beside_the_headline_stands_what_it_compares():
    contents = store_of(ROWS | {"squeezenet": 60.0, "best": 78.5}, "reproducibility", "best", **SIZES)
    (picture,) = pictures.of_answer(answer(contents))
    rows, *_, margin = picture.given
    assert [*rows["verdict"]] == ["a match", "undecided", "less accurate"], "best on validation first"
    assert rows["label"][0] == studies.load("best").variants["best"].title and margin == 1
    assert (
        "with simultaneous 95% intervals over seeds; the best on validation first. A match lies to the right of −1 and"
        in picture.caption
    )
    contents = store_of(ROWS, setting={"training.epochs": 3}, **SIZES)
    (picture,) = pictures.of_answer(answer(contents))
    assert picture.given[0]["verdict"][0] == "worse" and "match" not in picture.caption
    alone = store_of(ROWS, spread=(0.0,), **SIZES)
    assert not [*pictures.of_answer(answer(alone))], "a run each: no interval"


@pytest.mark.parametrize(
    ("variant", "named"),
    [
        ("learning_rate/lr_01", "0.1 (Learning rate with AdaBound)"),
        ("squeeze_ratio/sr_025", "SR 0.25 (Squeeze ratio)"),
        ("reproducibility/alexnet", "AlexNet"),
    ],
)
def test_a_row_whose_title_has_no_word_is_named_with_its_study(variant, named):
    (table, *_) = join.tables(store_of(ROWS, *dict.fromkeys(["reproducibility", variant.partition("/")[0]])))
    assert table.setting.row(variant).named == named


def test_the_headline_says_how_many_seeds_decide_it():
    rows = ROWS | {"squeezenet": 74.9, "squeezenet_bn": 75.0}
    few = answer(store_of(rows, spread=(-0.7, 0.0, 0.7), **SIZES))
    assert few.headline.startswith("Not yet decided")
    n = int(re.search(r"(\d+) seeds per row would decide it if the means stay the same", few.why)[1])
    spread = np.linspace(-1, 1, n)
    many = answer(store_of(rows, spread=tuple(0.7 * spread / spread.std(ddof=1)), **SIZES))
    assert many.headline == "SqueezeNet matches AlexNet at 1/31 of its size", (
        "though the published number lies within reach"
    )


@pytest.mark.parametrize("outcome", ["finished", "chance"])
def test_a_reference_that_has_not_learned_decides_nothing(outcome):
    """Two epochs of AlexNet are at chance, and every SqueezeNet is far above: that is no match."""
    contents = store_of(ROWS | {"alexnet": 12.0}, outcomes={"alexnet": outcome}, **SIZES)
    found = answer(contents)
    assert found.headline == "Undecided: AlexNet has not learned"


def test_another_setting_gives_the_difference_and_no_match():
    found = answer(store_of(ROWS, setting={"training.epochs": 3}, **SIZES))
    assert found.headline == "SqueezeNet, batchnorm is 2.00 points less accurate than AlexNet with an epoch limit of 3"


def test_the_demo_is_a_rehearsal_and_one_seed_cannot_tell():
    demo = {"data.dataset": "digits", "training.epochs": 8}
    rows = {"alexnet": 90.0, "alexnet_bn": 92.0, "residual": 88.0}
    found = answer(store_of(rows, "demo", spread=(0.0,), setting=demo, **SIZES))
    asked = "Not yet decided whether Residual is more accurate than AlexNet on digits with an epoch limit of 8"
    assert found.headline == f"{asked}: −2.0 points on test, one seed (a rehearsal)"
    found = answer(store_of(rows | {"residual": 90.0}, "demo", spread=(0.0,), setting=demo, **SIZES))
    assert found.headline == f"{asked}: +0.0 points on test, one seed (a rehearsal)"
    assert "Residual and AlexNet differ by less than 0.005 points" in found.why


def test_a_title_with_brackets_is_whole_in_the_headline():
    demo = {"data.dataset": "digits", "training.epochs": 8}
    found = answer(
        store_of({"alexnet": 90.0, "residual_2_removed": 88.0}, "reproducibility", "residual", setting=demo, **SIZES)
    )
    assert found.headline.startswith("Residual (2 layers removed) is 2.00 points less accurate than AlexNet on digits")


def test_without_a_reference_the_most_accurate_row_is_named():
    found = answer(store_of(ROWS, "ablation"), ["ablation"])
    assert re.fullmatch(r"Fire layers .* reaches \d\d\.\d% on validation \(published: \d\d\.\d%\)", found.headline)
    expected = r"The highest mean of 4 networks; one more run is expected to reach 68\.28 to 72\.92%; n = 3\."
    assert re.fullmatch(
        f"{expected} AlexNet, with which it would be compared, has no finished run in this setting\\.", found.why
    )
    off = answer(store_of(ROWS | {"fire_removed": 60.0, "fire_removed_bn": 60.0, "fire_added_bn": 60.0}, "ablation"))
    assert re.fullmatch(r"Fire layers .*, below the published \d\d\.\d%", off.headline)
    builder = BUILDERS[0]()
    builder.sweep(
        "ablation",
        unfinished={(f"fire_{how}", s) for how in ("added", "added_bn", "removed", "removed_bn") for s in range(3)},
    )
    assert answer(builder.contents()).headline == "No finished run yet"


@pytest.mark.parametrize("section", ["", "4.1"])
def test_rows_of_a_calibration_or_of_ones_own_are_no_rows_of_the_paper(tmp_path, section):
    """Whatever their plans say: a store may hold those of an earlier declaration."""
    text = MINE.replace("study: mine", f'study: mine\nsection: "{section}"')
    calibration = studies.load("weight_decay").model_copy(update={"section": section})
    mine = own(tmp_path, text)
    contents = store_of(ROWS | {"wd_00005_bn": 79.0, "wide": 79.0}, "reproducibility", calibration, mine, **SIZES)
    found = join.tables(contents)
    assert [table.study.study for table in found if table.printed] == ["reproducibility"]
    answer = headline(claims.load(), found)
    assert answer.headline.startswith("SqueezeNet is 2.0 points less accurate than our AlexNet on test")
    assert answer.why.startswith("Best of 2 networks on validation: SqueezeNet, batchnorm")
    judged = [one for one in judge(claims.load(), found) if one.slug != "wide_helps"]
    named = {row for one in judged for row in claims.load().claims[one.slug].rows}
    assert not {row for row in named if row.startswith(("weight_decay/", "mine/"))}
    pairs = [(table, tables.study_frame(table)) for table in found]
    drawn = [one for one in pictures.overall(pairs, Beside()) if one.slug == "forest"]
    assert drawn == [], "one study of the paper is its own picture"
    assert (
        headline(claims.load(), found[1:2]).headline == "Wide is 6.00 points more accurate than SqueezeNet, batchnorm"
    )


def test_a_study_that_says_cifar10_has_the_paper_s_numbers_of_its_base_and_one_with_folds_has_no_verdict(tmp_path):
    for text, base, verdict in (("dataset: cifar10", 73.72, "consistent"), ("folds: 2", None, "")):
        study = own(tmp_path, MINE.replace("variants:", f"{text}\nvariants:"))
        (table,) = join.tables(store_of({"wide": 73.5, "squeezenet_bn": 73.0}, study, setting=study.data), ["mine"])
        frame = tables.study_frame(table)
        assert [row.published.accuracy for row in table.rows] == [base, 74.0]
        assert (frame["published_val"][1], frame["verdict"][1]) == (74.0, verdict)


def test_published_numbers_are_of_the_data_that_their_study_declares(tmp_path):
    study = own(tmp_path, MINE.replace("variants:", "dataset: digits\nvariants:"))
    (table,) = join.tables(store_of({"wide": 73.0}, study, setting=study.data), ["mine"])
    base, wide = table.rows
    assert (base.published.accuracy, wide.published.accuracy) == (None, 74.0), "the paper's are of CIFAR-10"
    (table,) = join.tables(store_of({"wide": 73.0}, study, setting={"data.dataset": "cifar10"}), ["mine"])
    assert [row.published.accuracy for row in table.rows] == [None, None]
    assert table.notes == ("published numbers are left out: these runs were trained with data.dataset=cifar10",)
