"""The audit: what is found in the paper's numbers, and that every finding stands or falls with them."""

import re

import pytest

from repro import built
from repro.errors import InputError
from repro.published import Published, Written
from repro.reporting import audit, claims, join
from repro.reporting.audit import Audited, findings
from repro.studies import declared, load
from repro.study import Study
from repro.validation import validated

PAPER = claims.load()


@pytest.fixture(scope="module")
def found():
    return findings(PAPER)


def test_every_written_finding_stands(found):
    """So all conditions hold of the numbers as declared, models included: models.json is that of the declarations."""
    assert built.known() is not None
    assert len(found) == len(PAPER.findings) + 3
    for one in found:
        assert one.where
        assert not re.search(r"[{}]", one.sentence)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "granularity",
            r"3 seeds, but 26 of 26 accuracies with 2 decimals .* 1/5000.*about 29%.*GRIM, Brown and Heathers 2017",
        ),
        ("equal sizes", r"88\.78 MB .* 88\.78 MiB \(23,272,266 .* 88\.80 MiB \(23,274,570"),
        ("equal sizes", r"2\.95 MB .* 2\.84 MiB \(740,554 .* 2\.90 MiB \(746,526"),
        ("text contradicts table", r"30 epochs of 29\.95 s, section 5\.1 84 of 25\.26 s"),
        ("text contradicts table", r"75\.74% .* 76\.74%"),
        ("numbers of two models", r"75\.42% .* 63\.4 times smaller.*64\.8 times smaller, has 78\.12% .* 76\.34%"),
        ("text contradicts table", r"70\.12% and 70\.44% are 3\.6 and 3\.3 points below the 73\.72%"),
        ("text contradicts text", r"48,000 and 10% 6,000, .* 50,000 and 5,000"),
        ("text contradicts table", r"25\.15 s and, with batch normalization, 26\.47 s, .* 25\.26 s .* 37\.19 s"),
        ("time against work", r"35\.18 s .* 54\.21 s, at 2\.7 times"),
        ("text contradicts table", r"68\.98% .* 70\.76% .* 73\.72%"),
        ("missing default row", "0.04"),
        ("missing default row", "7x7"),
        ("uneven training", "epoch 12.*66 and 80"),
        ("copied number", r"14\.76%"),
        ("text contradicts table", r"75\.42% .* 76\.74% .*77\.6% and 77\.92%"),
        ("no spread", r"0\.36 points, 18 of 5,000 images"),
    ],
)
def test_what_is_found_is_told_in_the_papers_own_numbers(found, kind, told):
    assert [one for one in found if one.kind == kind and re.search(told, one.sentence)]


def test_what_a_fair_author_would_not_accept_is_no_finding(found):
    told = " ".join(one.sentence for one in found)
    assert not re.search(r"\b30 times|31\.3|30\.\d times", told)  # 88.78 / 2.95 is the 30 times that is claimed
    assert "0.563" not in told  # fits, in thousands of KiB
    assert "79.22" not in told  # parity is claimed with the base AlexNet
    assert not [one for one in found if one.kind in {"size", "equal sizes"} and any("ablation" in w for w in one.where)]


def test_claims_and_audit_never_contradict_each_other(found):
    rows = Audited([study for study in declared() if study.section], PAPER.protocol, built.known()).rows
    for claim in PAPER.claims.values():
        if claim.ratio:  # the printed sizes give the ratio that is claimed
            assert rows[claim.ratio.of].size / rows[claim.ratio.to].size >= claim.ratio.times
    misfit = {name for one in found if one.kind in {"size", "equal sizes"} for name in one.where}
    fitting = {"residual/residual_4_removed", "best/best", "squeeze_ratio/sr_075", "first_kernel/kernel_5"}
    assert not misfit & fitting


def test_findings_are_those_of_the_studies_asked_for():
    kernels = findings(PAPER, ["first_kernel"])
    assert {one.kind for one in kernels} >= {"granularity", "missing default row", "uneven training"}
    assert not any("expand_3x3/share_25" in one.where for one in kernels if one.kind != "granularity")
    assert any("CIFAR-10's 60,000" in one.sentence for one in kernels)  # of the whole paper
    assert findings(PAPER, ["demo"]) == ()


def test_a_finding_falls_with_its_numbers():
    printed = Audited(declared(), PAPER.protocol, {})
    written = PAPER.findings["best_start"]
    assert len(list(audit._written(written, printed))) == 1
    for change in ({"holds": ("text > table",)}, {"numbers": {**written.numbers, "more": "best/best.mib"}}):
        assert not list(
            audit._written(written.model_copy(update=change), printed)
        )  # unknown models are held against no one


@pytest.mark.parametrize(
    ("number", "told"),
    [
        ("best/bset.size", "audit: unknown number 'best/bset.size'; did you mean"),
        ("best/best.sise", "audit: best/best: unknown published number 'sise'; did you mean 'size'?"),
    ],
)
def test_a_number_that_does_not_exist_is_named(number, told):
    written = Written(kind="k", where=("a",), says="s", numbers={"x": number}, holds=("x > 1",))
    with pytest.raises(InputError) as caught:
        list(audit._written(written, Audited(declared(), PAPER.protocol, {})))
    assert str(caught.value).startswith(told)


