"""Scalings do what their formulas say, undo themselves, and refuse to divide by zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def data(seed, samples=40, features=4, dtype=np.float64):
    """Correlated features of different scales and offsets."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(features, features)) + 2 * np.eye(features)
    scales = 10.0 ** rng.uniform(-1, 1, features)
    X = (rng.normal(size=(samples, features)) @ mixing + rng.normal(size=features)) * scales
    return X.astype(dtype)


def covariance(Z):
    return np.cov(Z, rowvar=False, ddof=0).reshape(Z.shape[1], Z.shape[1])


many = given(
    seed=st.integers(0, 2**32 - 1), samples=st.integers(10, 60), features=st.integers(1, 6)
)


@many
def test_min_max_reaches_zero_and_one_and_is_monotone(seed, samples, features):
    X = data(seed, samples, features)
    Z = MinMax.fit(X).apply(X)
    np.testing.assert_array_equal(Z.min(axis=0), 0)
    np.testing.assert_array_equal(Z.max(axis=0), 1)
    np.testing.assert_array_equal(Z.argsort(axis=0), X.argsort(axis=0))
    slope = (Z[0] - Z[1]) / (X[0] - X[1])
    np.testing.assert_allclose(slope, 1 / np.ptp(X, axis=0), rtol=1e-6)


@many
def test_standardization_gives_mean_zero_and_variance_one(seed, samples, features):
    X = data(seed, samples, features)
    Z = Standardization.fit(X).apply(X)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(Z.var(axis=0), 1, rtol=1e-12)


@many
@pytest.mark.parametrize("scaling", WHITENINGS)
def test_whitening_gives_mean_zero_and_covariance_one(scaling, seed, samples, features):
    X = data(seed, samples, features)
    Z = scaling.fit(X).apply(X)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(covariance(Z), np.eye(features), atol=1e-9)


def test_standardizing_each_feature_is_not_whitening():
    X = data(0)
    correlation = covariance(Standardization.fit(X).apply(X))
    np.testing.assert_allclose(correlation, np.corrcoef(X, rowvar=False), atol=1e-12)
    assert np.abs(correlation - np.eye(4)).max() > 0.1


def test_pca_sorts_axes_by_variance_and_fixes_their_signs():
    X = data(3)
    whitening = PCAWhitening.fit(X)
    variance = np.linalg.eigvalsh(covariance(X))[::-1]
    np.testing.assert_allclose(whitening.scale**2, variance, rtol=1e-9)
    np.testing.assert_allclose(whitening.axes.T @ whitening.axes, np.eye(4), atol=1e-12)
    mirrored = PCAWhitening.fit(X[::-1])
    np.testing.assert_allclose(whitening.axes, mirrored.axes, atol=1e-9)
    assert (np.abs(whitening.axes).max(axis=0) == whitening.axes.max(axis=0)).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_zca_is_the_symmetric_root_and_stays_closest_to_the_data(seed):
    X = data(seed)
    centred = X - X.mean(axis=0)
    values, vectors = np.linalg.eigh(covariance(X))
    root = vectors / np.sqrt(values) @ vectors.T
    Z = ZCAWhitening.fit(X).apply(X)
    np.testing.assert_allclose(Z, centred @ root, atol=1e-6)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    assert np.square(Z - centred).sum() <= np.square(Z @ rotation - centred).sum()


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("scaling", SCALINGS)
def test_apply_keeps_train_statistics_and_invert_undoes_it(scaling, seed):
    train, test = data(seed), data(seed + 1)
    fitted = scaling.fit(train)
    both = fitted.apply(np.concatenate([train, test]))
    np.testing.assert_allclose(fitted.apply(test), both[len(train) :], atol=1e-9)
    np.testing.assert_allclose(fitted.invert(fitted.apply(test)), test, atol=1e-9)


