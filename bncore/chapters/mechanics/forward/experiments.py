"""How a deep network's accuracy on the digits depends on learning rate, start and normalisation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bncore.lab import data, networks, probes, training

WIDTHS = (64, 50, 50, 50, 50, 50, 10)
NETWORKS = {
    "sigmoid": {"activation": "sigmoid"},
    "sigmoid, batch norm": {"activation": "sigmoid", "normalization": "batch"},
    "sigmoid, gain 4": {"activation": "sigmoid", "gain": 4.0},
    "ReLU, gain √2": {"activation": "relu", "gain": 2**0.5},
    "ReLU, gain √2, batch norm": {"activation": "relu", "normalization": "batch", "gain": 2**0.5},
}


def accuracies(
    network: str,
    learning_rate: float,
    seed: int,
    *,
    moments: Sequence[int],
    widths: Sequence[int] = WIDTHS,
    source: str = "digits",
    cache: str | None = None,
) -> dict[str, Any]:
    """Test accuracy of one of NETWORKS after each number of steps in `moments`, and the last one.

    Batches of 64. The seed draws the split of the digits, the weights and the order of the batches. A
    network that has diverged is at chance.
    """
    split = data.rows(source, seed, cache)
    model = networks.mlp(widths, **NETWORKS[network], seed=seed)
    record, every = {"accuracy": probes.test_accuracy}, math.gcd(*moments)
    history = training.train(
        model, split, max(moments), 64, learning_rate, seed, record, every=every
    )
    found = dict(zip(history.steps.tolist(), history.records["accuracy"], strict=True))
    return {"accuracy": np.array([found[step] for step in moments]), "last": found[max(moments)]}


def deviations(
    normalization: str | None, gain: float, seeds: Sequence[int] = range(5), depth: int = 8
) -> Float[np.ndarray, "seeds layers"]:
    """Standard deviation over the digits of what enters each layer's sigmoids, before any training.

    Root mean square over the 50 units of a layer, from weights of this gain.
    """
    layers = [f"activation{i}" for i in range(1, depth + 1)]
    x, rows = data.digits().x_train.double(), []
    for seed in seeds:
        widths = 64, *[50] * depth, 10
        model = networks.mlp(widths, "sigmoid", normalization, gain=gain, seed=seed)
        inputs = probes.inputs_of(model.double(), layers, x, "batch")
        rows.append([inputs[name].var(axis=0).mean() ** 0.5 for name in layers])
    return np.array(rows)


def percentile_run(
    normalization: str | None,
    split: data.Split,
    steps: int = 600,
    every: int = 10,
    seed: int = 0,
    learning_rate: float = 1.0,
) -> training.History:
    """Train three hidden layers of 100 sigmoids, the architecture of Ioffe and Szegedy's Figure 1.

    Records ``accuracy`` on the test set and ``percentiles``: the 15th, 50th and 85th, over the
    training set, of the input of each sigmoid of the last hidden layer (records, units, 3).
    The gain 2 lets the network train without batch norm too, though late.
    """

    def percentiles(model, split):
        inputs = probes.inputs_of(model, ["activation3"], split.x_train, "batch")["activation3"]
        return np.percentile(inputs, (15, 50, 85), axis=0).T

    model = networks.mlp((64, 100, 100, 100, 10), "sigmoid", normalization, gain=2.0, seed=seed)
    record = {"accuracy": probes.test_accuracy, "percentiles": percentiles}
    return training.train(model, split, steps, 60, learning_rate, seed, record, every=every)


def wandering(
    normalization: str, learning_rate: float, seed: int, *, steps: int, every: int = 20
) -> dict[str, float]:
    """How far the inputs of the last sigmoids of a ``percentile_run`` wander, "batch" or "none".

    Returns
    -------
    dict
        "wandered": range of a unit's median over training, in mean widths of its central 70 percent,
        the median over the units; "accuracy" on the test set in the end.
    """
    norm = "batch" if normalization == "batch" else None
    split = data.digits(seed)
    records = percentile_run(norm, split, steps, every, seed, learning_rate).records
    low, median, high = np.moveaxis(records["percentiles"], -1, 0)
    far = np.ptp(median, axis=0) / (high - low).mean(axis=0)
    return {"wandered": float(np.median(far)), "accuracy": float(records["accuracy"][-1])}
