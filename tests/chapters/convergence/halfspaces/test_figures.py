"""The figures of the chapter on halfspaces show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import optimize

from bncore.chapters.convergence.halfspaces import acceleration, experiments, figures
from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace
from bncore.convergence.quadrature import ACCURACY

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


@pytest.mark.parametrize("loss", figures.LOSSES)
def test_the_critical_points_of_the_landscape_are_level(loss):
    fig = figures.landscape(loss, 0.2)
    points = lines(fig.axes[0])
    assert ("no critical point here" in points) == (loss == "sigmoid")
    problem = GaussianHalfspace(*figures.plane(0.2), figures.LOSSES[loss])
    for point in points.get("critical points", []):
        assert np.linalg.norm(problem.gradient(point)) < 100 * ACCURACY
    plt.close(fig)


@pytest.mark.parametrize("loss", ["softplus", "sine"])
@pytest.mark.parametrize("step", [0, 4])
def test_the_walk_lies_on_its_prediction(loss, step):
    fig = figures.walk(loss, step)
    found = lines(fig.axes[1])
    # Angles in degrees, after at most four steps.
    expected, rounding = found["least squares"][: step + 1], 4 * 16 * 180 * EPS
    np.testing.assert_allclose(found["this loss"], expected, rtol=0, atol=rounding)
    plt.close(fig)


def test_the_squared_loss_stays_on_the_line_and_softplus_leaves():
    fig = figures.outliers(6.0)
    found = lines(fig.axes[1])
    # Angles in degrees, by sums over 3000 samples.
    assert found["squared"][:, 1].max() < 180 * 3000 * EPS
    assert found["softplus"][0, 1] < 3 < 30 < found["softplus"][-1, 1]
    plt.close(fig)


def test_the_races_are_drawn_by_iterations_and_by_seconds():
    races = {"sample": experiments.race(experiments.with_outliers(3.0, samples=100), 20)}
    races["again"] = races["sample"]
    for by, drawn in (("iterations", 4), ("seconds", 6)):
        fig = figures.race(races, by)
        assert [len(ax.get_lines()) for ax in fig.axes] == [drawn, drawn]
        plt.close(fig)


def test_the_bounds_and_the_samples_are_drawn():
    runs = {
        name: {form: np.ones(5) for form in ("measured", "printed", "corrected")}
        for name in ("length", "direction", "combined")
    }
    fig = figures.three_bounds(runs, 3)
    assert [len(ax.get_lines()) for ax in fig.axes] == [3, 3, 3]
    assert all(len(line.get_xdata()) == 4 for ax in fig.axes for line in ax.get_lines())
    plt.close(fig)
    fig = figures.sampling([10, 1000], np.array([[4.0, 4.0], [0.5, 0.5]]))
    np.testing.assert_allclose(
        lines(fig.axes[0])[r"$\propto n^{-1/2}$"], [[10, 4], [1000, 0.4]], rtol=8 * EPS
    )
    plt.close(fig)


def test_the_comparisons_are_drawn_as_they_are_recorded(record):
    panels = figures.accelerated(record["full"]).axes
    for ax, found in zip(panels, record["full"].values(), strict=True):
        cases = [label.get_text().split(", ") for label in ax.get_yticklabels()]
        for marks, other in zip(ax.containers, acceleration.METHODS[1:], strict=True):
            ratios = [acceleration.against(found["fresh"], *case, other) for case in cases]
            expected = [np.exp(ratio.mean) for ratio in ratios if ratio is not None]
            np.testing.assert_allclose(marks.lines[0].get_xdata(), expected, rtol=8 * EPS)
