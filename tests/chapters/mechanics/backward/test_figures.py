"""The figures of the chapter on backward show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.mechanics.backward import experiments, figures
from bncore.lab import studies

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
    fig = figures.leaking(eps)
    (law,) = (line for line in fig.axes[1].get_lines() if line.get_linestyle() == "--")
    ratio, share = law.get_data()
    np.testing.assert_allclose(share, ratio / (1 + ratio), rtol=32 * EPS)
    measured = heights(fig, 1, "measured")
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
    values = {name: np.array([place, -0.5]) for place, name in enumerate(figures.STEPS[1:], 1)}
    fig = figures.graph(step, values)
    node = "ℓ" if step == "forward" else step.removeprefix("∂ℓ/∂")
    thick = [patch for patch in fig.axes[0].patches if patch.get_linewidth() == 4]
    assert len(thick) == (0 if step == "forward" else sum(a == node for a, _ in figures.EDGES))
    texts = [text.get_text() for text in fig.axes[0].texts]
    written = [text for text in texts if text.startswith("= ")]
    assert written == [f"= {figures.STEPS.index(step)}   −0.5"] * (step != "forward")
    plt.close(fig)


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_of_a_batch_of_two_the_predicted_leak_arrives(eps):
    fig = figures.constant_feature(eps)
    measured = next(line for line in fig.axes[0].get_lines() if line.get_label() == "measured")
    deviations, found = (np.asarray(values, dtype=float) for values in measured.get_data())
    expected = eps / (deviations**2 + eps) ** 1.5
    # What is left is a difference of numbers of the size of the factor 1 / sqrt(var + eps).
    rounding = 32 * EPS / np.sqrt(deviations**2 + eps)
    assert (np.abs(found - expected) <= rounding + 32 * EPS * expected).all()
    dashed = next(line for line in fig.axes[0].get_lines() if line.get_label() == "predicted")
    line, law = dashed.get_data()
    np.testing.assert_allclose(law, eps / (line**2 + eps) ** 1.5, rtol=32 * EPS)


def test_surviving_shares_stand_beside_their_mean_without_preference():
    sizes, shares = [2, 4, 8], np.array([[0.0, 0.4, 0.8], [0.0, 0.6, 0.9]])
    fig = figures.survival(sizes, {"fresh": shares, "trained": shares**2})
    for label, expected in (
        ("1 − 2/m", [0, 0.5, 0.75]),
        ("fresh", [0, 0.5, 0.85]),
        ("trained", [0, 0.26, 0.725]),
    ):
        np.testing.assert_allclose(heights(fig, 0, label), expected, atol=8 * EPS)


def test_errors_of_differences_are_drawn_above_a_floor():
    steps = np.array([1e-8, 1e-5])
    errors = {name: np.array([0.0, 1e-9]) for name in ("forward", "central", "complex step")}
    predicted = {name: np.array([1e-8, 1e-10]) for name in ("forward", "central")}
    fig = figures.differences(steps, errors, predicted)
    assert heights(fig, 0, "complex step").tolist() == [1e-17, 1e-9]
    assert heights(fig, 0, "predicted").tolist() == [1e-8, 1e-10]


def test_the_drifting_bias_lies_on_the_predicted_line():
    fig = figures.drift(steps=60)
    bias, line = (heights(fig, 0, label) for label in ("mean hidden", "predicted"))
    np.testing.assert_allclose(bias, line, rtol=0, atol=60 * 16 * EPS * np.abs(line).max())
    assert np.abs(heights(fig, 0, "mean seen")).max() < 60 * 16 * EPS < np.abs(line).max()


def test_losses_are_averaged_and_lengths_drawn_at_their_steps():
    losses, lengths = np.arange(40.0) + 1, np.array([4.0, 5.0, 6.0])
    runs = {kind: [(losses, lengths, 0.5), (3 * losses, lengths, 0.5)] for kind in figures.HIDDEN}
    fig = figures.hidden(runs)
    above = {line.get_label(): line for line in fig.axes[0].get_lines()}
    # Fifteen steps from 0 are averaged about the seventh.
    assert np.asarray(above["mean hidden"].get_xdata()).tolist() == list(range(7, 33))
    means = heights(fig, 0, "mean hidden")
    np.testing.assert_allclose(means, 2 * (np.arange(26) + 8), rtol=40 * EPS)
    lines = {line.get_label(): line for line in fig.axes[1].get_lines()}
    assert np.asarray(lines["mean hidden"].get_xdata()).tolist() == [0, 20, 40]
    assert heights(fig, 1, "mean hidden").tolist() == lengths.tolist()
    assert list(figures.HIDDEN) == list(experiments.HIDDEN)


def test_the_cost_of_hiding_is_the_ratio_of_geometric_means(record):
    fresh = record["full"]["fresh"]
    fig = figures.cost(fresh)
    marked = [line for line in fig.axes[0].get_lines() if line.get_marker() in ("s", "D", "^")]
    expected = np.exp(np.log(fresh.loss).mean("seed"))
    expected = expected / expected.sel(hidden="nothing")
    found = np.reshape([float(line.get_ydata()[0]) for line in marked], (3, -1))
    kinds = ["variance", "mean", "both"]
    np.testing.assert_allclose(found, expected.sel(hidden=kinds).values, rtol=64 * EPS)
    first = fig.axes[0].get_lines()[0].get_ydata()
    pair = (np.log(fresh.loss.sel(hidden=kind, steps=100)) for kind in ("variance", "nothing"))
    _, *ends = np.exp(studies.difference(*pair, looked_at=15))
    np.testing.assert_allclose(first, ends, rtol=64 * EPS)
    plt.close(fig)
