"""Digits are turned about their centre, and a misleading one is found."""

import numpy as np
import torch

from bncore.chapters.explanations.noise import dropout, experiments, sampling

SINGLE = float(np.finfo(np.float32).eps)


def assert_between_pixels(found, expected):
    """To the rounding of where pixels lie, of which there are at most 8 in a row."""
    atol = 8 * SINGLE * 2 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_digits_turned_by_a_right_angle():
    x = experiments.digits(0).x_test[:5]
    expected = torch.rot90(x.reshape(-1, 8, 8), 1, (1, 2)).reshape(-1, 64)
    assert_between_pixels(sampling.rotated(x, 90), expected)
    assert torch.equal(sampling.rotated(x, 0), x)


def test_images_turned_by_a_right_angle():
    x = torch.randn(4, 3, 6, 6)
    turned = sampling.rotated(x, 90)
    assert_between_pixels(turned, torch.rot90(x, 1, (2, 3)))


def test_a_misleading_digit():
    split = experiments.digits(0)
    model, _ = dropout.with_dropout(0.0, "before batch norms", steps=60, seed=0, batch=32)
    views, fixed, drawn = sampling.misleading(model, split, 30, [0, 30], (4, 16), draws=3)
    assert views.shape == (2, 64)
    assert drawn[4].shape == (3, 2, 10)
    np.testing.assert_allclose(drawn[16].sum(-1), 1, rtol=10 * SINGLE)  # sums of ten
    assert fixed[0].argmax() != fixed[1].argmax()
    assert fixed[1].max() > 0.9