@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_eps_enters_as_in_batch_norm_and_is_undone_too(scaling):
    X = data(5)
    fitted = scaling.fit(X, eps=0.5)
    Z = fitted.apply(X)
    spectrum = X.var(axis=0) if scaling is Standardization else np.linalg.eigvalsh(covariance(X))
    shrunk = np.sort(spectrum / (spectrum + 0.5))
    got = Z.var(axis=0) if scaling is Standardization else np.linalg.eigvalsh(covariance(Z))
    np.testing.assert_allclose(np.sort(got), shrunk, rtol=1e-9)
    np.testing.assert_allclose(fitted.invert(Z), X, atol=1e-9)


@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_eps_sends_directions_without_variance_to_zero(scaling):
    X = data(6, samples=3, features=5)
    X[:, 2] = 7.3
    fitted = scaling.fit(X, eps=1e-3)
    Z = fitted.apply(X)
    assert np.isfinite(Z).all()
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(fitted.invert(Z), X, atol=1e-9)
    if scaling is Standardization:
        np.testing.assert_array_equal(Z[:, 2], 0)
    else:
        assert np.linalg.matrix_rank(Z, tol=1e-9) == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_dtype_comes_back_and_odd_memory_is_left_alone(scaling, dtype):
    X = np.round(data(7), 1).astype(dtype)
    wide = np.repeat(X, 2, axis=1)
    strided = wide[::-1, ::2]
    strided.flags.writeable = False
    before = strided.copy()
    Z = scaling.fit(strided).apply(strided)
    assert Z.dtype == dtype
    assert scaling.fit(strided).invert(Z).dtype == dtype
    np.testing.assert_array_equal(Z, scaling.fit(before).apply(before))
    np.testing.assert_array_equal(strided, before)


def test_zero_stride_data_are_scaled_like_their_copy():
    X = np.broadcast_to(data(8)[:, :1], (40, 3))
    for scaling in (MinMax, Standardization):
        Z = scaling.fit(X).apply(X)
        np.testing.assert_array_equal(Z, scaling.fit(X.copy()).apply(X.copy()))


@given(seed=st.integers(0, 2**32 - 1))
def test_an_offset_of_1e8_deviations_costs_standardization_no_more_than_the_data_lost(seed):
    rng = np.random.default_rng(seed)
    deviations = rng.integers(-8, 9, size=(64, 3)).astype(np.float64)
    deviations[:2] = [[-8] * 3, [8] * 3]
    Z = Standardization.fit(deviations + 1e8).apply(deviations + 1e8)
    np.testing.assert_allclose(Z, Standardization.fit(deviations).apply(deviations), atol=1e-7)
    assert np.abs(Z.var(axis=0) - 1).max() < 1e-12


def test_half_precision_does_not_overflow_in_the_statistics():
    X = np.array([[-65504.0], [65504.0]], np.float16)
    np.testing.assert_array_equal(MinMax.fit(X).apply(X), [[0], [1]])
    np.testing.assert_array_equal(Standardization.fit(X).apply(X), [[-1], [1]])


@many
def test_condition_number_is_the_ratio_of_eigenvalues(seed, samples, features):
    X = data(seed, samples, features)
    values = np.linalg.eigvalsh(X.T @ X / samples)
    np.testing.assert_allclose(condition_number(X), values[-1] / values[0], rtol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-20, 20))
def test_condition_number_ignores_one_scale_for_all_and_rotation(seed, exponent):
    X = data(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    kappa = condition_number(X)
    np.testing.assert_allclose(condition_number(X * 2.0**exponent), kappa, rtol=1e-12)
    np.testing.assert_allclose(condition_number(X @ rotation), kappa, rtol=1e-6)


def test_condition_number_survives_where_the_product_loses_all_digits():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(30, 3)))
    np.testing.assert_allclose(condition_number(basis * [1, 1e-3, 1e-6]), 1e12, rtol=1e-8)


