"""The solvers against closed forms, one another, scikit-learn and the theory."""

import functools
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    GaussianNetwork,
    LeastSquares,
    accelerated_gradient_descent,
    gdnp,
    gradient_descent,
    losses,
    solvers,
    yardsticks,
)
from bncore.convergence.length import Unresolved

NAMES = ["softplus", "sigmoid", "tanh", "squared"]
EPS = np.finfo(np.float64).eps
SEEDS = st.integers(0, 10**6)
# Bounded, and not monotone: it has a best length, unlike the sigmoid and tanh.
WELL = (
    lambda a: -np.exp(-((a + 1) ** 2) / 2),
    lambda a: (a + 1) * np.exp(-((a + 1) ** 2) / 2),
    lambda a: (1 - (a + 1) ** 2) * np.exp(-((a + 1) ** 2) / 2),
)
ALL = {
    "gdnp": gdnp,
    "gd": gradient_descent,
    "agd": accelerated_gradient_descent,
    "bn": functools.partial(solvers.batch_norm_gradient_descent, learning_rate=0.1),
    "wn": functools.partial(solvers.weight_normalization, learning_rate=0.1),
    "lbfgs": yardsticks.lbfgs,
}
few = settings(max_examples=8)


@pytest.fixture(scope="session")
def close(near, accuracy):
    """Weights and lengths after so many steps.

    Each step is off by what a gradient is, over the least curvature along the way.
    """

    def judge(problem, found, expected, steps=1):
        error = steps * problem.condition_number * accuracy(problem)
        near(found, expected, error * np.abs(expected).max())

    return judge


def least_curvature(problem, w):
    """The smallest eigenvalue of the Hessian of f at w."""
    H = np.array([problem.hessian_product(w, e) for e in np.eye(problem.dimension)])
    return np.linalg.eigvalsh((H + H.T) / 2)[0]


def directions(trace, S):
    """Directions scaled to S-norm 1, with the sign of the first kept."""
    return trace.w / np.sqrt(np.einsum("ti,ij,tj->t", trace.w, S, trace.w))[:, None]


# ---- what a trace records ----


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("kind", ["least squares", "Gaussian", "sample"])
def test_a_trace_records_what_the_problem_says_of_its_weights(
    solver, kind, moments, cloud, near, rounding, error_of
):
    u, S = moments(2, 4)
    problem = {
        "least squares": LeastSquares(u, S, 0.3),
        "Gaussian": GaussianHalfspace(u, S, "softplus"),
        "sample": EmpiricalHalfspace(cloud(2), "softplus"),
    }[kind]
    w0 = np.array([1.0, -0.5, 0.2, 0.7])
    trace = ALL[solver](problem, w0, steps=7)
    T = len(trace.w)
    assert T <= 8
    if solver != "lbfgs":
        assert T == 8
        assert trace.status == "budget"
    assert trace.w.shape == trace.weights.shape == (T, 4)
    for name in ("g", "value", "gradient_norm", "rayleigh_gap", "bound", "seconds"):
        assert getattr(trace, name).shape == (T,), name
    assert trace.seconds[0] >= 0
    assert (np.diff(trace.seconds) >= 0).all()
    assert isinstance(trace.message, str)
    error = rounding(problem) * problem.condition_number
    best = problem.rayleigh_optimum
    for t in range(T):
        w = trace.weights[t]
        of_value, of_gradient, _ = error_of(problem, w)
        near(trace.value[t], problem.value(w), of_value)
        near(trace.gradient_norm[t], np.linalg.norm(problem.gradient(w)), of_gradient)
        near(trace.rayleigh_gap[t], problem.rayleigh(trace.w[t]) - best, error * abs(best))
    np.testing.assert_array_equal(trace.w[0], w0)
    if solver == "gdnp":
        assert trace.brackets.shape == (T, 2)
        assert trace.halvings.shape == (T,)
        rate = (1 - problem.smallest_eigenvalue / problem.largest_eigenvalue) ** 2
        expected = rate ** np.arange(T) * trace.rayleigh_gap[0]
        near(trace.bound, expected, (1 + np.arange(T)) * error * expected)
    else:
        assert trace.brackets is None
        assert trace.halvings is None
        assert np.isnan(trace.bound).all()
    if solver in ("gdnp", "bn"):
        norms = np.sqrt(np.einsum("ti,ij,tj->t", trace.w, problem.S, trace.w))
        expected = trace.g[:, None] * trace.w / norms[:, None]
        near(trace.weights, expected, error * np.abs(expected))


@pytest.mark.parametrize("solver", ALL)
def test_the_start_is_left_as_it_was(solver, moments):
    problem, w0 = GaussianHalfspace(*moments(0), "softplus"), np.ones(5)
    ALL[solver](problem, w0, steps=3)
    np.testing.assert_array_equal(w0, 1)


# ---- closed forms ----


