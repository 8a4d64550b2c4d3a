import re
from dataclasses import dataclass

import pytest

from repro.errors import InputError
from repro.reporting.audit import audit
from repro.reporting.statements import Paper, load
from repro.studies import Study, declared
from repro.validation import validated


@dataclass(frozen=True)
class Known:
    parameters: int
    size_legacy_mib: float
    multiply_adds: int


def paper_models():
    """Parameters, legacy MiB and multiply-adds of the paper's rows, as built and saved by the project's own models."""
    plain, normed = Known(740_554, 2.836, 9_148_448), Known(746_526, 2.9015, 9_148_448)
    return {
        ("reproducibility", "alexnet"): Known(23_272_266, 88.7795, 62_742_528),
        ("reproducibility", "alexnet_bn"): Known(23_274_570, 88.8005, 62_742_528),
        ("reproducibility", "squeezenet"): plain,
        ("reproducibility", "squeezenet_bn"): normed,
        ("ablation", "fire_added"): Known(864_010, 3.3096, 10_586_144),
        ("ablation", "fire_added_bn"): Known(871_134, 3.3886, 10_586_144),
        ("ablation", "fire_removed"): Known(493_930, 1.8926, 5_785_632),
        ("ablation", "fire_removed_bn"): Known(498_174, 1.9402, 5_785_632),
        ("residual", "residual"): Known(746_526, 2.9016, 9_148_448),
        ("residual", "residual_2_removed"): Known(356_766, 1.3986, 7_285_536),
        ("residual", "residual_4_removed"): Known(137_854, 0.5497, 5_338_656),
        ("residual", "residual_2_added"): Known(2_235_198, 8.6194, 10_627_616),
        ("residual", "residual_2_replicated"): Known(809_262, 3.1517, 10_033_184),
        ("residual", "residual_4_replicated"): Known(1_119_486, 4.3503, 11_225_120),
        ("squeeze_ratio", "sr_0125"): normed,
        ("squeeze_ratio", "sr_025"): Known(1_465_822, 5.6478, 15_906_848),
        ("squeeze_ratio", "sr_05"): Known(2_904_414, 11.1405, 29_423_648),
        ("squeeze_ratio", "sr_075"): Known(4_343_006, 16.6332, 42_940_448),
        ("expand_3x3", "share_12"): Known(377_886, 1.4952, 5_621_792),
        ("expand_3x3", "share_25"): Known(500_766, 1.964, 6_797_344),
        ("expand_3x3", "share_50"): normed,
        ("expand_3x3", "share_75"): Known(992_286, 3.839, 11_499_552),
        ("first_kernel", "kernel_1"): Known(732_702, 2.8487, 12_546_048),
        ("first_kernel", "kernel_3"): Known(735_006, 2.8575, 8_245_280),
        ("first_kernel", "kernel_5"): Known(739_614, 2.8751, 9_073_280),
        **{("learning_rate", rate): plain for rate in ("lr_001", "lr_005", "lr_01", "lr_02", "lr_05")},
        ("best", "best"): Known(349_854, 1.3723, 7_210_368),
    }


@pytest.fixture(scope="module")
def paper_findings():
    return audit(load(), declared(), paper_models())


BN, PLAIN = "reproducibility/squeezenet_bn", "reproducibility/squeezenet"


