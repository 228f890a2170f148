"""One hidden layer against torch, and where its critical points lie."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from scipy.stats import norm

from bncore.convergence import (
    EmpiricalHalfspace,
    EmpiricalNetwork,
    GaussianHalfspace,
    GaussianNetwork,
    Unresolved,
    gdnp,
    gdnp_network,
    quadrature,
)

SEEDS = st.integers(0, 10**6)
few = settings(max_examples=8)
BY_TORCH = {
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "squared": lambda a: (1 + a) ** 2,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def plane(seed, units, dimension):
    """Weights of rank two at most."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(units, 2)) @ rng.normal(size=(2, dimension)) / 2


def torch_value(Z, theta, W, loss, weights=None):
    scores = torch.tanh(Z @ W.T) @ torch.tensor(theta)
    values = BY_TORCH[loss](scores)
    return values.mean() if weights is None else weights @ values


@few
@given(seed=SEEDS, units=st.integers(1, 4), loss=st.sampled_from(sorted(BY_TORCH)))
def test_a_sample_network_is_that_of_torch(seed, units, loss, cloud):
    rng = np.random.default_rng(seed)
    Z, theta, W = cloud(seed, 60, 3), rng.normal(size=units), rng.normal(size=(units, 3))
    network = EmpiricalNetwork(Z, theta, loss)
    tW = torch.tensor(W, requires_grad=True)
    value = torch_value(torch.tensor(Z), theta, tW, loss)
    value.backward()
    assert network.value(W) == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(network.gradient(W), tW.grad.numpy(), atol=1e-12)


@few
@given(seed=SEEDS, units=st.integers(1, 3), loss=st.sampled_from(["softplus", "squared"]))
def test_a_gaussian_network_in_the_plane_is_that_of_a_tensor_rule(seed, units, loss, moments):
    """In two dimensions torch integrates over all of z."""
    u, S = moments(seed, 2, condition=3, share=0.4)
    rng = np.random.default_rng(seed)
    theta, W = rng.normal(size=units), rng.normal(size=(units, 2))
    network = GaussianNetwork(u, S, theta, loss)
    x = torch.linspace(-9, 9, 241, dtype=torch.float64)
    p = torch.exp(-(x**2) / 2)
    p = p / p.sum()
    grid = torch.cartesian_prod(x, x)
    root = torch.tensor(np.linalg.cholesky(S - np.outer(u, u)))
    Z = torch.tensor(u) + grid @ root.T
    tW = torch.tensor(W, requires_grad=True)
    value = torch_value(Z, theta, tW, loss, torch.outer(p, p).reshape(-1))
    value.backward()
    assert network.value(W) == pytest.approx(value.item(), rel=1e-8)
    np.testing.assert_allclose(network.gradient(W), tW.grad.numpy(), atol=1e-7)


@few
@given(seed=SEEDS, units=st.integers(1, 4))
def test_the_gradient_is_that_of_finite_differences_where_weights_span_a_plane(
    seed, units, moments
):
    network = GaussianNetwork(*moments(seed, 5), np.random.default_rng(seed).normal(size=units))
    W, h = plane(seed, units, 5), 1e-5
    basis = np.linalg.svd(W)[2][: min(2, units)]
    gradient = network.gradient(W)
    for i in range(units):
        for e in basis:  # steps within the plane, which the quadrature can follow
            step = np.zeros_like(W)
            step[i] = h * e
            slope = (network.value(W + step) - network.value(W - step)) / (2 * h)
            assert gradient[i] @ e == pytest.approx(slope, abs=1e-7)


@few
@given(seed=SEEDS, units=st.integers(1, 4), loss=st.sampled_from(["softplus", "tanh"]))
def test_the_second_order_coefficients_make_the_gradient(seed, units, loss, moments):
    u, S = moments(seed, 5)
    network = GaussianNetwork(u, S, np.random.default_rng(seed).normal(size=units), loss)
    W = plane(seed, units, 5)
    alpha, B = network.second_order(W)
    assert alpha.shape == (units,)
    assert B.shape == (units, units)
    np.testing.assert_allclose(np.outer(alpha, u) + B @ W @ S, network.gradient(W), atol=1e-8)
    np.testing.assert_allclose(B, B.T, atol=1e-9)


