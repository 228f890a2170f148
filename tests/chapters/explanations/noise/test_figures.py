"""The figures of the chapter on noise show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.chapters.explanations.noise import experiments, figures, full_size
from bncore.explanations import variance_shift
from bncore.explanations.noise import GaussianOutput
from bncore.lab import networks


def test_the_figures_of_trajectories_show_every_end(full):
    for runs in full["noise"].values():
        (ax,) = figures.trajectories(runs).axes
        left, right = ax.get_xlim()
        low, high = ax.get_ylim()
        assert len(ax.lines) == 5
        for line in ax.lines:
            x, y = line.get_xdata()[-1], line.get_ydata()[-1]
            assert left < x < right
            assert low < y < high


def test_the_names_of_values_leave_room_for_the_slider():
    assert set(experiments.populations()) == set(figures.POPULATIONS)
    assert max(map(len, experiments.populations())) <= 11


def test_the_figure_of_a_company_shows_the_exact_density():
    (ax,) = figures.company(1, 8, experiments.companies(1, 8)).axes
    curve = ax.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), GaussianOutput(1, 8).pdf(curve.get_xdata()))


def test_the_figure_of_statistics_shows_measured_and_exact():
    sizes = [2, 8, 256]
    measured, exact = experiments.batch_statistics(experiments.populations()["normal"], sizes)
    above, below = figures.statistics("normal", sizes, measured, exact, 256).axes
    for row, ax in enumerate((above, below)):
        for i, way in enumerate(("independent", "without replacement")):
            np.testing.assert_allclose(ax.lines[2 * i].get_ydata(), exact[way][row])
            np.testing.assert_allclose(ax.lines[2 * i + 1].get_ydata(), measured[way][row])


@pytest.mark.parametrize("measure", ["test loss", "test accuracy"])
def test_the_figure_of_generalisation_shows_paired_differences(full, measure):
    runs = full["noise"]["0.3"]
    (ax,) = figures.generalisation(runs, measure).axes
    scale = 100 if measure == "test accuracy" else 1
    expected = [scale * experiments.paired(runs, f"ghost {m}", measure)[0] for m in (8, 16, 32, 64)]
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), expected)


@settings(max_examples=4)
@given(st.sampled_from([0, 1, 2]), st.sampled_from([0, 4]))
def test_the_figure_of_the_shift(mean, pull):
    keeps = np.array([0.3, 0.7])
    measured = np.array([experiments.measured_shift(p, mean, pull, draws=500) for p in keeps]).T
    (ax,) = figures.shift(mean, pull, keeps, measured).axes
    np.testing.assert_allclose(ax.lines[3].get_ydata(), measured[0])
    p = ax.lines[1].get_xdata()[10]
    assert ax.lines[1].get_ydata()[10] == pytest.approx(variance_shift.direct(p, mean, 1.0))
    plt.close("all")


def test_the_other_figures_show_the_record(full):
    keeps = full_size.CONFIGURATION["dropout"]["keep"]
    above, below = figures.dropout(full["dropout"], "after the last one", keeps).axes
    apart = [
        (full["dropout"][f"after the last one, {p}"] - full["dropout"]["none"]).mean(0)
        for p in keeps
    ]
    np.testing.assert_allclose(
        above.containers[0].lines[0].get_ydata(), 100 * np.array(apart)[:, 0]
    )
    np.testing.assert_allclose(below.containers[1].lines[0].get_ydata(), np.array(apart)[:, 3])
    (ax,) = figures.trajectories(full["noise"]["0.0"]).axes
    whole = full["noise"]["0.0"]["whole batch"][:, 1:].mean(axis=0)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), whole[:, 1])
    bins = full["sampling"]["0.0"]["bins"]["running"]
    above, _ = figures.reliability(bins, "running").axes
    np.testing.assert_allclose(above.containers[0].lines[0].get_xdata(), bins[0][bins[2] >= 20])


def test_the_figure_of_a_turned_digit():
    model = networks.mlp(experiments.WIDTHS, "relu", "batch")
    pixels = experiments.digits(0).x_test[0]
    draws = np.random.default_rng(0).dirichlet(np.ones(10), size=7)
    with torch.no_grad():
        fixed = model.eval()(pixels[None]).softmax(1)[0].numpy()
    above, ax = figures.turned(pixels.numpy(), 30, fixed, draws, 8, label=6).axes
    assert above.get_title() == "a 6, turned by 30°"
    (mark,) = (line for line in ax.lines if line.get_label() == "right class")
    assert mark.get_xdata() == [6]
    np.testing.assert_allclose(ax.lines[3].get_ydata(), draws[:, 3])
    np.testing.assert_allclose(ax.lines[11].get_ydata(), draws.mean(axis=0))
