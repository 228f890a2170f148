"""The forward chapter's reference answers, experiments and figures against what they promise."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.mechanics.forward import exercises, experiments, figures
from bncore.lab import data
from bncore.mechanics import transform

seeds = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@given(seeds, st.floats(1e-8, 10))
def test_undoing_the_transform_gives_the_batch_back(seed, eps):
    x = np.random.default_rng(seed).normal(2, 3, size=(7, 4))
    y, _ = transform.forward(x, *exercises.undo(x, eps), eps)
    np.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-12)


@given(seeds, st.floats(1e-3, 1))
def test_maps_are_normalised_as_torch_does(seed, eps):
    x = torch.randn((3, 2, 4, 5), generator=torch.Generator().manual_seed(seed)).double()
    expected = torch.nn.functional.batch_norm(x, None, None, training=True, eps=eps)
    np.testing.assert_allclose(exercises.convolution(x.numpy(), eps), expected, atol=1e-12)


@given(seeds, st.floats(0.01, 0.99))
def test_the_chosen_epsilon_gives_the_chosen_variance(seed, variance):
    x = np.random.default_rng(seed).normal(size=(20, 1))
    eps = exercises.choose_epsilon(x.std(), variance)
    assert transform.forward(x, eps=eps)[0].var() == pytest.approx(variance)


@given(seeds, st.integers(2, 50))
def test_no_value_is_larger_than_the_bound_and_one_batch_attains_it(seed, m):
    bound = exercises.largest_value(m)
    x = np.random.default_rng(seed).standard_cauchy(size=(m, 5))
    assert transform.forward(x, eps=1e-300)[0].max() <= bound * (1 + 1e-12)
    one = np.eye(m)[:, :1]
    assert transform.forward(one, eps=1e-300)[0].max() == pytest.approx(bound)


@given(seeds)
def test_a_layer_normalised_once_has_mean_zero_and_variance_one(seed):
    rng = np.random.default_rng(seed)
    weight, u = rng.normal(size=(4, 3)), rng.normal(5, 2, size=(30, 3))
    new, bias = exercises.normalise_once(weight, u)
    z = u @ new.T + bias
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(z.var(axis=0), 1)
    np.testing.assert_allclose(
        new / np.linalg.norm(new, axis=1, keepdims=True),
        weight / np.linalg.norm(weight, axis=1, keepdims=True),
    )


def test_a_sweep_puts_every_run_in_its_place():
    names = ["sigmoid, batch norm", "ReLU, gain √2"]
    table = experiments.sweep(names, (0.1, 0.3), (0, 1), steps=30)
    assert set(table) == set(names)
    for name in names:
        for i, rate in enumerate((0.1, 0.3)):
            for j, seed in enumerate((0, 1)):
                assert table[name][i, j] == experiments.accuracy(name, rate, seed, steps=30)
    assert table[names[0]].std() > 0


def test_the_recorded_sweep_is_that_of_the_code():
    record = experiments.recorded()
    settings = record["configuration"]
    assert settings["widths"] == list(experiments.WIDTHS)
    assert settings["networks"] == experiments.NETWORKS
    assert settings["learning_rates"] == list(experiments.LEARNING_RATES)
    assert (settings["steps"], settings["patient_steps"]) == (
        experiments.STEPS,
        experiments.PATIENCE,
    )
    shape = (len(experiments.LEARNING_RATES), len(experiments.SEEDS))
    tables = [*record["accuracy"].values(), record["accuracy_patient"]]
    assert all(np.shape(table) == shape for table in tables)
    assert set(record["accuracy"]) == set(experiments.NETWORKS)


@pytest.mark.parametrize("network", ["sigmoid", "sigmoid, batch norm", "ReLU, gain √2"])
def test_a_recorded_run_can_be_run_again(network):
    rate = experiments.LEARNING_RATES.index(0.1)
    recorded = experiments.recorded()["accuracy"][network][rate][1]
    assert experiments.accuracy(network, 0.1, seed=1) == pytest.approx(recorded, abs=0.03)


def test_the_full_sweep_writes_what_is_recorded(monkeypatch):
    monkeypatch.setattr(experiments, "LEARNING_RATES", (0.1,))
    monkeypatch.setattr(experiments, "SEEDS", (0,))
    monkeypatch.setattr(experiments, "STEPS", 2)
    monkeypatch.setattr(experiments, "PATIENCE", 3)
    small, record = experiments.full(), experiments.recorded()
    assert small.keys() == record.keys()
    assert small["configuration"].keys() == record["configuration"].keys()
    again = experiments.accuracy("sigmoid", 0.1, 0, steps=3)
    assert small["accuracy_patient"] == [[round(again, 4)]]


def test_percentiles_are_ordered_and_taken_of_every_unit():
    history = experiments.percentile_run("batch", data.digits(), steps=20, every=10)
    percentiles = history.records["percentiles"]
    assert percentiles.shape == (3, 100, 3)
    assert (np.diff(percentiles, axis=-1) > 0).all()
    figure = figures.percentiles(history, history, unit=5)
    medians = [line.get_ydata() for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    np.testing.assert_array_equal(medians, [percentiles[:, 5, 1]])


@pytest.mark.parametrize("scale", [-2, 0, 0.5, 3])
@pytest.mark.parametrize("shift", [-4, 2])
def test_the_figure_of_invariance_shows_the_same_batch_below(scale, shift):
    z = np.random.default_rng(0).normal(size=20)
    before, after = figures.same_output(z, scale, shift).axes
    np.testing.assert_allclose(before.lines[0].get_xdata(), scale * z + shift)
    expected = np.sign(scale) * (z - z.mean()) / z.std()
    np.testing.assert_allclose(after.lines[0].get_xdata(), expected, atol=1e-4)


def test_values_on_the_sigmoid_are_scaled_and_shifted():
    x_hat = np.linspace(-1, 1, 9)
    curve = figures.on_the_sigmoid(x_hat, 2, -1).axes[0]
    np.testing.assert_allclose(curve.lines[1].get_xdata(), 2 * x_hat - 1)
    np.testing.assert_allclose(curve.lines[1].get_ydata(), 1 / (1 + np.exp(1 - 2 * x_hat)))


@pytest.mark.parametrize("eps", [1e-8, 1e-3, 1.0])
def test_normalised_pixels_lie_on_the_curve(eps):
    x = np.random.default_rng(0).normal(size=(50, 6)) * np.geomspace(1e-3, 1, 6)
    curve, dots, threshold = figures.soft_threshold(x, eps).axes[0].lines
    predicted = np.interp(dots.get_xdata(), curve.get_xdata(), curve.get_ydata())
    np.testing.assert_allclose(dots.get_ydata(), predicted, atol=0.01)
    assert threshold.get_xdata()[0] == pytest.approx(eps**0.5)


def test_the_bound_falls_by_a_quarter_of_the_gain_per_layer():
    plain = np.geomspace(1, 1e-3, 4) * np.ones((2, 1))
    bound = figures.fading(plain, np.ones((2, 4)), gain=2).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(bound, [1, 0.5, 0.25, 0.125])


def test_the_figure_of_learning_rates_shows_means_over_seeds():
    record = experiments.recorded()
    sigmoid, relu = figures.learning_rates(record).axes
    assert (len(sigmoid.lines), len(relu.lines)) == (4, 2)
    means = np.mean(record["accuracy"]["sigmoid, batch norm"], axis=1)
    np.testing.assert_allclose(sigmoid.lines[0].get_ydata(), means)


def test_the_figure_of_seeds_has_one_line_a_run():
    history = experiments.percentile_run(None, data.digits(), steps=20, every=10)
    ax = figures.by_seed({"plain": [history], "normalised": [history, history]}).axes[0]
    assert len(ax.lines) == 1 + 2 + 1