@few
@given(seed=SEEDS, d=st.integers(1, 8), share=st.floats(0.1, 5))
def test_every_solver_reaches_the_closed_form_of_least_squares(
    seed, d, share, moments, near, error_of
):
    """As near as the gradient, over twice the smallest eigenvalue, says; how small it is, theory."""
    u, S = moments(seed, d, condition=5, share=share)
    problem = LeastSquares(u, S)
    w0 = np.random.default_rng(seed).normal(size=d)
    expected, mu = -np.linalg.solve(S, u), problem.smallest_eigenvalue
    of_value, of_gradient, _ = error_of(problem, expected)
    near(problem.closed_form, expected, of_gradient / (2 * mu))
    tolerance = 1e-11
    for name in ("gdnp", "gd", "agd", "lbfgs"):
        steps = 50 if name == "lbfgs" else 400
        trace = ALL[name](problem, w0, steps=steps, tolerance=tolerance)
        left = trace.gradient_norm[-1]
        near(trace.weights[-1], expected, (left + of_gradient) / (2 * mu), name)
        # a line search sees no step that gains less than f is off by: ||grad f||^2 / (2 L)
        hidden = np.sqrt(2 * problem.smoothness * of_value) if name == "lbfgs" else 0.0
        assert left <= tolerance + of_gradient + hidden, name
    trace = solvers.batch_norm_gradient_descent(
        problem, w0, g0=0.5, steps=1000, learning_rate=0.1, tolerance=1e-9
    )
    near(trace.weights[-1], expected, (trace.gradient_norm[-1] + of_gradient) / (2 * mu))
    assert trace.gradient_norm[-1] <= 1e-9 or trace.status == "budget"


@pytest.mark.parametrize("solver", ["bn", "wn"])
def test_plain_descent_on_direction_and_length_reaches_it_too(solver, moments, near, error_of):
    for seed in range(5):
        problem = LeastSquares(*moments(seed, 4, condition=4))
        w0, tolerance = np.random.default_rng(seed).normal(size=4), 1e-9
        trace = ALL[solver](problem, w0, steps=4000, learning_rate=0.2, tolerance=tolerance)
        assert trace.status == "tolerance"
        error = tolerance + error_of(problem, problem.closed_form)[1]
        near(trace.weights[-1], problem.closed_form, error / (2 * problem.smallest_eigenvalue))


def test_for_least_squares_one_length_is_right_at_every_step(moments, near, rounding, error_of):
    """g* = -u'w / ||w||_S."""
    problem = LeastSquares(*moments(4))
    trace = gdnp(problem, np.ones(5), steps=20, bisection_steps=60)
    norms = np.sqrt(np.einsum("ti,ij,tj->t", trace.w, problem.S, trace.w))
    expected = -trace.w @ problem.u / norms
    size = np.linalg.norm(problem.u) / np.sqrt(problem.smallest_eigenvalue)
    near(trace.g[1:], expected[1:], rounding(problem) * size)
    values = problem.value(np.zeros(5)) + np.array([problem.rayleigh(w) for w in trace.w])
    near(trace.value[1:], values[1:], max(error_of(problem, w)[0] for w in trace.weights))


# ---- descent ----


@few
@given(seed=SEEDS, kind=st.sampled_from(["Gaussian", "sample", "least squares"]))
def test_gradient_descent_takes_the_steps_it_should_and_descends(
    seed, kind, moments, cloud, near, error_of
):
    u, S = moments(seed, 4)
    problem = {
        "least squares": LeastSquares(u, S),
        "Gaussian": GaussianHalfspace(u, S, "softplus"),
        "sample": EmpiricalHalfspace(cloud(seed), "tanh"),
    }[kind]
    w0 = np.random.default_rng(seed).normal(size=4)
    for rate in (None, 0.3 / problem.smoothness):
        trace = gradient_descent(problem, w0, steps=15, learning_rate=rate)
        step = 1 / problem.smoothness if rate is None else rate
        for t in range(15):
            expected = trace.weights[t] - step * problem.gradient(trace.weights[t])
            of_value, of_gradient, _ = error_of(problem, trace.weights[t])
            near(trace.weights[t + 1], expected, step * of_gradient + EPS * np.abs(expected))
            assert trace.value[t + 1] <= trace.value[t] + 2 * of_value


@pytest.mark.parametrize("seed", range(5))
def test_acceleration_pays_on_an_ill_conditioned_problem(seed, moments, error_of):
    problem = LeastSquares(*moments(seed, 20, condition=1e3))
    w0 = np.random.default_rng(seed).normal(size=20)
    best = problem.value(problem.closed_form)
    plain, fast = (
        solver(problem, w0, steps=300)
        for solver in (gradient_descent, accelerated_gradient_descent)
    )
    distance = np.linalg.norm(w0 - problem.closed_form)
    steps = np.arange(1, 301)
    # Nesterov's bound 2 L ||w0 - w*||^2 / (t+1)^2, with the smoothness for L
    bound = 2 * problem.smoothness * distance**2 / (steps + 1) ** 2
    assert (fast.value[1:] - best <= bound + 2 * error_of(problem, w0)[0]).all()
    assert fast.value[-1] - best < 0.2 * (plain.value[-1] - best)


