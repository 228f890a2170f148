import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bncore.mechanics import projection, transform


def batches(seed, m=None, spread=None):
    rng = np.random.default_rng(seed)
    m = m or int(rng.integers(2, 20))
    shape = (m, 3) if rng.random() < 0.5 else (m, 3, 2)
    spread = spread or np.exp(rng.normal())
    return rng.normal(size=shape), rng.normal(rng.normal(), spread, size=shape)


def total(values):
    return values.sum(axis=(0, *range(2, values.ndim)))


@given(st.integers(0, 10**6))
def test_the_parts_are_orthogonal_and_sum_to_the_gradient(seed):
    dy, x = batches(seed)
    level, tilt, rest = projection.split(dy, x)
    np.testing.assert_allclose(level + tilt + rest, dy, atol=1e-12)
    for a, b in ((level, tilt), (level, rest), (tilt, rest)):
        np.testing.assert_allclose(total(a * b), 0, atol=1e-9 * len(dy))
    np.testing.assert_allclose(total(rest), 0, atol=1e-10)
    np.testing.assert_allclose(total(rest * x), 0, atol=1e-8)


@given(st.integers(0, 10**6), st.floats(1e-8, 10))
def test_the_backward_pass_is_the_rest_and_a_leak(seed, eps):
    dy, x = batches(seed)
    gamma = np.random.default_rng(seed).normal(size=3)
    _, cache = transform.forward(x, gamma, None, eps)
    parts = projection.split(dy, x)
    shape = (3,) + (1,) * (x.ndim - 2)
    leak = projection.leak(cache.var, eps).reshape(shape)
    expected = cache.scale.reshape(shape) * (parts.rest + leak * parts.tilt)
    floor = 1e-11 * np.abs(cache.scale).max() * np.abs(dy).max()
    np.testing.assert_allclose(transform.backward(dy, cache).dx, expected, rtol=1e-9, atol=floor)


@given(st.integers(0, 10**6))
def test_the_rest_is_what_numpys_line_fit_leaves_over(seed):
    dy, x = batches(seed, m=7)
    rest = projection.split(dy, x).rest
    for j in range(3):
        a, b = x[:, j].ravel(), dy[:, j].ravel()
        line = np.polynomial.Polynomial.fit(a, b, 1)
        np.testing.assert_allclose(rest[:, j].ravel(), b - line(a), atol=1e-9)


@given(st.floats(-1e6, 1e6), st.integers(1, 9))
def test_a_constant_feature_has_no_tilt(value, m):
    dy = np.random.default_rng(m).normal(size=(m, 1))
    parts = projection.split(dy, np.full((m, 1), value))
    assert not parts.tilt.any()
    np.testing.assert_allclose(parts.rest, dy - dy.mean(), atol=1e-15)


@pytest.mark.parametrize("m", [3, 4, 9, 40])
def test_the_surviving_share_of_a_random_gradient_follows_the_beta_distribution(m):
    rng = np.random.default_rng(m)
    share = projection.surviving_share(rng.normal(size=(m, 4000)), rng.exponential(size=(m, 4000)))
    assert stats.kstest(share, stats.beta((m - 2) / 2, 1).cdf).pvalue > 0.01
    assert abs(share.mean() - (m - 2) / m) < 4 * share.std() / 4000**0.5


def test_nothing_survives_of_a_batch_of_two_and_of_a_zero_gradient():
    dy, x = np.random.default_rng(0).normal(size=(2, 2, 5))
    np.testing.assert_allclose(projection.surviving_share(dy, x), 0, atol=1e-25)
    dy = np.zeros((4, 2))
    assert not projection.surviving_share(dy, np.random.default_rng(0).normal(size=(4, 2))).any()


def test_the_leak_of_a_constant_feature_is_whole():
    np.testing.assert_array_equal(projection.leak(np.array([0.0, 1.0, 3.0]), 1.0), [1, 0.5, 0.25])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("dy", "x", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), ValueError, r"dy has shape \(2, 3\), expected \(2, 4\)"),
        (np.ones(2), np.ones(2), ValueError, r"x has shape \(2,\), expected \(batch, features"),
        (np.ones((2, 3)), np.ones((2, 3), int), TypeError, "x has dtype int64"),
        (np.ones((2, 3), int), np.ones((2, 3)), TypeError, "dy has dtype int64"),
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
