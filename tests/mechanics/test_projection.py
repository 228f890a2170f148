"""The parts of a gradient against line fits, torch-free identities and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bncore.mechanics import projection, transform

EPS = 2.0**-52


def batches(seed, m=None, spread=None):
    rng = np.random.default_rng(seed)
    m = m or int(rng.integers(2, 20))
    shape = (m, 3) if rng.random() < 0.5 else (m, 3, 2)
    spread = spread or np.exp(rng.normal())
    return rng.normal(size=shape), rng.normal(rng.normal(), spread, size=shape)


def total(values):
    return values.sum(axis=(0, *range(2, values.ndim)))


def size(values):
    """The largest magnitude in each feature, in the shape of a row."""
    return np.abs(values).max(axis=(0, *range(2, values.ndim)), keepdims=True)


def fractions(dy, x):
    """level, tilt and rest of a matrix in rational arithmetic."""
    parts = np.zeros((3, *dy.shape))
    for j in range(dy.shape[1]):
        b, a = ([Fraction(float(v)) for v in column[:, j]] for column in (dy, x))
        mean, level = sum(a) / len(a), sum(b) / len(b)
        square = sum((v - mean) ** 2 for v in a)
        slope = sum(g * (v - mean) for g, v in zip(b, a, strict=True)) / square if square else 0
        parts[0, :, j] = float(level)
        parts[1, :, j] = [float(slope * (v - mean)) for v in a]
        parts[2, :, j] = [float(g - level - slope * (v - mean)) for g, v in zip(b, a, strict=True)]
    return parts


@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    unit=st.sampled_from([-1, 0, 1]),
)
def test_the_parts_are_those_of_rational_arithmetic_in_any_unit(seed, dtype, unit):
    rng = np.random.default_rng(seed)
    dy, x = rng.normal(size=(2, int(rng.integers(2, 9)), 3)).astype(dtype)
    # Squares of numbers in these units leave the dtype on both sides.
    power = 0.9 * unit * np.finfo(dtype).maxexp
    dy, x = (np.ldexp(a, int(power)) for a in (dy / 8, x / 8))
    parts = projection.split(dy, x)
    floor = np.finfo(dtype).smallest_subnormal
    for name, part, exact in zip(parts._fields, parts, fractions(dy, x), strict=True):
        assert part.dtype == dtype
        # The slope is as exact as sums over deviations are: 2 m roundings of their terms.
        bound = 8 * len(dy) * np.finfo(dtype).eps * size(dy) + floor
        assert (np.abs(part - exact) <= bound).all(), name


@given(st.integers(0, 10**6))
def test_the_parts_are_orthogonal_and_sum_to_the_gradient(seed):
    dy, x = batches(seed)
    level, tilt, rest = projection.split(dy, x)
    assert (np.abs(level + tilt + rest - dy) <= 4 * EPS * size(dy)).all()
    m = dy.size // 3
    bound = 16 * m * EPS * total(dy**2)
    for a, b in ((level, tilt), (level, rest), (tilt, rest)):
        assert (np.abs(total(a * b)) <= bound).all()
    assert (np.abs(total(rest)) <= 16 * m * EPS * total(np.abs(dy))).all()
    bound = 16 * m * EPS * total(np.abs(dy)) * size(x).reshape(-1)
    assert (np.abs(total(rest * x)) <= bound).all()


@given(st.integers(0, 10**6), st.floats(1e-8, 10))
def test_the_backward_pass_is_the_rest_and_a_leak(seed, eps):
    dy, x = batches(seed)
    gamma = np.random.default_rng(seed).normal(size=3)
    _, cache = transform.forward(x, gamma, None, eps)
    parts = projection.split(dy, x)
    shape = (3,) + (1,) * (x.ndim - 2)
    leak = projection.leak(cache.var, eps).reshape(shape)
    scale = cache.scale.reshape(shape)
    expected = scale * (parts.rest + leak * parts.tilt)
    # A mean that is off by roundings of x tilts the line by that much in units of the deviation.
    offset = 1 + size(x) * cache.inv_std.reshape(shape)
    bound = 16 * (dy.size // 3) * EPS * np.abs(scale) * size(dy) * offset**2
    assert (np.abs(transform.backward(dy, cache).dx - expected) <= bound).all()


@given(st.integers(0, 10**6))
def test_the_rest_is_what_numpys_line_fit_leaves_over(seed):
    dy, x = batches(seed, m=7)
    rest = projection.split(dy, x).rest
    for j in range(3):
        a, b = x[:, j].ravel(), dy[:, j].ravel()
        line = np.polynomial.Polynomial.fit(a, b, 1)
        bound = 64 * a.size * EPS * np.abs(b).max() * (1 + np.abs(a).max() / a.std())
        assert (np.abs(rest[:, j].ravel() - (b - line(a))) <= bound).all()


@given(st.floats(-1e6, 1e6), st.integers(1, 9))
def test_a_constant_feature_has_no_tilt(value, m):
    dy = np.random.default_rng(m).normal(size=(m, 1))
    parts = projection.split(dy, np.full((m, 1), value))
    assert not parts.tilt.any()
    assert (np.abs(parts.rest - (dy - dy.mean())) <= 2 * m * EPS * size(dy)).all()


@pytest.mark.parametrize("m", [3, 4, 9, 40])
def test_the_surviving_share_of_a_random_gradient_follows_the_beta_distribution(m):
    rng = np.random.default_rng(m)
    share = projection.surviving_share(rng.normal(size=(m, 4000)), rng.exponential(size=(m, 4000)))
    assert stats.kstest(share, stats.beta((m - 2) / 2, 1).cdf).pvalue > 0.01
    assert abs(share.mean() - (m - 2) / m) < 4 * share.std() / 4000**0.5


def test_nothing_survives_of_a_batch_of_two_and_of_a_zero_gradient():
    dy, x = np.random.default_rng(0).normal(size=(2, 2, 5))
    assert (projection.surviving_share(dy, x) <= (16 * EPS) ** 2).all()
    dy = np.zeros((4, 2))
    assert not projection.surviving_share(dy, np.random.default_rng(0).normal(size=(4, 2))).any()


@given(
    seed=st.integers(0, 10**6),
    units=st.tuples(*[st.sampled_from([1e-300, 1e-8, 1.0, 1e8, 1e300])] * 2),
)
def test_the_surviving_share_knows_no_units_and_is_that_of_the_fractions(seed, units):
    dy, x = batches(seed)
    dy, x = dy[..., 0].reshape(-1, 1), x[..., 0].reshape(-1, 1)
    rest = fractions(dy, x)[2]
    share = projection.surviving_share(dy * units[0], x * units[1])
    assert (np.abs(share - total(rest**2) / total(dy**2)) <= 16 * len(dy) * EPS).all()
    assert ((share >= 0) & (share <= 1)).all()


def test_all_survives_of_a_gradient_without_level_and_tilt():
    dy, x = np.array([[1.0], [-1], [-1], [1]]), np.array([[1.0], [1], [-1], [-1]])
    assert abs(projection.surviving_share(dy, x)[0] - 1) <= 4 * EPS


@given(
    eps=st.floats(1e-300, 1e300),
    var=st.lists(st.floats(0, 1e300), min_size=1, max_size=5),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_leak_is_the_fraction_for_all_sizes_of_variance_and_eps(eps, var, dtype):
    var = np.minimum(np.array(var), np.finfo(dtype).max).astype(dtype)
    leak = projection.leak(var, eps)
    exact = np.array([float(Fraction(eps) / (Fraction(float(v)) + Fraction(eps))) for v in var])
    floor = np.finfo(dtype).smallest_subnormal
    assert leak.dtype == dtype
    assert (np.abs(leak - exact) <= 4 * np.finfo(dtype).eps * exact + floor).all()


def test_lists_and_integers_count_as_arrays_and_results_lie_in_memory_as_x_does():
    dy, x = np.random.default_rng(0).integers(-9, 9, (2, 5, 3, 2))
    expected = projection.split(dy.astype(float), x.astype(float))
    for given_dy, given_x in ((dy, x), (dy.tolist(), x.tolist())):
        for part, same in zip(projection.split(given_dy, given_x), expected, strict=True):
            np.testing.assert_array_equal(part, same)
        share = projection.surviving_share(given_dy, given_x)
        np.testing.assert_array_equal(share, projection.surviving_share(dy.astype(float), x + 0.0))
    for part in projection.split(dy, np.asfortranarray(x, np.float32)):
        assert part.dtype == np.float32
        assert part.flags.f_contiguous
    np.testing.assert_array_equal(projection.leak([0, 1, 3], 1), [1, 0.5, 0.25])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("dy", "x", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), ValueError, r"dy has shape \(2, 3\), expected \(2, 4\)"),
        (np.ones(2), np.ones(2), ValueError, r"x has shape \(2,\), expected at least two axes"),
        (np.ones((2, 3)), np.ones((2, 3), bool), TypeError, "x has dtype bool"),
        (np.ones((2, 3), bool), np.ones((2, 3)), TypeError, "dy has dtype bool"),
        (np.full((2, 3), 0.1), np.ones((2, 3), "f4"), ValueError, "float32 cannot hold exactly"),
        (
            np.array([[6e4], [-6e4], [6e4]], "f2"),
            np.array([[1], [1], [1]], "f2"),
            ValueError,
            r"rest\[1, 0\] is -8e\+04, beyond the largest float16",
        ),
        (np.full((2, 3), np.nan), np.ones((2, 3)), ValueError, r"dy\[0, 0\] is nan"),
        (np.ones((2, 3)), np.full((2, 3), np.inf), ValueError, r"x\[0, 0\] is inf"),
    ],
)
def test_split_refuses_what_it_cannot_split(dy, x, error, message):
    with pytest.raises(error, match=message):
        projection.split(dy, x)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("var", "eps", "message"),
    [
        (np.array([1.0, -1.0]), 1.0, r"var\[1\] is -1.0, expected at least 0"),
        (np.array([np.nan, 1.0]), 1.0, r"var\[0\] is nan, expected finite"),
        (np.array([1.0]), 0.0, "eps is 0.0, expected a finite number above 0"),
    ],
)
def test_leak_refuses_variances_that_are_none_and_a_zero_eps(var, eps, message):
    with pytest.raises(ValueError, match=message):
        projection.leak(var, eps)
