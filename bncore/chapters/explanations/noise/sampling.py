"""Predictions with running statistics, with a temperature, and with the statistics of sampled batches."""

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import rotate

from bncore.chapters.explanations.noise.experiments import DIGITS
from bncore.explanations import uncertainty
from bncore.lab import probes, training
from bncore.lab.intervals import difference

# Six sizes of sampled batches, on digits as they are, turned by four angles, and noisy.
LOOKED_AT = 36


def interval(apart):
    """Mean of differences, one a network, and an interval that allows for ``LOOKED_AT``."""
    found = xr.DataArray(apart, [("seed", np.arange(len(apart)))])
    return difference(found, xr.zeros_like(found), looked_at=LOOKED_AT)


def rotated(x, degrees):
    """Digits, or other square images, turned about their centre, bilinear, with zeros around them."""
    digits = x.ndim == 2
    images = (x.reshape(-1, 8, 8) if digits else x).numpy(force=True)
    turned = torch.tensor(rotate(images, degrees, axes=(-2, -1), reshape=False, order=1))
    return (turned.reshape(-1, 64).clamp(0, 1) if digits else turned).to(x.device)


def sampled(
    seed, *, steps, batch, sizes, draws, pixel_noise=0.0, angles=(), learning_rate=0.1, task=DIGITS
):
    """Train one network and predict in several ways: fixed, with a temperature, and sampled.

    Half of the test set is kept for the temperature; the other half judges.

    Returns
    -------
    dict of str to ndarray of shape (conditions, 3)
        For each way of predicting, accuracy, negative log-likelihood and expected calibration
        error, of the images as they are and turned by each of the angles.
    dict of str to ndarray of shape (3, bins)
        For each way, of the images as they are: mean confidence, frequency and count by bin.
    float
        The temperature.
    """
    split = task.split(seed, pixel_noise)
    model = task.network("batch", seed)
    training.train(model, split, steps, batch, learning_rate, seed, device=task.device)
    half = len(split.x_test) // 2
    with probes.evaluation(model):
        temperature = uncertainty.fitted_temperature(
            probes.in_pieces(model, split.x_test[:half]), split.y_test[:half]
        )
    x, y = split.x_test[half:], split.y_test[half:]
    conditions = [x, *(rotated(x, angle) for angle in angles)]
    numbers, bins = {}, {}
    for condition in conditions:
        with probes.evaluation(model):
            scores = probes.in_pieces(model, condition)
        ways = {"running": scores.softmax(1), "temperature": (scores / temperature).softmax(1)}
        for size in sizes:
            drawn = uncertainty.sampled_scores(model, condition, split.x_train, size, draws, seed)
            ways[f"sampled {size}"] = drawn.softmax(2).mean(0)
        for way, probabilities in ways.items():
            found = uncertainty.calibration(probabilities, y)
            numbers.setdefault(way, []).append(found[:3])
            bins.setdefault(way, np.stack(found[3:]))
    return {way: np.array(values) for way, values in numbers.items()}, bins, temperature


class Turned(NamedTuple):
    """A digit, turned, and what a network makes of it.

    Attributes
    ----------
    angles : list of int
    views : Tensor of shape (angles, 64)
        The digit turned by each angle.
    fixed : ndarray of shape (angles, 10)
        Probabilities with running statistics.
    drawn : dict of int to ndarray of shape (draws, angles, 10)
        Probabilities with sampled batches of each size.
    """

    angles: list[int]
    views: torch.Tensor
    fixed: np.ndarray
    drawn: dict[int, np.ndarray]


def misleading(model, split, degrees, angles, sizes, draws=60):
    """A test digit that the network reads rightly, but when turned reads wrongly and surely.

    Of all those, the one on which batches of the smallest size disagree most.
    """
    x, y = split.x_test[:200], split.y_test[:200]
    turned = rotated(x, degrees)
    with probes.evaluation(model):
        right = model(x).argmax(1) == y
        sure, answer = model(turned).softmax(1).max(1)
    chosen = right & (answer != y) & (sure > 0.9)
    scores = uncertainty.sampled_scores(model, turned, split.x_train, min(sizes), draws)
    spread = scores.softmax(2).std(0).sum(1)
    digit = x[int(torch.where(chosen, spread, -1.0).argmax())]
    views = torch.cat([rotated(digit[None], angle) for angle in angles])
    with probes.evaluation(model):
        fixed = model(views).softmax(1).numpy()
    drawn = {
        m: uncertainty.sampled_scores(model, views, split.x_train, m, draws).softmax(2).numpy()
        for m in sizes
    }
    return Turned(angles, views, fixed, drawn)
