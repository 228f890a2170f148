"""Padded sequences: what padding does to the statistics, and to what a network learns.

Digits are read column by column, each at a speed of its own, so that sequences have from 8 to 24
steps. Beside the eight pixels of a column stands whether the step is real.
"""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, pad

from bncore.lab import probes, studies, training
from bncore.lab.data import Split, digits
from bncore.lab.inference import accuracy
from bncore.lab.layers import seeded
from bncore.page import style
from bncore.practice.masking import MaskedBatchNorm1d
from bncore.practice.recalibration import recalibrated

KINDS = ("masked", "unmasked")
SHORTEST, LONGEST = 8, 24
PADDED_TO = [24, 32, 48, 96]

CONFIGURATION = {
    "kind": list(KINDS),
    "learning_rates": [0.3, 1.0, 3.0],
    "seeds": [10, 11, 12],
    "fresh_seeds": list(range(13, 23)),
    "steps": 1600,
}
REDUCED = {
    "kind": list(KINDS),
    "learning_rates": [0.1, 0.3, 1.0],
    "seeds": [0],
    "fresh_seeds": [1, 2],
    "steps": 10,
}


def seen(mean, var, share):
    """Mean and variance over all positions, where values of this mean and variance are real.

    Zeros fill the other positions, a share p of them. Of x, p parts 0:

    E x = (1 - p) mean,    Var x = (1 - p) (var + mean²) - (1 - p)² mean² = (1 - p) (var + p mean²)
    """
    return (1 - share) * mean, (1 - share) * (var + share * mean**2)


def normalised(mean, var, share):
    """Mean and deviation that real values have once all positions are normalised, eps 0."""
    all_mean, all_var = seen(mean, var, share)
    return (mean - all_mean) / np.sqrt(all_var), np.sqrt(var / all_var)


def sequences(seed=0):
    """The digits as sequences, padded to 24 steps: (examples, 8 pixels and 1 if real, steps)."""
    split = digits(seed)
    generator = torch.Generator().manual_seed(seed)
    read = (_read(x, generator) for x in (split.x_train, split.x_test))
    return Split(next(read), split.y_train, next(read), split.y_test)


def padded_to(x, length):
    """The same sequences with more padding, to a length of at least 24."""
    return pad(x, (0, length - x.shape[2]))


def share(x):
    """The part of all positions that is padding."""
    return 1 - x[:, -1].mean().item()


class Reader(nn.Module):
    """Two convolutions over time, then the mean over the real steps.

    Only the batch norms differ: "masked" ones normalise the real steps, "unmasked" ones all. In
    either network padding is 0 after them, and has no part in the mean.
    """

    def __init__(self, kind, width=16, seed=0):
        super().__init__()
        self.kind = kind
        with seeded(seed):
            self.conv1 = nn.Conv1d(8, width, 3, padding=1, bias=False)
            self.conv2 = nn.Conv1d(width, width, 3, padding=1, bias=False)
            self.output = nn.Linear(width, 10)
        self.norm1, self.norm2 = MaskedBatchNorm1d(width), MaskedBatchNorm1d(width)

    def forward(self, x):
        real = x[:, -1:]
        mask = real[:, 0] == 1 if self.kind == "masked" else None
        x = x[:, :-1]
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = real * norm(conv(x), mask).relu()
        return self.output(x.sum(2) / real.sum(2))


