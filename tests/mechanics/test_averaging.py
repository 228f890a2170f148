"""Weights of a running average: those that `RunningStatistics` applies, and how far they look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import averaging
from bncore.mechanics.inference import RunningStatistics

MOMENTA = st.none() | st.floats(0.001, 1)
UPDATES = st.integers(1, 40)


@given(MOMENTA, UPDATES)
def test_the_weights_are_those_of_running_statistics(momentum, updates):
    batches = np.random.default_rng(updates).normal(size=(updates, 3, 2))
    running = RunningStatistics(2, momentum)
    running.mean = np.array([5.0, -7.0])
    values = [running.mean, *batches.mean(axis=1)]
    for batch in batches:
        running.update(batch)
    expected = averaging.weights(momentum, updates) @ values
    np.testing.assert_allclose(running.mean, expected, rtol=1e-9, atol=1e-9)


@given(st.none() | st.floats(0, 1), UPDATES)
def test_the_weights_sum_to_one(momentum, updates):
    assert averaging.weights(momentum, updates).sum() == pytest.approx(1)


@given(st.floats(0.02, 1))
def test_a_long_average_is_worth_its_window(momentum):
    expected = (2 - momentum) / momentum
    assert averaging.effective_batches(momentum, 2000) == pytest.approx(expected, rel=1e-9)


@given(MOMENTA, UPDATES)
def test_no_average_is_worth_more_than_the_batches_it_saw(momentum, updates):
    worth = averaging.effective_batches(momentum, updates)
    assert 1 - 1e-9 <= worth <= updates * (1 + 1e-9)
    assert averaging.effective_batches(None, updates) == pytest.approx(updates)


def test_a_tiny_momentum_does_not_underflow():
    assert averaging.effective_batches(1e-200, 10) == pytest.approx(10)


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
