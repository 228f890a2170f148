"""Weights of a running average: those that `RunningStatistics` applies, and how far they look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import averaging
from bncore.mechanics.inference import RunningStatistics

MOMENTA = st.none() | st.floats(0.001, 1)
UPDATES = st.integers(1, 40)
EPS = float(np.finfo(np.float64).eps)


@given(MOMENTA, UPDATES)
def test_the_weights_are_those_of_running_statistics(momentum, updates):
    batches = np.random.default_rng(updates).normal(size=(updates, 3, 2))
    running = RunningStatistics(2, momentum)
    if momentum is not None:
        running.mean = np.array([5.0, -7.0])
    values = [running.mean, *batches.mean(axis=1)]
    for batch in batches:
        running.update(batch)
    expected = averaging.weights(momentum, updates) @ values
    rounding = (4 * updates + 8) * EPS * np.abs(values).max()
    np.testing.assert_allclose(running.mean, expected, rtol=0, atol=rounding)


@given(st.none() | st.floats(0, 1), UPDATES)
def test_the_weights_sum_to_one(momentum, updates):
    total = averaging.weights(momentum, updates).sum()
    assert total == pytest.approx(1, rel=(4 * updates + 8) * EPS, abs=0)


@given(st.floats(0, 1), UPDATES)
def test_the_weights_are_the_powers_written_out(momentum, updates):
    initial, batches = [1.0], []
    for _ in range(updates):
        batches = [(1 - momentum) * weight for weight in batches] + [momentum]
        initial = [(1 - momentum) * initial[0]]
    rounding = 4 * updates * EPS
    np.testing.assert_allclose(
        averaging.weights(momentum, updates),
        initial + batches,
        rtol=rounding,
        atol=np.finfo(np.float64).tiny,
    )


@given(st.floats(0.02, 1))
def test_a_long_average_is_worth_its_window(momentum):
    worth = averaging.effective_batches(momentum, 2000)
    assert worth == pytest.approx((2 - momentum) / momentum, rel=16 * EPS, abs=0)


@given(st.none() | st.floats(0, 1, exclude_min=True), st.integers(1, 3000))
def test_what_an_average_is_worth_is_the_ratio_of_its_sums(momentum, updates):
    batches = averaging.weights(momentum, updates)[1:]
    batches /= batches.max()
    expected = batches.sum() ** 2 / np.square(batches).sum()
    worth = averaging.effective_batches(momentum, updates)
    # Powers of 1 - momentum, which is rounded, are off by that many eps.
    rounding = (4 * updates + 16) * EPS
    assert worth == pytest.approx(expected, rel=rounding, abs=0)
    assert 1 - rounding <= worth <= updates * (1 + rounding)


def test_integers_of_any_size_are_answered_or_refused_in_words():
    assert averaging.effective_batches(0.1, 10**30) == pytest.approx(19, rel=16 * EPS, abs=0)
    assert averaging.effective_batches(None, 10**30) == pytest.approx(1e30, rel=16 * EPS, abs=0)
    with pytest.raises(ValueError, match="updates is above 100,000,000, expected at most that"):
        averaging.weights(0.1, 10**30)
    for momentum in (None, 0.1):
        with pytest.raises(ValueError, match="updates is an integer beyond the largest float64"):
            averaging.effective_batches(momentum, 10**400)


def test_a_tiny_momentum_does_not_underflow():
    assert averaging.effective_batches(1e-200, 10) == pytest.approx(10, rel=16 * EPS, abs=0)


@pytest.mark.parametrize(
    ("momentum", "updates", "error", "message"),
    [
        (1.5, 3, ValueError, r"momentum is 1\.5, expected a number in \[0, 1\]"),
        (-0.1, 3, ValueError, r"momentum is -0\.1, expected a number in \[0, 1\]"),
        ("0.1", 3, TypeError, "momentum is a str, expected a real number"),
        (0.1, 0, ValueError, "updates is 0, expected at least 1"),
        (0.1, 2.0, TypeError, "updates is a float, expected an integer"),
    ],
)
@pytest.mark.parametrize("function", [averaging.weights, averaging.effective_batches])
def test_bad_input_is_named(unchecked, function, momentum, updates, error, message):
    with pytest.raises(error, match=message):
        function(momentum, updates)


def test_without_momentum_no_batch_counts():
    with pytest.raises(ValueError, match=r"momentum is 0, expected a number in \(0, 1\]"):
        averaging.effective_batches(0, 3)
