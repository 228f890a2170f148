"""Gradient descent on least squares runs as its eigenvalues foretell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from bncore.chapters.mechanics.scaling import experiments
from bncore.mechanics import scaling

EPS = np.finfo(np.float64).eps
STOP = 1e-10  # Newton's method stops after a step so short, and the search at such differences.
MISSED = 1e-3  # What a search without derivatives may leave of a condition number.
seeds = st.integers(0, 10_000)


def data(seed, features=4, samples=30):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(samples, features)) * np.exp(rng.normal(size=features))
    return X, rng.normal(size=samples)


def spd(seed, size):
    root = np.random.default_rng(seed).normal(size=(size, size + 2))
    return root @ root.T


@given(seeds)
def test_descent_takes_the_steps_of_torch_sgd(seed):
    X, y = data(seed)
    step = experiments.best_step(X)
    start = np.random.default_rng(seed).normal(size=4)
    weight = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=step)
    wanted = [start]
    for _ in range(5):
        optimiser.zero_grad()
        loss = (torch.tensor(X) @ weight - torch.tensor(y)).square().mean() / 2
        loss.backward()
        optimiser.step()
        wanted.append(weight.detach().numpy().copy())
    rounding = 5 * len(X) * EPS * (1 + np.abs(wanted).max())
    found = experiments.descend(X, y, step, 5, start)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rounding)


@given(seeds)
def test_the_excess_loss_is_the_loss_less_its_minimum(seed):
    X, y = data(seed)
    W = np.random.default_rng(seed).normal(size=(3, 4))

    def loss(w):
        return np.square(X @ w - y).mean() / 2

    least = loss(np.linalg.lstsq(X, y)[0])
    losses = np.array([loss(w) for w in W])
    rounding = 2 * len(X) * EPS * losses.max()
    found = experiments.excess_loss(X, y, W)
    np.testing.assert_allclose(found, losses - least, rtol=0, atol=rounding)


@given(seeds)
def test_the_foretold_excess_loss_is_the_measured_one(seed):
    X, y = data(seed)
    step = experiments.best_step(X)
    measured = experiments.excess_loss(X, y, experiments.descend(X, y, step, 40))
    foretold = experiments.foretold_excess_loss(X, y, step, np.arange(41.0))
    # 40 steps, whose factors are squared. Eigenvalues are off by the rounding of the largest, which
    # the weights' squares multiply.
    weights, largest = np.linalg.lstsq(X, y)[0], np.linalg.norm(X, 2) ** 2 / len(X)
    rounding = 10 * EPS * (2 * 40 * measured[0] + largest * (weights @ weights))
    np.testing.assert_allclose(foretold, measured, rtol=0, atol=rounding)


@given(seeds)
def test_descent_from_the_worst_start_attains_the_rate(seed):
    X, y = data(seed)
    values, vectors = np.linalg.eigh(X.T @ X / len(X))
    optimum = np.linalg.lstsq(X, y)[0]
    start = optimum + vectors[:, 0] + vectors[:, -1]
    W = experiments.descend(X, y, experiments.best_step(X), 8, start)
    errors = np.linalg.norm(W - optimum, axis=1)
    kappa = values[-1] / values[0]
    rate = scaling.gradient_descent_rate(kappa)
    rounding = len(X) * EPS * kappa * (1 + np.abs(optimum).max())
    np.testing.assert_allclose(errors, errors[0] * rate ** np.arange(9), rtol=0, atol=rounding)
    steps = experiments.steps_to_shrink(rate, errors[0] / errors[-1])
    assert steps == pytest.approx(8, abs=rounding / errors[-1] / -np.log(rate))


@given(seeds)
def test_with_a_copied_column_the_loss_keeps_the_rate_of_the_eigenvalues_above_zero(seed):
    X, y = data(seed)
    copied = np.column_stack([X, X[:, seed % 4]])
    values = np.linalg.eigvalsh(copied.T @ copied / len(X))[1:]
    loss = experiments.excess_loss(copied, y, experiments.descend(copied, y, 1 / values[-1], 200))
    bound = (1 - values[0] / values[-1]) ** (2.0 * np.arange(201))
    # Eigenvalues are off by the rounding of the largest, in each of 200 steps whose factors are squared.
    rounding = 2 * 200 * len(X) * EPS
    assert (loss <= loss[0] * (bound + rounding)).all()


def test_an_intercept_is_a_column_of_ones():
    X, _ = data(0)
    np.testing.assert_array_equal(experiments.with_intercept(X)[:, 0], 1)
    np.testing.assert_array_equal(experiments.with_intercept(X)[:, 1:], X)


@given(seeds, st.integers(2, 6))
def test_the_condition_is_numpys(seed, size):
    H = spd(seed, size)
    kappa = np.linalg.cond(H)
    assert experiments.condition(H) == pytest.approx(kappa, rel=4 * size * EPS * kappa, abs=0)


@given(seeds)
def test_two_features_are_best_scaled_to_equal_variances(seed):
    H = spd(seed, 2)
    best, d = experiments.best_diagonal_scaling(H)
    variances = np.square(d) * np.diag(H)
    # Near a minimum the search cannot tell points that lie closer than the root of STOP.
    assert variances[0] == pytest.approx(variances[1], rel=10 * STOP**0.5, abs=0)
    assert np.prod(d) == pytest.approx(1, rel=8 * EPS, abs=0)
    rounding = 8 * EPS * best
    assert experiments.condition(d[:, None] * H * d) == pytest.approx(best, rel=rounding, abs=0)


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_scaling_lies_within_the_bounds_of_van_der_sluis(seed, size):
    H = spd(seed, size)
    d = 1 / np.sqrt(np.diag(H))
    unit = d[:, None] * H * d
    smallest, _ = experiments.extreme_eigenvalues(unit)
    best, found = experiments.best_diagonal_scaling(H)
    rounding = 4 * size * EPS * experiments.condition(unit)
    assert 1 / smallest <= best * (1 + rounding)
    assert best <= experiments.condition(unit) * (1 + rounding)
    rng = np.random.default_rng(seed)
    for _ in range(200):
        other = found * np.exp(0.1 * rng.normal(size=size))
        assert experiments.condition(other[:, None] * H * other) >= best * (1 - MISSED)


@pytest.mark.parametrize("features", [3, 5, 20])
def test_standardising_idle_features_makes_the_condition_worse(features):
    H = experiments.idle_features(features)
    d = 1 / np.sqrt(np.diag(H))
    unit = d[:, None] * H * d
    rounding = 4 * features * EPS * np.trace(unit)
    assert np.linalg.eigvalsh(unit)[0] == pytest.approx(0.01, abs=rounding)
    assert experiments.condition(H) < 0.8 * experiments.condition(unit)


@given(seeds)
def test_the_logistic_optimum_is_that_of_torch(seed):
    X, _ = data(seed, features=2, samples=80)
    X = scaling.Standardization.fit(X).apply(X)
    labels = (np.random.default_rng(seed).random(80) < 0.5).astype(float)
    w, H = experiments.logistic_optimum(X, labels)

    def loss(weight):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            torch.tensor(X) @ weight, torch.tensor(labels)
        )

    weight = torch.tensor(w, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(weight), weight)
    # Newton's steps are squared from one to the next, so that rounding alone is left.
    rounding, largest = len(X) * EPS, np.abs(X).max()
    np.testing.assert_allclose(gradient, 0, atol=rounding * largest)
    hessian = torch.autograd.functional.hessian(loss, weight)
    # H is taken before the last step; the third derivative of the loss is at most 1/10.
    last = STOP * (1 + np.abs(w).max())
    np.testing.assert_allclose(H, hessian, rtol=0, atol=last * largest**3)
    W = experiments.logistic_descent(X, labels, 1.0, 500)
    slowest = experiments.extreme_eigenvalues(H)[0]
    left = 10 * (1 - slowest) ** 500 * np.abs(w).max()
    np.testing.assert_allclose(W[-1], w, rtol=0, atol=left + rounding * largest / slowest)


def test_separable_classes_are_refused():
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    with pytest.raises(ValueError, match="labels are separable by X, or nearly so"):
        experiments.logistic_optimum(X, np.array([0.0, 0.0, 1.0, 1.0]))


@given(seeds)
def test_the_network_takes_the_steps_of_torch_sgd(seed):
    X, y = data(seed)
    inputs, labels = torch.tensor(X), torch.tensor((y > 0).astype(float))
    rng = np.random.default_rng(0)
    first, second = torch.nn.Linear(4, 3).double(), torch.nn.Linear(3, 1).double()
    with torch.no_grad():
        first.weight.copy_(torch.tensor(rng.normal(size=(4, 3)).T / 2))
        second.weight.copy_(torch.tensor(rng.normal(size=3) / np.sqrt(3)))
        first.bias.zero_()
        second.bias.zero_()
    model = torch.nn.Sequential(first, torch.nn.Tanh(), second, torch.nn.Flatten(0))
    loss = torch.nn.BCEWithLogitsLoss()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        loss(model(inputs), labels).backward()
        optimiser.step()
    found = experiments.network_loss(X, labels.numpy(), 0.1, 0, steps=3, hidden=3)
    assert found == pytest.approx(loss(model(inputs), labels).item(), rel=1e-9)


@given(seeds)
def test_beyond_the_largest_step_descent_diverges(seed):
    X, y = data(seed)
    limit = experiments.largest_step(X)
    assert limit == pytest.approx(2 / np.linalg.eigvalsh(X.T @ X / len(X))[-1], rel=len(X) * EPS)
    assert experiments.growth(X, y, 0.9 * limit) < 1
    assert experiments.growth(X, y, 30 * limit) > 1


def test_a_scaling_of_hidden_features_holds_while_they_stand_still():
    still, trained = (experiments.moved_hidden(learns, 0) for learns in (False, True))
    assert still["deviation"] < 0.2 < trained["deviation"]
    assert experiments.moved_hidden(True, 0, steps=0) == still


def test_whitened_inputs_are_those_of_the_package():
    X, labels = load_wine(return_X_y=True)
    white = scaling.ZCAWhitening.fit(X).apply(X)
    wanted = experiments.network_loss(white, (labels == 1).astype(float), 0.3, 1, steps=5)
    assert experiments.whitened_or_not("wine", "whitened", 5, 0.3, 1) == {"loss": wanted}
    assert experiments.whitened_or_not("wine", "raw", 5, 0.3, 1)["loss"] != wanted


def test_the_classes_of_log_normal_rows_follow_a_product_or_a_sum():
    for source, features in (("product", np.log), ("sum", lambda x: x)):
        split = experiments.skewed_table(source, seed=0)
        x, y = (torch.cat(part).double().numpy() for part in (split[::2], split[1::2]))
        assert abs(np.log(x).std() - 2) < 0.05
        # A linear rule of the right features separates them, of the others it does not.
        right, wrong = (
            _fitted(design(x), y)
            for design in (features, np.log if source == "sum" else lambda x: x)
        )
        assert right > 0.95 > wrong


def _fitted(X, y):
    X = scaling.Standardization.fit(X).apply(X)
    return LogisticRegression(C=1e4, max_iter=2000).fit(X, y).score(X, y)


def test_each_way_to_scale_gives_the_network_other_inputs():
    found = [
        experiments.scaled_first("sum", first, 0.03, 0, moments=[10, 20])["last"]
        for first in ("nothing", "batch norm", "z-score", "logarithm")
    ]
    assert len(set(found)) == 4
