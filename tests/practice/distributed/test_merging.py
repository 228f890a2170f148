"""Statistics of parts against one pass over all values in rational arithmetic."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.practice.distributed import merge_statistics

EPS = np.finfo(np.float64).eps
SEEDS = st.integers(0, 10**6)
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
FAR = st.sampled_from([0.0, 1.0, -1e4, 1e8, 1e12])


def one_pass(values):
    """Mean and biased variance of floats, without rounding."""
    values = [Fraction(float(v)) for v in values]
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


def merged(counts, means, variances):
    """The formula in rational arithmetic."""
    terms = [
        (int(n), Fraction(float(m)), Fraction(float(v)))
        for n, m, v in zip(counts, means, variances, strict=True)
        if n
    ]
    n = sum(count for count, *_ in terms)
    mean = sum(count * mu for count, mu, _ in terms) / n
    return mean, sum(count * (v + (mu - mean) ** 2) for count, mu, v in terms) / n


def parts_of(values, sizes):
    """Counts, means and variances of parts, each rounded once; NaN stands for those of no value."""
    cuts = np.cumsum([0, *sizes])
    found = [
        one_pass(values[a:b]) if b > a else (math.nan, math.nan)
        for a, b in itertools.pairwise(cuts)
    ]
    means, variances = np.array([[float(m), float(v)] for m, v in found]).T
    return np.array(sizes), means, variances


@settings(max_examples=150)
@given(SIZES, SEEDS, FAR)
def test_parts_merge_into_one_pass_over_all_values(sizes, seed, far):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(sum(sizes)) + far
    counts, means, variances = parts_of(values, sizes)
    mean, var = merge_statistics(counts, means, variances)
    exact_mean, exact_var = one_pass(values)
    # A mean that is handed in is itself rounded, and no formula knows by how much.
    lost = EPS * np.abs(values).max()
    apart = math.sqrt(exact_var) + lost
    assert abs(Fraction(float(mean)) - exact_mean) <= 4 * lost
    close = 8 * len(sizes) * EPS * exact_var + 4 * lost * apart
    assert abs(Fraction(float(var)) - exact_var) <= close


@settings(max_examples=150)
@given(SIZES, SEEDS, FAR, st.sampled_from([1e-3, 1.0, 1e3]))
def test_merging_itself_costs_units_in_the_last_place_however_large_the_mean(
    sizes, seed, far, between
):
    rng = np.random.default_rng(seed)
    means = far + between * rng.standard_normal(len(sizes))
    variances = rng.exponential(size=len(sizes))
    mean, var = merge_statistics(np.array(sizes), means, variances)
    exact_mean, exact_var = merged(sizes, means, variances)
    assert abs(Fraction(float(mean)) - exact_mean) <= 4 * EPS * np.abs(means).max()
    assert abs(Fraction(float(var)) - exact_var) <= 8 * (len(sizes) + 4) * EPS * exact_var


@settings(max_examples=50)
@given(SEEDS)
def test_at_a_mean_of_1e8_deviations_whole_numbers_lose_nothing(seed):
    """Parts of 2, 4, 8 values whose means and variances a double holds: the result is exact too."""
    rng = np.random.default_rng(seed)
    sizes = rng.permutation([2, 4, 8, 2])
    values = rng.integers(-1, 2, size=16) * 4.0 + 4e8
    mean, var = merge_statistics(*parts_of(values, sizes))
    assert (Fraction(float(mean)), Fraction(float(var))) == one_pass(values)


@settings(max_examples=50)
@given(SIZES, SEEDS, st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["e", "f", "d"]))
def test_every_feature_is_merged_alone_in_the_dtype_of_the_means(sizes, seed, shape, kind):
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((len(sizes), *shape)).astype(kind)
    variances = rng.exponential(size=means.shape).astype(kind)
    mean, var = merge_statistics(sizes, means, variances)
    assert mean.dtype == var.dtype == means.dtype
    assert mean.shape == var.shape == tuple(shape)
    for index in np.ndindex(*shape):
        alone = merged(sizes, means[:, *index], variances[:, *index])
        last = 8 * (len(sizes) + 4) * EPS + np.finfo(kind).eps
        tiny = np.finfo(kind).smallest_subnormal
        assert abs(mean[index] - float(alone[0])) <= last * np.abs(means).max() + tiny
        assert abs(var[index] - float(alone[1])) <= last * float(alone[1]) + tiny


@settings(max_examples=50)
@given(SIZES, SEEDS, st.sampled_from([np.nan, np.inf, 1e300, -1.0]))
def test_what_stands_for_an_empty_part_does_not_count(sizes, seed, filler):
    rng = np.random.default_rng(seed)
    means, variances = rng.standard_normal((2, len(sizes))) ** 2
    expected = merge_statistics(sizes, means, variances)
    empty = np.array(sizes) == 0
    means[empty] = variances[empty] = filler
    for found, other in zip(merge_statistics(sizes, means, variances), expected, strict=True):
        assert found == other


def test_beside_an_empty_part_a_mean_may_have_a_square_beyond_all_numbers():
    mean, var = merge_statistics([0, 2, 3], [np.nan, 1e200, 1e200], [np.nan, 5.0, 10.0])
    assert (mean, var) == (1e200, 8.0)


def test_one_part_is_the_whole():
    mean, var = merge_statistics([5], [[1.5, -2.0]], [[0.25, 3.0]])
    assert (mean.tolist(), var.tolist()) == ([1.5, -2.0], [0.25, 3.0])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (({1, 2}, [0, 0], [1, 1]), TypeError, "counts is a set, expected a numpy.ndarray"),
        (([1.0, 2.0], [0, 0], [1, 1]), TypeError, "counts has dtype float64, expected integers"),
        (([True, False], [0, 0], [1, 1]), TypeError, "counts has dtype bool, expected integers"),
        (([[1], [2]], [0, 0], [1, 1]), ValueError, r"counts has shape \(2, 1\), expected \(parts"),
        (([[1], [2, 3]], [0, 0], [1, 1]), ValueError, "counts is a list whose rows do not form"),
        (([], [], []), ValueError, r"counts has shape \(0,\), expected \(parts,\), at least one"),
        (([1, -2], [0, 0], [1, 1]), ValueError, r"counts\[1\] is -2, expected at least 0"),
        (([0, 0], [0, 0], [1, 1]), ValueError, "counts is 0 for every part, expected at least one"),
        (([1, 2], [0, 0, 0], [1, 1]), ValueError, r"means has shape \(3,\), expected \(2, "),
        (([1, 2], 3.0, [1, 1]), TypeError, "means is a float, expected"),
        (([1, 2], ["a", "b"], [1, 1]), TypeError, "means is a list of <U1, expected real numbers"),
        (([1, 2], [0, 0], [[1], [1]]), ValueError, r"variances has shape \(2, 1\), expected"),
        (([1, 2], [0, np.nan], [1, 1]), ValueError, r"means\[1\] is nan, expected finite"),
        (([1, 2], [0, 0], [1, np.inf]), ValueError, r"variances\[1\] is inf, expected finite"),
        (([1, 1], [[0], [0]], [[1], [-1]]), ValueError, r"variances\[1, 0\] is -1.0, expected"),
        (([1, 1], [1e200, -1e200], [1, 1]), ValueError, "the variance of all values is inf"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_it_refuses_in_words(arguments, error, match):
    with pytest.raises(error, match=match):
        merge_statistics(*arguments)
