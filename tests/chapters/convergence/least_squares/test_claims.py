"""What the claims of the chapter on least squares rest on."""

import itertools

import numpy as np
import pytest

from bncore.chapters.convergence.least_squares import claims, experiments
from bncore.convergence import LeastSquares, batch_norm_gradient_descent


@pytest.mark.parametrize("seed", range(5))
def test_no_step_along_the_gradient_is_better(seed):
    rng = np.random.default_rng(seed)
    root, other = rng.normal(size=(2, 4, 4))
    A, B = root @ root.T + 0.1 * np.eye(4), other + other.T

    def quotient(v):
        return (v @ B @ v) / (v @ A @ v)

    v = rng.normal(size=4)
    gradient = B @ v - quotient(v) * (A @ v)
    best = max(quotient(v + size * gradient) for size in np.geomspace(1e-4, 1e4, 1000))
    found = quotient(claims._ascend(B, A, v))
    assert best <= found * (1 + 1e-12) + 1e-12
    assert found <= best + 1e-3 * abs(best)


def on_diabetes():
    X, y = experiments.diabetes()
    return LeastSquares.from_data(X, y), np.ones(X.shape[1])


@pytest.fixture(scope="module")
def raced():
    """Steps by size for the random problems of either kind, and the diabetes data."""
    problems = {
        "normal": experiments.with_normal_solutions(),
        "any": experiments.with_any_solutions(),
        "diabetes": [on_diabetes()],
    }
    return {
        kind: [
            claims._steps_by_size(problem, w, max(200, round(5 * problem.condition_number)))
            for problem, w in of_kind
        ]
        for kind, of_kind in problems.items()
    }


def test_the_best_step_size_of_either_descent_lies_inside_the_sizes_tried(raced):
    for needed in itertools.chain.from_iterable(raced.values()):
        best = needed.min(axis=1)
        assert (needed[:, 0] > best).all()
        assert (needed[:, -1] > best).all()


def test_the_normalised_descent_saves_a_fifth_to_a_quarter_of_the_steps(raced):
    for kind, part in (("normal", 1 / 5), ("any", 1 / 4)):
        left = np.exp(np.mean([np.log(claims._for_one(needed)) for needed in raced[kind]]))
        assert 1 - left == pytest.approx(part, abs=0.03)


def test_on_the_diabetes_data_the_best_step_is_beyond_the_corollary():
    normalised, plain = claims._steps_by_size(*on_diabetes(), 1500)
    assert claims.SIZES[normalised.argmin()] > 3
    assert claims.SIZES[plain.argmin()] < 2
    assert normalised.min() / plain.min() == pytest.approx(0.3, abs=0.05)


def test_on_the_diabetes_data_the_pace_with_one_rate_hangs_on_the_length_at_the_start():
    problem, w = on_diabetes()
    start = experiments.best_length(problem, w)
    taken = []
    for stretch in (1, 2, 4):
        run = batch_norm_gradient_descent(
            problem,
            stretch * start,
            g0=problem.norm(start),
            learning_rate=1 / problem.smoothness,
            steps=3000,
        )
        excess = experiments.excess(problem, run.weights)
        taken.append(experiments.steps_to(excess, 1e-4 * excess[0]))
    assert max(taken) > 2 * min(taken)