@pytest.mark.parametrize("solver", ["bn", "wn"])
@pytest.mark.parametrize("seed", range(4))
def test_descent_on_direction_and_length_follows_autograd(solver, seed, moments, close):
    import torch

    u, S = moments(seed, 4)
    problem = LeastSquares(u, S)
    w0, g0, rate = np.random.default_rng(seed).normal(size=4), 0.8, 0.05
    trace = ALL[solver](problem, w0, g0=g0, steps=10, learning_rate=rate)
    w = torch.tensor(trace.w[0], requires_grad=True)
    g = torch.tensor(g0, dtype=torch.float64, requires_grad=True)
    tu, metric = torch.tensor(u), torch.tensor(S) if solver == "bn" else torch.eye(4).double()
    for t in range(11):
        weights = g * w / torch.sqrt(w @ metric @ w)
        close(problem, trace.weights[t], weights.detach().numpy(), t + 1)
        f = 2 * tu @ weights + weights @ torch.tensor(S) @ weights
        dw, dg = torch.autograd.grad(f, (w, g))
        with torch.no_grad():
            w -= rate * dw
            g -= rate * dg


# ---- gdnp ----


@few
@given(seed=SEEDS, d=st.integers(2, 8), share=st.floats(0.05, 0.8))
def test_the_directions_are_those_of_least_squares_whatever_the_loss(
    seed, d, share, moments, near, rounding
):
    """A step is the gradient over c1: its other part, of the size c2 g, cancels but for rounding."""
    u, S = moments(seed, d, share=share)
    w0 = np.random.default_rng(seed).normal(size=d)
    L = np.linalg.eigvalsh(S)[-1]
    expected = directions(gdnp(LeastSquares(u, S), w0, steps=12), S)
    for loss in ("softplus", "squared", WELL):
        problem = GaussianHalfspace(u, S, loss)
        trace = gdnp(problem, w0, steps=12)
        c1, c2 = np.transpose([problem.coefficients(w) for w in trace.weights])
        lost = 1 + np.abs(c2 * trace.g / c1).max()
        size = problem.condition_number * np.abs(expected).max()
        error = 12 * lost * rounding(problem) * size
        both = min(len(trace.w), len(expected))  # a run ends where its gradient is 0
        near(directions(trace, S)[:both], expected[:both], error)
    for w, after in itertools.pairwise(expected):
        step = w - (S @ w - (w @ S @ w) / (u @ w) * u) / L
        near(step / np.sqrt(step @ S @ step), after, rounding(problem) * size)


@few
@given(
    seed=SEEDS,
    d=st.integers(1, 10),
    condition=st.sampled_from([1.0, 3.0, 100.0, 1e4]),
    relaxation=st.sampled_from([1.0, 0.4, 1.6]),
)
def test_the_rayleigh_gap_stays_below_the_bound(seed, d, condition, relaxation, moments, rounding):
    u, S = moments(seed, d, condition)
    w0 = np.random.default_rng(seed).normal(size=d)
    problem = LeastSquares(u, S)
    trace = gdnp(problem, w0, steps=40, relaxation=relaxation)
    # a gap is the square of a norm in S^-1, where each step is off by the root of the condition number
    roots, bound = np.sqrt(trace.rayleigh_gap), np.sqrt(trace.bound)
    relative = rounding(problem) * problem.condition_number
    floor = 41 * rounding(problem) * np.sqrt(problem.condition_number * -problem.rayleigh_optimum)
    assert (roots <= bound * (1 + 41 * relative) + floor).all()


@few
@given(seed=SEEDS, a=st.sampled_from([1e-6, 0.01, 3.0, 1e5]), name=st.sampled_from(NAMES[::3]))
def test_the_scale_of_the_start_plays_no_part(seed, a, name, moments, close, near, rounding):
    problem = GaussianHalfspace(*moments(seed), name)
    w0 = np.random.default_rng(seed).normal(size=5)
    one, other = (gdnp(problem, s * w0, steps=8) for s in (1.0, a))
    close(problem, other.weights, one.weights, steps=9)
    error = 9 * rounding(problem) * problem.condition_number * abs(problem.rayleigh_optimum)
    near(other.rayleigh_gap, one.rayleigh_gap, error)


@few
@given(seed=SEEDS)
def test_a_rotation_of_the_data_rotates_the_path(seed, cloud, close):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    Z, w0 = cloud(seed), rng.normal(size=4)
    for solver in (gdnp, gradient_descent, accelerated_gradient_descent):
        problem = EmpiricalHalfspace(Z, "softplus")
        one = solver(problem, w0, steps=6)
        other = solver(EmpiricalHalfspace(Z @ Q.T, "softplus"), Q @ w0, steps=6)
        close(problem, other.weights, one.weights @ Q.T, steps=7)


@few
@given(seed=SEEDS)
def test_relabelling_both_classes_leaves_the_path(seed, close):
    rng = np.random.default_rng(seed)
    X, y, w0 = rng.normal(size=(60, 3)), rng.choice([-1.0, 1.0], size=60), rng.normal(size=3)
    one, other = (EmpiricalHalfspace.from_data(s * X, s * y, "softplus") for s in (1.0, -1.0))
    expected = gdnp(one, w0, steps=5).weights
    close(one, gdnp(other, w0, steps=5).weights, expected, steps=6)


