"""Slope and curvature through a batch norm, distances to a ray, and walks along a gradient."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations import smoothness
from bncore.lab import networks

seeds = st.integers(0, 10**6)


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
    factor = (gamma / y.std()) ** 2
    slope = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))[:, 0]
    np.testing.assert_allclose(slope, d, atol=1e-12 * factor**0.5 * np.linalg.norm(g))
    terms = smoothness.squared_gradient(y[:, None], g[:, None], np.array([gamma]))
    assert terms.passed[0] == pytest.approx(d @ d, abs=1e-12 * factor * (g @ g))
    size = factor * np.linalg.norm(H, 2) + abs(gamma) / y.var() * np.linalg.norm(g)
    np.testing.assert_allclose(smoothness.hessian(y, g, H, gamma), second, atol=1e-12 * size)
    curvature = smoothness.curvature_along_gradient(y, g, H, gamma)
    assert curvature.total == pytest.approx(d @ second @ d, abs=1e-12 * size * factor * (g @ g))
    assert curvature.squared == pytest.approx(d @ d, abs=1e-12 * factor * (g @ g))


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
    assert other == pytest.approx(np.ldexp(distance, exponent), rel=1e-15)


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
    np.testing.assert_allclose(np.ldexp(found[0], -130), through, rtol=1e-12)
    np.testing.assert_allclose(np.ldexp(found[1], -630), own, rtol=1e-12)
    found = smoothness.curvature_along_gradient(tiny, g, H, gamma)
    expected = smoothness.curvature_along_gradient(y, g, H, 1.0)
    np.testing.assert_allclose(np.ldexp(found, [-260, -760, -130]), expected, rtol=1e-12)


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
    np.testing.assert_allclose(y_hat, exact[0], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(sigma, exact[1], rtol=2e-3)
    terms, exact = smoothness.squared_gradient(y, g, gamma), smoothness.squared_gradient(*wide)
    np.testing.assert_allclose(terms.passed, exact.passed, rtol=1e-5)
    assert {term.dtype for term in (*terms, terms.passed)} == {np.dtype(np.float32)}
    if size >= 1:
        d = smoothness.gradient(y, g, gamma)
        assert d.dtype == np.float16
        np.testing.assert_allclose(d, smoothness.gradient(*wide), rtol=2e-3, atol=2e-3 * 600 / size)
    start, optimum = np.full(4, size, np.float16), np.array([1, 2, 3, 4], np.float16)
    exact = smoothness.distance_to_ray(start.astype(float), optimum.astype(float))
    assert smoothness.distance_to_ray(start, optimum) == pytest.approx(exact, rel=1e-12)


def test_a_batch_of_two_has_no_slope_and_no_curvature():
    y, g, H = np.array([1.0, 4.0]), np.array([2.0, -0.5]), np.array([[1.0, 2.0], [2.0, -3.0]])
    slope = smoothness.gradient(y[:, None], g[:, None], np.array([1.5]))
    np.testing.assert_allclose(slope, 0, atol=1e-14)
    np.testing.assert_allclose(smoothness.hessian(y, g, H, 1.5), 0, atol=1e-14)


@given(seeds)
def test_features_do_not_mix(seed):
    rng = np.random.default_rng(seed)
    y, g, gamma = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)), rng.normal(size=3)
    together = smoothness.squared_gradient(y, g, gamma)
    for j in range(3):
        alone = smoothness.squared_gradient(y[:, [j]], g[:, [j]], gamma[[j]])
        np.testing.assert_allclose([t[j] for t in together], [t[0] for t in alone], rtol=1e-12)


@given(seeds)
def test_the_second_derivatives_do_not_see_shift_and_scale(seed):
    y, gamma, H, g, _ = random_loss(seed)
    ours = smoothness.hessian(y, g, H, gamma)
    d = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))[:, 0]
    factor = abs(gamma) / y.std()
    size = np.linalg.norm(y - y.mean()) * (
        factor**2 * np.linalg.norm(H, 2) + factor / y.std() * np.linalg.norm(g)
    )
    np.testing.assert_allclose(ours @ np.ones(len(y)) / size, 0, atol=1e-12)
    np.testing.assert_allclose((ours @ (y - y.mean()) + d) / size, 0, atol=1e-12)


@given(seeds)
def test_a_normalised_loss_is_indefinite_where_it_has_a_slope(seed):
    y, gamma, H, g, _ = random_loss(seed)
    d = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))[:, 0]
    floor = np.linalg.norm(d) / np.linalg.norm(y - y.mean())
    eigenvalues = np.linalg.eigvalsh(smoothness.hessian(y, g, H @ H, gamma))
    size = np.abs(eigenvalues).max()
    assert size >= floor * (1 - 1e-9)
    if floor > 1e-3 * size:
        assert eigenvalues[0] < 0 < eigenvalues[-1]


@given(seeds)
def test_the_mean_of_the_inputs_drops_out_of_the_curvature(seed):
    y, gamma, H, g, _ = random_loss(seed)
    X = np.random.default_rng(seed).normal(1.0, 1.0, size=(len(y), 3))
    centred = X - X.mean(axis=0)
    second = smoothness.hessian(y, g, H, gamma)
    np.testing.assert_allclose(
        X.T @ second @ X, centred.T @ second @ centred, atol=1e-11 * np.abs(second).sum()
    )


@given(seeds)
def test_scaling_the_weights_scales_the_slope(seed):
    y, gamma, _, g, _ = random_loss(seed)
    before = smoothness.gradient(y[:, None], g[:, None], np.array([gamma]))
    after = smoothness.gradient(8 * y[:, None], g[:, None], np.array([gamma]))
    np.testing.assert_allclose(8 * after, before, rtol=1e-9, atol=1e-12 * np.abs(before).max())


@settings(max_examples=300)
@given(seeds)
def test_the_distance_to_the_ray_is_the_least_over_it(seed):
    rng = np.random.default_rng(seed)
    start, optimum = rng.normal(size=(2, int(rng.integers(1, 5))))
    found = smoothness.distance_to_ray(start, optimum)
    _, least = nnls(optimum[:, np.newaxis], start)
    assert found == pytest.approx(least, abs=1e-12)
    square, product = optimum @ optimum, optimum @ start
    if product > 0:
        plain = (start - optimum) @ (start - optimum)
        assert found**2 == pytest.approx(plain - (square - product) ** 2 / square, abs=1e-9)


def batch(classes=4, inputs=6, count=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("units", smoothness.UNITS)
def test_a_walk_is_gradient_descent_of_the_weights(normalization, units):
    x, y = batch()
    model = networks.mlp((6, 5, 4), "tanh", normalization, seed=3).double()
    found = smoothness.along_gradient(model, x, y, [0.03, 0.3], units)
    chosen = smoothness.weights(model)
    scales = {
        name: w.detach().norm(dim=1, keepdim=True) if units == "relative" else torch.ones(1)
        for name, w in chosen.items()
    }

    def slope_of(model):
        loss = cross_entropy(model(x), y)
        weights = smoothness.weights(model)
        parts = torch.autograd.grad(loss, list(weights.values()))
        return loss.item(), torch.cat(
            [(scales[n] * p).reshape(-1) for n, p in zip(weights, parts, strict=True)]
        )

    before, slope = slope_of(model)
    assert found.loss == pytest.approx(before)
    assert found.slope == pytest.approx(slope.norm().item())
    for k, step in enumerate((0.03, 0.3)):
        moved = copy.deepcopy(model)
        if units == "relative":
            step = step * 9**0.5 / slope.norm().item()
        parts = dict(zip(chosen, slope.split([w.numel() for w in chosen.values()]), strict=True))
        with torch.no_grad():
            for name, w in smoothness.weights(moved).items():
                w -= step * scales[name] * parts[name].reshape(w.shape)
        loss, after = slope_of(moved)
        assert found.losses[k] == pytest.approx(loss)
        assert found.distances[k] == pytest.approx(step * slope.norm().item())
        assert found.changes[k] == pytest.approx((after - slope).norm().item())
    assert found.smoothness == pytest.approx((found.changes / found.distances).max())


def test_a_relative_step_is_the_stated_share_of_the_weights():
    x, y = batch()
    model = networks.mlp((6, 5, 4), "tanh", None, seed=3).double()
    found = smoothness.along_gradient(model, x, y, [0.02], "relative")
    assert found.distances[0] == pytest.approx(0.02 * (5 + 4) ** 0.5)


def test_a_walk_leaves_the_model_as_it_was():
    x, y = batch()
    model = networks.mlp((6, 5, 4), "relu", "batch", seed=1).double().eval()
    before = copy.deepcopy(model.state_dict())
    smoothness.along_gradient(model, x, y, [0.1])
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("factor", [0.25, 16.0])
def test_relative_units_do_not_see_a_rescaling_that_the_loss_does_not_see(factor):
    x, y = batch()
    model = networks.mlp((6, 5, 4), "relu", None, gain=1.0, seed=1).double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.linear1.weight.mul_(factor)
        other.output.weight.div_(factor)
    relative, absolute = (
        [smoothness.along_gradient(m, x, y, [0.05], units) for m in (model, other)]
        for units in ("relative", "absolute")
    )
    assert relative[1].smoothness == pytest.approx(relative[0].smoothness)
    assert relative[1].losses == pytest.approx(relative[0].losses)
    assert abs(absolute[1].smoothness / absolute[0].smoothness - 1) > 0.5


def test_filters_are_measured_by_their_own_length():
    weight = torch.arange(1.0, 37.0).reshape(2, 2, 3, 3)
    lengths = smoothness.unit_lengths(weight)
    assert lengths.shape == (2, 1, 1, 1)
    assert lengths.flatten().tolist() == pytest.approx(
        [weight[0].norm().item(), weight[1].norm().item()]
    )


Y, G, GAMMA = np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1)), np.ones(1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: smoothness.normalise([[1.0], [2.0]]), TypeError, "y is a list, expected a plain"),
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
        (lambda: smoothness.gradient([[1.0], [2.0]], G, GAMMA), TypeError, "y is a list, expected"),
        (
            lambda: smoothness.gradient(torch.tensor(Y), G, GAMMA),
            TypeError,
            "y is a Tensor, expected a plain numpy.ndarray",
        ),
        (lambda: smoothness.gradient(Y, G, [1.0]), TypeError, "gamma is a list, expected a plain"),
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
        (lambda: smoothness.weights(nn.Linear), TypeError, "model is the class Linear, expected"),
        (
            lambda: smoothness.unit_lengths(np.ones((2, 2))),
            TypeError,
            "weight is float64, expected a floating-point tensor",
        ),
        (
            lambda: smoothness.unit_lengths(torch.ones(2, 2).long()),
            TypeError,
            "weight is torch.int64, expected a floating-point tensor",
        ),
        (
            lambda: smoothness.unit_lengths(torch.ones(3)),
            ValueError,
            r"weight has shape \(3,\), expected \(units, \*inputs\)",
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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("model", "steps", "units", "error", "message"),
    [
        (nn.Linear(6, 4), [], "absolute", ValueError, "steps is empty, expected at least one"),
        (nn.Linear(6, 4), [0.1, -1], "absolute", ValueError, r"steps\[1\] is -1, expected"),
        (nn.Linear(6, 4), ["a"], "absolute", TypeError, r"steps\[0\] is a str"),
        (nn.Linear(6, 4), 0.1, "absolute", TypeError, "steps is a float, expected a sequence"),
        (nn.Linear(5, 4), [0.1], "absolute", ValueError, "model cannot be applied to x of shape"),
        (
            nn.Linear(6, 4).requires_grad_(False),
            [0.1],
            "absolute",
            ValueError,
            "model has no weight matrix, expected a parameter with two axes or more, not frozen",
        ),
        (nn.Linear(6, 4), [0.1], "metres", ValueError, "units is 'metres', expected 'absolute'"),
        (nn.BatchNorm1d(6), [0.1], "absolute", ValueError, "model has no weight matrix"),
    ],
)
def test_errors_of_a_walk_teach(model, steps, units, error, message):
    x, y = batch()
    with pytest.raises(error, match=message):
        smoothness.along_gradient(model.double(), x, y, steps, units)


def test_a_unit_without_weights_has_no_length():
    x, y = batch()
    model = nn.Linear(6, 4).double()
    with torch.no_grad():
        model.weight[2] = 0
    with pytest.raises(ValueError, match=r"weight\[2\] is all zero, expected weights that have"):
        smoothness.along_gradient(model, x, y, [0.1], "relative")


def test_a_critical_point_has_no_direction_to_walk_in():
    x, y = batch()
    model = nn.Linear(6, 4).double()
    with pytest.raises(ValueError, match="the gradient is zero, expected a point with a slope"):
        smoothness.along_gradient(model, x, y, [0.1], loss=lambda outputs, y: 0 * outputs.sum())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": None}, TypeError, "model is a None, expected an nn.Module"),
        ({"x": np.ones((12, 6))}, TypeError, "x is a ndarray, expected a tensor"),
        ({"x": torch.zeros(0, 6)}, ValueError, r"x has shape \(0, 6\), expected at least one"),
        ({"x": torch.full((9, 6), torch.inf)}, ValueError, r"x\[0, 0\] is inf, expected finite"),
        ({"loss": None}, TypeError, "loss is a None, expected a function of outputs and y"),
        ({"loss": lambda z, y: z}, ValueError, "loss returns a tensor of shape"),
        ({"loss": lambda z, y: 1.0}, ValueError, "loss returns a float, expected a tensor"),
    ],
)
def test_what_cannot_be_walked_on_is_refused(changed, error, message):
    x, y = batch()
    call = {"model": nn.Linear(6, 4).double(), "x": x, "y": y, "steps": [0.1], **changed}
    with pytest.raises(error, match=message):
        smoothness.along_gradient(**call)


class Dropping(nn.Module):
    """A network that draws random numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 4)
        self.double()

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.first(x))))


