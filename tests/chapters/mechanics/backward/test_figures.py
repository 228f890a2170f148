"""The figures of the chapter on backward show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.mechanics.backward import figures

EPS = np.finfo(np.float64).eps


def heights(fig, panel, label):
    lines = {line.get_label(): line for line in fig.axes[panel].get_lines()}
    points = np.asarray(lines[label].get_ydata(), dtype=float).ravel()
    plt.close(fig)
    return points


@pytest.mark.parametrize(("level", "tilt"), [(1, 0), (-2, 2), (0.5, -1)])
def test_what_arrives_is_blind_to_level_and_tilt(level, tilt):
    eps = 1e-12
    moved = figures.fit(level, tilt, eps)
    plain = figures.fit(0, 0, eps)
    # What eps lets through of the tilt, and the rounding of a sum of six terms.
    leak = eps * abs(tilt) * np.abs(figures.X).max() / figures.X.var()
    rounding = 6 * EPS * (1 + abs(level) + abs(tilt)) * np.abs(figures.X).max() ** 2
    arrives, expected = (heights(fig, 1, "what arrives") for fig in (moved, plain))
    np.testing.assert_allclose(arrives, expected, rtol=0, atol=leak + rounding)
    assert not np.allclose(
        heights(moved, 0, "what the loss asks for"), heights(plain, 0, "what the loss asks for")
    )


@pytest.mark.parametrize("eps", [1e-5, 0.1, 10.0])
def test_the_measured_leak_lies_on_the_predicted_curve(eps):
    measured = heights(figures.leaking(eps), 1, "measured")
    np.testing.assert_allclose(measured, eps / (1 + eps), rtol=0, atol=32 * EPS)


@pytest.mark.parametrize("m", [3, 4, 16])
def test_the_histogram_of_surviving_shares_follows_its_prediction(m):
    fig = figures.surviving(m)
    (line,) = [line for line in fig.axes[0].get_lines() if "predicted" in str(line.get_label())]
    grid, density = line.get_data()
    for bar in fig.axes[0].patches:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        expected = (right ** ((m - 2) / 2) - left ** ((m - 2) / 2)) / (right - left)
        spread = (expected / (right - left) / 4000) ** 0.5
        assert abs(bar.get_height() - expected) < 5 * spread + 0.02
    # scipy takes powers by logarithms.
    rounding = 4 * m * np.abs(np.log(grid)).max() * EPS
    np.testing.assert_allclose(density, (m - 2) / 2 * grid ** (m / 2 - 2), rtol=rounding)
    plt.close(fig)


@pytest.mark.parametrize("step", figures.STEPS)
def test_the_graph_marks_the_edges_that_carry_the_gradient(step):
    values = {name: np.array([1.0, -0.5]) for name in figures.STEPS[1:]}
    fig = figures.graph(step, values)
    node = "ℓ" if step == "forward" else step.removeprefix("∂ℓ/∂")
    thick = [patch for patch in fig.axes[0].patches if patch.get_linewidth() == 4]
    assert len(thick) == (0 if step == "forward" else sum(a == node for a, _ in figures.EDGES))
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert ("= 1   −0.5" in texts) == (step != "forward")
    plt.close(fig)
