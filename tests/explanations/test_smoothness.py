"""Slope and curvature through a batch norm, and distances to a ray."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from bncore.explanations import smoothness

seeds = st.integers(0, 10**6)
EPS, HALF, SINGLE = (np.finfo(kind).eps for kind in (np.float64, np.float16, np.float32))


def rounding(y):
    """Sums over the batch, whose values are rounded beside their deviation."""
    return 16 * len(y) * EPS * (1 + np.abs(y).max() / y.std())


def sizes(y, gamma, H, g):
    """What the slope and the second derivatives are sums of."""
    slope, through = abs(gamma) / y.std(), np.linalg.norm(H, 2)
    return slope * np.linalg.norm(g), slope**2 * through + slope / y.std() * np.linalg.norm(g)


def random_loss(seed):
    """y, gamma, H, b of a random loss z'Hz/2 + b'z behind a batch norm, and torch's loss of y."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(3, 24))
    y = rng.normal() * 3 + np.exp(rng.normal()) * rng.normal(size=m)
    A, b, gamma = rng.normal(size=(m, m)), rng.normal(size=m), float(rng.normal())
    H = A + A.T

    def loss(y):
        c = y - y.mean()
        z = gamma * c / torch.sqrt((c**2).mean()) + 0.4
        return z @ torch.tensor(H) @ z / 2 + torch.tensor(b) @ z

    z = gamma * (y - y.mean()) / y.std() + 0.4
    return y, gamma, H, H @ z + b, loss


@settings(max_examples=300)
@given(seeds)
def test_slope_and_curvature_are_those_of_double_backward(seed):
    y, gamma, H, g, loss = random_loss(seed)
    leaf = torch.tensor(y, requires_grad=True)
    (d,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    second = torch.stack([torch.autograd.grad(part, leaf, retain_graph=True)[0] for part in d])
    d, second = d.detach().numpy(), second.numpy()
    rounded, (first, both) = rounding(y), sizes(y, gamma, H, g)
    slope = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))[:, 0]
    np.testing.assert_allclose(slope, d, rtol=0, atol=rounded * first)
    terms = smoothness.squared_gradient(y[:, None], g[:, None], np.array([gamma]))
    assert terms.passed[0] == pytest.approx(d @ d, abs=rounded * first**2)
    ours = smoothness.hessian(y, g, H, gamma)
    np.testing.assert_allclose(ours, second, rtol=0, atol=rounded * both)
    curvature = smoothness.curvature_along_gradient(y, g, H, gamma)
    assert curvature.total == pytest.approx(d @ second @ d, abs=rounded * both * first**2)
    assert curvature.squared == pytest.approx(d @ d, abs=rounded * first**2)


@settings(max_examples=60)
@given(seeds, st.integers(-1000, 900))
def test_no_scale_of_the_batch_is_lost(seed, exponent):
    rng = np.random.default_rng(seed)
    y, g, gamma = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.normal(size=2)
    y_hat, sigma = smoothness.normalise(y)
    scaled = smoothness.normalise(np.ldexp(y, exponent))
    np.testing.assert_array_equal(scaled[0], y_hat)
    np.testing.assert_array_equal(scaled[1], np.ldexp(sigma, exponent))
    if exponent > -400:
        d = smoothness.gradient(np.ldexp(y, exponent), g, gamma)
        np.testing.assert_array_equal(np.ldexp(d, exponent), smoothness.gradient(y, g, gamma))
    start, optimum = rng.normal(size=(2, 5))
    distance = smoothness.distance_to_ray(start, optimum)
    other = smoothness.distance_to_ray(np.ldexp(start, exponent), np.ldexp(optimum, -exponent))
    assert other == pytest.approx(np.ldexp(distance, exponent), rel=8 * EPS, abs=0)


@settings(max_examples=60)
@given(seeds)
def test_the_square_of_a_deviation_may_underflow(seed):
    y, _, H, g, _ = random_loss(seed)
    tiny, gamma = np.ldexp(y, -565), np.ldexp(1.0, -500)
    no_g, no_H = 0 * g, 0 * H
    assert not smoothness.hessian(tiny, g, H, 0.0).any()
    assert not np.array(smoothness.curvature_along_gradient(tiny, g, H, 0.0)).any()
    # gamma / sigma grows by 2^65 and gamma / sigma^2 by 2^630, with which the terms are linear.
    through, own = smoothness.hessian(y, no_g, H, 1.0), smoothness.hessian(y, g, no_H, 1.0)
    found = smoothness.hessian(tiny, no_g, H, gamma), smoothness.hessian(tiny, g, no_H, gamma)
    rounded, (first, both) = rounding(y), sizes(y, 1.0, H, g)
    np.testing.assert_allclose(np.ldexp(found[0], -130), through, rtol=0, atol=rounded * both)
    np.testing.assert_allclose(np.ldexp(found[1], -630), own, rtol=0, atol=rounded * both)
    found = smoothness.curvature_along_gradient(tiny, g, H, gamma)
    expected = smoothness.curvature_along_gradient(y, g, H, 1.0)
    apart = np.abs(np.ldexp(found, [-260, -760, -130]) - expected)
    assert (apart <= rounded * first**2 * np.array([both, both, 1])).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 3e4])
