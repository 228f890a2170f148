"""What is read off losses and off the recorded run of the chapter on covariate shift."""

import numpy as np
import xarray as xr

from bncore.chapters.explanations.covariate_shift import readings

EPS = float(np.finfo(np.float64).eps)


def test_losses_are_smoothed_and_timed():
    losses = np.array([[4.0, 2.0, 1.0, 1.0, 0.0], [4.0, 4.0, 4.0, 4.0, 4.0]])
    np.testing.assert_array_equal(readings.smoothed(losses, 2), [[3, 1], [4, 4]])
    np.testing.assert_array_equal(readings.steps_to(losses, 1.5, 10), [30, np.inf])


def test_values_are_read_off_where_a_run_passes_a_loss():
    # Losses e^0, e^-1, ... a window; the first run comes back up once, which does not count.
    losses = np.exp(-np.array([[0.0, 1.0, 0.5, 3.0], [0.0, 2.0, 4.0, 6.0]]))
    values = np.array([[0.0, 10.0, 20.0, 30.0], [0.0, 10.0, 20.0, 30.0]])
    found = readings.at_loss(np.exp(-2.0), losses, [0, 5, 10, 19], values)
    np.testing.assert_allclose(found, [25.0, 10.0], rtol=16 * EPS)
    lost = readings.at_loss(np.exp(-4.0), losses, [0, 5, 10, 19], values)
    np.testing.assert_array_equal(np.isnan(lost), [True, False])


def test_where_perceptrons_train_is_counted_over_gains_and_rates():
    loss = [[[2.3, 1.0], [0.1, 2.3], [2.3, np.nan]], [[2.3, 0.1], [2.3, 0.1], [2.3, 0.1]]]
    coords = {"gain": [0.1, 1], "learning_rate": [0.1, 1, 10], "seed": [0, 1]}
    found = readings.trained(xr.Dataset({"loss": (tuple(coords), loss)}, coords), [0.1, 1, 10])
    rounding = {"rtol": 8 * EPS}
    np.testing.assert_allclose(found["share"], [1 / 6, 4 / 6], **rounding)
    np.testing.assert_allclose(found["largest"], [np.log(0.01) / 2, 0], atol=8 * EPS, **rounding)


def test_between_records_a_value_grows_by_a_constant_factor():
    found = readings.between([1, 5], np.array([[1.0, 4.0], [16.0, 0.0]]), 6)
    steps = np.clip(np.arange(7), 1, 5)
    np.testing.assert_allclose(found[:, 0], 2.0 ** (steps - 1), rtol=16 * EPS)
    np.testing.assert_allclose(found[[0, 6], 1], [4.0, 1e-6], rtol=16 * EPS)


def test_the_typical_drift_is_a_geometric_mean_over_the_seeds():
    drift = xr.DataArray(
        [[[1.0, 0.0]], [[4.0, 1e-6]]], {"seed": [0, 1]}, ["seed", "record", "activation"]
    )
    np.testing.assert_allclose(readings.typical(drift), [[2.0, 1e-6]], rtol=16 * EPS)


def test_the_means_move_as_recorded_at_the_records():
    drift = readings.runs("vgg", "drift").drift.sel(kind="no batch norm")
    moves = readings.moves(160)
    assert moves.shape == (160, drift.sizes["activation"])
    before = [step for step in drift.record.values if step < 160]
    rounding = 64 * EPS * np.log(1e6)  # Of a logarithm, and of its exponential.
    np.testing.assert_allclose(moves[before], readings.typical(drift)[: len(before)], rtol=rounding)