@pytest.mark.parametrize("seed", range(10))
def test_it_reaches_a_small_gradient_on_gaussian_halfspaces(seed, moments, near, error_of):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 30))
    problem = GaussianHalfspace(*moments(seed, d, 10.0, rng.uniform(0.1, 0.8)), "softplus")
    tolerance = 1e-8
    trace = gdnp(problem, rng.normal(size=d), steps=400, tolerance=tolerance)
    assert trace.status == "tolerance"
    weights = trace.weights[-1]
    error = tolerance + error_of(problem, weights)[1]
    assert np.linalg.norm(problem.gradient(weights)) <= error
    # The critical point lies on the line of S^-1 u, at a distance of the gradient over the least
    # curvature; lengths in the norm of S move by as much, times the root of the condition number.
    on_the_line = problem.solution_direction * problem.norm(weights)
    away = error / least_curvature(problem, weights)
    near(weights, on_the_line, (1 + np.sqrt(problem.condition_number)) * away)


@few
@given(seed=SEEDS, bisection_steps=st.sampled_from([1, 10, 30]))
def test_the_bisection_encloses_a_critical_length(seed, bisection_steps, moments, accuracy):
    problem = GaussianHalfspace(*moments(seed, 4, share=0.3), "softplus")
    w0 = np.random.default_rng(seed).normal(size=4)
    trace = gdnp(problem, w0, steps=4, bisection_steps=bisection_steps)
    for t in range(1, 5):
        a, b = sorted(trace.brackets[t])
        line = problem.line(trace.w[t])
        low, high = (line.slope(g / line.norm) / line.norm for g in (a, b))
        # E abs(phi' a) over the length is 1 at most: the slope of the softplus
        floor = accuracy(problem) * max(abs(low), abs(high))
        assert low * high <= floor, "the slope changes its sign over the bracket"
        assert trace.halvings[t] <= bisection_steps
        width = (b - a) * 0.5 ** trace.halvings[t]
        lengths = np.linspace(trace.g[t] - width, trace.g[t] + width, 3)
        slopes = [line.slope(g / line.norm) / line.norm for g in lengths]
        floor = accuracy(problem) * np.abs(slopes).max()
        assert slopes[0] * slopes[2] <= floor, "the root is within the last bracket"


@few
@given(seed=SEEDS)
def test_brent_and_the_bisection_find_the_same_length(seed, moments, cloud, near, accuracy):
    """To the error of a slope, 1 at most, over the curvature along the line; each step carries it on."""
    w0 = np.random.default_rng(seed).normal(size=4)
    for problem in (
        GaussianHalfspace(*moments(seed, 4), "softplus"),
        EmpiricalHalfspace(cloud(seed), "softplus"),
    ):
        one, other = (
            gdnp(problem, w0, steps=10, bisection_steps=60, length_search=search)
            for search in ("bisection", "brentq")
        )
        curvatures = [
            w @ problem.hessian_product(t, w) / problem.norm(w) ** 2
            for w, t in zip(one.w, one.weights, strict=True)
        ]
        error = 11 * problem.condition_number * accuracy(problem) / np.min(curvatures)
        near(other.g[1:], one.g[1:], error * (1 + np.abs(one.g[1:])))


def test_more_bisection_steps_leave_less_slope(moments):
    problem = GaussianHalfspace(*moments(1, 4), "softplus")
    w0 = np.random.default_rng(1).normal(size=4)
    left = []
    for n in (2, 10, 20, 30):
        trace = gdnp(problem, w0, steps=3, bisection_steps=n)
        line = problem.line(trace.w[-1])
        left.append(abs(line.slope(trace.g[-1] / line.norm) / line.norm))
    assert left[1] < left[0] / 16
    assert left[2] < left[0] / 1e4
    assert left[3] < left[0] / 1e7


# ---- what a step costs ----


