"""The variance shift behind dropout against an enumeration of all masks and examples."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.explanations import variance_shift

EPS = np.finfo(np.float64).eps
seeds = st.integers(0, 10**6)
keeps = st.floats(0.05, 1)


def enumerated(keep, weight, x):
    """Variance at test over training of x @ weight, over all rows and all masks."""
    masks = np.array(list(product([0, 1], repeat=len(weight))))
    chances = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    train = (x[:, None] * masks / keep) @ weight
    mean = (train @ chances).mean()
    return (x @ weight).var() / (((train - mean) ** 2) @ chances).mean()


def rounding(weight, x):
    """Of sums of weighted values, over what is left of them in a variance."""
    left = (x @ weight).std() / (np.abs(x) @ np.abs(weight)).max()
    return 4 * (len(x) + 2 ** len(weight)) * EPS / min(left, 1.0) ** 2


@given(seeds, keeps, st.integers(1, 4))
def test_behind_weights_against_all_masks(seed, keep, inputs):
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(1, 2, size=(7, inputs)), rng.normal(size=inputs)
    covariance = np.cov(x, rowvar=False, bias=True).reshape(inputs, inputs)
    found = variance_shift.behind_weights(keep, weight, x.mean(0), covariance)
    expected = enumerated(keep, weight, x)
    assert found == pytest.approx(expected, rel=rounding(weight, x), abs=0)


@given(seeds, keeps)
def test_directly_behind_dropout_against_all_masks(seed, keep):
    x = np.random.default_rng(seed).normal(1, 2, size=(7, 1))
    found = variance_shift.direct(keep, x.mean(), x.var())
    expected = enumerated(keep, np.ones(1), x)
    assert found == pytest.approx(expected, rel=rounding(np.ones(1), x), abs=0)
    assert found <= keep * (1 + 8 * EPS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_small_types_keep_their_range(dtype):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(300, 300))
    exact = rng.normal(size=300), rng.normal(size=300), factor @ factor.T
    found = variance_shift.behind_weights(0.5, *(value.astype(dtype) for value in exact))
    # Each factor of each term is rounded once.
    weight, _, covariance = exact
    summed = np.abs(weight) @ np.abs(covariance) @ np.abs(weight) / (weight @ covariance @ weight)
    expected = variance_shift.behind_weights(0.5, *exact)
    assert found == pytest.approx(expected, rel=2 * np.finfo(dtype).eps * summed, abs=0)
    assert variance_shift.direct(0.5, 1e200, 1.0) == 0


def test_a_sum_that_is_constant_stays_within_the_probabilities():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weight, common = rng.normal(size=(2, 5))
        weight -= weight @ common * common / (common @ common)
        covariance = np.outer(common, common)
        assert 0 <= variance_shift.behind_weights(0.5, weight, common, covariance) < 128 * EPS


def test_without_dropout_nothing_shifts():
    assert variance_shift.direct(1.0, 3.0, 2.0) == 1
    assert variance_shift.behind_weights(1.0, np.ones(2), np.ones(2), np.eye(2)) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f.direct(0.0, 0.0, 1.0), ValueError, "keep is 0.0, expected a finite number"),
        (lambda f: f.direct(1.5, 0.0, 1.0), ValueError, "keep is 1.5, expected a probability"),
        (lambda f: f.direct(0.5, np.inf, 1.0), ValueError, "mean is inf, expected a finite"),
        (lambda f: f.direct(0.5, 0.0, 0.0), ValueError, "var is 0.0, expected"),
        (lambda f: f.direct("1", 0.0, 1.0), TypeError, "keep is a str, expected a real number"),
        (
            lambda f: f.behind_weights(0.5, "a", np.ones(1), np.eye(1)),
            TypeError,
            "weight is a str, expected a numpy.ndarray or a list",
        ),
        (
            lambda f: f.behind_weights(0.5, np.ones((1, 1)), np.ones(1), np.eye(1)),
            ValueError,
            r"weight has shape \(1, 1\), expected \(inputs,\)",
        ),
        (
            lambda f: f.behind_weights(0.5, np.ones(2), np.ones(3), np.eye(2)),
            ValueError,
            r"mean has shape \(3,\), expected \(2,\)",
        ),
        (
            lambda f: f.behind_weights(0.5, np.ones(2), np.ones(2), np.eye(3)),
            ValueError,
            r"covariance has shape \(3, 3\), expected \(2, 2\)",
        ),
        (
            lambda f: f.behind_weights(0.5, np.zeros(2), np.ones(2), np.eye(2)),
            ValueError,
            "the weighted sum has no variance in training",
        ),
        (
            lambda f: f.behind_weights(
                0.5, np.ones(2), np.ones(2), np.array([[1.0, 0.5], [0.25, 1.0]])
            ),
            ValueError,
            r"covariance\[0, 1\] is 0.5 and covariance\[1, 0\] is 0.25, expected a symmetric",
        ),
        (
            lambda f: f.behind_weights(0.5, np.ones(2), np.ones(2), -0.1 * np.eye(2)),
            ValueError,
            "covariance gives the weighted sum the variance -0.2 and its values at least -0.1",
        ),
        (
            lambda f: f.behind_weights(
                0.5, np.array([1.0, -1.0]), np.ones(2), np.array([[1.0, 2.0], [2.0, 1.0]])
            ),
            ValueError,
            "covariance gives the weighted sum the variance -2 and its values at least 1",
        ),
        (
            lambda f: f.behind_weights(0.5, np.array([np.nan]), np.ones(1), np.eye(1)),
            ValueError,
            r"weight\[0\] is nan",
        ),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call(variance_shift)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_the_ratio_knows_no_scale(size):
    rng = np.random.default_rng(0)
    weight, mean, A = rng.normal(size=4), rng.normal(size=4), rng.normal(size=(4, 4))
    expected = variance_shift.behind_weights(0.7, weight, mean, A @ A.T)
    found = variance_shift.behind_weights(0.7, size * weight, mean, A @ A.T)
    assert found == pytest.approx(expected, rel=64 * EPS, abs=0)
    root = size**0.5
    found = variance_shift.behind_weights(0.7, weight, root * mean, size * (A @ A.T))
    assert found == pytest.approx(expected, rel=64 * EPS, abs=0)


def test_ends_of_the_floats_give_the_right_ends():
    assert variance_shift.direct(1.0, 1e200, 1.0) == 1
    assert variance_shift.direct(0.5, 1e200, 1.0) == 0
    tiny = variance_shift.behind_weights(1e-310, [1.0], [0.0], [[1.0]])
    assert tiny == pytest.approx(1e-310, rel=0, abs=np.finfo(np.float64).smallest_subnormal)


def test_lists_and_integers_are_taken():
    expected = variance_shift.behind_weights(0.5, np.ones(2), np.zeros(2), np.eye(2))
    assert variance_shift.behind_weights(0.5, [1, 1], [0, 0], [[1, 0], [0, 1]]) == expected
