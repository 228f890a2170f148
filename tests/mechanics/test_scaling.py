"""Scalings do what their formulas say, undo themselves, and refuse to divide by zero."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.mechanics import rank
from bncore.mechanics.scaling import (
    MinMax,
    PCAWhitening,
    Standardization,
    ZCAWhitening,
    condition_number,
    gradient_descent_rate,
)

SCALINGS = (MinMax, Standardization, PCAWhitening, ZCAWhitening)
WHITENINGS = (PCAWhitening, ZCAWhitening)
DTYPES = (np.float16, np.float32, np.float64)
EPS = float(np.finfo(np.float64).eps)
seeds = st.integers(0, 2**32 - 1)


def data(seed, samples=40, features=4, dtype=np.float64):
    """Correlated features of different scales and offsets."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(features, features)) + 2 * np.eye(features)
    scales = 10.0 ** rng.uniform(-1, 1, features)
    X = (rng.normal(size=(samples, features)) @ mixing + rng.normal(size=features)) * scales
    return X.astype(dtype)


def covariance(Z):
    return np.cov(Z, rowvar=False, ddof=0).reshape(Z.shape[1], Z.shape[1])


def exactly(X):
    """The entries as fractions, which lose nothing."""
    return np.vectorize(Fraction, otypes=[object])(X)