class Counted(np.ndarray):
    """An array that counts its products; ``counts`` is shared with its transpose and views."""

    counts = None

    def __array_finalize__(self, parent):
        self.counts = getattr(parent, "counts", None)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        plain = [np.asarray(a) if isinstance(a, Counted) else a for a in inputs]
        if ufunc in (np.matmul, np.vecdot, np.matvec, np.vecmat):
            self.count(inputs[0] if isinstance(inputs[0], Counted) else inputs[1], inputs)
        return getattr(ufunc, method)(*plain, **({"out": out} if out else {}), **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if function in (np.dot, np.einsum):
            operands = [a for a in args if isinstance(a, np.ndarray)]
            self.count(next(a for a in operands if isinstance(a, Counted)), operands)
        plain = [np.asarray(a) if isinstance(a, Counted) else a for a in args]
        return function(*plain, **kwargs)

    def dot(self, other, out=None):
        return np.dot(self, other)

    @staticmethod
    def count(data, operands):
        if data.counts is not None and data.ndim == 2:
            first = operands[0] is data
            tall = data.shape[0] > data.shape[1]
            data.counts["forward" if first == tall else "adjoint"] += 1


def counting(problem):
    """The products with the data of a sample problem from now on."""
    counts = {"forward": 0, "adjoint": 0}
    Z = problem.Z.view(Counted)
    Z.counts = counts
    problem.Z, problem._adjoint = Z, Z.T
    return counts


@pytest.mark.parametrize("bisection_steps", [1, 60])
def test_one_step_costs_one_product_with_the_data_each_way(bisection_steps, cloud):
    spent = []
    for steps in (0, 5, 25):
        problem = EmpiricalHalfspace(cloud(0), "softplus")
        counts = counting(problem)
        gdnp(problem, np.ones(4), steps=steps, bisection_steps=bisection_steps)
        spent.append((counts["forward"], counts["adjoint"]))
    forward, adjoint = np.diff(spent, axis=0).T
    np.testing.assert_array_equal(forward, [5, 20])
    np.testing.assert_array_equal(adjoint, [5, 20])
    assert max(spent[0]) <= 2


def test_gradient_descent_costs_one_product_each_way(cloud):
    problem = EmpiricalHalfspace(cloud(0), "softplus")
    counts = counting(problem)
    gradient_descent(problem, np.ones(4), steps=10)
    assert counts["forward"] <= 12
    assert counts["adjoint"] <= 12


@pytest.mark.parametrize("solver", ["gdnp", "gd", "agd"])
def test_a_single_precision_run_stays_within_twice_the_data(solver):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20000, 200), dtype=np.float32)
    y = np.sign(X[:, 0] + rng.standard_normal(20000, dtype=np.float32))
    tracemalloc.start()
    try:
        problem = EmpiricalHalfspace.from_data(X, y, "softplus")
        trace = ALL[solver](problem, np.full(200, 0.1, np.float32), steps=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem.Z.dtype == np.float32
    assert len(trace.w) == 4
    assert peak < 2 * X.nbytes


def test_sparse_data_take_the_path_of_dense_ones(close):
    rng = np.random.default_rng(0)
    Z = np.where(rng.random((200, 6)) < 0.3, rng.normal(-0.3, 1, size=(200, 6)), 0)
    w0 = rng.normal(size=6)
    finely = functools.partial(gdnp, bisection_steps=60)
    for solver in (finely, gradient_descent, accelerated_gradient_descent):
        one, other = (
            solver(EmpiricalHalfspace(kind(Z), "softplus"), w0, steps=10)
            for kind in (np.asarray, sparse.csr_array)
        )
        close(EmpiricalHalfspace(Z), other.weights, one.weights, steps=11)


# ---- ends ----


def test_where_no_length_is_best_it_says_so():
    """Separable data and a monotone loss: longer is better, once the direction separates them."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(60, 3))
    Z[:, 0] = -1 - np.abs(Z[:, 0])
    problem = EmpiricalHalfspace(Z, "softplus")
    trace = gdnp(problem, np.array([0.05, 1.0, 0.3]), steps=50)
    assert trace.status == "no finite length"
    assert "falls for ever" in trace.message
    assert 1 <= len(trace.w) < 51
    assert np.isfinite(trace.weights).all()
    for name in ("softplus", "sigmoid", "tanh"):
        with pytest.raises(ValueError, match=r"w0 has no optimal length: .* falls for ever"):
            gdnp(EmpiricalHalfspace(Z, name), np.array([1.0, 0.01, 0.01]), steps=50)


@few
@given(seed=SEEDS, share=st.floats(0.01, 0.95), name=st.sampled_from(["sigmoid", "tanh"]))
def test_a_bounded_monotone_loss_of_gaussian_points_has_no_best_length(seed, share, name, moments):
    """E phi(t z'w) falls in t wherever u'w < 0: the density of z'w falls at 0."""
    u, S = moments(seed, 4, share=share)
    problem = GaussianHalfspace(u, S, name)
    w = np.random.default_rng(seed).normal(size=4)
    w *= -np.sign(u @ w)
    line = problem.line(w / problem.norm(w))
    assert all(line.slope(t) < 0 for t in np.geomspace(1e-3, 100, 20))
    with pytest.raises(ValueError, match="w0 has no optimal length"):
        gdnp(problem, w, steps=5)


def test_a_tolerance_ends_a_run_early(moments):
    problem = LeastSquares(*moments(0, condition=3))
    for name in ("gdnp", "gd", "agd"):
        trace = ALL[name](problem, np.ones(5), steps=500, tolerance=1e-6)
        assert trace.status == "tolerance", name
        assert len(trace.w) < 500
        assert trace.gradient_norm[-1] <= 1e-6 < trace.gradient_norm[-2]


@pytest.mark.parametrize("solver", ["gd", "agd", "bn", "wn"])
def test_too_large_a_learning_rate_is_reported_not_warned_about(solver, moments):
    problem = LeastSquares(*moments(0))
    trace = ALL[solver](problem, np.ones(5), steps=3000, learning_rate=1e3)
    assert trace.status in ("diverged", "budget")
    if solver in ("gd", "agd"):
        assert trace.status == "diverged"
        assert "not finite after" in trace.message


def test_at_the_solution_it_stays(moments, close, error_of):
    problem = GaussianHalfspace(*moments(0), "softplus")
    trace = gdnp(problem, problem.solution_direction, steps=5, bisection_steps=60)
    found = directions(trace, problem.S)
    close(problem, found, found[[0] * len(trace.w)], steps=6)
    assert trace.gradient_norm[-1] <= error_of(problem, trace.weights[-1])[1]


# ---- degenerate data ----


def test_dependent_columns_are_allowed_and_the_bound_says_nothing(near, rounding, error_of):
    rng = np.random.default_rng(0)
    narrow = rng.normal(-0.2, 1, size=(100, 3))
    for Z in (np.c_[narrow, narrow[:, 0]], np.c_[narrow, np.zeros(100)]):
        problem, plain = EmpiricalHalfspace(Z, "softplus"), EmpiricalHalfspace(narrow, "softplus")
        assert problem.smallest_eigenvalue == 0
        assert problem.condition_number == np.inf
        best = plain.rayleigh_optimum
        error = rounding(problem) * plain.condition_number * abs(best)
        near(problem.rayleigh_optimum, best, error)
        tolerance = 1e-6
        trace = gdnp(problem, np.array([1.0, -0.5, 0.3, 0.2]), steps=300, tolerance=tolerance)
        assert (trace.bound == trace.bound[0]).all()  # times powers of 1
        twin = gdnp(plain, np.array([1.0, -0.5, 0.3]), steps=300, tolerance=tolerance)
        # f is above its minimum by ||grad f||^2 over twice the least curvature
        above = tolerance**2 / (2 * least_curvature(plain, twin.weights[-1]))
        near(trace.value[-1], twin.value[-1], above + error_of(plain, twin.weights[-1])[0])


def test_more_dimensions_than_points_are_separable_and_end_without_a_finite_length():
    Z = np.random.default_rng(0).normal(-0.3, 1, size=(5, 8))
    problem = EmpiricalHalfspace(Z, "softplus")
    assert problem.smallest_eigenvalue == 0
    with pytest.raises(ValueError, match="w0 has no optimal length"):
        gdnp(problem, problem.solution_direction, steps=3)
    w0 = np.random.default_rng(1).normal(size=8)
    trace = gdnp(problem, w0, steps=200)
    assert trace.status == "no finite length"
    assert trace.value[-1] <= trace.value[0]


# ---- every step by hand ----

KINDS = ["least squares", "Gaussian", "sample"]


@pytest.mark.parametrize("kind", KINDS)
@few
@given(
    seed=SEEDS,
    bisection_steps=st.sampled_from([3, 20, 60]),
    relaxation=st.sampled_from([1.0, 0.3, 1.7]),
)
def test_the_directions_of_gdnp_by_hand(
    kind, seed, bisection_steps, relaxation, problem_of, near, accuracy
):
    """w - r s grad_w f(w, g), with s = -||w||_S^3 / (L g h), h = c1 u'w, from plain gradients of f."""
    problem = problem_of(kind, seed)
    u, S = problem.u, problem.S
    w0 = np.random.default_rng(seed).normal(size=4)
    trace = gdnp(problem, w0, steps=6, bisection_steps=bisection_steps, relaxation=relaxation)
    L = np.linalg.eigvalsh(S)[-1]
    np.testing.assert_array_equal(trace.w[0], w0)
    for w, g, after in zip(trace.w[:-1], trace.g[:-1], trace.w[1:], strict=True):
        if g == 0:  # the end of a bracket that few halvings left in place: no gradient in w
            continue
        norm = np.sqrt(w @ S @ w)
        gradient = problem.gradient(g * w / norm)
        by_w = g / norm * (gradient - S @ w * (w @ gradient) / norm**2)
        h = problem.coefficients(g * w / norm)[0] * (u @ w)
        # slopes and bends of the three losses are 2 at most, as long as z and S w
        size = 2 * (np.linalg.norm(u) + abs(g) * np.sqrt(L)) * norm**2 / (L * abs(h))
        error = accuracy(problem) * problem.condition_number * (np.linalg.norm(w) + size)
        near(after, w + relaxation * norm**3 / (L * g * h) * by_w, error)


def test_a_relaxation_beyond_two_turns_for_ever_within_the_range_of_numbers(moments):
    problem = LeastSquares(*moments(0, 4, 10.0))
    trace = gdnp(problem, np.ones(4), steps=2000, relaxation=4.0)
    assert trace.status == "budget"
    assert np.isfinite(trace.w).all()
    assert trace.rayleigh_gap[-1000:].max() > 1e-6


@pytest.mark.parametrize("bisection_steps", [1, 2, 3, 10, 40])
@few
@given(seed=SEEDS)
def test_the_lengths_of_gdnp_by_hand(bisection_steps, seed, problem_of, near, rounding):
    """For least squares the slope 2 (g - g*) is known, and with it brackets and halvings."""
    problem = problem_of("least squares", seed, share=0.5)
    u, S = problem.u, problem.S
    trace = gdnp(
        problem,
        np.random.default_rng(seed).normal(size=4),
        steps=8,
        bisection_steps=bisection_steps,
    )
    before, width = 0.0, 1.0
    # u'w over ||w||_S, of a size of sqrt(u'S^-1 u)
    error = rounding(problem) * problem.condition_number
    for w, g, bracket, halvings in zip(
        trace.w, trace.g, trace.brackets, trace.halvings, strict=True
    ):
        best = -(u @ w) / np.sqrt(w @ S @ w)
        a, b = before, before + np.copysign(width, best - before)
        scale = error * (1 + abs(a) + abs(b) + np.abs(bracket).max())
        if abs(abs(best - before) - width) <= scale:
            return  # too near the end of the bracket to be told apart by hand
        if abs(best - before) < width:
            near(bracket, np.array(sorted((a, b), key=abs)), scale)
        a, b = bracket
        assert abs(a) <= abs(b)  # ordered by this
        assert min(a, b) - scale <= best <= max(a, b) + scale
        assert halvings <= bisection_steps
        for _ in range(halvings):
            middle = (a + b) / 2
            if abs(best - middle) <= scale:
                return  # the bisection has come down to rounding
            a, b = (middle, b) if (best > middle) == (best > a) else (a, middle)
        near(g, a, scale)
        changed, left = abs(g - before), abs(b - a)
        before, width = g, max(2 * changed, left, 1e-12 * abs(g))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=SEEDS)
def test_plain_and_accelerated_descent_by_hand(kind, seed, problem_of, close):
    problem, rng = problem_of(kind, seed), np.random.default_rng(seed)
    w, bend = rng.normal(size=4), {"least squares": 2.0}.get(kind, 0.25)
    step = 1 / (bend * np.linalg.eigvalsh(problem.S)[-1])
    for rate in (None, 0.4 * step):
        size = step if rate is None else rate
        plain = gradient_descent(problem, w, steps=6, learning_rate=rate)
        for before, after in itertools.pairwise(plain.weights):
            close(problem, after, before - size * problem.gradient(before))
        fast = accelerated_gradient_descent(problem, w, steps=6, learning_rate=rate)
        moved = [x - size * problem.gradient(x) for x in fast.weights[:-1]]
        close(problem, fast.weights[1], moved[0])
        for t in range(1, 6):
            expected = moved[t] + t / (t + 3) * (moved[t] - moved[t - 1])
            close(problem, fast.weights[t + 1], expected)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=SEEDS, g0=st.sampled_from([None, -0.7, 1.5]))
