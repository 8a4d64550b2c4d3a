import pytest

from repro.published import decimals, size_unit
from repro.reporting import stats
from repro.reporting.join import tables
from repro.reporting.verdicts import accuracies, reduction, size, verdicts


def row_with(store, values, variant="squeezenet", metric="best_val_accuracy", study="reproducibility", **sweep):
    """The row after a sweep whose runs have these values, one a seed."""
    seeds = tuple(range(len(values)))
    store.sweep(study, seeds=seeds, variants=(variant,), metrics=lambda run: {metric: values[run.seed]}, **sweep)
    table = tables(store.contents())[0]
    return table.rows[0], table


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.705, 0.708, 0.711), "consistent"),
        ((0.75, 0.751, 0.752), "below"),
        ((0.65, 0.651, 0.652), "above"),
        ((0.705, 0.711), "undecided"),
        ((0.7076,), "undecided"),
        ((None, None, None), "undecided"),
    ],
)
def test_a_published_accuracy_is_held_against_one_new_run(store, values, verdict):
    row, table = row_with(store, values)  # the paper printed 70.76
    (found,) = accuracies(row, table.setting)
    assert (found.number, found.published, found.verdict) == ("accuracy", 70.76, verdict)
    if verdict == "consistent":
        expected = stats.prediction(values, 5000, of=10_000)
        assert (found.ours.low, found.ours.high) == (100 * expected.low, 100 * expected.high)
        assert f"{found.ours.high - found.ours.low:.2f} points wide" in found.why


def test_too_few_runs_are_said(store):
    row, table = row_with(store, (0.70, 0.71))
    assert accuracies(row, table.setting)[0].why == "n = 2, 3 runs are needed"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((0.985, 0.993, 0.990), "below"), ((0.02, 0.9, 0.5), "undecided"), ((0.0, 0.002, 0.004), "above")],
)
def test_an_interval_that_leaves_0_to_100_decides_only_what_lies_outside_of_it(store, values, verdict):
    row, table = row_with(store, values)  # the paper printed 70.76
    (found,) = accuracies(row, table.setting)
    assert found.verdict == verdict
    assert ("too wide to stay within 0 to 100" in found.why) == (verdict == "undecided")


def test_another_setting_is_never_held_against_the_paper(store):
    row, table = row_with(store, (0.7, 0.71, 0.72), overrides={"training.epochs": 3})
    (found,) = accuracies(row, table.setting)
    assert found.verdict == "undecided"
    assert found.why == "run with training.epochs=3, so not in the setting of the published number"
    assert found.ours.low is not None


def test_the_final_model_has_two_accuracies(store):
    row, table = row_with(store, (0.76, 0.764, 0.768), "best", "test_accuracy", "best")
    assert [(v.number, v.published) for v in accuracies(row, table.setting)] == [
        ("accuracy", 78.12),
        ("test_accuracy", 76.34),
    ]
    assert accuracies(row, table.setting)[1].verdict == "consistent"


@pytest.mark.parametrize(("values", "verdict"), [((0.1, 0.1, 0.102), "consistent"), ((0.55, 0.56, 0.57), "below")])
def test_an_upper_bound_is_kept_or_not(store, values, verdict):
    row, table = row_with(store, values, "adam_004", study="optimizer")
    assert [(v.number, v.verdict) for v in accuracies(row, table.setting)] == [("accuracy_at_most", verdict)]


@pytest.mark.parametrize(
    ("published", "mib", "unit"),
    [
        (88.78, 88.779, "MiB"),
        (88.78, 88.800, None),
        (2.95, 2.898, None),
        (2.95, 2.834, None),
        (1.4, 1.396, "MiB"),
        (8.62, 8.614, "MiB"),
        (0.563, 0.5497, "thousands of KiB"),
        (0.563, 0.548, None),
        (3.4, 3.307, None),
        (2.0, 1.937, None),
    ],
)
def test_sizes_fit_in_one_unit_or_another(published, mib, unit):
    assert size_unit(published, mib) == unit


def test_size_verdicts(store):
    row, _ = row_with(store, (2.834,), metric="model_size_legacy_mib")
    found = size(row)
    assert (found.verdict, found.ours.estimate) == ("differs", 2.834)
    assert row.note in found.why


def test_size_reduction_against_alexnet(store):
    store.sweep(
        "reproducibility", metrics=lambda run: {"model_size_legacy_mib": {"alexnet": 88.8}.get(run.variant, 2.96)}
    )
    table = tables(store.contents())[0]
    reference = table.bases["reproducibility/alexnet"]
    assert reduction(table.rows[2], reference) == pytest.approx(30.0)
    assert reduction(table.rows[2], None) is None


def test_decimals_as_printed():
    assert [decimals(n) for n in (10.0, 77.6, 2.95, 0.563, 30)] == [0, 1, 2, 3, 0]


def test_every_published_number_of_the_paper_has_a_verdict(paper_contents):
    found = [verdict for table in tables(paper_contents) for verdict in verdicts(table)]
    rows = [row for table in tables(paper_contents) for row in table.rows]
    printed = sum(
        value is not None
        for row in rows
        for value in (
            row.published.accuracy,
            row.published.accuracy_at_most,
            row.published.test_accuracy,
            row.published.size,
        )
    )
    assert len(found) == printed
    by_row = {(v.row, v.number): v.verdict for v in found}
    assert by_row["reproducibility/squeezenet", "accuracy"] == "consistent"  # made up near the published numbers
    assert by_row["ablation/fire_removed_bn", "accuracy"] == "undecided"  # one seed is not finished