def standardized(X):
    """What standardisation is, with only the square root and the last division rounded."""
    X = exactly(X)
    centred = X - X.sum(axis=0) / len(X)
    variance = (centred**2).sum(axis=0) / len(X)
    unit = 2 ** np.array([Fraction(int(np.frexp(float(v))[1] // 2)) for v in variance])
    root = np.sqrt((variance / unit**2).astype(float))
    return (centred / unit).astype(float) / root


def whitening_error(X):
    """Rounding of whitened X: eps for each feature, times the condition of the scaled columns.

    The constant was at most 4 over thousands of draws.
    """
    centred = X - X.mean(axis=0)
    values = rank.of_data(centred - centred.mean(axis=0)).singular_values
    return 64 * X.shape[1] * EPS * values[0] / values[-1]


many = given(seed=seeds, samples=st.integers(10, 60), features=st.integers(1, 6))


@many
def test_min_max_is_its_formula_and_reaches_zero_and_one(seed, samples, features):
    X = data(seed, samples, features)
    Z = MinMax.fit(X).apply(X)
    exact = exactly(X)
    expected = (exact - exact.min(axis=0)) / (exact.max(axis=0) - exact.min(axis=0))
    np.testing.assert_allclose(Z, expected.astype(float), rtol=4 * EPS)
    np.testing.assert_array_equal(np.take_along_axis(Z, X.argmin(axis=0)[None], axis=0), 0)
    np.testing.assert_array_equal(np.take_along_axis(Z, X.argmax(axis=0)[None], axis=0), 1)


@settings(max_examples=30)
@many
def test_standardization_is_its_formula(seed, samples, features):
    X = data(seed, samples, features)
    # The mean and the variance sum one sample after the other.
    rounding = (samples + 8) * EPS
    Z = Standardization.fit(X).apply(X)
    np.testing.assert_allclose(Z, standardized(X), rtol=rounding, atol=rounding)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=rounding)
    np.testing.assert_allclose(Z.var(axis=0), 1, rtol=2 * rounding)


def test_the_mean_of_two_neighbouring_floats_lies_between_them():
    X = np.array([[1 + 1e-16], [1 - 1e-16]])
    np.testing.assert_allclose(Standardization.fit(X).apply(X), [[1], [-1]], rtol=4 * EPS)


@settings(max_examples=50)
@given(
    seed=seeds,
    samples=st.integers(2, 40),
    exponent=st.integers(-250, 250),
    spread=st.sampled_from([1, 2, 50]),
    dtype=st.sampled_from(DTYPES[1:]),
)
def test_data_a_few_units_of_rounding_apart_are_standardized_to_all_digits(
    seed, samples, exponent, spread, dtype
):
    rng = np.random.default_rng(seed)
    exponent = exponent if dtype == np.float64 else exponent // 10
    steps = rng.integers(0, spread + 1, samples)
    steps[:2] = [0, spread]
    X = np.ldexp(1 + steps * np.finfo(dtype).eps, exponent).astype(dtype)[:, np.newaxis]
    Z = Standardization.fit(X).apply(X)
    rounding = (samples + 8) * EPS + np.finfo(dtype).eps
    np.testing.assert_allclose(Z, standardized(X), rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(Standardization.fit(X).invert(Z), X)


@many
@pytest.mark.parametrize("scaling", WHITENINGS)
def test_whitening_gives_mean_zero_and_covariance_one(scaling, seed, samples, features):
    X = data(seed, samples, features)
    Z = scaling.fit(X).apply(X)
    rounding = whitening_error(X)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=rounding)
    np.testing.assert_allclose(covariance(Z), np.eye(features), rtol=0, atol=rounding)


def test_standardizing_each_feature_is_not_whitening():
    X = data(0)
    correlation = covariance(Standardization.fit(X).apply(X))
    np.testing.assert_allclose(correlation, np.corrcoef(X, rowvar=False), rtol=0, atol=100 * EPS)
    assert np.abs(correlation - np.eye(4)).max() > 0.1


@given(seed=seeds)
def test_pca_sorts_axes_by_variance(seed):
    X = data(seed)
    whitening = PCAWhitening.fit(X)
    spectrum = np.linalg.eigvalsh(covariance(X))[::-1]
    rounding = 100 * EPS * spectrum[0]
    np.testing.assert_allclose(whitening.scale**2, spectrum, rtol=0, atol=rounding)
    axes = whitening.axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), rtol=0, atol=32 * EPS)
    along = axes.T @ covariance(X) @ axes
    np.testing.assert_allclose(along, np.diag(spectrum), rtol=0, atol=rounding)
    assert (np.abs(axes).max(axis=0) == axes.max(axis=0)).all()


@given(seed=seeds, samples=st.integers(5, 60))
def test_the_sign_of_an_axis_does_not_hang_on_rounding(seed, samples):
    """Two standardised features always have the axes (1, 1) and (1, -1), up to length."""
    X = Standardization.fit(Z := data(seed, samples, features=2)).apply(Z)
    correlation = np.corrcoef(X, rowvar=False)[0, 1]
    order = [[1, 1], [1, -1]] if correlation > 0 else [[1, 1], [-1, 1]]
    expected = np.array(order) / np.sqrt(2)
    rounding = 100 * EPS * samples / min(abs(correlation), 1 - abs(correlation))
    for shuffled in (X, X[::-1], np.roll(X, 1, axis=0)):
        np.testing.assert_allclose(PCAWhitening.fit(shuffled).axes, expected, rtol=0, atol=rounding)


@given(seed=seeds)
def test_zca_is_the_symmetric_root_and_stays_closest_to_the_data(seed):
    X = data(seed)
    centred = X - X.mean(axis=0)
    values, vectors = np.linalg.eigh(covariance(X))
    root = vectors / np.sqrt(values) @ vectors.T
    Z = ZCAWhitening.fit(X).apply(X)
    # The root from the covariance loses as many digits as the covariance's condition has.
    rounding = 100 * EPS * values[-1] / values[0]
    np.testing.assert_allclose(Z, centred @ root, rtol=0, atol=rounding)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    distances = [np.square(other - centred).sum() for other in (Z, Z @ rotation)]
    assert distances[0] <= distances[1] * (1 + 1000 * EPS)


@given(seed=seeds)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_apply_keeps_train_statistics_and_invert_undoes_it(scaling, seed):
    train, test = data(seed), data(seed + 1)
    fitted = scaling.fit(train)
    both = fitted.apply(np.concatenate([train, test]))
    rounding = whitening_error(train) * np.abs(both).max()
    np.testing.assert_allclose(fitted.apply(test), both[len(train) :], rtol=0, atol=rounding)
    largest = np.abs(np.concatenate([train, test])).max()
    rounding = whitening_error(train) * (largest + np.abs(both).max() * np.ptp(train))
    np.testing.assert_allclose(fitted.invert(fitted.apply(test)), test, rtol=0, atol=rounding)


@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_eps_enters_as_in_batch_norm_and_is_undone_too(scaling):
    X = data(5)
    fitted = scaling.fit(X, eps=0.5)
    Z = fitted.apply(X)
    spectrum = X.var(axis=0) if scaling is Standardization else np.linalg.eigvalsh(covariance(X))
    shrunk = np.sort(spectrum / (spectrum + 0.5))
    got = Z.var(axis=0) if scaling is Standardization else np.linalg.eigvalsh(covariance(Z))
    rounding = 1000 * EPS
    np.testing.assert_allclose(np.sort(got), shrunk, rtol=rounding * spectrum.max())
    np.testing.assert_allclose(fitted.invert(Z), X, rtol=0, atol=rounding * np.abs(X).max())


@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_eps_sends_directions_without_variance_to_zero(scaling):
    X = data(6, samples=3, features=5)
    X[:, 2] = 7.3
    fitted = scaling.fit(X, eps=1e-3)
    Z = fitted.apply(X)
    assert np.isfinite(Z).all()
    # Rounding of the data's size, divided by the root of eps.
    rounding = 100 * EPS * np.abs(X).max() / 1e-3**0.5
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=rounding)
    np.testing.assert_allclose(fitted.invert(Z), X, rtol=0, atol=rounding)
    if scaling is Standardization:
        np.testing.assert_array_equal(Z[:, 2], 0)
    else:
        assert np.linalg.matrix_rank(Z, tol=rounding) == 2


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_dtype_and_memory_order_come_back(scaling, dtype, order):
    X = np.array(data(7), dtype=dtype, order=order)
    fitted = scaling.fit(X)
    for result in (fitted.apply(X), fitted.invert(X / 8)):
        assert result.dtype == dtype
        assert result.flags[f"{order}_CONTIGUOUS"]
        assert not result.flags["FC".replace(order, "") + "_CONTIGUOUS"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_odd_memory_gives_the_same_and_is_left_alone(scaling, dtype):
    X = np.round(data(7), 1).astype(dtype)
    strided = np.repeat(X, 2, axis=1)[::-1, ::2]
    strided.flags.writeable = False
    before = strided.copy()
    Z, same = (scaling.fit(x).apply(x).astype(float) for x in (strided, before))
    rounding = whitening_error(before.astype(float)) + np.finfo(dtype).eps
    np.testing.assert_allclose(Z, same, rtol=0, atol=rounding * np.abs(same).max())
    np.testing.assert_array_equal(strided, before)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_lists_and_integers_are_their_arrays_bit_for_bit(scaling):
    X = np.round(10 * data(9)).astype(int)
    fitted = scaling.fit(X)
    expected = fitted.apply(X.astype(float))
    assert expected.dtype == np.float64
    for same in (X, X.tolist(), X.astype(np.int16), tuple(X.tolist()), X.astype(">f8")):
        np.testing.assert_array_equal(scaling.fit(same).apply(same), expected)
        np.testing.assert_array_equal(fitted.invert(same), fitted.invert(X.astype(float)))
        assert condition_number(same) == condition_number(X.astype(float))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_data_of_apply_say_the_dtype_and_not_those_of_fit(scaling):
    fitted = scaling.fit(data(3))
    for dtype in DTYPES:
        X = data(3, dtype=dtype)
        Z = fitted.apply(X)
        assert Z.dtype == dtype
        expected = fitted.apply(X.astype(float))
        atol = np.finfo(dtype).eps * np.abs(expected).max()
        np.testing.assert_allclose(Z.astype(float), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_no_samples_are_scaled_to_none(scaling):
    fitted = scaling.fit(data(3))
    for call in (fitted.apply, fitted.invert):
        assert call(np.ones((0, 4), np.float32)).shape == (0, 4)


def test_zero_stride_data_are_scaled_like_their_copy():
    X = np.broadcast_to(data(8)[:, :1], (40, 3))
    for scaling in (MinMax, Standardization):
        Z = scaling.fit(X).apply(X)
        same = scaling.fit(X.copy()).apply(X.copy())
        np.testing.assert_allclose(Z, same, rtol=48 * EPS, atol=48 * EPS)


def test_half_precision_does_not_overflow_in_the_statistics():
    X = np.array([[-65504.0], [65504.0]], np.float16)
    np.testing.assert_array_equal(MinMax.fit(X).apply(X), [[0], [1]])
    np.testing.assert_array_equal(Standardization.fit(X).apply(X), [[-1], [1]])


@given(seed=seeds, power=st.integers(-300, 300))
def test_units_change_no_decision_and_nothing_that_standardization_returns(seed, power):
    X = data(seed)
    factors = 10.0 ** np.array([0, power, -power, power // 2])
    Z, again = (Standardization.fit(x).apply(x) for x in (X, X * factors))
    # The products round once, which weighs as much more as the data lie further from 0.
    offset = np.abs(X).max() / X.std(axis=0).min()
    np.testing.assert_allclose(again, Z, rtol=100 * EPS, atol=100 * EPS * offset)
    np.testing.assert_array_equal(MinMax.fit(X * factors).apply(X * factors).max(axis=0), 1)
    if abs(power) <= 70:  # beyond, the ratio of eigenvalues is more than float64 can hold
        assert np.isfinite(condition_number(X * factors))


@settings(max_examples=50)
@given(seed=seeds, powers=st.lists(st.integers(-8, 8), min_size=4, max_size=4))
@pytest.mark.parametrize("scaling", WHITENINGS)
def test_whitening_whitens_columns_sixteen_orders_of_magnitude_apart(scaling, seed, powers):
    X = data(seed) * 10.0 ** np.array(powers)
    Z = scaling.fit(X).apply(X)
    # The rotations then cost up to two digits more.
    rounding = 100 * whitening_error(X)
    np.testing.assert_allclose(covariance(Z), np.eye(4), rtol=0, atol=rounding)


@given(seed=seeds, powers=st.lists(st.integers(-8, 8), min_size=4, max_size=4))
@pytest.mark.parametrize("dtype", DTYPES)
def test_dependent_columns_are_found_in_every_sample_and_in_any_units(dtype, seed, powers):
    A = np.random.default_rng(seed).normal(size=(500, 3)).astype(dtype)
    X = np.column_stack([A, A.sum(axis=1)])
    if dtype != np.float16:
        X = (X * 10.0 ** np.array(powers)).astype(dtype)
    assert condition_number(X) == np.inf
    for scaling in WHITENINGS:
        with pytest.raises(ValueError, match="varies in 3 directions only, expected all 4"):
            scaling.fit(X)


@given(seed=seeds)
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_that_sum_to_one_depend_once_centred(dtype, seed):
    labels = np.random.default_rng(seed).permutation(np.arange(30) % 3)
    X = np.eye(3, dtype=dtype)[labels]
    assert condition_number(X) == pytest.approx(1, rel=100 * EPS, abs=0)
    with pytest.raises(ValueError, match="varies in 2 directions only, expected all 3"):
        ZCAWhitening.fit(X)


@many
def test_condition_number_is_the_ratio_of_eigenvalues(seed, samples, features):
    X = data(seed, samples, features)
    values = np.linalg.eigvalsh(X.T @ X / samples)
    kappa = values[-1] / values[0]
    # The eigenvalues of the product lose as many digits as kappa has.
    rounding = 10 * (samples + features) * EPS * kappa
    np.testing.assert_allclose(condition_number(X), kappa, rtol=rounding)


@given(seed=seeds, exponent=st.integers(-1000, 900))
def test_condition_number_ignores_one_scale_for_all_and_rotation(seed, exponent):
    X = data(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    kappa = condition_number(X)
    rounding = 100 * EPS * np.sqrt(kappa)
    np.testing.assert_allclose(condition_number(X * 2.0**exponent), kappa, rtol=rounding)
    np.testing.assert_allclose(condition_number(X @ rotation), kappa, rtol=rounding)


@pytest.mark.parametrize("scales", [[1, 1e-3, 1e-6], [1e8, 1, 1e-8], [1e-70, 1e70, 1]])
def test_condition_number_survives_where_the_product_loses_all_digits(scales):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(30, 3)))
    expected = (max(scales) / min(scales)) ** 2
    np.testing.assert_allclose(condition_number(basis * scales), expected, rtol=100 * EPS)


def test_a_million_samples_in_single_precision_are_not_too_many():
    """Right is 99.95: more data must not make the features dependent."""
    X = np.random.default_rng(0).normal(size=(1_000_000, 2)) * [1, 0.1]
    X = X.astype(np.float32)
    values = np.linalg.eigvalsh(X.T.astype(float) @ X.astype(float))
    kappa = condition_number(X)
    assert kappa == pytest.approx(values[1] / values[0], rel=1e5 * EPS, abs=0)
    assert kappa == pytest.approx(99.95, abs=0.005)
    Z = ZCAWhitening.fit(X).apply(X)
    assert Z.dtype == np.float32
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(covariance(Z.astype(float)), np.eye(2), rtol=0, atol=eps)


@pytest.mark.parametrize(
    "X",
    [
        np.eye(3)[:2],
        np.ones((5, 2)),
        np.zeros((5, 2)),
        np.repeat(data(0), 2, axis=1),
        np.repeat(data(0), 2, axis=1).astype(np.float32) @ np.ones((8, 8), np.float32),
        data(0)[:, :2] * [1e-160, 1e160],
    ],
)
def test_condition_number_of_a_singular_matrix_is_infinite(X):
    assert condition_number(X) == float("inf")


@many
def test_whitened_data_have_condition_number_one(seed, samples, features):
    X = data(seed, samples, features)
    kappa = condition_number(ZCAWhitening.fit(X).apply(X))
    np.testing.assert_allclose(kappa, 1, rtol=2 * features * whitening_error(X))


@many
def test_centring_shrinks_both_ends_and_with_an_intercept_never_hurts(seed, samples, features):
    X = data(seed, samples, features)
    centred = X - X.mean(axis=0)
    before, after = (np.linalg.eigvalsh(A.T @ A / samples) for A in (X, centred))
    rounding = 10 * (samples + features) * EPS
    assert (after <= before + rounding * before[-1]).all()
    ones = np.ones((samples, 1))
    with_intercept = [condition_number(np.hstack([ones, A])) for A in (X, centred)]
    assert with_intercept[1] <= with_intercept[0] * (1 + rounding * np.sqrt(with_intercept[0]))


def test_centring_without_an_intercept_can_hurt():
    X = np.array([[3.0, 0.1], [-3.0, 0.1], [3.0, 0.2], [-3.0, 0.2]])
    X[:, 1] += 3
    assert condition_number(X - X.mean(axis=0)) > 100 * condition_number(X)


def descend(hessian, step, start, steps):
    errors = [start]
    for _ in range(steps):
        errors.append(errors[-1] - step * hessian @ errors[-1])
    return np.linalg.norm(errors, axis=1)


@given(seed=seeds)
@pytest.mark.parametrize("step", ["best", "1/lambda_max"])
def test_gradient_descent_contracts_by_the_rate_and_attains_it(step, seed):
    X = data(seed)
    hessian = X.T @ X / len(X)
    values, vectors = np.linalg.eigh(hessian)
    size = {"best": 2 / (values[0] + values[-1]), "1/lambda_max": 1 / values[-1]}[step]
    rate = gradient_descent_rate(condition_number(X), step)
    # Where the error has become small, the products round at the size of the start.
    rounding = 100 * EPS
    random = descend(hessian, size, np.random.default_rng(seed).normal(size=4), 20)
    assert (random[1:] <= rate * random[:-1] + rounding * random[0]).all()
    worst = descend(hessian, size, vectors[:, 0], 5)
    np.testing.assert_allclose(worst[1:], rate * worst[:-1], rtol=0, atol=rounding)


def test_no_constant_step_beats_the_best_rate():
    values = np.array([1.0, 3.0, 50.0])
    steps, apart = np.linspace(0, 0.1, 2001, retstep=True)
    rates = [np.abs(1 - step * values).max() for step in steps]
    assert min(rates) >= gradient_descent_rate(50.0) - 4 * EPS
    # The best step lies at most half a spacing from one that was tried.
    assert gradient_descent_rate(50.0) >= min(rates) - values.max() * apart / 2 - 4 * EPS


def test_rates_at_both_ends():
    assert gradient_descent_rate(1) == 0
    assert gradient_descent_rate(1.0, "1/lambda_max") == 0
    assert gradient_descent_rate(float("inf")) == 1
    assert gradient_descent_rate(float("inf"), "1/lambda_max") == 1
    assert gradient_descent_rate(3.0) == 0.5


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([["a", "b"]], TypeError, "X is a list of <U1, expected real numbers"),
        (np.ones((2, 2), bool), TypeError, "X has dtype bool, expected real numbers"),
        (torch.ones(2, 2), TypeError, r"X is a torch Tensor.* hand in X\.detach\(\)\.numpy"),
        (np.ones(3), ValueError, r"X has shape \(3,\), expected 2 axes"),
        (np.array([[1, np.nan]]), ValueError, r"X\[0, 1\] is nan, expected finite values"),
        (np.array([[np.inf, 1]]), ValueError, r"X\[0, 0\] is inf, expected finite values"),
    ],
)
def test_bad_data_are_refused_everywhere(unchecked, scaling, X, error, message):
    fitted = scaling.fit(data(0, features=2))
    for call in (scaling.fit, fitted.apply, condition_number):
        with pytest.raises(error, match=message):
            call(X)
    with pytest.raises(error, match=message.replace("X", "Z")):
        fitted.invert(X)


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
@pytest.mark.parametrize("call", [*(scaling.fit for scaling in SCALINGS), condition_number])
def test_nothing_can_be_learnt_from_empty_data(call, shape):
    message = rf"X has shape \({shape[0]}, {shape[1]}\), expected at least one sample and feature"
    with pytest.raises(ValueError, match=message):
        call(np.ones(shape))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_other_features_than_in_fit_are_refused(unchecked, scaling):
    fitted = scaling.fit(data(0))
    for name, call in (("X", fitted.apply), ("Z", fitted.invert)):
        with pytest.raises(ValueError, match=f"{name} has 1 features, expected 4: as many as the"):
            call(data(0)[:, :1])


@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, 0.0])
def test_constant_features_are_refused(value):
    X = data(0, samples=7)
    X[:, 2] = value
    for scaling, reason in ((MinMax, "divides by the range"), (Standardization, "set eps > 0")):
        with pytest.raises(ValueError, match=rf"feature 2 of X is constant at .*{reason}"):
            scaling.fit(X)
    for scaling in WHITENINGS:
        with pytest.raises(ValueError, match="varies in 3 directions only, expected all 4"):
            scaling.fit(X)


