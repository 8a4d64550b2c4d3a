"""The statistics against worked examples, scipy, and simulations whose truth is known."""

import math
import time

import numpy as np
import pytest
import scipy.stats

from repro.reporting import samplesize, stats
from repro.reporting.stats import Images, Noise

ROWS = {"a": [70.0, 71.0, 72.0], "b": [74.0, 74.5, 75.0], "c": [73.0, 73.4, 73.8]}


def pooled(values):
    return stats.pool(values, dict.fromkeys(values, "one"))


def test_noise_is_pooled_over_the_rows_of_a_family():
    # sums of squares 2, 0.5 and 0.32, each with 2 degrees of freedom
    noise = pooled(ROWS)["a"]
    assert (noise.sd, noise.df) == (pytest.approx(math.sqrt(2.82 / 6)), 6)
    assert pooled(ROWS) == dict.fromkeys(ROWS, noise)
    assert pooled(ROWS | {"single": [80.0]})["single"] == noise


def test_a_family_with_little_noise_of_its_own_takes_that_of_all_rows():
    found = stats.pool(ROWS | {"d": [75.0, 76.0]}, {"a": "plain", "b": "plain", "c": "plain", "d": "other"})
    assert (found["a"].sd, found["a"].df) == (pytest.approx(math.sqrt(2.82 / 6)), 6)
    assert (found["d"].sd, found["d"].df) == (pytest.approx(math.sqrt((2.82 + 0.5) / 7)), 7)


def test_a_row_that_varies_more_than_the_others_has_noise_of_its_own():
    quiet = {str(k): [70.0, 70.2, 70.4] for k in range(4)}
    wild = [60.0, 65.0, 70.0]
    found = pooled(quiet | {"wild": wild})
    assert found["wild"] == Noise(5.0, 2)
    assert {(round(found[name].sd, 9), found[name].df) for name in quiet} == {(0.2, 8)}
    single = pooled(quiet | {"wild": wild, "single": [70.0]})["single"]
    assert (single.sd, single.df) == (pytest.approx(math.sqrt(50.32 / 10)), 10), "it may be as wild"
    limit = math.sqrt(0.04 * scipy.stats.f.ppf(1 - 0.01 / 5, 2, 8))  # of a row that is just too loud, one of five
    for factor, expected in ((0.99, 10), (1.01, 2)):
        assert pooled(quiet | {"wild": [70 - factor * limit, 70, 70 + factor * limit]})["wild"].df == expected


def test_without_spread_nothing_has_an_interval():
    for values in ({"a": [77.02] * 3}, {"a": [70.0]}, {"a": [0.1 + 0.2, 0.3]}):  # the last is equal up to rounding
        noise = pooled(values)["a"]
        assert noise is None
        for found in (
            stats.mean(values["a"], noise),
            stats.difference(values["a"], [60.0], noise),
            stats.prediction(values["a"], noise, Images(5000, whole=100)),
            *stats.dunnett([values["a"], [60.0]], [50.0], [noise, noise], noise),
        ):
            assert (found.low, found.high, found.p, found.half) == (None, None, None, None)
            assert found.p_beyond(0) == found.p_beyond(0, -1) == 1
        assert samplesize.runs_to_tell(1, noise) is None
        assert samplesize.runs_to_exclude(1, 70, noise, Images(5000, whole=100)) is None


def test_mean_worked_example():
    # standard error sqrt(10 / 5), t(0.975, 4) = 2.776445
    found = stats.mean([1, 3, 5, 7, 9], Noise(math.sqrt(10), 4))
    assert (found.estimate, found.n, found.sd) == (5, 5, pytest.approx(math.sqrt(10)))
    assert found.high == pytest.approx(5 + 2.776445 * math.sqrt(2), abs=1e-5)
    assert found.low == pytest.approx(5 - 2.776445 * math.sqrt(2), abs=1e-5)
    single = stats.mean([5], Noise(1, 4))
    assert (single.sd, single.half) == (None, pytest.approx(2.776445, abs=1e-6))


