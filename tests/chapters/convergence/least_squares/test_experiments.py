"""The experiments of the chapter on least squares, against formulas, other libraries and the record."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bncore.chapters.convergence.least_squares import experiments
from bncore.convergence import (
    EmpiricalHalfspace,
    LeastSquares,
    batch_norm_gradient_descent,
    bounds,
    gdnp,
    gradient_descent,
    textbook,
)

EPS = np.finfo(np.float64).eps
LATE = 2e-3  # What faster parts leave in the mean factor of late steps.
CONDITIONS = st.sampled_from([1.5, 4, 30, 500])
SEEDS = st.integers(0, 10**6)


@given(CONDITIONS, SEEDS, st.integers(2, 12))
def test_a_random_problem_is_as_described(condition, seed, dimension):
    problem, _ = experiments.random_problem(condition, seed, dimension)
    rounding = 16 * dimension * EPS
    assert problem.condition_number == pytest.approx(condition, rel=rounding * condition, abs=0)
    assert problem.largest_eigenvalue == pytest.approx(1, rel=rounding, abs=0)
    assert problem.rayleigh_optimum == pytest.approx(-1, rel=rounding * condition, abs=0)


@given(CONDITIONS, SEEDS, st.floats(0, 90))
def test_a_tilted_solution_has_its_angle(condition, seed, tilt):
    problem, _ = experiments.random_problem(condition, seed, 5, tilt)
    flattest = np.linalg.eigh(problem.S)[1][:, 0]
    rounding = 16 * 5 * condition * EPS
    p = np.linalg.solve(experiments.root(problem.S), problem.u)
    assert abs(flattest @ p) == pytest.approx(np.cos(np.radians(tilt)), abs=rounding)


@given(CONDITIONS, SEEDS, st.integers(2, 12))
def test_the_short_step_is_the_gradient_step_of_the_theorem(condition, seed, dimension):
    problem, w = experiments.random_problem(condition, seed, dimension)
    assume(abs(problem.rayleigh(w)) > 1e-4)
    eta = problem.norm(w) ** 2 / (2 * problem.largest_eigenvalue * abs(problem.rayleigh(w)))
    printed = w - eta * problem.rayleigh_gradient(w)
    short = experiments.step(problem, w)
    # Both subtract a multiple of u, from a quotient by u'w, which cancels.
    multiple = (w @ problem.S @ w) / (problem.u @ w) * problem.u
    size = np.abs(short).max() + np.abs(multiple).max() / abs(problem.rayleigh(w)) ** 0.5
    np.testing.assert_allclose(printed, short, rtol=0, atol=4 * dimension * EPS * size)
    written_out = experiments.step(problem, w, 1 / problem.largest_eigenvalue)
    np.testing.assert_array_equal(written_out, short)


@given(CONDITIONS, SEEDS, st.integers(2, 12))
def test_every_inequality_of_the_proof(condition, seed, dimension):
    problem, w = experiments.random_problem(condition, seed, dimension)
    assume(experiments.sine(problem, w) > 1e-6)
    ratios = experiments.inequalities(problem, w)
    # Sines are lengths of differences, of vectors that the root of S divides.
    after = experiments.step(problem, w)
    least = min(experiments.sine(problem, at) for at in (w, after))
    rounding = 4 * dimension * condition**0.5 * EPS / least
    assert max(ratios) <= 1 + rounding
    gap = [problem.line(at).rayleigh_gap for at in (w, after)]
    expected = gap[1] / gap[0] / bounds.rate(problem)
    assert ratios[2] == pytest.approx(expected, rel=10 * rounding, abs=0)


@given(CONDITIONS, SEEDS)
def test_the_path_is_the_one_of_gdnp(condition, seed):
    problem, w = experiments.random_problem(condition, seed)
    assume(abs(problem.u @ w) > 1e-3)
    path = experiments.normalised_path(problem, w, 20)
    run = gdnp(problem, w, steps=20, bisection_steps=60)
    # Twenty steps of sums of ten terms; the first divides by u'w.
    rounding = 20 * 10 * condition * EPS / min(1, abs(problem.u @ w))
    size = np.abs(run.weights).max()
    np.testing.assert_allclose(path, run.weights, rtol=0, atol=rounding * size)


@pytest.mark.parametrize("tilt", [0, 45, 90])
def test_late_steps_have_the_predicted_factors(tilt):
    problem, w = experiments.random_problem(20, 1, 6, tilt)
    normalised, plain = experiments.measured_factors(problem, w, 600)
    assert normalised == pytest.approx(experiments.final_factor(problem), abs=LATE)
    assert plain == pytest.approx(bounds.rate(problem), abs=LATE)


@pytest.mark.parametrize("condition", [4, 20, 50])
@pytest.mark.parametrize(("tilt", "axis"), [(0, 1), (90, 0)])
def test_late_steps_lose_the_axis_of_the_solution_and_no_other(condition, tilt, axis):
    found = experiments.late_factors([tilt], condition, dimension=4, seeds=2)
    assert found.shape == (1, 2, 2)
    left = condition ** (axis / 3 - 1)  # the eigenvalue of the flattest axis that is left
    assert found[..., 0] == pytest.approx((1 - left) ** 2, abs=LATE)
    assert found[..., 1] == pytest.approx((1 - 1 / condition) ** 2, abs=LATE)


@pytest.mark.parametrize("seed", range(5))
def test_a_repeated_column_leaves_the_rate_to_the_smallest_eigenvalue_above_0(seed):
    rng = np.random.default_rng(seed)
    X, y, w = rng.normal(size=(30, 4)), rng.choice([-1.0, 1.0], 30), rng.normal(size=5)
    X = np.column_stack([X, X[:, 0]])
    problem = EmpiricalHalfspace(
        -y[:, None] * X, "softplus"
    )  # for its u and S, which may be singular
    values = np.linalg.eigvalsh(problem.S)
    assert values[0] < 30 * EPS < values[1]
    path = textbook.rayleigh_descent(problem, w, 40)
    least = np.linalg.lstsq(X, y)[0]
    excess = np.array([np.mean((X @ (at - least)) ** 2) for at in path])
    bound = (1 - values[1] / values[-1]) ** (2 * np.arange(41)) * excess[0]
    assert (excess <= bound * (1 + 1e-9) + (40 * EPS) ** 2).all()
    assert excess[-1] < 1e-3 * excess[0]


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.8])
def test_many_learning_rates_at_once_are_the_solvers_runs(rate):
    problem, w = experiments.random_problem(10, 3)
    w = w / np.linalg.norm(w)
    rates = np.array([0.05, rate])
    normalised, plain = experiments.learning_rates(problem, w, rates, 50)
    runs = (
        batch_norm_gradient_descent(problem, w, learning_rate=rate, g0=1.0, steps=50),
        gradient_descent(problem, w / problem.norm(w), learning_rate=rate, steps=50),
    )
    for ends, run in zip((normalised, plain), runs, strict=True):
        expected = experiments.excess(problem, run.weights)[-1]
        # The square of a distance, which 50 steps round.
        rounding = 50 * 10 * EPS
        lost = rounding * (2 * expected**0.5 + rounding)
        assert ends[1] == pytest.approx(expected, abs=lost)


def test_every_rate_is_tried_in_each_of_the_three_ways():
    rates = np.array([0.1, 2.0])
    found = experiments.every_rate(rates, seeds=2, steps=30, cap=0.05)
    for seed in range(2):
        problem = experiments.random_problem(10, seed)
        free, plain = experiments.learning_rates(*problem, rates, 30)
        capped, _ = experiments.learning_rates(*problem, rates, 30, 0.05)
        for values, expected in zip(found.values(), (plain, free, capped), strict=True):
            np.testing.assert_allclose(values[seed], expected, rtol=30 * 10 * EPS)  # 30 steps


def test_a_capped_length_never_diverges_and_a_free_one_does():
    problem, w = experiments.random_problem(10, 0)
    rates = np.logspace(0.5, 4, 8)
    assert experiments.learning_rates(problem, w, rates, 1000, 0.5)[0].max() < 4
    assert experiments.learning_rates(problem, w, rates, 1000)[0].min() > 1e6


def test_the_compared_methods_start_together_and_conjugate_gradients_end_in_d_steps():
    problem, w = experiments.random_problem(30, 2)
    runs = experiments.compared(problem, w, 40)
    first = problem.line(w).rayleigh_gap
    width = 2.0**-20  # to which the best length is known after 20 halvings
    for excess, seconds in runs.values():
        assert excess[0] == pytest.approx(first, abs=4 * width**2)
        assert excess[-1] < excess[0]
        assert seconds > 0
    excess, seconds = experiments.conjugate_gradients(problem, w, 10)
    rounding = 10 * 30 * EPS
    assert excess[0] == pytest.approx(first, rel=rounding, abs=0)
    assert excess[-1] < EPS * first  # less than the loss itself is rounded by
    assert seconds > 0


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_method_whose_gradient_ends_at_0_stays_where_it_is(dimension):
    # curvature 1 everywhere: a step of size 1 leads to the solution
    rng = np.random.default_rng(dimension)
    problem = LeastSquares(rng.normal(size=dimension), np.eye(dimension))
    w = rng.normal(size=dimension)
    start = experiments.best_length(problem, w)
    assert gradient_descent(problem, start, steps=20).steps < 20
    runs = experiments.compared(problem, w, 20)
    assert {len(excess) for excess, _ in runs.values()} == {21}
    assert np.ptp(runs["gradient descent"][0][2:]) == 0


def test_a_batch_of_everything_takes_the_steps_of_the_theorem():
    X, y = experiments.diabetes()
    problem = LeastSquares.from_data(X, y)
    path = experiments.excess(problem, experiments.normalised_path(problem, -problem.u, 40))
    batches = experiments.small_batches(X, y, len(X), 0, 40)
    rounding = 40 * len(X) * EPS  # 40 steps
    np.testing.assert_allclose(batches, path[1:], rtol=rounding)


def test_steps_to_a_target():
    assert experiments.steps_to([3, 2, 1, 0.5], 1) == 2
    assert experiments.steps_to([3, 2], 1) == np.inf


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_gap_is_held_against_the_bound_of_the_steps_taken(factor):
    """The steps of the theorem keep their bound; half of them need not, where the bound is sharp."""
    problem, w = experiments.random_problem(4, 0, dimension=2, tilt=90)

    def eta(problem, w):
        rho = abs(problem.rayleigh(w))
        return factor * (w @ problem.S @ w) / (2 * problem.largest_eigenvalue * rho)

    largest = experiments.gap_over_bound(problem, w, eta, 40)
    assert (largest <= 1 + 1e-9) == (factor == 1.0)