@pytest.mark.parametrize("size", [1e-200, 1e200, 1e-307, 1.7e308])
def test_squares_beyond_float64_do_not_matter(size):
    X = np.array([[-1.0], [1.0], [0.5], [-0.5]]) * size
    Z = Standardization.fit(X).apply(X)
    np.testing.assert_allclose(Z, standardized(X / size), rtol=8 * EPS)
    for scaling in WHITENINGS:
        np.testing.assert_allclose(scaling.fit(X).apply(X), Z, rtol=16 * EPS)
    assert condition_number(X) == pytest.approx(1, rel=100 * EPS, abs=0)


def test_what_leaves_the_range_of_the_dtype_is_refused_in_words():
    wide = np.array([[1.7e308], [-1.7e308]])
    for X, scaling in (
        (wide, MinMax),
        (abs(wide) - [[0], [1e300]], Standardization),
        (abs(wide) - [[0], [1e300]], PCAWhitening),
    ):
        with pytest.raises(ValueError, match=r"feature 0 of X runs from .*divide it by a constant"):
            scaling.fit(X)
    small = np.array([[1e-3], [2e-3]], np.float16)
    for scaling in SCALINGS:
        fitted = scaling.fit(small)
        with pytest.raises(ValueError, match=r"Z\[0, 0\] is .*, beyond the largest float16"):
            fitted.apply(np.full((1, 1), 6e4, np.float16))
        fitted = scaling.fit(6e4 * np.array([[-1], [1]], np.float16))
        with pytest.raises(ValueError, match=r"X\[0, 0\] is .*, beyond the largest float16"):
            fitted.invert(np.full((1, 1), 6e4, np.float16))