def own(accuracies, size=None, protocol=None):
    published = [{"accuracy": accuracy, **({"size": size} if size else {})} for accuracy in accuracies]
    variants = {
        f"v{k}": {"title": f"V{k}", "base": "reproducibility/squeezenet_bn", "published": one}
        for k, one in enumerate(published)
    }
    given = {"study": "mine", "title": "Mine", "question": "Q?", "variants": variants}
    return validated(Study, given | ({"protocol": protocol} if protocol else {}), "mine.yaml")


def test_an_accuracy_that_no_mean_can_be_is_found_in_a_study_of_ones_own():
    # Brown and Heathers: of 20 whole numbers no mean rounds to 3.47; here: 28 images, of which 19 or 20 give 67.86 and 71.43
    protocol = {"seeds": 1, "images": 28}
    found = findings(PAPER, ["mine"], [Audited([own([67.86, 70.0], protocol=protocol)], None, {})])
    assert found == ()  # no protocol, nothing to check against
    study = own([67.86, 70.01], protocol=protocol)
    (one,) = findings(PAPER, ["mine"], [Audited([study], study.protocol, {})])
    assert (one.kind, one.where) == ("impossible mean", ("mine/v1",))
    assert "No mean accuracy of 1 run on 28 images rounds to 70.01%" in one.sentence


def test_a_number_is_held_to_its_own_decimals_and_a_borrowed_base_to_its_own_study(tmp_path):
    """Of 360 images 267 are 74.17%, and 74.2%; 73.72% of the base is of the paper's 5,000 images."""
    text = """
study: mine
title: Mine
question: Q?
base: reproducibility/squeezenet_bn
protocol: {seeds: 1, images: 360}
variants:
  wide: {title: wide, set: {model.first_filters: 192}, published: {accuracy: 74.17, text: {accuracy: 74.2}}}
"""
    again = "  again: {title: again, base: reproducibility/squeezenet_bn, published: {accuracy: 74.18}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    study = load(tmp_path / "mine.yaml")
    assert len(study.variants) == 2
    assert findings(PAPER, ["mine"], [audit.of_own(study, {})]) == ()
    (tmp_path / "mine.yaml").write_text(text + again)
    (one,) = findings(PAPER, ["mine"], [audit.of_own(load(tmp_path / "mine.yaml"), {})])
    assert (one.where, one.printed) == (("mine/again",), "74.18"), "the base once more, with a number of its own"
    gone = study.variants["squeezenet_bn"].model_copy(update={"base": "gone/row"})
    stored = study.model_copy(update={"base": "gone/row", "variants": study.variants | {"squeezenet_bn": gone}})
    assert findings(PAPER, ["mine"], [audit.of_own(stored, {})]) == (), "of a study that is no longer declared"


def test_means_of_seeds_are_not_mistaken_for_single_runs():
    study = own([70.01, 71.03, 72.07, 73.34, 74.12, 75.55, 76.01, 77.9], protocol={"seeds": 3, "images": 5000})
    assert findings(PAPER, ["mine"], [Audited([study], study.protocol, {})]) == ()


def test_the_sizes_of_ones_own_study_are_those_that_its_runs_saved(store):
    store.sweep(own([73.0], size=9.5), metrics=lambda planned: {"model_size_legacy_mib": 2.9, "parameters": 746_526.0})
    (table,) = join.tables(store.contents())
    (one,) = findings(PAPER, ["mine"], [audit.of_table(table)])
    assert one.sentence == "9.5 MB is printed for a model of 2.90 MiB (746,526 parameters)."


def test_published_numbers_of_the_text_count():
    assert Published(accuracy=76.74, text={"accuracy": 75.74}).text["accuracy"] == 75.74
    shares = audit._shares(Audited(declared(), PAPER.protocol, {}))
    assert shares[75.74] == "first_kernel/kernel_5"


def test_the_command_numbers_its_findings_and_tells_details_on_demand(tmp_path):
    from click.testing import CliRunner

    from repro.cli.reports import audit as command

    plain = CliRunner().invoke(command, []).output.splitlines()
    assert len(plain) == 21
    assert plain[0].startswith(" 1. granularity: ")
    assert plain[-1] == "20 findings"
    detailed = CliRunner().invoke(command, ["--details", "--study", "first_kernel"]).output
    assert "where: first_kernel/kernel_5, section 5.3.5; printed: text 75.74, table 76.74" in detailed
    path = tmp_path / "mine.yaml"
    path.write_text(
        "study: mine\ntitle: Mine\nquestion: Q?\nprotocol: {seeds: 1, images: 28}\nvariants:\n"
        "  v: {title: V, base: reproducibility/squeezenet_bn, published: {accuracy: 70.01, size: 9.5}}\n"
    )
    own = CliRunner().invoke(command, ["--study", str(path)]).output
    assert "1 run on 28 images rounds to 70.01%" in own
    assert "9.5 MB is printed for a model of 2.90 MiB (746,526 parameters)." in own
    assert own.splitlines()[-1] == "2 findings"
