"""Turns, equilibria and growing rates against gradient descent."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.explanations import effective_rate, weight_length

seeds = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_step_turns_the_direction_by_the_effective_rate(unit_descent, decay):
    for seed in range(60):
        path, slopes = unit_descent(seed, 1, 0.1, decay)
        length = path[0].norm().item()
        v, at_one = (path[0] / length).numpy(), (slopes[0] * length).numpy()
        at_one -= (at_one @ v) * v
        turned = effective_rate.turn(v, at_one, effective_rate.effective_rate(0.1, length, decay))
        # Unit vectors of up to five entries, each rounded a dozen times.
        expected = (path[1] / path[1].norm()).numpy()
        np.testing.assert_allclose(turned, expected, rtol=0, atol=64 * EPS)
        assert np.linalg.norm(turned) == pytest.approx(1, abs=16 * EPS)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_growing_rates_replace_weight_decay(unit_descent, momentum):
    for seed in range(25):
        rate, decay = 0.02 * (1 - momentum), 0.1
        schedule = effective_rate.exponential_schedule(rate, decay, 20, momentum)
        decayed, _ = unit_descent(seed, 20, rate, decay, momentum)
        grown, _ = unit_descent(seed, 20, rate, 0.0, momentum, schedule)
        factors = schedule.factor ** -torch.arange(21.0, dtype=torch.float64)
        expected = factors[:, None] * decayed
        # Twenty steps, too short for their roundings to grow.
        assert (grown - expected).abs().max() <= 20 * 64 * EPS * expected.abs().max()
        if momentum == 0:
            assert schedule.factor == pytest.approx(1 - rate * decay, abs=8 * EPS)
            assert schedule.velocity == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_factor_is_a_root(momentum):
    for eta_lambda in np.linspace(1e-6, (1 - math.sqrt(momentum)) ** 2 * 0.99, 20):
        schedule = effective_rate.exponential_schedule(0.5, eta_lambda / 0.5, 3, momentum)
        a = schedule.factor
        assert abs(a**2 - (1 + momentum - eta_lambda) * a + momentum) <= 16 * EPS
        # Exponentials of up to five logarithms of a.
        rounding = 16 * EPS * (1 - 5 * math.log(a))
        ratios = schedule.rates[1:] / schedule.rates[:-1]
        np.testing.assert_allclose(ratios, a**-2, rtol=rounding)
        assert schedule.rates[0] == pytest.approx(0.5 / a, rel=rounding, abs=0)


@given(seeds)
def test_the_equilibrium_is_a_fixed_point_and_attracts(seed):
    rng = np.random.default_rng(seed)
    rate, slope = 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-2, 1)
    decay = rng.uniform(0.02, 0.9) / rate
    found = effective_rate.equilibrium(rate, decay, slope)
    constant = np.full(2000, slope)
    kept = weight_length.squared_lengths(rate, constant[:1], found.length**2, decay)
    assert kept[1] == pytest.approx(kept[0], rel=32 * EPS, abs=0)
    far = weight_length.squared_lengths(rate, constant, 9 * found.length**2, decay)
    # A step leaves at most this share of a deviation, its own rounding included; 2000 leave nothing.
    left = abs(2 * (1 - rate * decay) ** 2 - 1)
    assert far[-1] == pytest.approx(found.length**2, rel=16 * EPS / (1 - left), abs=0)
    step = rate * slope / found.length**2
    assert found.angle == pytest.approx(math.atan2(step, 1 - rate * decay), rel=32 * EPS, abs=0)
    assert found.effective_rate == effective_rate.effective_rate(rate, found.length, decay)
    known = (rate * slope**2 / (2 * decay)) ** 0.25
    # What is left out is the factor (1 - rate * decay / 2)^(-1/4).
    assert found.length == pytest.approx(known, rel=rate * decay / 4)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_equilibrium_of_random_gradients(momentum):
    rng = np.random.default_rng(0)
    rate, decay, slope, runs = 0.2 * (1 - momentum), 0.1, 3.0, 1000
    w, v = rng.normal(size=(runs, 8)), np.zeros((runs, 8))
    for _ in range(500):
        g = rng.normal(size=w.shape)
        g -= (g * w).sum(1, keepdims=True) * w / (w**2).sum(1, keepdims=True)
        g *= slope / np.linalg.norm(g, axis=1, keepdims=True) / np.linalg.norm(w, axis=1)[:, None]
        v = momentum * v + g + decay * w
        w, before = w - rate * v, w
    found = effective_rate.equilibrium(rate, decay, slope, momentum)
    lengths = np.linalg.norm(w, axis=1)
    cosines = (w * before).sum(1) / lengths / np.linalg.norm(before, axis=1)
    # Exact without momentum, up to a cosine near 1; else to first order in rate * decay.
    nearly = rate * decay if momentum else 4 * EPS / (rate * decay)
    for found_in_runs, expected in (
        (lengths, found.length),
        (np.arccos(cosines) ** 2, found.angle**2),
    ):
        error = found_in_runs.std() / runs**0.5
        assert found_in_runs.mean() == pytest.approx(expected, abs=4 * error + nearly * expected)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_tiny_decays_keep_their_digits(momentum):
    steps, first = np.array([1.0, 1e4]), np.arange(4)
    for decay in 10.0 ** -np.arange(6, 40, 2):
        small = 0.1 * decay
        found = effective_rate.equilibrium(0.1, decay, 2.0, momentum)
        angle = math.sqrt(2 * small / (1 + momentum))
        assert found.angle == pytest.approx(angle, rel=small + 8 * EPS, abs=0)
        growing = effective_rate.exponential_schedule(0.1, decay, 4, momentum)
        short = small / (1 - momentum)
        # The next term of 1 - q is short^2 momentum / (1 - momentum).
        following = 2 * short / (1 - momentum) + 8 * EPS
        assert 1 - growing.factor == pytest.approx(short, rel=following, abs=EPS)
        known = 0.1 * (1 + (2 * first + 1) * short)
        beyond = 7 * 8 / 2 * short**2 / (1 - momentum)
        np.testing.assert_allclose(growing.rates, known, rtol=2 * beyond + 8 * EPS)
        if momentum:
            assert growing.velocity == pytest.approx(-short / 0.1, rel=following, abs=0)
        kept = weight_length.smooth_squared_lengths(steps, 0.1, 2.0, 1.5)
        np.testing.assert_allclose(
            weight_length.smooth_squared_lengths(steps, 0.1, 2.0, 1.5, decay),
            kept,
            rtol=4 * small * steps[-1] + 8 * EPS,
        )


@given(st.floats(0.01, 0.99))
def test_the_largest_decay_that_the_theorem_allows_is_allowed(momentum):
    largest = (1 - math.sqrt(momentum)) ** 2
    for rate in (0.1, 0.3, 0.7):
        found = effective_rate.exponential_schedule(rate, largest / rate, 2, momentum)
        # The root of what rounding leaves of 0.
        assert found.factor == pytest.approx(math.sqrt(momentum), abs=4 * EPS**0.5)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: effective_rate.effective_rate(0.1, 0.0), ValueError, "length is 0.0, expected"),
        (
            lambda: effective_rate.effective_rate(2.0, 1.0, 0.5),
            ValueError,
            r"rate \* decay is 1, expected bel",
        ),
        (
            lambda: effective_rate.equilibrium(0.1, 0.0, 1.0),
            ValueError,
            "decay is 0, expected a number above",
        ),
        (
            lambda: effective_rate.equilibrium(0.1, 0.1, 0.0),
            ValueError,
            "gradient is 0.0, expected",
        ),
        (
            lambda: effective_rate.equilibrium(0.1, 0.1, 1.0, 1.0),
            ValueError,
            r"momentum is 1.0, expected a number in \[0, 1\)",
        ),
        (
            lambda: effective_rate.exponential_schedule(0.1, 1.0, 3, 0.9),
            ValueError,
            r"rate \* decay is 0.1, expected at most .* = 0.00263: beyond it no real",
        ),
        (
            lambda: effective_rate.exponential_schedule(0.9, 1.0, 1000),
            ValueError,
            "steps is 1000, expected fewer: the learning rate leaves the range of floats after 154",
        ),
        (
            lambda: effective_rate.exponential_schedule(0.1, 0.1, 0),
            ValueError,
            "steps is 0, expected at least 1",
        ),
        (
            lambda: effective_rate.turn(np.array([2.0, 0.0]), np.array([0.0, 1.0]), 0.1),
            ValueError,
            "direction has length 2, expected 1",
        ),
        (
            lambda: effective_rate.turn(np.array([1.0, 0.0]), np.array([1.0, 1.0]), 0.1),
            ValueError,
            "gradient has the cosine 0.707 with direction, expected 0",
        ),
        (
            lambda: effective_rate.effective_rate(0.1, 1e-200),
            ValueError,
            "length is 1e-200, with which the result, inf, leaves the range of floats",
        ),
    ],
)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: effective_rate.turn(np.ones(2), np.ones(3), 0.1),
            ValueError,
            r"direction has shape \(2,\) and gradient \(3,\), expected two vectors",
        ),
        (
            lambda: effective_rate.exponential_schedule(0.1, 0.1, 2.5),
            TypeError,
            "steps is a float, expected an integer",
        ),
    ],
)
def test_errors_teach_where_annotations_are_off(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_no_step_is_too_large_to_turn():
    v, g = np.array([1.0, 0.0, 0.0]), np.array([0.0, 3.0, 4.0])
    for rate, size in ((1e200, 1e200), (1e-200, 1e200), (1e300, 1.0), (0.2, 1.0), (1e-200, 1e-200)):
        step = rate * size * 5
        found = effective_rate.turn(v, size * g, rate)
        angle = math.atan(step)
        expected = [math.cos(angle), -0.6 * math.sin(angle), -0.8 * math.sin(angle)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=4 * EPS)
    np.testing.assert_array_equal(effective_rate.turn(v.tolist(), [0, 0, 0], 1.0), v)
    np.testing.assert_array_equal(
        effective_rate.turn([1, 0, 0], [0, 3, 4], 0.2), effective_rate.turn(v, g, 0.2)
    )
    half = effective_rate.turn(v.astype(np.float16), g.astype(np.float16), 0.2)
    assert half.dtype == np.float16


def test_the_equilibrium_at_the_ends_of_the_floats():
    found = effective_rate.equilibrium(1e100, 1e-200, 1e-50)
    assert found.length == pytest.approx((1e300 / 2) ** 0.25 * 1e-25, rel=16 * EPS, abs=0)
    assert found.angle == pytest.approx(math.sqrt(2) * 1e-50, rel=16 * EPS, abs=0)
    with pytest.raises(ValueError, match=r"rate is 1e-200, with which the result, inf, leaves"):
        effective_rate.equilibrium(1e-200, 1e-200, 1.0)
    schedule = effective_rate.exponential_schedule(1e-200, 1e-200, 2, 0.5)
    assert schedule.velocity == pytest.approx(-2e-200, rel=16 * EPS, abs=0)


def test_the_time_to_equilibrium_is_that_of_the_law():
    for momentum in (0.0, 0.9):
        found = effective_rate.equilibrium(0.1, 1e-3, 1.0, momentum)
        assert found.steps == pytest.approx((1 - momentum) / (4 * 0.1 * 1e-3), rel=8 * EPS, abs=0)
    start = 1.5 * found.length**2
    found = effective_rate.equilibrium(0.1, 1e-3, 1.0)
    after = weight_length.smooth_squared_lengths([0.0, found.steps], 0.1, 1.0, start, 1e-3)
    apart = after**2 - (0.1 / 2e-3)
    assert apart[1] / apart[0] == pytest.approx(math.exp(-1), rel=32 * EPS, abs=0)