def test_descent_on_direction_and_length_by_hand(kind, seed, g0, problem_of, close):
    """f(g w / |w|) differentiated by hand, for both norms."""
    problem = problem_of(kind, seed)
    w0 = np.random.default_rng(seed).normal(size=4)
    rate = 0.3 / problem.smoothness
    for solver, M, default in (
        (solvers.batch_norm_gradient_descent, problem.S, 1.0),
        (solvers.weight_normalization, np.eye(4), np.sqrt(w0 @ w0)),
    ):
        given = {} if g0 is None else {"g0": g0}
        trace = solver(problem, w0, steps=6, learning_rate=rate, **given)
        g, w = (default if g0 is None else g0), w0
        for t in range(7):
            norm = np.sqrt(w @ M @ w)
            close(problem, trace.w[t], w, t + 1)
            close(problem, trace.g[t], g, t + 1)
            close(problem, trace.weights[t], g * w / norm, t + 1)
            gradient = problem.gradient(g * w / norm)
            slope = gradient @ w / norm
            by_w = g / norm * gradient - g * slope / norm**2 * (M @ w)
            w, g = w - rate * by_w, g - rate * slope


# ---- units ----

TIMES = st.sampled_from([1e-8, 1e8])


def of_units(problem, factors):
    """The same problem with its features multiplied."""
    if isinstance(problem, EmpiricalHalfspace):
        return EmpiricalHalfspace(problem.Z * factors, problem.loss)
    u, S = factors * problem.u, problem.S * np.outer(factors, factors)
    if isinstance(problem, LeastSquares):
        return LeastSquares(u, S)
    return GaussianHalfspace(u, S, problem.loss)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=SEEDS, factor=TIMES)
