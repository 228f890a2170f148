"""What a run leaves behind, held against the formulas of each attribute, and when a run ends."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.convergence import (
    LeastSquares,
    accelerated_gradient_descent,
    batch_norm_gradient_descent,
    gdnp,
    gradient_descent,
    weight_normalization,
)
from bncore.convergence.trace import Recorder, held

SEEDS = st.integers(0, 10**6)
KINDS = ["least squares", "Gaussian", "sample"]
few = settings(max_examples=8)
SOLVERS = {
    "gdnp": gdnp,
    "gradient descent": gradient_descent,
    "accelerated": accelerated_gradient_descent,
    "batch norm": lambda *a, **k: batch_norm_gradient_descent(*a, learning_rate=0.1, **k),
    "weight normalization": lambda *a, **k: weight_normalization(*a, learning_rate=0.1, **k),
}
EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=SEEDS, steps=st.integers(0, 6))
def test_every_attribute_is_its_formula(
    solver, kind, seed, steps, problem_of, near, rounding, error_of
):
    problem = problem_of(kind, seed)
    trace = SOLVERS[solver](problem, np.random.default_rng(seed).normal(size=4), steps=steps)
    u, S = problem.u, problem.S
    # |w|'|S||w| is w'Sw, which does not cancel, times the condition number at most
    error = rounding(problem) * problem.condition_number
    assert trace.steps == steps
    assert trace.status == "budget"
    assert trace.message == f"all {steps} steps were made"
    norms = np.sqrt(np.einsum("ti,ij,tj->t", trace.w, S, trace.w))
    euclidean = np.sqrt((trace.w**2).sum(axis=1))
    if solver in ("gdnp", "batch norm"):
        expected = (trace.g / norms)[:, None] * trace.w
    elif solver == "weight normalization":
        expected = (trace.g / euclidean)[:, None] * trace.w
    else:
        expected = trace.w
        near(trace.g, norms, error * norms)
    near(trace.weights, expected, error * np.abs(expected))
    of_value, of_gradient, _ = np.transpose([error_of(problem, w) for w in trace.weights])
    near(trace.value, [problem.value(w) for w in trace.weights], of_value)
    slopes = [np.sqrt((problem.gradient(w) ** 2).sum()) for w in trace.weights]
    near(trace.gradient_norm, slopes, of_gradient)
    best = u @ np.linalg.solve(S, u)
    near(trace.rayleigh_gap, best - (trace.w @ u) ** 2 / norms**2, error * best)
    if solver == "gdnp":
        mu, *_, L = np.linalg.eigvalsh(S)
        power = 2 * np.arange(steps + 1)
        bound = trace.rayleigh_gap[0] * (1 - mu / L) ** power
        near(trace.bound, bound, (1 + power) * error * bound)
        assert trace.brackets.shape == (steps + 1, 2)
        assert trace.halvings.shape == (steps + 1,)
    else:
        assert np.isnan(trace.bound).all()
        assert trace.brackets is None
        assert trace.halvings is None


class Slow:
    """A line of a problem without data: value, lengths and gap are given."""

    def __init__(self, w, value=1.0, norm=2.0, gap=0.5):
        self.w, self.norm, self.rayleigh_gap, self._value = np.array(w), norm, gap, value

    def value(self, t):
        return self._value * t


def test_a_row_is_kept_as_it_was_given_and_lengths_are_in_the_norm_of_s(near):
    recorder = Recorder(5, 0.0, "Rows")
    assert recorder.add(Slow([3.0, 4.0], value=7.0), -0.5, np.array([0.6, 0.8]))
    assert recorder.add(Slow([1.0, 0.0], gap=0.25), 2.0, np.array([3.0, 4.0]), g=9.0)
    trace = recorder.trace(rate=0.1)
    assert trace.w.tolist() == [[3.0, 4.0], [1.0, 0.0]]
    assert trace.weights.tolist() == [[-1.5, -2.0], [2.0, 0.0]]
    assert trace.g.tolist() == [-0.5 * 2.0, 9.0]
    assert trace.value.tolist() == [-3.5, 2.0]
    near(trace.gradient_norm, [1.0, 5.0], 4 * EPS * np.array([1.0, 5.0]))
    assert trace.rayleigh_gap.tolist() == [0.5, 0.25]
    near(trace.bound, [0.5, 0.05], EPS * np.array([0.5, 0.05]))
    assert trace.steps == 1


def test_where_w_is_0_the_gap_is_nan():
    recorder = Recorder(1, 0.0, "Nothing")
    recorder.add(Slow([0.0], norm=0.0), 1.0, np.ones(1))
    assert np.isnan(recorder.trace().rayleigh_gap).all()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_run_ends_when_all_steps_are_made(steps):
    recorder, wanted = Recorder(steps, 0.0, "Steps"), []
    for _ in recorder:
        wanted.append(recorder.add(Slow([1.0]), 1.0, np.ones(1)))
    assert wanted == [True] * steps + [False]
    assert recorder.trace().status == "budget"


def test_a_run_ends_where_the_gradient_is_at_most_the_tolerance():
    for size, status in ((0.25, "tolerance"), (np.nextafter(0.25, 1), "budget")):
        recorder = Recorder(10, 0.25, "Tolerance")
        for made, _ in enumerate(recorder):
            recorder.add(Slow([1.0]), 1.0, np.array([1.0 if made < 3 else size]))
        trace = recorder.trace()
        assert trace.status == status
        assert (trace.message == "the gradient's norm is at most 0.25") == (status == "tolerance")
        assert trace.steps == (3 if status == "tolerance" else 10)


def test_a_run_that_leaves_the_numbers_ends_before_them():
    for line, gradient in ((Slow([1.0], value=np.inf), 1.0), (Slow([1.0]), np.nan)):
        recorder = Recorder(10, 0.0, "Divergence")
        for made, _ in enumerate(recorder):
            if made < 2:
                recorder.add(Slow([1.0]), 1.0, np.ones(1))
            else:
                assert not recorder.add(line, 1.0, np.array([gradient]))
        trace = recorder.trace()
        assert trace.status == "diverged"
        assert trace.message == "f or its gradient is not finite after 2 steps"
        assert trace.steps == 1
        assert np.isfinite(trace.value).all()
        with pytest.raises(ValueError, match="at the start and its gradient has the norm"):
            Recorder(10, 0.0, "Start").add(line, 1.0, np.array([gradient]))


def test_seconds_are_counted_from_the_beginning_of_the_run():
    began = time.perf_counter()
    recorder = Recorder(2, 0.0, "Clock")
    for _ in recorder:
        time.sleep(0.02)
        recorder.add(Slow([1.0]), 1.0, np.ones(1))
    elapsed = time.perf_counter() - began
    seconds = recorder.trace().seconds
    # sleep may wake a tick early
    assert (np.diff(seconds, prepend=0.0) > 0.015).all()
    assert seconds[-1] <= elapsed


def test_searches_beyond_the_last_row_are_left_out():
    recorder = Recorder(3, 0.0, "Searches")
    recorder.add(Slow([1.0]), 1.0, np.ones(1))
    recorder.searches.extend([((0.0, 1.0), 5), ((0.5, 0.75), 3)])
    trace = recorder.trace(1.0)
    assert trace.brackets.tolist() == [[0.0, 1.0]]
    assert trace.halvings.tolist() == [5]


def test_a_tolerance_is_in_the_units_of_the_gradient(moments):
    """The same run of the same problem in other units of y, with the tolerance in those units."""
    u, S = moments(3, 4)
    w0 = np.random.default_rng(3).normal(size=4)
    sizes = gdnp(LeastSquares(u, S), w0, steps=20, bisection_steps=60).gradient_norm
    last = int(np.argmax(sizes[1:] < 0.5 * sizes[:-1])) + 1
    between = np.sqrt(sizes[last - 1] * sizes[last])  # and far from either
    for factor in (1e-8, 1.0, 1e8):
        trace = gdnp(
            LeastSquares(factor * u, S),
            w0,
            steps=200,
            bisection_steps=60,
            tolerance=factor * between,
        )
        assert (trace.status, trace.steps) == ("tolerance", last)


def test_settings_are_refused(refuses):
    refuses("steps is -1, expected at least 0", Recorder, -1, 0.0, "")
    refuses("steps is a float, expected an integer", Recorder, 1.0, 0.0, "", kind=TypeError)
    refuses("tolerance is -1, expected a finite number of at least 0", Recorder, 1, -1, "")


@few
@given(seed=SEEDS, dimension=st.integers(1, 5), steps=st.integers(0, 12))
def test_a_run_that_ended_is_held_where_it_is(seed, dimension, steps):
    # curvature 1 everywhere: a step of size 1 leads to the solution, where the gradient is 0
    rng = np.random.default_rng(seed)
    problem = LeastSquares(rng.normal(size=dimension), np.eye(dimension))
    trace = gradient_descent(problem, rng.normal(size=dimension), steps=steps, learning_rate=0.5)
    values = held(trace.value, steps)
    assert len(values) == steps + 1
    np.testing.assert_array_equal(values[: len(trace.g)], trace.value)
    assert (values[len(trace.g) :] == trace.value[-1]).all()
