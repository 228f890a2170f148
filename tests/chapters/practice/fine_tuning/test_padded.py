"""What padding does to statistics follows from its share; what it does to a network is the statistics' doing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.practice.fine_tuning import padded
from bncore.lab.inference import accuracy
from bncore.practice.recalibration import recalibrated

EPS = np.finfo(float).eps


@given(st.integers(2, 30), st.integers(0, 60), st.integers(0, 10**6), st.floats(-5, 5))
def test_the_law_is_that_of_the_values_and_zeros_together(real, zeros, seed, offset):
    x = np.random.default_rng(seed).standard_normal(real) + offset
    whole = np.concatenate([x, np.zeros(zeros)])
    share = zeros / (real + zeros)
    mean, var = padded.seen(x.mean(), x.var(), share)
    size = 1 + np.abs(x).max() ** 2
    assert mean == pytest.approx(whole.mean(), abs=8 * EPS * len(whole) * size)
    assert var == pytest.approx(whole.var(), abs=8 * EPS * len(whole) * size)
    y = (x - whole.mean()) / whole.std()
    expected = padded.normalised(x.mean(), x.var(), share)
    tolerance = 100 * EPS * len(whole) * size / whole.var()
    assert expected == pytest.approx((y.mean(), y.std()), abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("length", padded.PADDED_TO)
def test_what_torch_makes_of_padded_digits_is_the_law(length):
    (mean, deviation), found, share = padded.measured(length)
    assert len(mean) >= 5
    assert share == pytest.approx(1 - 16 / length, abs=0.02)
    # The layer's eps of 1e-12 is nothing beside variances above 0.001.
    expected = padded.normalised(mean, deviation**2, share)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_sequences_are_images_read_at_a_speed_of_their_own():
    split = padded.sequences(1)
    for x in (split.x_train, split.x_test):
        real, steps = x[:, -1] == 1, x[:, -1].sum(1).long()
        assert x.shape[1:] == (9, 24)
        assert steps.unique().tolist() == list(range(8, 25))
        assert torch.equal(real, torch.arange(24) < steps[:, None])
        assert not x.movedim(1, -1)[~real].any()
    one = padded.digits(1).x_train.reshape(-1, 8, 8)
    at_first = split.x_train[:, :8, 0]
    torch.testing.assert_close(at_first, one[:, :, 0], rtol=0, atol=1e-6)
    eight = split.x_train[:, -1].sum(1) == 8
    torch.testing.assert_close(split.x_train[eight, :8, :8], one[eight], rtol=0, atol=1e-6)
    longer = padded.padded_to(split.x_test, 48)
    assert torch.equal(longer[:, :, :24], split.x_test)
    assert not longer[:, :, 24:].any()
    assert padded.share(longer) == pytest.approx((1 + padded.share(split.x_test)) / 2)


@pytest.mark.parametrize("kind", padded.KINDS)
def test_padding_reaches_a_reader_by_its_statistics_only(kind):
    """Fixed statistics: more padding changes nothing. Those of the data: only masked ones stay."""
    split = padded.sequences(0)
    model = padded.Reader(kind, seed=0)
    x, longer = split.x_test[:64], padded.padded_to(split.x_test[:64], 60)
    fitted = recalibrated(model, [x]).eval()
    torch.testing.assert_close(fitted(longer), fitted(x), rtol=0, atol=1e-5)
    again = recalibrated(model, [longer]).eval()
    moved = (again.norm1.running_var / fitted.norm1.running_var - 1).abs().max()
    assert (moved < 1e-5) == (kind == "masked")
    other = padded.Reader("masked" if kind == "unmasked" else "unmasked", seed=0)
    for name, value in model.named_parameters():
        assert torch.equal(value, other.get_parameter(name))
    whole = x[x[:, -1].sum(1) == 24]
    torch.testing.assert_close(model(whole), other(whole), rtol=0, atol=1e-5)


def test_columns_are_read_at_one_speed_from_the_first_to_the_last():
    x, images = padded.sequences(0).x_test[:60], padded.digits(0).x_test[:60].reshape(-1, 8, 8)
    for sequence, image in zip(x, images, strict=True):
        length = int(sequence[-1].sum())
        at = np.linspace(0, 7, length)
        expected = [np.interp(at, np.arange(8), row) for row in image.numpy()]
        np.testing.assert_allclose(sequence[:8, :length], expected, atol=1e-5)


def test_a_run_says_how_well_a_reader_reads():
    found = padded.trained("masked", 0.3, seed=0, steps=30)
    assert found["accuracy"] == found["kept"][0] > 0.2
    np.testing.assert_allclose(found["kept"], found["accuracy"], rtol=0, atol=0.01)
    np.testing.assert_allclose(found["recalibrated"], found["recalibrated"][0], rtol=0, atol=0.01)
    unmasked = padded.trained("unmasked", 0.3, seed=0, steps=30)
    np.testing.assert_allclose(unmasked["kept"], unmasked["accuracy"], rtol=0, atol=0.01)
    assert found["halfway"] == padded.trained("masked", 0.3, seed=0, steps=15)["accuracy"]
    # Statistics of longer padding are others.
    assert len(set(unmasked["recalibrated"])) == len(padded.PADDED_TO)
    split = padded.sequences(0)
    chance = accuracy(padded.Reader("masked"), split.x_test, split.y_test)
    assert found["accuracy"] > chance


def test_a_study_has_each_kind_at_its_best_rate(tmp_path):
    small = padded.REDUCED | {"learning_rates": [0.1, 0.3, 1.0], "fresh_seeds": [1], "steps": 3}
    found = padded.study(small, tmp_path)
    assert found["fresh"].recalibrated.dims == ("kind", "seed", "padded_to")
    assert found["fresh"].kind.values.tolist() == list(padded.KINDS)
    assert found["fresh"].padded_to.values.tolist() == padded.PADDED_TO
    fig = padded.estimated_afresh(found["fresh"])
    bold = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    for line, kind in zip(bold, padded.KINDS, strict=True):
        expected = 100 * found["fresh"].recalibrated.sel(kind=kind).median("seed")
        np.testing.assert_allclose(line.get_ydata(), expected)
    np.testing.assert_allclose(bold[0].get_xdata(), [1 / 3, 0.5, 2 / 3, 5 / 6], atol=0.02)


def test_the_figure_shows_law_and_measurement():
    fig = padded.biased(pixel=3)
    dashed = [line for line in fig.axes[0].lines if line.get_linestyle() == "--"]
    points = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert len(dashed) == len(points) == 2
    for law, found in zip(dashed, points, strict=True):
        at = np.interp(found.get_xdata(), law.get_xdata(), law.get_ydata())
        np.testing.assert_allclose(found.get_ydata(), at, rtol=1e-3)