def test_a_factor_on_all_features_changes_no_run(
    kind, seed, factor, problem_of, near, close, rounding, error_of
):
    """A common factor of the features is one of the weights: every method but one takes the same way."""
    problem = problem_of(kind, seed)
    other = of_units(problem, np.full(4, factor))
    w0 = np.random.default_rng(seed).normal(size=4)
    for solver in (gdnp, gradient_descent, accelerated_gradient_descent):
        one, two = solver(problem, w0, steps=6), solver(other, w0 / factor, steps=6)
        assert one.status == two.status
        close(problem, two.weights * factor, one.weights, steps=7)
        of_value = [error_of(problem, w)[0] for w in one.weights]
        near(two.value, one.value, 7 * problem.condition_number * np.array(of_value))
        error = 7 * rounding(problem) * problem.condition_number * abs(problem.rayleigh_optimum)
        near(two.rayleigh_gap, one.rayleigh_gap, error)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=SEEDS, j=st.integers(0, 3), factor=st.sampled_from([1e-100, 1e-8, 1e8, 1e100]))
def test_a_factor_on_one_feature_changes_no_decision(
    kind, seed, j, factor, problem_of, near, close, rounding, error_of
):
    problem = problem_of(kind, seed)
    factors = np.where(np.arange(4) == j, factor, 1.0)
    other, w0 = of_units(problem, factors), np.random.default_rng(seed).normal(size=4)
    one, two = gdnp(problem, w0, steps=0), gdnp(other, w0 / factors, steps=0)
    assert two.status == one.status
    near(two.value, one.value, error_of(problem, one.weights[0])[0])
    close(problem, two.g, one.g)
    error = rounding(problem) * problem.condition_number * abs(problem.rayleigh_optimum)
    near(two.rayleigh_gap, one.rayleigh_gap, error)
    trace = gdnp(other, w0 / factors, steps=3)
    for name in ("weights", "value", "gradient_norm", "rayleigh_gap", "bound"):
        assert np.isfinite(getattr(trace, name)).all(), name