def test_deviations_below_the_normal_floats_are_refused():
    X = np.array([[0.0], [1e-310]])
    with pytest.raises(ValueError, match="feature 0 of X varies by 5e-311 only at 0, expected"):
        Standardization.fit(X)
    for scaling in WHITENINGS:
        with pytest.raises(ValueError, match="varies in 0 directions only, expected all 1"):
            scaling.fit(X)


@pytest.mark.parametrize("scaling", WHITENINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dependent_features_are_refused(scaling, dtype):
    X = data(0, dtype=dtype)
    for dependent in (
        X[:4],
        np.hstack([X, X[:, :1]]),
        np.hstack([X, X[:, :1] - 3 * X[:, 1:2]]),
    ):
        with pytest.raises(ValueError, match=r"X, of shape .*set eps > 0, drop dependent features"):
            scaling.fit(dependent)


@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_bad_eps_is_refused(unchecked, scaling):
    with pytest.raises(ValueError, match=r"eps is -1\.0, expected a finite number of at least 0"):
        scaling.fit(data(0), eps=-1.0)
    with pytest.raises(TypeError, match="eps is a str, expected a real number"):
        scaling.fit(data(0), eps="1e-5")


@pytest.mark.parametrize("kappa", [0.5, -1.0, float("nan")])
def test_impossible_condition_numbers_are_refused(kappa):
    with pytest.raises(ValueError, match=f"condition_number is {kappa}, expected at least 1"):
        gradient_descent_rate(kappa)


def test_bad_rate_arguments_are_refused(unchecked):
    with pytest.raises(TypeError, match="condition_number is a ndarray, expected a real number"):
        gradient_descent_rate(data(0))
    with pytest.raises(ValueError, match=r"step is '2/L', expected \"best\""):
        gradient_descent_rate(2.0, "2/L")