def test_one_row_against_one_base_is_the_pooled_two_sample_t_test():
    first, second = [70.1, 71.0, 70.4], [72.0, 71.5, 73.1, 72.2]
    noise = pooled({"first": first, "second": second})["first"]
    found = stats.difference(first, second, noise)
    scipys = scipy.stats.ttest_ind(first, second)
    interval = scipys.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((scipys.pvalue, interval.low, interval.high))
    assert stats.dunnett([first], second, [noise], noise) == (found,)


def test_rows_with_noise_of_their_own_are_compared_as_welch_does():
    first, second = [70.1, 71.0, 70.4], [62.0, 75.5, 83.1, 52.2]
    noises = (Noise(float(np.std(one, ddof=1)), len(one) - 1) for one in (first, second))
    found = stats.difference(first, second, *noises)
    scipys = scipy.stats.ttest_ind(first, second, equal_var=False)
    assert (found.p, found.df) == pytest.approx((scipys.pvalue, scipys.df))


def test_one_sided_p_values_are_of_the_margin():
    # d = -1.6 with sd 0.23 and n = 3: clearly not 0, and below a margin of -1 by 0.6 / (0.23 sqrt(2/3)) = 3.195 errors
    found = stats.difference([-1.6] * 3, [0.0] * 3, Noise(0.23, 4))
    assert found.p < 0.002
    assert found.p_beyond(-1, -1) == pytest.approx(scipy.stats.t.cdf(-3.195, 4), rel=1e-3)
    assert found.p_beyond(-1) == pytest.approx(1 - found.p_beyond(-1, -1))


def test_dunnett_with_the_noise_of_its_own_rows_is_scipys():
    # Dunnett's own example (1955): blood counts under two drugs and in a control group
    control, drugs = [7.40, 8.50, 7.20, 8.24, 9.84, 8.32], ([9.76, 8.80, 7.68, 9.36], [12.80, 9.68, 12.16, 9.20, 10.55])
    noise = pooled({"control": control, 0: drugs[0], 1: drugs[1]})["control"]
    found = stats.dunnett(drugs, control, [noise, noise], noise)
    scipys = scipy.stats.dunnett(*drugs, control=control, rng=np.random.default_rng(0))
    assert [one.p for one in found] == pytest.approx(scipys.pvalue, abs=5e-4)
    interval = scipys.confidence_interval(0.95)
    assert [one.low for one in found] == pytest.approx(interval.low, abs=0.01)
    assert [one.high for one in found] == pytest.approx(interval.high, abs=0.01)
    assert found == stats.dunnett(drugs, control, [noise, noise], noise)


def test_dunnetts_intervals_cover_all_at_once_with_single_runs_and_two_kinds_of_noise():
    random = np.random.default_rng(1)
    noises = [Noise(1.0, 12), Noise(1.0, 12), Noise(2.0, 12)]
    sizes, missed = (1, 3, 3), 0
    for _ in range(150):
        scale = [math.sqrt(random.chisquare(12) / 12) for _ in range(2)]  # each noise is an estimate, too
        seen = [Noise(one.sd * scale[0], 12) for one in noises]
        rows = [random.normal(0, one.sd, n) for one, n in zip(noises, sizes, strict=True)]
        found = stats.dunnett(rows, random.normal(0, 0.5, 3), seen, Noise(0.5 * scale[1], 12))
        missed += any(not one.low <= 0 <= one.high for one in found)
    assert missed <= 15


def test_holm_worked_example():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert stats.holm([0.9, 0.8]) == (1.0, 1.0)
    assert stats.holm([]) == ()


def test_prediction_worked_example():
    # in percent: (2.306004 * 0.6)^2 * 4/3 + 1.959964^2 * 2 * 970 / 5000 * (1 - 5000 / 10000)
    found = stats.prediction([70, 71, 72], Noise(0.6, 8), Images(5000, 10_000, 0.097, 100))
    half = math.sqrt((2.306004 * 0.6) ** 2 * 4 / 3 + 1.959964**2 * 970 / 5000)
    assert (found.estimate, found.sd, found.n) == (71, 1, 3)
    assert (found.low, found.high) == pytest.approx((71 - half, 71 + half))
    assert found.method == stats.PREDICTION