def trained(kind, learning_rate, seed, steps):
    """Accuracy on test sequences padded as in training, and with more padding.

    "kept" has the statistics of training; "recalibrated" has them estimated afresh from training
    sequences with as much padding as the test sequences; "halfway" is "accuracy" after half the steps.
    """
    split, model = sequences(seed), Reader(kind, seed=seed)
    record = {"accuracy": probes.test_accuracy}
    history = training.train(model, split, steps, 32, learning_rate, seed, record, every=steps // 2)
    kept, again = [], []
    for length in PADDED_TO:
        x = padded_to(split.x_test, length)
        fresh = recalibrated(model, padded_to(split.x_train, length).split(256))
        kept.append(accuracy(model, x, split.y_test))
        again.append(accuracy(fresh, x, split.y_test))
    halfway = history.records["accuracy"][1]
    return {"halfway": halfway, "accuracy": kept[0], "kept": kept, "recalibrated": again}


def measured(length, seed=0):
    """Mean and deviation of the real values of each pixel that varies, as they are, and normalised
    by all positions of sequences padded to a length; and the share of padding.

    Returns
    -------
    (mean, deviation), (mean, deviation), share : arrays of shape (pixels,), and a float
    """
    x = padded_to(sequences(seed).x_train.double(), length)
    pixels, mask = x[:, :-1], x[:, -1] == 1
    varies = pixels.movedim(1, -1)[mask].var(0) > 0.01
    y = nn.BatchNorm1d(8, eps=1e-12, affine=False).double()(pixels)
    found = []
    for values in (pixels, y):
        real = values.movedim(1, -1)[mask][:, varies]
        found.append((real.mean(0).numpy(), real.std(0, correction=0).numpy()))
    return *found, share(x)


def biased(pixel=3):
    """Draw what normalising by all positions makes of one pixel's real values, against the share of
    padding: predicted and measured mean and deviation."""
    fig, ax = style.axes()
    (mean, deviation), _, _ = measured(LONGEST)
    shares = np.linspace(0, 0.9, 91)
    law = normalised(mean[pixel], deviation[pixel] ** 2, shares)
    at = [measured(length) for length in PADDED_TO]
    for k, (name, color) in enumerate((("mean", "mean"), ("deviation", "variance"))):
        ax.plot(shares, law[k], "--", color=style.COLOR["predicted"])
        points = [one[1][k][pixel] for one in at]
        ax.plot([one[2] for one in at], points, "o", color=style.COLOR[color], label=name)
    ax.set(xlabel="share of padding", ylabel="mean, deviation", xlim=(0, 0.9))
    ax.set_ylim(bottom=0)
    style.legend_above(ax)
    return fig


def estimated_afresh(found):
    """Draw accuracy with statistics estimated on sequences with more padding than in training.

    ``found`` is "fresh" of ``study``: one line a seed, the median bold.
    """
    fig, ax = style.axes()
    x = sequences()
    shares = [share(padded_to(x.x_train, length)) for length in found.padded_to.values]
    for kind, color in (("masked", "batch norm"), ("unmasked", "highlight")):
        values = 100 * found.recalibrated.sel(kind=kind)
        ax.plot(shares, values.T, color=style.COLOR[color], linewidth=0.7, alpha=0.4)
        ax.plot(shares, values.median("seed"), "o-", color=style.COLOR[color], label=kind)
    ax.set(xlabel="share of padding", ylabel="test accuracy (%)", xlim=(0.3, 0.9))
    style.legend_above(ax)
    return fig


def study(configuration, store=None):
    """Both kinds of batch norm, each at its best rate: as from ``studies.at_best_rates``."""
    c = configuration
    found = studies.at_best_rates(
        partial(trained, steps=c["steps"]),
        {"kind": c["kind"]},
        c["learning_rates"],
        c["seeds"],
        c["fresh_seeds"],
        "accuracy",
        smaller=False,
        axes={name: {"padded_to": PADDED_TO} for name in ("kept", "recalibrated")},
        store=store,
    )
    return {name: studies.rounded(some) for name, some in found.items()}


def _read(x, generator):
    """Each image's columns, at a speed of its own."""
    steps = torch.randint(SHORTEST, LONGEST + 1, (len(x),), generator=generator)
    found = torch.zeros(len(x), 9, LONGEST)
    for length in range(SHORTEST, LONGEST + 1):
        of = steps == length
        if of.any():
            images = x[of].reshape(-1, 8, 8)
            found[of, :8, :length] = interpolate(
                images, size=length, mode="linear", align_corners=True
            )
            found[of, 8, :length] = 1
    return found