def test_half_precision_is_computed_in_single(size):
    rng = np.random.default_rng(0)
    y = (size * rng.uniform(-1, 1, size=(50, 3))).astype(np.float16)
    g = (300 * rng.uniform(-1, 1, size=(50, 3))).astype(np.float16)
    gamma = np.array([0.5, 1.0, 2.0], np.float16)
    wide = [values.astype(np.float64) for values in (y, g, gamma)]
    y_hat, sigma = smoothness.normalise(y)
    assert y_hat.dtype == sigma.dtype == np.float16
    exact = smoothness.normalise(wide[0])
    # Fifty values are summed in single precision, and the result is rounded to half.
    summed = 4 * 50 * SINGLE
    np.testing.assert_allclose(y_hat, exact[0], rtol=HALF, atol=summed)
    np.testing.assert_allclose(sigma, exact[1], rtol=HALF)
    terms, exact = smoothness.squared_gradient(y, g, gamma), smoothness.squared_gradient(*wide)
    np.testing.assert_allclose(terms.passed, exact.passed, rtol=summed)
    assert {term.dtype for term in (*terms, terms.passed)} == {np.dtype(np.float32)}
    if size >= 1:
        d = smoothness.gradient(y, g, gamma)
        assert d.dtype == np.float16
        exact, finest = smoothness.gradient(*wide), np.finfo(np.float16).smallest_subnormal
        atol = summed * 600 / wide[0].std(axis=0).min() + finest
        np.testing.assert_allclose(d, exact, rtol=HALF, atol=atol)
    start, optimum = np.full(4, size, np.float16), np.array([1, 2, 3, 4], np.float16)
    exact = smoothness.distance_to_ray(start.astype(float), optimum.astype(float))
    assert smoothness.distance_to_ray(start, optimum) == pytest.approx(exact, rel=16 * EPS, abs=0)


def test_a_batch_of_two_has_no_slope_and_no_curvature():
    y, g, H = np.array([1.0, 4.0]), np.array([2.0, -0.5]), np.array([[1.0, 2.0], [2.0, -3.0]])
    slope = smoothness.gradient(y[:, None], g[:, None], np.array([1.5]))
    first, both = sizes(y, 1.5, H, g)
    assert np.abs(slope).max() <= rounding(y) * first
    assert np.abs(smoothness.hessian(y, g, H, 1.5)).max() <= rounding(y) * both


@given(seeds)
def test_features_do_not_mix(seed):
    rng = np.random.default_rng(seed)
    y, g, gamma = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)), rng.normal(size=3)
    together = smoothness.squared_gradient(y, g, gamma)
    for j in range(3):
        alone = smoothness.squared_gradient(y[:, [j]], g[:, [j]], gamma[[j]])
        rounded = 4 * len(y) * EPS * np.array([alone.factor[0], *3 * [alone.whole[0]]])
        apart = np.array([t[j] for t in together]) - np.array(alone)[:, 0]
        assert (np.abs(apart) <= rounded).all()


@given(seeds)
def test_the_second_derivatives_do_not_see_shift_and_scale(seed):
    y, gamma, H, g, _ = random_loss(seed)
    ours = smoothness.hessian(y, g, H, gamma)
    d = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))[:, 0]
    rounded = rounding(y) * sizes(y, gamma, H, g)[1]
    ones, centred = np.ones(len(y)), y - y.mean()
    assert np.abs(ours @ ones).max() <= rounded * np.linalg.norm(ones)
    assert np.abs(ours @ centred + d).max() <= rounded * np.linalg.norm(centred)


@given(seeds)
def test_a_normalised_loss_is_indefinite_where_it_has_a_slope(seed):
    y, gamma, H, g, _ = random_loss(seed)
    d = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))[:, 0]
    floor = np.linalg.norm(d) / np.linalg.norm(y - y.mean())
    eigenvalues = np.linalg.eigvalsh(smoothness.hessian(y, g, H @ H, gamma))
    size = np.abs(eigenvalues).max()
    assert size >= floor - rounding(y) * sizes(y, gamma, H @ H, g)[1]
    if floor > 1e-3 * size:
        assert eigenvalues[0] < 0 < eigenvalues[-1]


