"""The figures of the chapter on halfspaces show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import optimize

from bncore.chapters.convergence.halfspaces import acceleration, experiments, figures
from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace

EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("loss", ["softplus", "huber", "squared"])
def test_newton_finds_what_scipy_finds(loss):
    Z = experiments.with_outliers(2.0, samples=200)
    problem = EmpiricalHalfspace(Z, figures.LOSSES[loss])
    w = experiments.newton(problem, Z)
    found = optimize.minimize(problem.value, np.zeros(2), jac=problem.gradient, tol=1e-10)
    # scipy stops where rounding hides the descent: at gradients near the root of EPS.
    np.testing.assert_allclose(w, found.x, rtol=0, atol=100 * EPS**0.5)
    assert np.linalg.norm(problem.gradient(w)) < len(Z) * EPS * np.abs(Z).max() ** 2


def lines(ax):
    return {str(line.get_label()): np.array(line.get_data()).T for line in ax.get_lines()}


def test_the_squared_loss_stays_on_the_line_and_softplus_leaves():
    fig = figures.outliers(6.0)
    found = lines(fig.axes[1])
    # Angles in degrees, by sums over 3000 samples.
    assert found["squared"][:, 1].max() < 180 * 3000 * EPS
    assert found["softplus"][0, 1] < 3 < 30 < found["softplus"][-1, 1]
    plt.close(fig)


def test_easy_outliers_turn_the_line_and_not_the_softplus_minimiser():
    turned = {"softplus": [], "squared": []}
    for distance in figures.DISTANCES:
        Z = experiments.with_outliers(distance)
        for loss, found in turned.items():
            problem = EmpiricalHalfspace(Z, figures.LOSSES[loss])
            found.append(experiments.newton(problem, Z))
    from_first = {
        loss: max(experiments.angle(w, found[0]) for w in found) for loss, found in turned.items()
    }
    assert from_first["softplus"] < 2 < 40 < from_first["squared"]


@pytest.mark.parametrize(("by", "drawn"), [("iterations", 4), ("seconds", 6)])
def test_a_race_is_drawn_by_iterations_and_by_seconds(by, drawn):
    found = experiments.race(experiments.with_outliers(3.0, samples=100), 20)
    fig = figures.race(found, by)
    assert len(fig.axes[0].get_lines()) == drawn
    excess = lines(fig.axes[0])["GDNP"][:, 1]
    np.testing.assert_array_equal(
        excess, np.maximum(found["traces"]["GDNP"].value[1:] - found["least"], 1e-14)
    )
    plt.close(fig)


def test_only_the_convex_loss_on_a_gaussian_has_a_best_length():
    curves = figures.lengths().axes[0].get_lines()
    marked = [line for line in curves if len(line.get_xdata()) == 1]
    drawn = {line.get_label(): line.get_ydata() for line in curves if len(line.get_xdata()) > 1}
    assert len(marked) == 1
    for name, values in drawn.items():
        assert values[0] == 1
        assert (np.argmin(values) < len(values) - 1) == (name == "softplus")
    u, S = experiments.moments(4, seed=0)
    w = -np.linalg.solve(S, u)
    w *= marked[0].get_xdata()[0] / np.sqrt(w @ S @ w)
    problem = GaussianHalfspace(u, S, "softplus")
    # The drawn lengths are a tenth apart.
    assert all(problem.value(w) <= problem.value(t * w) for t in (0.95, 1.05))
    plt.close("all")


def test_runs_are_drawn_relative_to_their_first_gap():
    fig = figures.kept_bound([np.array([4.0, 1.0]), np.array([2.0, 1.0])], np.array([1.0, 0.5]))
    first, second, bound = (line.get_ydata().tolist() for line in fig.axes[0].get_lines())
    assert (first, second, bound) == ([1, 0.25], [1, 0.5], [1, 0.5])
    plt.close(fig)


def test_the_bounds_are_drawn_under_their_names():
    labels = {"measured": "measured", "printed": "as reconstructed", "corrected": "corrected bound"}
    draws = iter(np.random.default_rng(0).uniform(0.1, 1, size=(9, 5)))
    runs = {
        name: {form: next(draws) for form in labels} for name in ("length", "direction", "combined")
    }
    fig = figures.three_bounds(runs, 3)
    for ax, parts in zip(fig.axes, runs.values(), strict=True):
        assert len(ax.get_lines()) == 3
        for form, label in labels.items():
            expected = np.column_stack([np.arange(4), parts[form][:4]])
            np.testing.assert_array_equal(lines(ax)[label], expected)
    plt.close(fig)


def test_angles_are_drawn_with_their_medians_and_a_line_from_the_first():
    fig = figures.sampling([10, 1000], np.array([[4.0, 1.0, 9.0], [0.5, 0.1, 0.7]]))
    found = lines(fig.axes[0])
    np.testing.assert_array_equal(found["median"], [[10, 4], [1000, 0.5]])
    np.testing.assert_allclose(found[r"$\propto n^{-1/2}$"], [[10, 4], [1000, 0.4]], rtol=8 * EPS)
    assert found["one sample"].tolist()[2:4] == [[10, 9], [1000, 0.5]]
    plt.close(fig)


def test_the_comparisons_are_drawn_as_they_are_recorded(record):
    panels = figures.accelerated(record["full"]).axes
    for ax, found in zip(panels, record["full"].values(), strict=True):
        cases = [label.get_text().split(", ") for label in ax.get_yticklabels()]
        for marks, other in zip(ax.containers, acceleration.METHODS[1:], strict=True):
            ratios = [acceleration.against(found["fresh"], *case, other) for case in cases]
            expected = [np.exp(ratio.mean) for ratio in ratios if ratio is not None]
            np.testing.assert_allclose(marks.lines[0].get_xdata(), expected, rtol=8 * EPS)
