"""GDNP on the hidden units of a network, one after the other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from bncore.convergence import (
    EmpiricalHalfspace,
    EmpiricalNetwork,
    GaussianNetwork,
    LeastSquares,
    gdnp,
    gdnp_network,
)
from bncore.convergence.quadrature import ACCURACY_2

SEEDS = st.integers(0, 10**6)
few = settings(max_examples=8)


def off(w, line, S):
    """The sine of the angle between w and the line, in the norm of S."""
    line = line / np.sqrt(line @ S @ line)
    across = w - (w @ S @ line) * line
    return np.sqrt(across @ S @ across) / np.sqrt(w @ S @ w)


@few
@given(seed=SEEDS)
def test_of_one_unit_it_is_gdnp(seed, cloud, near, rounding):
    rng = np.random.default_rng(seed)
    network, W0 = EmpiricalNetwork(cloud(seed), [0.9]), rng.normal(size=(1, 4))
    trace = gdnp_network(network, W0, steps=5, bisection_steps=30)
    alone = gdnp(network.unit(0, W0), W0[0], steps=5, bisection_steps=30)
    halfspace = network.halfspace
    error = 5 * halfspace.condition_number * rounding(halfspace) * np.abs(alone.weights).max()
    near(trace.traces[0].weights, alone.weights, error)
    near(trace.weights[0], alone.weights[-1], error)


@few
@given(
    seed=SEEDS,
    units=st.integers(1, 3),
    sweeps=st.integers(1, 2),
    others=st.sampled_from(["zero", "start"]),
)
def test_each_unit_takes_its_turn_beside_what_the_others_have_come_to(
    seed, units, sweeps, others, cloud, near, rounding
):
    """The turns by hand; the same calls in the same order, so that roundings alone are between them."""
    rng = np.random.default_rng(seed)
    network = EmpiricalNetwork(cloud(seed), rng.uniform(0.5, 1, size=units))
    W0 = rng.normal(size=(units, 4))
    options = {"steps": 2, "bisection_steps": 8}
    found = gdnp_network(network, W0, sweeps=sweeps, others=others, **options)
    W, halfspace = np.zeros((units, 4)) if others == "zero" else W0.copy(), network.halfspace
    assert len(found.traces) == units * sweeps
    for turn, trace in enumerate(found.traces):
        i = turn % units
        start = W0[i] if turn < units else W[i]
        alone = gdnp(network.unit(i, W), start, **options)
        error = 2 * units * sweeps * halfspace.condition_number * rounding(halfspace)
        near(trace.weights, alone.weights, error * np.abs(alone.weights).max())
        assert trace.status == alone.status
        W[i] = trace.weights[-1]
    np.testing.assert_array_equal(found.weights, W)  # handed on


def test_the_start_is_left_as_it_was(cloud):
    network, W0 = EmpiricalNetwork(cloud(0), [0.9, 0.4]), np.ones((2, 4))
    for others in ("zero", "start"):
        gdnp_network(network, W0, steps=1, others=others)
        np.testing.assert_array_equal(W0, 1)


def test_from_rest_it_ends_on_the_solution_line(moments):
    """The sine is at most the root of what (1 - mu/L)^(2t) leaves of the gap, here 4^-t."""
    u, S = moments(1, 4, condition=2, share=0.4)
    network, line = GaussianNetwork(u, S, [0.8, -0.6]), np.linalg.solve(S, u)
    W0 = np.array([[0.3, -0.4, 0.2, 0.5], 0.3 * line])
    trace = gdnp_network(network, W0, steps=20, bisection_steps=20, sweeps=1)
    assert trace.weights.shape == (2, 4)
    assert len(trace.traces) == 2
    for w in trace.weights:
        # errors of a gradient a hundred times c1
        assert off(w, line, S) <= 2.0**-20 + 100 * ACCURACY_2
    assert network.value(trace.weights) < network.value(W0)


def test_a_search_goes_as_far_as_its_minimum(near):
    network = GaussianNetwork([0.3, -0.45], [[2.0, 0.9], [0.9, 1.0]], [0.05, 0.05])
    trace = gdnp_network(network, [[-1, 0], [-1, 0]], steps=0).traces[0]
    line = network.unit(0, np.zeros((2, 2))).line(np.array([-1.0, 0.0]))
    exact = optimize.brentq(line.slope, 5, 20) * line.norm
    assert f"{exact:.2f}" == "14.58"
    width = np.abs(np.diff(trace.brackets[0])[0])
    near(trace.g[0], exact, width * 2.0 ** -trace.halvings[0])


def test_lists_are_taken_as_arrays(cloud, near):
    theta, W = [1.0, -0.5], [[1, 0, 0, 1], [0, 2, 0, 0]]
    networks = (
        EmpiricalNetwork(cloud(0), theta),
        GaussianNetwork([0.3, -0.45, 0, 0], np.eye(4), theta),
    )
    for network in networks:
        one, other = (
            gdnp_network(network, given_, steps=1, bisection_steps=4, others="start").weights
            for given_ in (W, np.array(W, float))
        )
        near(one, other, ACCURACY_2 * np.abs(other).max())


def test_what_it_cannot_train_is_refused(refuses):
    sample, W = EmpiricalNetwork(np.eye(2), [1.0, -0.5, 0.3]), np.ones((3, 2))
    expected = "expected a GaussianNetwork or an EmpiricalNetwork; gdnp takes problems"
    for problem in (EmpiricalHalfspace(np.eye(2)), LeastSquares(W[0], np.eye(2))):
        message = f"network is a {type(problem).__name__}, {expected}"
        refuses(message, gdnp_network, problem, W, kind=TypeError)
    refuses("others is 'ones', expected 'zero' or 'start'", gdnp_network, sample, W, others="ones")
    refuses("sweeps is -1", gdnp_network, sample, W, sweeps=-1)
    refuses("steps is -1", gdnp_network, sample, W, steps=-1)
    refuses("W has shape (2, 2)", gdnp_network, sample, W[:2])