@given(seeds)
def test_the_mean_of_the_inputs_drops_out_of_the_curvature(seed):
    y, gamma, H, g, _ = random_loss(seed)
    X = np.random.default_rng(seed).normal(1.0, 1.0, size=(len(y), 3))
    centred = X - X.mean(axis=0)
    second = smoothness.hessian(y, g, H, gamma)
    rounded = rounding(y) * sizes(y, gamma, H, g)[1] * np.linalg.norm(X) ** 2
    ours, theirs = X.T @ second @ X, centred.T @ second @ centred
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounded)


@given(seeds)
def test_scaling_the_weights_scales_the_slope(seed):
    y, gamma, _, g, _ = random_loss(seed)
    before = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))
    after = smoothness.gradient(8 * y[:, None], g[:, None], np.array([gamma]))
    np.testing.assert_allclose(8 * after, before, rtol=8 * EPS)


@settings(max_examples=300)
@given(seeds)
def test_the_distance_to_the_ray_is_the_least_over_it(seed):
    rng = np.random.default_rng(seed)
    start, optimum = rng.normal(size=(2, int(rng.integers(1, 5))))
    found = smoothness.distance_to_ray(start, optimum)
    _, least = nnls(optimum[:, np.newaxis], start)
    length, reach = (np.linalg.norm(v) for v in (start, optimum))
    assert found == pytest.approx(least, abs=32 * EPS * length)
    square, product = optimum @ optimum, optimum @ start
    if product > 0:
        plain = (start - optimum) @ (start - optimum)
        expected = plain - (square - product) ** 2 / square
        assert found**2 == pytest.approx(expected, abs=32 * EPS * (length + reach) ** 2)