@pytest.mark.parametrize(
    "X",
    [
        np.eye(3)[:2],
        np.ones((5, 2)),
        np.zeros((5, 2)),
        np.repeat(data(0), 2, axis=1),
        np.repeat(data(0), 2, axis=1).astype(np.float32) @ np.ones((8, 8), np.float32),
    ],
)
def test_condition_number_of_a_singular_matrix_is_infinite(X):
    assert condition_number(X) == float("inf")


@many
def test_whitened_data_have_condition_number_one(seed, samples, features):
    X = data(seed, samples, features)
    np.testing.assert_allclose(condition_number(ZCAWhitening.fit(X).apply(X)), 1, rtol=1e-6)


@many
def test_centring_shrinks_both_ends_and_with_an_intercept_never_hurts(seed, samples, features):
    X = data(seed, samples, features)
    centred = X - X.mean(axis=0)
    before, after = (np.linalg.eigvalsh(A.T @ A / samples) for A in (X, centred))
    assert (after <= before * (1 + 1e-9) + 1e-12).all()
    ones = np.ones((samples, 1))
    with_intercept = [condition_number(np.hstack([ones, A])) for A in (X, centred)]
    assert with_intercept[1] <= with_intercept[0] * (1 + 1e-9)


def test_centring_without_an_intercept_can_hurt():
    X = np.array([[3.0, 0.1], [-3.0, 0.1], [3.0, 0.2], [-3.0, 0.2]])
    X[:, 1] += 3
    assert condition_number(X - X.mean(axis=0)) > 100 * condition_number(X)


def descend(hessian, step, start, steps):
    errors = [start]
    for _ in range(steps):
        errors.append(errors[-1] - step * hessian @ errors[-1])
    return np.linalg.norm(errors, axis=1)


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("step", ["best", "1/lambda_max"])
def test_gradient_descent_contracts_by_the_rate_and_attains_it(step, seed):
    X = data(seed)
    hessian = X.T @ X / len(X)
    values, vectors = np.linalg.eigh(hessian)
    size = {"best": 2 / (values[0] + values[-1]), "1/lambda_max": 1 / values[-1]}[step]
    rate = gradient_descent_rate(condition_number(X), step)
    random = descend(hessian, size, np.random.default_rng(seed).normal(size=4), 20)
    assert (random[1:] <= rate * random[:-1] * (1 + 1e-9)).all()
    worst = descend(hessian, size, vectors[:, 0], 5)
    np.testing.assert_allclose(worst[1:], rate * worst[:-1], rtol=1e-6)


def test_no_constant_step_beats_the_best_rate():
    values = np.array([1.0, 3.0, 50.0])
    rates = [np.abs(1 - step * values).max() for step in np.linspace(0, 0.1, 2001)]
    assert min(rates) >= gradient_descent_rate(50.0) > min(rates) - 1e-3


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
        ([[1.0]], TypeError, "X is a list, expected a plain numpy.ndarray"),
        (np.ones((2, 2), int), TypeError, "X has dtype int64, expected float16"),
        (np.ones(3), ValueError, r"X has shape \(3,\), expected \(samples, features\)"),
        (np.ones((0, 2)), ValueError, r"X has shape \(0, 2\), expected at least one sample"),
        (np.ones((2, 0)), ValueError, r"X has shape \(2, 0\), expected at least one sample"),
        (np.array([[1, np.nan]]), ValueError, r"X\[0, 1\] is nan, expected finite values"),
        (np.array([[np.inf, 1]]), ValueError, r"X\[0, 0\] is inf, expected finite values"),
    ],
)
def test_bad_data_are_refused_everywhere(unchecked, scaling, X, error, message):
    fitted = scaling.fit(data(0, features=2))
    for call in (scaling.fit, fitted.apply, condition_number):
        with pytest.raises(error, match=message):
            call(X)
    with pytest.raises(error, match=message.replace("X", "Z", 1)):
        fitted.invert(X)


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


def test_a_feature_too_flat_to_square_is_refused():
    with pytest.raises(ValueError, match="feature 0 of X is constant at 0, expected values"):
        Standardization.fit(np.array([[0.0], [1e-200]]))


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
