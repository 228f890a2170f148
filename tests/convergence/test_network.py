"""One hidden layer against torch, and where its critical points lie."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm

from bncore.convergence import (
    EmpiricalNetwork,
    GaussianHalfspace,
    GaussianNetwork,
    quadrature,
)

EPS = np.finfo(np.float64).eps
ACCURACY = quadrature.ACCURACY_2
# The accuracy that is asked of SciPy's adaptive quadrature.
SCIPY = 1e-12
STEP = 4e-3
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=8)
BY_TORCH = {
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "squared": lambda a: (1 + a) ** 2,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def error_of(network, W, V=0.0):
    """How far value, gradient and Hessian product of units that tanh makes odd may be off.

    For the four losses the derivatives in scores are at most 1, 2 and 4 times (1 + sum abs(theta))^2,
    beside what z is; a sum is off by its roundings, an integral by its accuracy, scores of size
    |z| |w| by those of d products.
    """
    sample = isinstance(network, EmpiricalNetwork)
    z = np.sqrt(np.trace(network.S))
    relative = network.halfspace.Z.shape[0] * EPS if sample else ACCURACY
    relative += 4 * len(network.u) * EPS * (1 + z * np.linalg.norm(W))
    size = (1 + np.abs(network.theta).sum()) ** 2
    return relative * size * np.array([1, 2 * z, 4 * z**2 * np.linalg.norm(V)])


def slope(f):
    """f'(0) by central differences of fourth order, and what they miss: what twice the step changes."""

    def difference(h):
        return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    fine, coarse = difference(STEP), difference(2 * STEP)
    return fine, np.abs(fine - coarse).max()


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
def test_a_sample_network_is_that_of_torch(seed, units, loss, cloud, near):
    rng = np.random.default_rng(seed)
    Z, theta, W = cloud(seed, 60, 3), rng.normal(size=units), rng.normal(size=(units, 3))
    network = EmpiricalNetwork(Z, theta, loss)
    tW = torch.tensor(W, requires_grad=True)
    value = torch_value(torch.tensor(Z), theta, tW, loss)
    value.backward()
    of_value, of_gradient, _ = error_of(network, W)
    near(network.value(W), value.item(), of_value)
    near(network.gradient(W), tW.grad.numpy(), of_gradient)


@few
@given(seed=SEEDS, units=st.integers(1, 3), loss=st.sampled_from(["softplus", "squared"]))
def test_a_gaussian_network_in_the_plane_is_that_of_a_tensor_rule(seed, units, loss, moments, near):
    """In two dimensions torch integrates over all of z.

    By the trapezoidal rule, which misses exp(-2 pi distance / step): tanh has poles at a distance of
    pi / 2 over the deviation of the score, its softplus none at half of that.
    """
    u, S = moments(seed, 2, condition=3, share=0.4)
    rng = np.random.default_rng(seed)
    theta, W = rng.normal(size=units), rng.normal(size=(units, 2))
    network = GaussianNetwork(u, S, theta, loss)
    x, step = torch.linspace(-9, 9, 241, dtype=torch.float64), 18 / 240
    p = torch.exp(-(x**2) / 2)
    p = p / p.sum()
    grid = torch.cartesian_prod(x, x)
    root = torch.tensor(np.linalg.cholesky(S - np.outer(u, u)))
    Z = torch.tensor(u) + grid @ root.T
    tW = torch.tensor(W, requires_grad=True)
    value = torch_value(Z, theta, tW, loss, torch.outer(p, p).reshape(-1))
    value.backward()
    steepest = np.sqrt(np.einsum("id,de,ie->i", W, S, W)).max()
    missed = np.exp(-(np.pi**2) / (2 * step * steepest))
    of_value, of_gradient, _ = (1 + missed / ACCURACY) * error_of(network, W)
    near(network.value(W), value.item(), of_value)
    near(network.gradient(W), tW.grad.numpy(), of_gradient)