def test_without_predictions_images_vary_by_the_binomial_and_the_method_says_so():
    found = stats.prediction([0.7, 0.71, 0.72], Noise(0.006, 8), Images(5000))
    half = math.sqrt((2.306004 * 0.006) ** 2 * 4 / 3 + 1.959964**2 * 2 * 0.71 * 0.29 / 5000)
    assert found.half == pytest.approx(half)
    assert "p(1 - p)" in found.method


def test_the_variance_over_images_is_estimated_without_bias():
    random = np.random.default_rng(2)
    a, b = 0.74 * 0.983, 0.26 * 0.983
    found = [
        stats.image_variance(random.random((n, 5000)) < random.beta(a, b, 5000)) for n in (2, 3, 10) for _ in range(20)
    ]
    assert np.mean(found) == pytest.approx(a * b / (a + b) ** 2 / (a + b + 1), rel=0.01)
    assert stats.image_variance([[True, False], [False, True]]) == 0
    with pytest.raises(ValueError, match=r"at least two runs, \(n, images\)"):
        stats.image_variance([[True, False]])


def test_the_image_noise_of_a_difference_is_that_of_other_images():
    """Two networks with known probabilities on many samples of images; the spread of their difference is the answer."""
    random = np.random.default_rng(3)
    p, q = random.beta(3, 1, 200_000), random.beta(3, 1, 200_000)
    q = 0.7 * p + 0.3 * q  # alike, as networks are
    samples = random.integers(0, p.size, (300, 2000))
    truth = (p[samples] - q[samples]).mean(axis=1).std()
    images = samples[0]
    found = stats.image_error(random.random((3, 2000)) < p[images], random.random((4, 2000)) < q[images])
    assert found == pytest.approx(truth, rel=0.2)
    same = random.random((50, 2000)) < p[images]
    assert stats.image_error(same[:25], same[25:]) < 0.3 * truth


def test_folds_worked_example():
    # Nadeau and Bengio (2003): s^2 (1/k + n_test/n_train); differences 1 to 5, s^2 = 2.5, 10 folds of 9:1 would be 1/9
    found = stats.folds([1, 2, 3, 4, 5], 1 / 4)
    assert found.estimate == 3
    assert found.error == pytest.approx(math.sqrt(2.5 * (1 / 5 + 1 / 4)))
    assert found.half == pytest.approx(2.776445 * found.error, abs=1e-5)
    assert (found.method, found.folded) == (stats.HELD_OUT, True)
    plain = stats.folds([1, 2, 3, 4, 5])
    assert (plain.error, plain.method, plain.folded) == (pytest.approx(math.sqrt(2.5 / 5)), stats.FOLDS, True)
    seeds = [[0, 2, 2, 5, 4], [2, 2, 4, 3, 6]]
    assert stats.folds(seeds, 1 / 4) == found  # seeds are averaged within a fold first
    assert stats.folds([1, 1, 1], 0.5).half is None
    assert stats.folds([1], 0.5).half is None


@pytest.mark.parametrize(("parts_sd", "lowest"), [(0.0, 0.935), (1.0, 0.98)])
def test_folds_on_one_test_set_cover_the_mean_over_networks_of_these_training_images(parts_sd, lowest):
    """Each network lacks one of five parts of the images; with a correction for held-out folds too much would be covered."""
    random = np.random.default_rng(0)
    lacks = random.normal(0, 1, (4_000, 5))  # what it costs to lack a part: the parts together make the whole
    values = parts_sd * (lacks - lacks.mean(axis=1, keepdims=True)) + random.normal(0, 1, lacks.shape)
    found = [stats.folds(one) for one in values]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert lowest <= covered <= (0.965 if parts_sd == 0 else 1)
    assert (
        np.mean([abs(one.estimate) <= stats.folds(v, 1 / 4).half for one, v in zip(found, values, strict=True)]) > 0.98
    )


