"""Dependent columns are found in every sample, and no factor on a feature changes a decision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.mechanics import rank

KINDS = ("either sign", "positive", "far from 0", "categories")
DTYPES = (np.float16, np.float32, np.float64)
EPS = np.finfo(np.float64).eps
seeds = st.integers(0, 2**32 - 1)


def data(rng, kind, samples, features):
    if kind == "categories":
        return rng.integers(0, 3, (samples, features)) * rng.normal(size=features) + 0.1
    X = rng.normal(size=(samples, features))
    return {"either sign": X, "positive": np.abs(X), "far from 0": X + 30}[kind]


def with_dependent(rng, kind, samples, features, dtype):
    """Independent columns and a combination of them, computed in the precision of the data."""
    X = data(rng, kind, samples, features).astype(dtype)
    total = np.zeros(samples, dtype)
    for column, factor in zip(X.T, rng.choice([-1, 1, 0.3, 2.7], features), strict=True):
        total = total + column * dtype(factor)
    return np.insert(X, rng.integers(features + 1), total, axis=1)


def moments(X):
    X = X.astype(np.float64)
    return X.T @ X / len(X)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(seed=seeds, samples=st.sampled_from([40, 300, 3000]), features=st.integers(1, 12))
def test_a_combination_of_columns_is_found_in_every_sample(dtype, kind, seed, samples, features):
    rng = np.random.default_rng(seed)
    X = with_dependent(rng, kind, samples, features, dtype)
    scaled = rank.of_data(X)
    assert scaled.dependent
    assert scaled.singular_values[-1] < scaled.floor / 2
    assert rank.of_second_moments(moments(X), dtype).dependent


@pytest.mark.parametrize("samples", [500, 20_000])
def test_the_sum_of_three_columns_is_found_for_two_hundred_seeds(samples):
    for seed in range(200 if samples == 500 else 10):
        A = np.random.default_rng(seed).normal(size=(samples, 3))
        Z = np.column_stack([A, A.sum(axis=1)])
        assert rank.of_data(Z).rank == 3
        assert rank.of_second_moments(moments(Z)).rank == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(seed=seeds, samples=st.sampled_from([40, 300, 3000]), features=st.integers(1, 4))
def test_independent_columns_are_not_called_dependent(dtype, kind, seed, samples, features):
    X = data(np.random.default_rng(seed), kind, samples, features).astype(dtype)
    scaled = rank.of_data(X)
    assert not scaled.dependent
    assert not rank.of_second_moments(moments(X), dtype).dependent
    X = X.astype(np.float64)
    expected = np.linalg.svd(X / np.linalg.norm(X, axis=0))[1]
    # NumPy's lengths sum one sample after the other: each column may be off by that many eps.
    rounding = (samples + 8) * np.sqrt(features) * EPS
    np.testing.assert_allclose(scaled.singular_values, expected, rtol=0, atol=rounding)


@given(
    seed=seeds,
    features=st.integers(2, 6),
    dependent=st.booleans(),
    data=st.data(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_factor_on_a_feature_changes_neither_decision_nor_scaled_values(
    seed, features, dependent, data, dtype
):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(50, features)).astype(dtype)
    if dependent:
        X[:, -1] = X[:, :-1].sum(axis=1)
    powers = data.draw(st.lists(st.integers(-8, 8), min_size=features, max_size=features))
    factors = 10.0 ** np.array(powers)
    scaled, again = rank.of_data(X), rank.of_data((X * factors).astype(dtype))
    assert scaled.dependent == again.dependent == dependent
    rounding = 4 * features * np.finfo(dtype).eps
    np.testing.assert_allclose(again.singular_values, scaled.singular_values, rtol=0, atol=rounding)
    np.testing.assert_allclose(again.sizes, scaled.sizes * factors, rtol=rounding)
    S = moments(X)
    decisions = [
        rank.of_second_moments(moment, dtype).dependent
        for moment in (S, S * factors * factors[:, np.newaxis])
    ]
    assert decisions == [dependent, dependent]


@given(seed=seeds, power=st.integers(-1000, 900))
def test_powers_of_two_up_to_the_ends_of_the_range_change_no_digit(seed, power):
    X = np.random.default_rng(seed).uniform(0.5, 1, size=(30, 3))
    X[:, 1] *= 2.0**power
    scaled = rank.of_data(X)
    X[:, 1] *= 2.0**-power
    np.testing.assert_array_equal(scaled.singular_values, rank.of_data(X).singular_values)


def test_the_floor_does_not_grow_with_samples_and_is_the_formula_written_out():
    for dtype in DTYPES:
        for samples in (10, 10_000):
            X = np.random.default_rng(0).normal(size=(samples, 5)).astype(dtype)
            expected = 5**0.5 * (np.finfo(dtype).eps + 8 * EPS)
            assert rank.of_data(X).floor == pytest.approx(expected, rel=4 * EPS, abs=0)
            square = 5 * float(np.finfo(dtype).eps) ** 2 + 32 * 5**0.5 * EPS
            found = rank.of_second_moments(moments(X), dtype).floor
            assert found**2 == pytest.approx(square, rel=8 * EPS, abs=0)
    X = X.astype(np.float32)
    assert rank.of_data(X.astype(np.float64), np.float32).floor == rank.of_data(X).floor


@given(seed=seeds, samples=st.integers(1, 700), features=st.integers(1, 9))
def test_both_ways_give_the_spectrum_of_the_scaled_columns(seed, samples, features):
    X = np.random.default_rng(seed).normal(size=(samples, features)) * np.logspace(0, 3, features)
    sizes = np.sqrt(np.square(X).mean(axis=0))
    columns = X / sizes / np.sqrt(samples)
    for scaled in (rank.of_data(X), rank.of_second_moments(moments(X))):
        np.testing.assert_allclose(scaled.sizes, sizes, rtol=samples * EPS)
        mapped = columns @ scaled.axes
        squares = np.diag(scaled.singular_values**2)
        # eps times a sum of `features` terms of size 1, with the constant of the eigensolver
        np.testing.assert_allclose(mapped.T @ mapped, squares, rtol=0, atol=32 * features * EPS)
        assert scaled.rank == min(samples, features) - (scaled.singular_values[:samples] == 0).sum()


def test_the_last_axis_says_how_columns_depend_on_each_other():
    A = np.random.default_rng(1).normal(size=(30, 2))
    scaled = rank.of_data(np.column_stack([A, A @ [2.0, -3.0]]))
    combination = scaled.axes[:, -1] / scaled.sizes
    # The constant of the eigensolver for 3 features; the axis turns by it over the next square.
    rounding = 32 * 3 * EPS / scaled.singular_values[1] ** 2
    np.testing.assert_allclose(combination / combination[2], [-2, 3, 1], rtol=rounding)


def test_integers_and_lists_are_taken():
    X = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert rank.of_data(X).rank == rank.of_data(np.array(X)).rank == 2
    assert not rank.of_data([[3, 2], [2, 1]]).dependent


@pytest.mark.parametrize("X", [np.zeros((4, 2)), [[1, 0], [2, 0]], [[1.0, 2.0]]])
def test_zero_columns_and_too_few_samples_are_dependent(X):
    assert rank.of_data(X).dependent
    assert rank.of_second_moments(moments(np.array(X))).dependent


@pytest.mark.parametrize("call", [rank.of_data, rank.of_second_moments])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones(3), ValueError, r"\(3,\), expected 2 axes"),
        (np.ones((0, 0)), ValueError, r"\(0, 0\), expected"),
        ([[np.nan]], ValueError, r"\[0, 0\] is nan, expected finite"),
        ("x", TypeError, "is a str, expected a numpy.ndarray or a list"),
    ],
)
def test_bad_matrices_are_refused(unchecked, call, bad, error, message):
    with pytest.raises(error, match=message):
        call(bad)


def test_second_moments_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"S has shape \(2, 3\), expected a square matrix"):
        rank.of_second_moments(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"the diagonal of S\[1\] is -1"):
        rank.of_second_moments(np.diag([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"has the eigenvalue -1, expected at least 0"):
        rank.of_second_moments([[1.0, 2.0], [2.0, 1.0]])