@few
@given(seed=SEEDS, units=st.integers(1, 4))
def test_the_gradient_is_that_of_finite_differences_where_weights_span_a_plane(
    seed, units, moments, near
):
    network = GaussianNetwork(*moments(seed, 5), np.random.default_rng(seed).normal(size=units))
    W = plane(seed, units, 5)
    basis = np.linalg.svd(W)[2][: min(2, units)]
    gradient = network.gradient(W)
    for i in range(units):
        for e in basis:  # steps within the plane, which the quadrature can follow
            step = np.zeros_like(W)
            step[i] = e
            expected, missed = slope(lambda t, step=step: network.value(W + t * step))
            near(gradient[i] @ e, expected, missed + 2 * error_of(network, W)[0] / STEP)


@few
@given(seed=SEEDS, units=st.integers(1, 4), loss=st.sampled_from(["softplus", "tanh"]))
def test_the_second_order_coefficients_make_the_gradient(seed, units, loss, moments, near):
    u, S = moments(seed, 5)
    network = GaussianNetwork(u, S, np.random.default_rng(seed).normal(size=units), loss)
    W = plane(seed, units, 5)
    alpha, B = network.second_order(W)
    assert alpha.shape == (units,)
    assert B.shape == (units, units)
    of_value, of_gradient, of_turn = error_of(network, W, W)
    near(np.outer(alpha, u) + B @ W @ S, network.gradient(W), of_gradient + of_turn)
    near(B, B.T, 4 * of_value)


@few
@given(seed=SEEDS, units=st.integers(1, 2), loss=st.sampled_from(sorted(BY_TORCH)))
def test_hessian_products_are_those_of_finite_differences_and_of_a_unit(
    seed, units, loss, moments, cloud, near
):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=units)
    W, V = rng.normal(size=(2, units, 4)) / 2
    for network in (
        EmpiricalNetwork(cloud(seed), theta, loss),
        GaussianNetwork(*moments(seed, 4), theta, loss),
    ):
        turn, missed = slope(lambda t, network=network: network.gradient(W + t * V))
        error = missed + 2 * error_of(network, W)[1] / STEP
        near(network.hessian_product(W, V), turn, error)


def test_the_sample_comes_near_the_gaussian(moments):
    """At the rate n^-1/2; the logarithm of a deviation of k samples has the standard error (2 k)^-1/2."""
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
    standard_error = 20**-0.5 / (np.std(np.log(sizes)) * np.sqrt(3))
    assert abs(rate + 0.5) < 3 * standard_error


def test_one_unit_with_nearly_linear_activation_is_a_halfspace(moments, near):
    """With tanh(k a) / k for activation, which is off by k^2 a^3 / 3 at most, and its slope by (k a)^2."""
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
    of_value, of_gradient, _ = error_of(network, w)
    # moments of Gaussian scores: E a^4 <= 3 (E a^2)^2, E a^6 <= 15 (E a^2)^3; the softplus bends by 1/4
    size, z = halfspace.norm(w), np.sqrt(np.trace(S))
    cubes, squares = 15**0.5 / 3 * size**3, 3**0.5 * size**2
    near(network.value(w[None]), halfspace.value(w), k**2 * cubes + of_value)
    moved = k**2 * (squares + cubes / 4) * z
    near(network.gradient(w[None])[0], halfspace.gradient(w), moved + of_gradient)


@few
@given(seed=SEEDS)
def test_an_odd_activation_lets_signs_move_to_the_outer_weights(seed, moments, cloud, near):
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
        of_value, of_gradient, _ = error_of(one, W)
        near(other.value(turned), one.value(W), of_value)
        near(other.gradient(turned), signs[:, None] * one.gradient(W), of_gradient)