def test_every_step_sees_the_same_random_numbers():
    x, y = batch()
    torch.manual_seed(0)
    model = Dropping()
    state = torch.random.get_rng_state()
    found = smoothness.along_gradient(model, x, y, [1e-7, 1e-3])
    assert torch.equal(torch.random.get_rng_state(), state)
    # To first order the change is proportional to the step; other numbers would change it by O(1).
    assert found.changes[0] == pytest.approx(1e-4 * found.changes[1], rel=0.05)


def test_frozen_weights_are_held():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    model[0].weight.requires_grad_(False)
    assert list(smoothness.weights(model)) == ["2.weight"]
    found = smoothness.along_gradient(model, x, y, [0.1])
    slope = torch.autograd.grad(cross_entropy(model(x), y), model[2].weight)[0]
    assert found.slope == pytest.approx(slope.norm().item())
    with torch.no_grad():
        again = smoothness.along_gradient(model, x, y, [0.1])
    np.testing.assert_array_equal(again.losses, found.losses)


def test_no_walk_where_torch_takes_no_derivatives():
    x, y = batch()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode is on"):
        smoothness.along_gradient(nn.Linear(6, 4).double(), x, y, [0.1])


def test_a_weight_without_part_in_the_loss_has_no_slope():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    alone = smoothness.along_gradient(model, x, y, [0.1])
    model.idle = nn.Linear(2, 2).double()
    assert smoothness.along_gradient(model, x, y, [0.1]).slope == alone.slope
