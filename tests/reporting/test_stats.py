import math

import numpy as np
import pytest

from repro.reporting import stats


def test_mean_worked_example():
    # Student's t by hand: mean 5, s = sqrt(10), t(0.975, 4) = 2.776445, half-width 2.776445 * sqrt(10) / sqrt(5)
    found = stats.mean([1, 3, 5, 7, 9])
    assert (found.estimate, found.n) == (5, 5)
    assert found.sd == pytest.approx(math.sqrt(10))
    assert found.high == pytest.approx(5 + 2.776445 * math.sqrt(2), abs=1e-5)
    assert found.low == pytest.approx(5 - 2.776445 * math.sqrt(2), abs=1e-5)
    assert "t interval" in found.method


def test_one_value_has_no_interval():
    for found in (stats.mean([0.7]), stats.paired([0.7], [0.6]), stats.prediction([0.7], 5000)):
        assert (found.n, found.low, found.high, found.sd, found.p) == (1, None, None, None, None)


def test_paired_worked_example():
    # Student's sleep data (1908), the classical paired t test: t = 4.0621, df = 9, p = 0.002833, interval 0.70 to 2.46
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = stats.paired(second, first)
    assert found.estimate == pytest.approx(1.58)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.low, found.high) == (pytest.approx(0.7001142, abs=1e-6), pytest.approx(2.4598858, abs=1e-6))


def test_paired_without_spread():
    for base, difference in (([1, 2, 3], 0), ([0.9, 1.9, 2.9], 0.1)):  # the latter up to rounding
        found = stats.paired([1, 2, 3], base)
        assert found.estimate == pytest.approx(difference)
        assert (found.n, found.sd, found.low, found.high, found.p) == (3, 0, None, None, None)
    assert stats.mean([0.7702, 0.7702]).low is None


def test_holm_worked_example():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert stats.holm([0.9, 0.8]) == (1.0, 1.0)
    assert stats.holm([]) == ()


def test_prediction_worked_example():
    # p = 0.71, s = 0.01, n = 3: (4.302653 * 0.01)^2 * 4/3 + 1.959964^2 * 2 * 0.71 * 0.29 / 5000
    found = stats.prediction([0.70, 0.71, 0.72], 5000)
    half = math.sqrt(4.302653**2 * 1e-4 * 4 / 3 + 1.959964**2 * 2 * 0.71 * 0.29 / 5000)
    assert (found.low, found.high) == (pytest.approx(0.71 - half), pytest.approx(0.71 + half))


def test_prediction_on_halves_of_one_set_worked_example():
    # the same with a correction of 1 - 5000 / 10000
    found = stats.prediction([0.70, 0.71, 0.72], 5000, of=10_000)
    half = math.sqrt(4.302653**2 * 1e-4 * 4 / 3 + 1.959964**2 * 0.71 * 0.29 / 5000)
    assert (found.low, found.high) == (pytest.approx(0.71 - half), pytest.approx(0.71 + half))


def test_sampling_error():
    assert stats.sampling_error(0.75, 5000) == pytest.approx(0.006124, abs=1e-6)


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [[0.1]]])
def test_refuses_what_is_no_list_of_numbers(bad):
    with pytest.raises(ValueError, match="at least one finite number"):
        stats.mean(bad)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_t_intervals_cover(n):
    random = np.random.default_rng(n)
    draws = random.normal(0.7, 0.01, size=(2000, n))
    bases = random.normal(0.68, 0.02, size=(2000, n))
    means = [stats.mean(draw) for draw in draws]
    pairs = [stats.paired(draw, base) for draw, base in zip(draws, bases, strict=True)]
    assert 0.93 <= np.mean([found.low <= 0.7 <= found.high for found in means]) <= 0.97
    assert 0.93 <= np.mean([found.low <= 0.02 <= found.high for found in pairs]) <= 0.97
    assert 0.03 <= np.mean([found.p < 0.05 for found in map(stats.paired, draws, draws + bases - 0.68)]) <= 0.07


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.0005, 0.004, 0.02])
def test_prediction_interval_covers_a_run_on_other_images(n, spread):
    """Our n runs share one set of images; the published one has a set of its own."""
    random = np.random.default_rng([n, int(spread * 1e4)])
    images, inside = 5000, 0
    for _ in range(2000):
        ours = random.normal(0.73, spread, n) + random.normal(0, stats.sampling_error(0.73, images))
        new = random.binomial(images, random.normal(0.73, spread)) / images
        found = stats.prediction(ours, images)
        inside += found.low <= new <= found.high
    wide = 0.01 if spread == 0.004 else 0  # both terms count: quadrature of their quantiles is conservative
    assert 0.93 <= inside / 2000 <= 0.97 + wide


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("spread", [0.0005, 0.02])
def test_prediction_interval_covers_a_run_on_another_half_of_the_images(n, spread):
    """Our runs and the published one each have a half of the same 10,000 images, of which 73% are easy."""
    random = np.random.default_rng([n, int(spread * 1e4)])
    inside = 0
    for _ in range(2000):
        half, other = random.hypergeometric(7300, 2700, 5000, 2) / 5000
        found = stats.prediction(half + random.normal(0, spread, n), 5000, of=10_000)
        inside += found.low <= other + random.normal(0, spread) <= found.high
    assert 0.93 <= inside / 2000 <= 0.97