def times(factor):
    """The softplus, multiplied."""
    phi, dphi, d2phi = (
        functools.partial(lambda f, a: factor * f(a), f)
        for f in (
            losses.LOSSES["softplus"].phi,
            losses.LOSSES["softplus"].dphi,
            losses.LOSSES["softplus"].d2phi,
        )
    )
    return losses.Loss(phi, dphi, d2phi, factor, factor / 4)


@few
@given(seed=SEEDS, factor=TIMES)
def test_a_factor_on_the_loss_changes_no_run(seed, factor, moments, cloud, near, close, error_of):
    w0 = np.random.default_rng(seed).normal(size=4)
    u, S = moments(seed, 4)
    for make in (
        functools.partial(GaussianHalfspace, u, S),
        functools.partial(EmpiricalHalfspace, cloud(seed)),
    ):
        for solver in (gdnp, gradient_descent, accelerated_gradient_descent):
            one, two = (
                solver(make("softplus"), w0, steps=6),
                solver(make(times(factor)), w0, steps=6),
            )
            assert one.status == two.status
            problem = make("softplus")
            close(problem, two.weights, one.weights, steps=7)
            of_gradient = np.array([error_of(problem, w)[1] for w in one.weights])
            error = 7 * problem.condition_number * of_gradient
            near(two.gradient_norm / factor, one.gradient_norm, error)
        stop = 3 * one.gradient_norm.min()
        early = [
            gdnp(make(times(c)), w0, steps=50, tolerance=c * stop).status for c in (1.0, factor)
        ]
        assert early[0] == early[1]


@few
@given(seed=SEEDS, factor=TIMES)
def test_a_factor_on_a_loss_without_best_length_changes_no_status(seed, factor):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(60, 3))
    Z[:, 0] = -1 - np.abs(Z[:, 0])
    w0 = np.array([0.05, 1.0, 0.3])
    one, two = (
        gdnp(EmpiricalHalfspace(Z * unit, times(loss)), w0 / unit, steps=50)
        for loss, unit in ((1.0, 1.0), (factor, 1 / factor))
    )
    assert one.status == two.status
    assert one.steps == two.steps


# ---- lists ----


def test_lists_are_taken_as_arrays_are(moments, close):
    u, S = moments(0, 3)
    one, other = LeastSquares(u, S), LeastSquares(u.tolist(), S.tolist())
    for solver in (gdnp, gradient_descent, accelerated_gradient_descent):
        for w0 in (
            [1, 2, 3],
            (1.0, 2.0, 3.0),
            np.array([1, 2, 3]),
            np.array([1, 2, 3], np.float32),
        ):
            expected = solver(one, np.array([1.0, 2.0, 3.0]), steps=3)
            close(one, solver(other, w0, steps=3).weights, expected.weights, steps=4)


# ---- statuses ----


def test_where_the_step_is_not_defined_the_run_stalls(cloud):
    """f(w) = E sin(z'w), where c1 = E cos + E sin u'w is made 0 by hand."""
    problem = EmpiricalHalfspace(cloud(0), "softplus")
    line = problem.line

    def without_c1(w):
        found = line(w)
        found.coefficients = lambda t: (0.0, 1.0)
        return found

    problem.line = without_c1
    trace = gdnp(problem, np.ones(4), steps=5)
    assert trace.status == "stalled"
    assert "h = c1 u'w is 0" in trace.message
    assert trace.steps == 0


def test_where_a_length_is_out_of_reach_the_run_says_so(cloud):
    problem = EmpiricalHalfspace(cloud(0), "softplus")
    line, made = problem.line, []

    def fails(g):
        raise Unresolved("too fine to follow")

    def resolved(w, first):
        found = line(w)
        made.append(w)
        if len(made) > first:
            found.slope = fails
        return found

    problem.line = lambda w: resolved(w, 3)
    trace = gdnp(problem, np.ones(4), steps=9)
    assert trace.status == "unresolved"
    assert "too fine to follow" in trace.message
    assert trace.steps == 2
    made.clear()
    problem.line = lambda w: resolved(w, 0)
    with pytest.raises(Unresolved, match=r"the optimal length of w0 is out of reach: .*too fine"):
        gdnp(problem, np.ones(4), steps=9)


def test_whatever_is_no_problem_is_refused(refuses, moments):
    u, S = moments(0, 3)
    network = GaussianNetwork(u, S, [1.0, 0.5])
    for solver in ALL.values():
        wrong = {"kind": TypeError}
        refuses(
            "problem is a GaussianNetwork, expected a problem: .*unit(i, W)",
            solver,
            network,
            u,
            **wrong,
        )
        refuses("problem is a ndarray, expected a problem: LeastSquares", solver, u, u, **wrong)