@pytest.mark.parametrize("seed", range(3))
def test_on_the_solution_line_every_unit_has_its_gradient_along_u(seed, moments, near):
    """With all w_i on the line S^-1 u, every gradient is a multiple of u."""
    u, S = moments(seed, 5)
    rng = np.random.default_rng(seed)
    network = GaussianNetwork(u, S, rng.normal(size=3))
    W = np.outer(rng.normal(size=3), np.linalg.solve(S, u))
    gradient = network.gradient(W)
    across = gradient - np.outer(gradient @ u, u) / (u @ u)
    near(across, np.zeros((3, 5)), error_of(network, W)[1])


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
def test_a_unit_of_any_steepness_is_that_of_adaptive_quadrature(k, loss, near):
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
                epsabs=SCIPY * norm.pdf(a if abs(a) < abs(b) else b),
                epsrel=SCIPY,
                limit=500,
            )[0]
            for a, b in itertools.pairwise(edges)
        )

    def slope(a):
        return 1.5 * act.dphi(a) * loss.dphi(1.5 * act.phi(a))

    value = expectation(lambda x, a: loss.phi(1.5 * act.phi(a)))
    close = ACCURACY + SCIPY
    near(network.value(w[None]), value, close * value)
    first, second = (expectation(lambda x, a, p=p: slope(a) * x**p) for p in (0, 1))
    along = covariance @ w / std
    # of the sizes of slope and slope times score, the score is mean + std x
    sizes = [expectation(lambda x, a, p=p: abs(slope(a) * a**p)) for p in (0, 1)]
    of_first, of_second = close * sizes[0], close * (sizes[1] + abs(mean) * sizes[0]) / std
    error = of_first * np.abs(U2) + of_second * np.abs(along)
    near(network.gradient(w[None])[0], first * U2 + second * along, error)


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("loss", ["softplus", pseudo_huber(5, 0.4)])
def test_two_units_of_any_steepness_are_those_of_a_fine_grid(k, loss, near):
    """The grid is off by what one twice as coarse changes, at most."""
    network = GaussianNetwork(U2, S2, [1.5, -1.0], loss, steep(k))
    W = np.array([[0.8, -0.5], [0.3, 0.9]])

    def on_a_grid(nodes):
        x = np.linspace(-9, 9, nodes)
        p = np.exp(-x * x / 2)
        weights = np.outer(p, p).reshape(-1) / p.sum() ** 2
        grid = np.stack(np.meshgrid(x, x, indexing="ij")).reshape(2, -1)
        Z = U2[:, None] + np.linalg.cholesky(S2 - np.outer(U2, U2)) @ grid
        output = network.theta @ network.activation.phi(W @ Z)
        q = network.theta[:, None] * network.activation.dphi(W @ Z) * network.loss.dphi(output)
        sizes = np.abs(q * weights) @ np.abs(Z.T)
        return weights @ network.loss.phi(output), (q * weights) @ Z.T, sizes

    (value, gradient, sizes), (coarse, turned, _) = on_a_grid(1801), on_a_grid(901)
    near(network.value(W), value, ACCURACY * value + abs(value - coarse))
    near(network.gradient(W), gradient, ACCURACY * sizes + np.abs(gradient - turned))


def test_units_that_are_nearly_parallel_keep_their_gradient(near):
    """A second direction of scores a billion times narrower than the first still counts."""
    network = GaussianNetwork(U2, S2, [1.5, -1.0])
    w, across = np.array([0.8, -0.5]), np.array([0.3, 0.9])
    W, V = np.array([w, w]), np.array([0 * across, across])
    gradient, turn = network.gradient(W), network.hessian_product(W, V)
    _, of_gradient, of_turn = error_of(network, W, V)
    for size in (1e-5, 1e-7, 1e-9):
        # third derivatives are less than ten times as large as second ones
        error = of_gradient + size * of_turn + 10 * size**2 * np.abs(turn).max()
        near(network.gradient(W + size * V), gradient + size * turn, error)


def test_lists_are_taken_as_arrays(cloud, near):
    theta, W = [1.0, -0.5], [[1, 0, 0, 1], [0, 2, 0, 0]]
    for one, other in (
        (EmpiricalNetwork(cloud(0), theta), EmpiricalNetwork(cloud(0), np.array(theta))),
        (
            GaussianNetwork([0.3, -0.45, 0, 0], np.eye(4).tolist(), theta),
            GaussianNetwork(np.array([0.3, -0.45, 0, 0]), np.eye(4), np.array(theta)),
        ),
    ):
        array = np.array(W, float)
        of_value, of_gradient, _ = error_of(one, array)
        near(one.value(W), other.value(array), of_value)
        near(one.gradient(W), other.gradient(array), of_gradient)


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
    refuses("3", sample.unit, 3, np.ones((3, 2)), kind=(ValueError, IndexError))


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