@few
@given(seed=SEEDS, units=st.integers(1, 2), loss=st.sampled_from(sorted(BY_TORCH)))
def test_hessian_products_are_those_of_finite_differences_and_of_a_unit(
    seed, units, loss, moments, cloud
):
    rng, h = np.random.default_rng(seed), 1e-5
    theta = rng.normal(size=units)
    W, V = rng.normal(size=(2, units, 4)) / 2
    for network in (
        EmpiricalNetwork(cloud(seed), theta, loss),
        GaussianNetwork(*moments(seed, 4), theta, loss),
    ):
        turn = (network.gradient(W + h * V) - network.gradient(W - h * V)) / (2 * h)
        np.testing.assert_allclose(network.hessian_product(W, V), turn, atol=1e-7)
        V[1:] = 0
        own = network.unit(0, W).hessian_product(W[0], V[0])
        np.testing.assert_allclose(own, network.hessian_product(W, V)[0], atol=1e-12)


def test_the_sample_comes_near_the_gaussian(moments):
    u, S = moments(3, 4, condition=4, share=0.4)
    theta, W = np.array([0.7, -0.5, 1.1]), plane(3, 3, 4)
    root = np.linalg.cholesky(S - np.outer(u, u))
    exact = GaussianNetwork(u, S, theta)
    sizes, spread = np.array([300, 3000, 30000]), []
    for n in sizes:
        errors = []
        for seed in range(10):
            Z = u + np.random.default_rng([seed, n]).normal(size=(n, 4)) @ root.T
            sample = EmpiricalNetwork(Z, theta)
            errors.append(np.linalg.norm(sample.gradient(W) - exact.gradient(W)))
        spread.append(np.sqrt(np.mean(np.square(errors))))
    rate = np.polyfit(np.log(sizes), np.log(spread), 1)[0]
    assert -0.65 < rate < -0.35


@few
@given(seed=SEEDS, i=st.integers(0, 2))
def test_a_unit_is_the_network_with_the_others_held(seed, i, moments, cloud):
    theta, rng = np.array([0.7, -0.5, 1.1]), np.random.default_rng(seed)
    for network, W in (
        (EmpiricalNetwork(cloud(seed), theta), rng.normal(size=(3, 4))),
        (GaussianNetwork(*moments(seed, 4), theta), plane(seed, 3, 4)),
    ):
        unit = network.unit(i, W)
        assert unit.value(W[i]) == pytest.approx(network.value(W), rel=1e-9)
        np.testing.assert_allclose(unit.gradient(W[i]), network.gradient(W)[i], atol=1e-8)
        W2 = W.copy()
        W2[i] *= 0.4
        assert unit.value(W2[i]) == pytest.approx(network.value(W2), rel=1e-9)
        line = unit.line(W[i])
        h = 1e-5
        slope = (line.value(0.5 + h) - line.value(0.5 - h)) / (2 * h)
        assert line.slope(0.5) == pytest.approx(slope, abs=1e-7)


def test_one_unit_with_nearly_linear_activation_is_a_halfspace(moments):
    """With tanh(0.001 a) / 0.001 for activation the network is the problem of a half-space."""
    u, S = moments(0, 4)
    k = 1e-3
    linear = (
        lambda a: np.tanh(k * a) / k,
        lambda a: 1 / np.cosh(k * a) ** 2,
        lambda a: -2 * k * np.tanh(k * a) / np.cosh(k * a) ** 2,
    )
    network = GaussianNetwork(u, S, np.array([1.0]), "softplus", linear)
    halfspace = GaussianHalfspace(u, S, "softplus")
    w = np.array([0.5, -1.0, 0.3, 0.2])
    assert network.value(w[None]) == pytest.approx(halfspace.value(w), abs=1e-5)
    np.testing.assert_allclose(network.gradient(w[None])[0], halfspace.gradient(w), atol=1e-5)


@few
@given(seed=SEEDS)
def test_an_odd_activation_lets_signs_move_to_the_outer_weights(seed, moments, cloud):
    rng = np.random.default_rng(seed)
    theta, signs = rng.normal(size=3), np.array([1.0, -1.0, -1.0])
    W = plane(seed, 3, 4)
    for one, other in (
        (EmpiricalNetwork(cloud(seed), theta), EmpiricalNetwork(cloud(seed), signs * theta)),
        (
            GaussianNetwork(*moments(seed, 4), theta),
            GaussianNetwork(*moments(seed, 4), signs * theta),
        ),
    ):
        turned = signs[:, None] * W
        assert other.value(turned) == pytest.approx(one.value(W), rel=1e-10)
        np.testing.assert_allclose(
            other.gradient(turned), signs[:, None] * one.gradient(W), atol=1e-9
        )