def test_the_fewest_runs_that_tell_are_the_first_whose_interval_is_narrow_enough():
    noise = Noise(0.5, 8)
    n = samplesize.runs_to_tell(0.4, noise)
    halves = [stats.difference([0] * k, [0] * k, Noise(0.5, max(8, k - 1))).half for k in (n - 1, n)]
    assert halves[0] >= 0.4 > halves[1]
    assert samplesize.runs_to_tell(1e-6, noise) is samplesize.runs_to_tell(0, noise) is None
    assert samplesize.runs_to_tell(0.4, noise, Noise(2.0, 2)) > n


def test_against_a_published_number_there_may_be_no_number_of_runs():
    images = Images(5000, 10_000, 0.097, 100)
    floor = math.sqrt((1.959964 * 0.5) ** 2 + 1.959964**2 * 970 / 5000)  # the new run's own seed and images
    assert samplesize.runs_to_exclude(floor, 74, Noise(0.5, 8), images) is None
    n = samplesize.runs_to_exclude(1.05 * floor, 74, Noise(0.5, 8), images)
    assert n is not None
    assert stats.prediction([74.0] * n, Noise(0.5, max(8, n - 1)), images).half < 1.05 * floor


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [[0.1]]])
def test_refuses_what_is_no_list_of_numbers(bad):
    with pytest.raises(ValueError, match="at least one finite number"):
        stats.mean(bad, None)


# Images' probabilities are Beta with mean 0.74 and variance 0.097, and seeds add 0.3 or 0.6 points: then 95.5 and 96.2% of
# new runs lie inside, and a published number that is off by 2 or 3 points is called consistent in these shares of cases.
@pytest.mark.parametrize(("seed_sd", "two", "three"), [(0.3, 0.33, 0.06), (0.6, 0.53, 0.21)])
def test_prediction_intervals_cover_a_new_run_and_exclude_a_wrong_number(seed_sd, two, three):
    random = np.random.default_rng(round(10 * seed_sd))
    scale = 0.74 * 0.26 / 0.097 - 1
    draws, rows, n, m, whole = 200, 4, 3, 5000, 10_000
    off = []
    for _ in range(draws):
        values, images, new = {}, {}, {}
        for row in range(rows):
            p = random.beta(0.74 * scale, 0.26 * scale, whole)
            ours = random.random((n, m), dtype=np.float32) < p[:m]
            theirs = random.permutation(p)[:m]
            values[row] = 100 * ours.mean(axis=1) + random.normal(0, seed_sd, n)
            images[row] = Images(m, whole, stats.image_variance(ours), 100)
            new[row] = 100 * (random.random(m) < theirs).mean() + random.normal(0, seed_sd)
        noise = pooled(values)
        for row in range(rows):
            found = stats.prediction(values[row], noise[row], images[row])
            off.append((new[row] - found.estimate, found.half))
    distance, half = np.array(off).T
    consistent = {gap: np.mean(np.abs(distance + gap) <= half) for gap in (0, 2, 3)}
    assert 0.935 <= consistent[0] <= 0.98
    assert consistent[2] == pytest.approx(two, abs=0.07)
    assert consistent[3] == pytest.approx(three, abs=0.05)


def test_a_thousand_rows_are_pooled_and_compared_within_seconds():
    random = np.random.default_rng(0)
    rows = {f"row {place}": random.normal(size=3 + place % 3) for place in range(1_000)}
    began = time.process_time()
    noise = stats.pool(rows, dict.fromkeys(rows, ""))
    (base, *others) = rows
    found = stats.dunnett([rows[name] for name in others], rows[base], [noise[name] for name in others], noise[base])
    assert time.process_time() - began < 20
    assert len(found) == 999 and all(one.low is not None and one.low < one.estimate < one.high for one in found)
