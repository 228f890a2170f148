"""The landscapes of the chapter on halfspaces: their heights, critical points and walks are the package's."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.convergence.halfspaces import experiments, landscapes
from bncore.convergence import GaussianHalfspace
from bncore.convergence.quadrature import ACCURACY

EPS = np.finfo(np.float64).eps


def lines(ax):
    return {str(line.get_label()): np.array(line.get_data()).T for line in ax.get_lines()}


@pytest.mark.parametrize("loss", landscapes.LOSSES)
@pytest.mark.parametrize("correlation", [-0.6, 0.3])
def test_the_heights_are_those_of_the_problem(loss, correlation):
    problem = GaussianHalfspace(*landscapes.plane(correlation), landscapes.LOSSES[loss])
    grid, heights = landscapes.values(loss, correlation)
    for i, j in np.random.default_rng(0).integers(len(grid), size=(20, 2)):
        exact = problem.value(np.array([grid[j], grid[i]]))
        # A thousandth of the distance between two level curves.
        assert abs(heights[i, j] - exact) < 1e-4 * np.ptp(heights)


@pytest.mark.parametrize("loss", landscapes.LOSSES)
def test_critical_points_are_level_and_those_of_the_others_on_the_line(loss):
    fig = landscapes.landscape(loss, 0.2)
    points = lines(fig.axes[0])
    assert ("no critical point" in points) == (loss == "sigmoid")
    problem = GaussianHalfspace(*landscapes.plane(0.2), landscapes.LOSSES[loss])
    for point in points.get("critical points", []):
        assert np.linalg.norm(problem.gradient(point)) < 100 * ACCURACY
    for point in points["of the other losses"]:
        assert experiments.angle(point, problem.solution_direction) < 180 * 16 * EPS
    plt.close(fig)


def test_the_pair_off_the_line_is_level_and_so_is_what_is_drawn_on_it():
    problem, pair = landscapes.waves()
    fig = landscapes.off_the_line()
    points = lines(fig.axes[0])
    off, on = points["critical, off the line"], points["critical, on the line"]
    np.testing.assert_array_equal(off, [*pair, *-pair])
    # Two sums of two terms and the variance, whose rounding an exponential of 1.5 of it multiplies.
    rounding = problem.loss.curvature_bound * (ACCURACY + 64 * EPS)
    for point in (*off, *on):
        assert np.linalg.norm(problem.gradient(point)) < rounding * np.linalg.norm(problem.u)
    assert all(experiments.angle(w, problem.solution_direction) > 30 for w in off)
    assert np.linalg.norm(problem.gradient(0.9 * pair[0])) > 1e-3
    plt.close(fig)


@pytest.mark.parametrize("loss", ["softplus", "sine"])
@pytest.mark.parametrize("step", [0, 4])
def test_the_walk_lies_on_its_prediction(loss, step):
    fig = landscapes.walk(loss, step)
    found = lines(fig.axes[1])
    # Angles in degrees, after at most four steps.
    expected, rounding = found["least squares"][: step + 1], 4 * 16 * 180 * EPS
    np.testing.assert_allclose(found["this loss"], expected, rtol=0, atol=rounding)
    plt.close(fig)
