"""One unit of a network with the others held, against the network, torch's product and the theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.convergence import EmpiricalNetwork, GaussianNetwork, Unresolved, gdnp, quadrature
from bncore.convergence.quadrature import ACCURACY_2

EPS = np.finfo(np.float64).eps
STEP = 4e-3
SEEDS = st.integers(0, 10**6)
THETA = np.array([0.7, -0.5, 1.1])
few = settings(max_examples=8)


def networks(seed, moments, cloud):
    """A network of each kind, and weights: those of a Gaussian one span a plane."""
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(3, 2)) @ rng.normal(size=(2, 4)) / 2
    yield EmpiricalNetwork(cloud(seed), THETA), rng.normal(size=(3, 4))
    yield GaussianNetwork(*moments(seed, 4), THETA), plane


def error_of(network, W):
    """How far value, gradient and Hessian times w may be off, with the softplus and tanh.

    Their derivatives, of size 1 at most, meet one theta or two, and z or zz'w.
    """
    sample = isinstance(network, EmpiricalNetwork)
    z, size = np.sqrt(np.trace(network.S)), np.linalg.norm(W)
    relative = network.halfspace.Z.shape[0] * EPS if sample else ACCURACY_2
    relative += 16 * EPS * (1 + z * size)
    own = np.abs(network.theta).sum()
    return relative * (1 + own) ** 2 * np.array([1, z, z**2 * size])


@few
@given(seed=SEEDS, i=st.integers(0, 2), t=st.sampled_from([-1.5, 0.4, 1.0]))
def test_a_unit_is_the_network_with_the_others_held(seed, i, t, moments, cloud, near):
    for network, W in networks(seed, moments, cloud):
        unit, moved = network.unit(i, W), W.copy()
        moved[i] *= t
        of_value, of_gradient, of_turn = error_of(network, moved)
        near(unit.value(t * W[i]), network.value(moved), of_value)
        near(unit.gradient(t * W[i]), network.gradient(moved)[i], of_gradient)
        V = np.zeros_like(W)
        V[i] = W[i]
        product = network.hessian_product(moved, V)[i]
        near(unit.hessian_product(t * W[i], W[i]), product, of_turn)
        near(unit.layer(t * W[i]), moved, EPS * np.abs(moved))
        np.testing.assert_array_equal(unit.W, W)


@few
@given(seed=SEEDS, i=st.integers(0, 2))
def test_the_slope_along_a_line_is_that_of_finite_differences(seed, i, moments, cloud, near):
    """Of fourth order, off by no more than what twice the step changes, and by errors of the values."""
    for network, W in networks(seed, moments, cloud):
        line = network.unit(i, W).line(W[i])

        def difference(h, f=line.value):
            near, far = f(0.5 + h) - f(0.5 - h), f(0.5 + 2 * h) - f(0.5 - 2 * h)
            return (8 * near - far) / (12 * h)

        fine, coarse = difference(STEP), difference(2 * STEP)
        error = abs(fine - coarse) + 2 * error_of(network, W)[0] / STEP
        near(line.slope(0.5), fine, error)
        of_slope = error_of(network, W)[1] * np.linalg.norm(W[i])
        for t in (0.0, 1e-3, 0.5):
            near(line.slope(t), W[i] @ line.gradient(t), of_slope)


@few
@given(seed=SEEDS, i=st.integers(0, 2))
def test_beside_units_on_the_line_two_coefficients_make_the_gradient(seed, i, moments, near):
    """c1 u + c2 S w for Gaussian z, as for a halfspace."""
    u, S = moments(seed, 4)
    rng = np.random.default_rng(seed)
    line, network = np.linalg.solve(S, u), GaussianNetwork(u, S, THETA)
    W = np.outer(rng.normal(size=3), line)
    unit, w = network.unit(i, W), rng.normal(size=4) / 2
    c1, c2 = unit.coefficients(w)
    W[i] = w
    _, of_gradient, of_turn = error_of(network, W)
    near(c1 * u + c2 * S @ w, unit.gradient(w), of_gradient + of_turn)


@pytest.mark.parametrize("seed", range(5))
def test_the_curvature_bound_holds_for_scores(seed, near):
    """sup of the second derivative of loss(rest + theta act(a)) in a is searched for, up to a point."""
    rng = np.random.default_rng(seed)
    theta = 3 * rng.normal(size=2)
    network = EmpiricalNetwork(np.eye(2), theta)
    unit = network.unit(0, np.zeros((2, 2)))
    a, rest = np.linspace(-6, 6, 1201), np.linspace(-6, 6, 121)[:, np.newaxis]
    loss, act = network.loss, network.activation
    output = rest + theta[0] * act.phi(a)
    bend = loss.d2phi(output) * (theta[0] * act.dphi(a)) ** 2
    bend = np.abs(bend + loss.dphi(output) * theta[0] * act.d2phi(a)).max()
    own = abs(theta[0])
    assert bend <= unit.curvature_bound * (1 + 8 * EPS)
    near(unit.curvature_bound, own * (own / 4 + 4 / 27**0.5), 8 * EPS * unit.curvature_bound)


def test_a_unit_has_the_moments_of_its_examples(cloud):
    network = EmpiricalNetwork(cloud(0), THETA)
    unit = network.unit(1, np.ones((3, 4)))
    assert unit.u is network.u
    assert unit.S is network.S
    assert unit.metric is network.halfspace.metric
    assert unit.mean_error is network.halfspace.mean_error


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
    lengths = (-2, -0.5, 0.5, 1, 2, 4)
    for neighbour, finds in ((line, True), (line + across, False)):
        unit = network.unit(0, np.array([np.zeros(4), neighbour]))
        w = gdnp(unit, u + 0.1 * across, steps=15, bisection_steps=8).w[-1]
        # a step leaves 1 - mu/L of the sine, and roundings of a gradient a hundred times c1
        assert (off(w, line, S) < 3.0**-15 + 100 * ACCURACY_2) == finds
        pulls = [abs(across @ unit.gradient(t * line)) for t in lengths]
        errors = [
            error_of(network, np.array([t * line, neighbour]))[1] * np.linalg.norm(across)
            for t in lengths
        ]
        assert (np.array(pulls) < errors).tolist() == [finds] * len(lengths)


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


def test_points_are_kept_along_a_line_until_more_derivatives_are_asked_for(moments, monkeypatch):
    """Fewer derivatives are resolved by fewer points, which more of them may not use."""
    network = GaussianNetwork(*moments(0, 4), THETA)
    W = np.outer([1.0, 0.5, -1.0], [0.3, -0.2, 0.1, 0.4])
    asked, scores = [], GaussianNetwork._scores

    def spied(self, W, derivatives):
        asked.append(derivatives)
        return scores(self, W, derivatives)

    monkeypatch.setattr(GaussianNetwork, "_scores", spied)
    line = network.unit(0, W).line(W[0])
    for call, expected in (
        (line.value, [0]),
        (line.gradient, [0, 1]),
        (line.value, [0, 1]),
        (line.coefficients, [0, 1, 2]),
        (line.gradient, [0, 1, 2]),
        (line.coefficients, [0, 1, 2]),
    ):
        call(0.7)
        assert asked == expected
    line.value(0.8)
    assert asked == [0, 1, 2, 0]