@pytest.mark.parametrize(
    ("kind", "where", "told"),
    [
        pytest.param(
            "text against table", {PLAIN, "section 5.1"}, r"30.*29\.95.*84.*25\.26", id="1 two pairs of times"
        ),
        pytest.param(
            "copied numbers", {PLAIN, "residual/residual_2_removed"}, r"epochs 30, .*29\.95", id="1 whose pair"
        ),
        pytest.param("text against table", {"first_kernel/kernel_5", "section 5.3.5"}, r"76\.74.*75\.74", id="2 5x5"),
        pytest.param("single runs", {PLAIN, BN}, r"3 seeds.*30 of 30 .*5000", id="3 means of three"),
        pytest.param(
            "numbers of different rows", {"best/best"}, r"63\.4.*64 times to best/best", id="4 75.42 with 64x"
        ),
        pytest.param("equal sizes", {PLAIN, BN}, r"740,554 and 746,526", id="5 SqueezeNet with and without BN"),
        pytest.param(
            "equal sizes",
            {"reproducibility/alexnet", "reproducibility/alexnet_bn"},
            r"23,272,266 and 23,274,570",
            id="5 AlexNet with and without BN",
        ),
        pytest.param("ratio", {"reproducibility/alexnet", PLAIN}, r"31\.3 to 1", id="6 30x"),
        pytest.param(
            "text against table", {"ablation/fire_added", "section 5.2"}, r"about 70%.*10 for", id="7 10% row"
        ),
        pytest.param("text against declaration", {"ablation/fire_added"}, r"single.*fire3, fire7", id="7 single"),
        pytest.param(
            "text against declaration", {"optimizer/adam_004", "learning_rate/lr_01"}, "none", id="8 all use BN"
        ),
        pytest.param("text against table", {"learning_rate/lr_01", PLAIN}, r"68\.98.*70\.76", id="9 the rate 0.1"),
        pytest.param("missing row", {"learning_rate", PLAIN}, r"= 0\.04", id="9 no row for 0.04"),
        pytest.param("copied numbers", {"optimizer/sgd_001", "learning_rate/lr_05"}, r"14\.76", id="10 14.76"),
        pytest.param(
            "text against table",
            {"residual/residual_2_removed", "residual/residual_2_added"},
            r"75\.42.*75\.44",
            id="11 best accuracy",
        ),
        pytest.param(
            "text against table",
            {"residual/residual_2_removed", "residual/residual_4_removed"},
            r"0\.563.*1\.4",
            id="11 smallest",
        ),
        pytest.param(
            "time against work", {"squeeze_ratio/sr_075", "squeeze_ratio/sr_025"}, r"35\.18.*54\.21", id="12 SR"
        ),
        pytest.param("time against work", {"ablation/fire_added_bn", BN}, r"26\.47.*37\.19", id="12 ten modules"),
        pytest.param("text against table", {"ablation/fire_removed_bn"}, r"1508.*1851\.84", id="13 runtime with BN"),
        pytest.param("text against table", {"best/best", "reproducibility/alexnet_bn"}, r"79\.22", id="14 parity"),
        pytest.param("uneven training", {"first_kernel/kernel_1"}, r"12 epochs.*66, 80", id="15 stopped early"),
        pytest.param("missing row", {"first_kernel", BN}, r"= 7", id="15 no 7x7 row"),
        pytest.param("within sampling error", {"expand_3x3/share_25"}, r"0\.36 .*error 0\.88", id="16 after 25%"),
    ],
)
def test_the_known_contradictions_of_the_paper_are_found(paper_findings, kind, where, told):
    matching = [
        one for one in paper_findings if one.kind == kind and where <= set(one.where) and re.search(told, one.sentence)
    ]
    assert len(matching) == 1, [one.sentence for one in paper_findings if one.kind == kind]


def test_findings_are_few_plain_and_each_said_once(paper_findings):
    sentences = [one.sentence for one in paper_findings]
    assert len(set(sentences)) == len(sentences) <= 45
    assert all(one.sentence.endswith(".") and "\n" not in one.sentence and one.printed for one in paper_findings)


def test_sizes_that_are_right_are_not_accused(paper_findings):
    accused = {row for one in paper_findings if one.kind == "size" for row in one.where}
    assert not accused & {"best/best", "residual/residual_2_added", "squeeze_ratio/sr_05", "expand_3x3/share_25"}
    (thousands,) = [one for one in paper_findings if one.where == ("residual/residual_4_removed",)]
    assert "thousands of KiB" in thousands.sentence


def invented(**changes):
    """A small consistent paper; changes by row: {"nets_large": {"size": 1.0}}, or `statement`, `seeds`."""
    rows = {
        "nets_large": {"accuracy": 92.33, "epochs": 20, "epoch_seconds": 31.0, "size": 88.78},
        "nets_small": {"accuracy": 80.67, "epochs": 25, "epoch_seconds": 20.5, "size": 2.84},
        "sweep_low": {"accuracy": 80.67, "epochs": 25, "epoch_seconds": 20.5, "size": 2.84},
        "sweep_middle": {"accuracy": 86.0, "epochs": 27, "epoch_seconds": 24.5, "size": 5.6},
        "sweep_high": {"accuracy": 91.5, "epochs": 31, "epoch_seconds": 29.25, "size": 11.2},
    }
    rows = {name: {"published": {**values, **changes.get(name, {})}} for name, values in rows.items()}
    nets = {
        "study": "nets",
        "title": "Networks",
        "question": "Which?",
        "section": "3",
        "variants": {
            "large": {"title": "Large", "set": {"model.name": "alexnet"}, **rows["nets_large"]},
            "small": {"title": "Small", "set": {"model.name": "squeezenet"}, **rows["nets_small"]},
        },
    }
    sweep = {
        "study": "sweep",
        "title": "Ratios",
        "question": "How much?",
        "section": "4",
        "axis": "model.squeeze_ratio",
        "base": "low",
        "variants": {
            "low": {"title": "Low", "base": "reproducibility/squeezenet", **rows["sweep_low"]},
            "middle": {"title": "Middle", "set": {"model.squeeze_ratio": 0.25}, **rows["sweep_middle"]},
            "high": {"title": "High", "set": {"model.squeeze_ratio": 0.5}, **rows["sweep_high"]},
        },
    }
    statements = {"one": changes["statement"]} if "statement" in changes else {}
    paper = {
        "paper": "Invented",
        "protocol": {"seeds": changes.get("seeds", 3), "images": 200},
        "statements": statements,
    }
    models = {
        ("nets", "large"): Known(23_272_266, 88.78, 60_000_000),
        ("nets", "small"): Known(740_554, 2.84, 9_000_000),
        ("sweep", "low"): Known(740_554, 2.84, 9_000_000),
        ("sweep", "middle"): Known(1_459_850, 5.60, 16_000_000),
        ("sweep", "high"): Known(2_898_442, 11.20, 29_000_000),
    }
    made = [validated(Study, study, "invented") for study in (nets, sweep)]
    return audit(validated(Paper, paper, "invented"), made, models)