Y, G, GAMMA = np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1)), np.ones(1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: smoothness.normalise("a"), TypeError, "y is a str, expected a numpy.ndarray or a"),
        (lambda: smoothness.normalise(Y[:1]), ValueError, "expected at least 2"),
        (
            lambda: smoothness.normalise(Y[:, :, None]),
            ValueError,
            r"y has shape \(3, 1, 1\), expected \(batch, features\)",
        ),
        (
            lambda: smoothness.normalise(np.array([[1.0, 5.0], [2.0, 5.0]])),
            ValueError,
            r"y\[:, 1\] is constant, expected at least two different values",
        ),
        (
            lambda: smoothness.gradient(Y, G[:2], GAMMA),
            ValueError,
            r"g has shape \(2, 1\), expected \(3, 1\), that of y",
        ),
        (lambda: smoothness.gradient(Y, G * np.inf, GAMMA), ValueError, r"g\[0, 0\] is inf"),
        (
            lambda: smoothness.squared_gradient(Y, G, np.ones(2)),
            ValueError,
            r"gamma has shape \(2,\), expected \(1,\)",
        ),
        (
            lambda: smoothness.hessian(Y, G[:, 0], np.eye(3), 1.0),
            ValueError,
            r"y has shape \(3, 1\), expected \(batch,\): one feature",
        ),
        (
            lambda: smoothness.hessian(Y[:, 0], G[:, 0], np.eye(2), 1.0),
            ValueError,
            r"H has shape \(2, 2\), expected \(3, 3\)",
        ),
        (
            lambda: smoothness.hessian(Y[:, 0], G[:, 0], np.eye(3), "1"),
            TypeError,
            "gamma is a str, expected a real number",
        ),
        (
            lambda: smoothness.curvature_along_gradient(Y[:, 0], G[:, 0], np.eye(3) * np.nan, 1.0),
            ValueError,
            r"H\[0, 0\] is nan",
        ),
        (
            lambda: smoothness.hessian(Y[:, 0], G[:, 0], np.triu(np.ones((3, 3))), 1.0),
            ValueError,
            r"H\[0, 1\] is 1 and H\[1, 0\] is 0, expected a symmetric matrix",
        ),
        (
            lambda: smoothness.gradient(Y * 1e-200, G, GAMMA),
            ValueError,
            r"y\[:, 0\] has the deviation 1.25e-200, and gamma\^2 / sigma\^2 overflows float64",
        ),
        (
            lambda: smoothness.gradient([[1.0], [2.0, 3.0]], G, GAMMA),
            ValueError,
            "y is a list whose",
        ),
        (
            lambda: smoothness.gradient(torch.tensor(Y), G, GAMMA),
            TypeError,
            r"y is a torch Tensor, expected a numpy.ndarray: hand in y\.detach\(\)",
        ),
        (lambda: smoothness.gradient(Y, G, 1.0), TypeError, "gamma is a float, expected a numpy"),
        (
            lambda: smoothness.gradient(
                np.array([[1], [1.001], [1.002]], np.float16),
                np.array([[3e4], [-3e4], [3e4]], np.float16),
                np.array([10], np.float16),
            ),
            ValueError,
            r"g is as large as 3e\+04, and the gradient overflows float16, expected smaller arguments",
        ),
        (
            lambda: smoothness.gradient(Y, np.array([[1e308], [1e308], [-1e308]]), GAMMA),
            ValueError,
            "the gradient overflows float64",
        ),
        (
            lambda: smoothness.squared_gradient(Y, 1e200 * G, GAMMA),
            ValueError,
            r"g is as large as 1e\+200, and the squared gradient overflows float64",
        ),
        (
            lambda: smoothness.hessian(1e-300 * Y[:, 0], G[:, 0], np.eye(3), 1e-160),
            ValueError,
            "the second derivative overflows float64",
        ),
        (
            lambda: smoothness.curvature_along_gradient(Y[:, 0], 1e200 * Y[::-1, 0], np.eye(3), 1),
            ValueError,
            "the curvature overflows float64",
        ),
        (
            lambda: smoothness.distance_to_ray(np.ones(2), np.zeros(2)),
            ValueError,
            "optimum is zero, expected weights with a direction",
        ),
        (
            lambda: smoothness.distance_to_ray(np.ones(2), np.ones(3)),
            ValueError,
            r"optimum has shape \(3,\), expected \(2,\)",
        ),
        (
            lambda: smoothness.distance_to_ray(np.ones((2, 2)), np.ones(2)),
            ValueError,
            r"start has shape \(2, 2\), expected \(inputs,\)",
        ),
    ],
)
def test_errors_of_the_identities_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_lists_and_integers_are_taken():
    y, g, H = [[1.0, 4.0], [2.0, 1.0], [4.0, 2.0]], [[1, 0], [0, 2], [3, 1]], np.diag([1, 2, 3])
    arrays = np.array(y), np.array(g, float), np.array([1.0, 2.0])
    found = smoothness.gradient(y, g, [1, 2])
    np.testing.assert_array_equal(found, smoothness.gradient(*arrays))
    np.testing.assert_array_equal(smoothness.normalise(y)[0], smoothness.normalise(arrays[0])[0])
    column, slope = [1, 2, 4], [1, 0, 3]
    wide = np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.0, 3.0]), np.diag([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(
        smoothness.hessian(column, slope, H.tolist(), 2), smoothness.hessian(*wide, 2.0)
    )
    assert smoothness.distance_to_ray([3, 4], [1, 0]) == 4
    mixed = smoothness.gradient(np.float32(y), np.array(g), np.array([1.0, 2.0]))
    assert mixed.dtype == np.float32
    with pytest.raises(ValueError, match=r"g\[0, 0\] is 0.1, which float32 cannot hold exactly"):
        smoothness.gradient(np.float32(y), np.full((3, 2), 0.1), [1, 2])


def test_a_deviation_below_the_smallest_number_is_refused():
    y = np.zeros((64, 2), np.float16)
    y[:, 0] = np.arange(64)
    y[0, 1] = 6e-8
    with pytest.raises(ValueError, match=r"y\[:, 1\] varies so little .* smallest float16"):
        smoothness.normalise(y)
    assert np.isfinite(smoothness.normalise(y.astype(np.float32))[0]).all()


def test_a_distance_beyond_the_floats_is_refused():
    with pytest.raises(ValueError, match="distance from the ray leaves the range of floats"):
        smoothness.distance_to_ray(np.full(9, 1.7e308), np.array([1.0] + [0.0] * 8))


def test_one_point_gives_all_identities():
    y, gamma, H, g, _ = random_loss(3)
    loss = smoothness.OneFeature(y, g, H, gamma)
    d = loss.gradient[:, 0]
    second, terms = loss.hessian, loss.curvature_along_gradient
    rounded, (first, both) = rounding(y), sizes(y, gamma, H, g)
    assert terms.total == pytest.approx(d @ second @ d, abs=rounded * both * first**2)
    assert loss.squared_gradient.passed[0] == pytest.approx(d @ d, abs=rounded * first**2)
    np.testing.assert_array_equal(second, smoothness.hessian(y, g, H, gamma))