@pytest.mark.parametrize("seed", range(3))
def test_on_the_solution_line_every_unit_has_its_gradient_along_u(seed, moments):
    """With all w_i on the line S^-1 u, every gradient is a multiple of u."""
    u, S = moments(seed, 5)
    rng = np.random.default_rng(seed)
    network = GaussianNetwork(u, S, rng.normal(size=3))
    W = np.outer(rng.normal(size=3), np.linalg.solve(S, u))
    gradient = network.gradient(W)
    across = gradient - np.outer(gradient @ u, u) / (u @ u)
    np.testing.assert_allclose(across, 0, atol=1e-9)


def test_descent_unit_by_unit_from_rest_ends_on_the_solution_line(moments):
    u, S = moments(1, 4, condition=2, share=0.4)
    theta = np.array([0.8, -0.6])
    network = GaussianNetwork(u, S, theta)
    W0 = np.zeros((2, 4))
    W0[0] = [0.3, -0.4, 0.2, 0.5]
    line = np.linalg.solve(S, u)
    W0[1] = 0.3 * line
    trace = gdnp_network(network, W0, steps=20, bisection_steps=20, sweeps=1)
    assert trace.weights.shape == (2, 4)
    assert len(trace.traces) == 2
    for w in trace.weights:
        if np.linalg.norm(w) > 1e-8:
            cosine = abs(w @ line) / np.linalg.norm(w) / np.linalg.norm(line)
            assert cosine > 1 - 1e-8
    assert network.value(trace.weights) <= network.value(W0)


@settings(max_examples=4)
@given(seed=SEEDS)
def test_a_unit_finds_the_line_beside_one_on_it_and_misses_it_beside_one_off_it(seed, moments):
    """Beside a unit off the line no point of the line is critical."""
    u, S = moments(seed, 4, condition=1.5, share=0.4)
    rng = np.random.default_rng(seed)
    network = GaussianNetwork(u, S, np.array([0.8, 0.6]))
    line = np.linalg.solve(S, u)
    line = -line / np.sqrt(line @ S @ line)
    across = rng.normal(size=4)
    across -= line * (line @ S @ across)
    across /= np.sqrt(across @ S @ across)
    for neighbour, finds in ((line, True), (line + across, False)):
        unit = network.unit(0, np.array([np.zeros(4), neighbour]))
        w = gdnp(unit, u + 0.1 * across, steps=15, bisection_steps=8).w[-1]
        assert (off(w, line, S) < 1e-6) == finds
        pulls = [abs(across @ unit.gradient(t * line)) for t in (-2, -0.5, 0.5, 1, 2, 4)]
        assert (max(pulls) < 1e-9) == finds
        assert (min(pulls) < 1e-9) == finds


def off(w, line, S):
    """The sine of the angle between w and the line, in the norm of S."""
    along = w @ S @ line
    return np.linalg.norm((w - along * line) @ np.linalg.cholesky(S)) / np.sqrt(w @ S @ w)


def test_a_search_for_a_length_ends_in_words(moments, monkeypatch):
    u, S = moments(0, 3, condition=2, share=0.3)
    network = GaussianNetwork(u, S, np.array([-1.0, 1.0]), "sigmoid")
    with pytest.raises(ValueError, match=r"w0 has no optimal length: .* falls for ever"):
        gdnp(network.unit(0, np.outer([0, 1], u)), u)
    monkeypatch.setattr(quadrature, "MOST_2", 50_000)
    other = u + np.array([0.0, 1.0, 0.0])
    with pytest.raises(
        Unresolved,
        match=r"keeps its sign up to .* not computed farther out: quadrature reaches .* expected "
        r"1e-10: its integrand needs more than 50000 points, most of all near",
    ):
        gdnp(network.unit(0, np.array([0 * u, 3 * other])), u)


def steep(k):
    """tanh(k a)."""

    def fall(a):
        return 1 / np.cosh(np.clip(k * a, -300, 300)) ** 2

    return (
        lambda a: np.tanh(k * a),
        lambda a: k * fall(a),
        lambda a: -2 * k * k * np.tanh(k * a) * fall(a),
    )


def pseudo_huber(k, center):
    def root(a):
        return np.sqrt(1 + (k * (a - center)) ** 2)

    return lambda a: root(a) / k, lambda a: k * (a - center) / root(a), lambda a: k / root(a) ** 3