def says(name, section="4", **test):
    return {"says": "something", "section": section, "test": {"name": name, **test}}


def test_a_consistent_paper_is_left_alone():
    for statement in (
        says("compare", metric="accuracy", first="higher", pairs=[["nets/large", "nets/small"]]),
        says("compare", metric="training_seconds", first="lower", pairs=[["nets/small", "nets/large"]]),
        says("ordered", metric="size", direction="falling", rows=["sweep/high", "sweep/middle", "sweep/low"]),
        says("best", metric="size", extreme="lowest", row="nets/small", others=["nets/large", "sweep/middle"]),
        says("ratio", metric="size", of="nets/large", to="nets/small", times=31),
        says("about", metric="accuracy", rows=["nets/large", "sweep/high"], value=92, within=1),
        says("uses", rows=["sweep/middle"], setting="model.squeeze_ratio", value=0.25),
        says("uses", rows=["sweep/middle"], setting="model.pools", count=3),
        says("together", accuracy=80.67, reduction=31.2, against="nets/large"),
    ):
        assert invented(statement=statement) == ()


@pytest.mark.parametrize(
    ("kind", "rows", "changes"),
    [
        ("text against table", {"sweep/high"}, {"sweep_high": {"text": {"epochs": 13}}}),
        ("impossible accuracy", {"sweep/high"}, {"sweep_high": {"accuracy": 91.4}}),
        ("copied numbers", {"sweep/high", "sweep/middle"}, {"sweep_high": {"accuracy": 86.0, "epochs": 27}}),
        (
            "copied numbers",
            {"sweep/middle", "sweep/high"},
            {"sweep_middle": {"accuracy": None, "accuracy_at_most": 91.5}},
        ),
        ("size", {"sweep/high"}, {"sweep_high": {"size": 11.3}}),
        ("equal sizes", {"sweep/high", "sweep/middle"}, {"sweep_high": {"size": 5.6}}),
        ("time against work", {"sweep/high", "sweep/middle"}, {"sweep_high": {"epoch_seconds": 22.0}}),
        ("uneven training", {"sweep/middle"}, {"sweep_middle": {"epochs": 6}}),
    ],
)
def test_each_kind_of_inconsistent_number_is_found_in_another_paper(kind, rows, changes):
    found = invented(**changes)
    assert any(one.kind == kind and rows <= set(one.where) for one in found), found


@pytest.mark.parametrize(
    ("kind", "rows", "statement"),
    [
        (
            "text against table",
            {"nets/small", "nets/large"},
            says("compare", metric="accuracy", first="higher", pairs=[["nets/small", "nets/large"]]),
        ),
        (
            "within sampling error",
            {"nets/large", "sweep/high"},
            says("best", metric="accuracy", row="nets/large", others=["sweep/high"]),
        ),
        (
            "text against table",
            {"sweep/middle", "sweep/low"},
            says("ordered", metric="size", direction="falling", rows=["sweep/low", "sweep/middle"]),
        ),
        ("ratio", {"nets/small"}, says("ratio", metric="size", of="nets/large", to="nets/small", times=33)),
        ("text against table", {"sweep/low"}, says("about", metric="accuracy", rows=["sweep/low"], value=90, within=1)),
        (
            "text against declaration",
            {"sweep/high"},
            says("uses", rows=["sweep/high"], setting="model.residual", value="simple"),
        ),
        (
            "numbers of different rows",
            {"nets/large", "nets/small"},
            says("together", accuracy=92.33, reduction=31.2, against="nets/large"),
        ),
    ],
)
def test_each_kind_of_inconsistent_sentence_is_found(kind, rows, statement):
    (found,) = invented(statement=statement)
    assert (found.kind, found.where[0]) == (kind, "section 4")
    assert rows <= set(found.where)


def test_counts_of_single_runs_are_told_from_means():
    grain = {
        name: {"accuracy": value} for name, value in (("nets_large", 92.5), ("nets_small", 80.5), ("sweep_low", 80.5))
    }
    assert not [one for one in invented(**grain) if one.kind == "single runs"]  # four numbers may be so by chance
    assert not [
        one
        for one in invented(seeds=1, nets_large={"accuracy": 92.5}, sweep_low={"accuracy": 80.5})
        if one.kind == "single runs"
    ]


def test_an_unknown_row_is_one_line():
    with pytest.raises(InputError, match=r"unknown row 'nets/larg'; did you mean 'nets/large'\?"):
        invented(statement=says("about", metric="size", rows=["nets/larg"], value=1, within=1))
