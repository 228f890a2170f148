"""Digits are turned about their centre, and a misleading one is found."""

import numpy as np
import torch
from scipy import stats

from bncore.chapters.explanations.noise import dropout, experiments, sampling
from bncore.explanations import uncertainty
from bncore.lab import probes

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
    digit = sampling.misleading(model, split, 30, [0, 30], (4, 16), draws=3)
    assert digit.views.shape == (2, 64)
    assert digit.drawn[4].shape == (3, 2, 10)
    np.testing.assert_allclose(digit.drawn[16].sum(-1), 1, rtol=10 * SINGLE)  # sums of ten
    assert digit.fixed[0].argmax() != digit.fixed[1].argmax()
    assert digit.fixed[1].max() > 0.9
    x, y = split.x_test[:200], split.y_test[:200]
    turned = sampling.rotated(x, 30)
    with probes.evaluation(model):
        upright, surely = model(x).argmax(1), model(turned).softmax(1)
    misled = (upright == y) & (surely.argmax(1) != y) & (surely.amax(1) > 0.9)
    drawn = uncertainty.sampled_scores(model, turned, split.x_train, 4, 3).softmax(2)
    chosen, spread = (x == digit.views[0]).all(1), drawn.std(0).sum(1)
    assert misled[chosen].all()
    assert spread[chosen].max() == spread[misled].max()


def test_intervals_allow_for_all_that_is_looked_at(full):
    """Sizes of sampled batches times conditions; by Student's quantile at so small a share."""
    clean, noisy = (full["sampling"][level]["numbers"] for level in ("0.0", "0.3"))
    sizes = [way for way in clean if way.startswith("sampled")]
    conditions = clean["running"].shape[1] + noisy["running"].shape[1]
    assert len(sizes) * conditions == sampling.LOOKED_AT
    apart = np.array([1.0, 2.0, 4.0])
    mean, low, high = sampling.interval(apart)
    reach = stats.t.isf(0.05 / 72, 2) * apart.std(ddof=1) / 3**0.5
    np.testing.assert_allclose([mean, low, high], [7 / 3, 7 / 3 - reach, 7 / 3 + reach])