U2, S2 = np.array([0.3, -0.45]), np.array([[2.0, 0.9], [0.9, 1.0]])


@pytest.mark.parametrize(
    ("k", "loss"),
    [
        (5, "softplus"),
        (10, "softplus"),
        (300, "softplus"),
        (1, pseudo_huber(5, 0.0)),
        (1, pseudo_huber(5, -0.6)),
        (5, pseudo_huber(1000, -0.6)),
    ],
)
def test_a_unit_of_any_steepness_is_that_of_adaptive_quadrature(k, loss):
    network, w = GaussianNetwork(U2, S2, [1.5], loss, steep(k)), np.array([0.8, -0.5])
    covariance = S2 - np.outer(U2, U2)
    mean, std = U2 @ w, np.sqrt(w @ covariance @ w)
    loss, act = network.loss, network.activation
    # The kink of the loss, where 1.5 tanh(k a) = -0.6, and the step of the activation.
    points = [(p / k - mean) / std for p in (np.arctanh(-0.4), -2, -1, 0, 1, 2)]
    edges = np.sort([*points, *(p + q for p in points for q in (-0.02, 0.02)), *range(-9, 10)])

    def expectation(f):
        return sum(
            integrate.quad(
                lambda x: f(x, mean + std * x) * norm.pdf(x),
                a,
                b,
                epsabs=1e-14,
                epsrel=1e-12,
                limit=500,
            )[0]
            for a, b in itertools.pairwise(edges)
        )

    def slope(a):
        return 1.5 * act.dphi(a) * loss.dphi(1.5 * act.phi(a))

    value = expectation(lambda x, a: loss.phi(1.5 * act.phi(a)))
    assert network.value(w[None]) == pytest.approx(value, rel=1e-10)
    first, second = (expectation(lambda x, a, p=p: slope(a) * x**p) for p in (0, 1))
    expected = first * U2 + second * covariance @ w / std
    np.testing.assert_allclose(network.gradient(w[None])[0], expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("loss", ["softplus", pseudo_huber(5, 0.4)])
def test_two_units_of_any_steepness_are_those_of_a_fine_grid(k, loss):
    network = GaussianNetwork(U2, S2, [1.5, -1.0], loss, steep(k))
    W = np.array([[0.8, -0.5], [0.3, 0.9]])
    x = np.linspace(-9, 9, 1801)
    p = np.exp(-x * x / 2)
    weights = np.outer(p, p).reshape(-1) / p.sum() ** 2
    grid = np.stack(np.meshgrid(x, x, indexing="ij")).reshape(2, -1)
    Z = U2[:, None] + np.linalg.cholesky(S2 - np.outer(U2, U2)) @ grid
    output = network.theta @ network.activation.phi(W @ Z)
    assert network.value(W) == pytest.approx(weights @ network.loss.phi(output), rel=1e-9)
    q = network.theta[:, None] * network.activation.dphi(W @ Z) * network.loss.dphi(output)
    np.testing.assert_allclose(network.gradient(W), (q * weights) @ Z.T, atol=1e-9)


def test_units_that_are_nearly_parallel_keep_their_gradient():
    """A second direction of scores a billion times narrower than the first still counts."""
    network = GaussianNetwork(U2, S2, [1.5, -1.0])
    w, across = np.array([0.8, -0.5]), np.array([0.3, 0.9])
    exact = network.gradient(np.array([w, w]))
    for size in (1e-5, 1e-7, 1e-9):
        turned = network.gradient(np.array([w, w + size * across]))
        assert np.abs(turned - exact).max() < 10 * size


def test_a_search_in_a_network_goes_as_far_as_its_minimum():
    network = GaussianNetwork(U2, S2, [0.05, 0.05])
    trace = gdnp_network(network, [[-1, 0], [-1, 0]], steps=0).traces[0]
    line = network.unit(0, np.zeros((2, 2))).line(np.array([-1.0, 0.0]))
    exact = optimize.brentq(line.slope, 5, 20) * line.norm
    assert exact == pytest.approx(14.58, abs=0.005)
    assert trace.g[0] == pytest.approx(exact, abs=1e-4)


def test_lists_are_taken_as_arrays(cloud):
    theta, W = [1.0, -0.5], [[1, 0, 0, 1], [0, 2, 0, 0]]
    for one, other in (
        (EmpiricalNetwork(cloud(0), theta), EmpiricalNetwork(cloud(0), np.array(theta))),
        (
            GaussianNetwork([0.3, -0.45, 0, 0], np.eye(4).tolist(), theta),
            GaussianNetwork(np.array([0.3, -0.45, 0, 0]), np.eye(4), np.array(theta)),
        ),
    ):
        array = np.array(W, float)
        assert one.value(W) == other.value(array)
        np.testing.assert_array_equal(one.gradient(W), other.gradient(array))
        traces = [
            gdnp_network(n, w, steps=1, others="start") for n, w in ((one, W), (other, array))
        ]
        np.testing.assert_array_equal(traces[0].weights, traces[1].weights)


@few
@given(seed=SEEDS)
def test_gdnp_of_a_unit_is_gdnp_of_the_network_with_that_unit(seed, cloud):
    rng = np.random.default_rng(seed)
    theta, W0 = np.array([0.9]), rng.normal(size=(1, 4))
    network = EmpiricalNetwork(cloud(seed), theta)
    trace = gdnp_network(network, W0, steps=5, bisection_steps=30)
    alone = gdnp(network.unit(0, W0), W0[0], steps=5, bisection_steps=30)
    np.testing.assert_allclose(trace.traces[0].weights, alone.weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trace.weights[0], alone.weights[-1], rtol=1e-12)


def test_networks_are_refused(refuses):
    theta = np.array([1.0, -0.5, 0.3])
    network = GaussianNetwork(np.array([0.3, -0.2, 0.1]), np.eye(3), theta)
    refuses(
        "W spans 3 dimensions of scores, expected at most 2",
        network.value,
        np.eye(3),
        kind=ValueError,
    )
    refuses("W has shape (2, 3)", network.value, np.ones((2, 3)))
    refuses("nan", network.value, np.full((3, 3), np.nan))
    refuses(
        "theta has shape (1, 3), expected 1 axis",
        GaussianNetwork,
        np.array([0.3, -0.2]),
        np.eye(2),
        theta[None],
    )
    refuses("theta[0] is nan", EmpiricalNetwork, np.eye(2), np.array([np.nan]))
    refuses(
        "S is not symmetric",
        GaussianNetwork,
        np.array([0.3, -0.2]),
        np.array([[1.0, 0.3], [0.2, 0.8]]),
        theta,
    )
    refuses("u'S^-1 u is", GaussianNetwork, 10 * np.array([0.3, -0.2]), np.eye(2), theta)
    refuses("loss is 'hinge'", EmpiricalNetwork, np.eye(2), theta, "hinge")
    even = (np.cosh, np.sinh, np.cosh)
    refuses("odd", EmpiricalNetwork, np.eye(2), theta, "softplus", even)
    sample = EmpiricalNetwork(np.eye(2), theta)
    refuses("W has shape (3, 3)", sample.gradient, np.ones((3, 3)))
    halfspace = EmpiricalHalfspace(np.eye(2))
    refuses(
        "network is a EmpiricalHalfspace, expected",
        gdnp_network,
        halfspace,
        np.ones((3, 2)),
        kind=TypeError,
    )
    refuses("3", sample.unit, 3, np.ones((3, 2)), kind=(ValueError, IndexError))
    refuses("steps is -1", gdnp_network, sample, np.ones((3, 2)), steps=-1, bisection_steps=5)
    refuses(
        "sweeps is -1",
        gdnp_network,
        sample,
        np.ones((3, 2)),
        steps=1,
        bisection_steps=5,
        sweeps=-1,
    )


def test_what_leaves_the_range_of_float64_is_refused(moments, cloud, refuses):
    """A loss that grows as the square of the scores, and a linear unit."""
    identity = (lambda a: a, np.ones_like, np.zeros_like)
    theta, size = np.array([1.0, -2.0]), 1e160
    for network in (
        EmpiricalNetwork(cloud(0, 20, 2), theta, "squared", identity),
        GaussianNetwork(*moments(0, 2), theta, "squared", identity),
    ):
        W = np.array([[1.0, 0.5], [-0.5, 1.0]])
        refuses("f at W leaves the range of float64", network.value, size * W)
        assert np.isfinite(network.gradient(size * W)).all()
        refuses("the gradient of f at W leaves", network.gradient, 1e308 * W)
        refuses("the product of the Hessian at W with V", network.hessian_product, W, 1e308 * W)
        alpha, B = network.second_order(W)
        assert np.isfinite(alpha).all()
        assert np.isfinite(B).all()
        refuses("a coefficient of the gradient at W leaves", network.second_order, 1e308 * W)
