"""What the depth chapter measures: gradients by layer at initialisation, and training at depth."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bncore.explanations import depth
from bncore.lab import data, probes
from bncore.lab.residual import residual_mlp
from bncore.lab.training import train

RECORD = Path(__file__).with_name("recorded.json")

# Layers from the input, and from the output, that a rate leaves out: there the covariances of
# signal and gradient are still on their way to the fixed point.
EARLY, LATE = 6, 3
TINY = 1e-12
# Activations that have a rate but no name in the lab.
UNNAMED = {"silu": nn.functional.silu, "abs": torch.abs}


class Pointwise(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(activation, layers, width, seed, *, normalization="batch", skip=False, gain=1.0):
    """A network of `layers` equal layers at initialisation; see ``residual_mlp``.

    Parameters
    ----------
    activation : str or callable
        A name, or a function of a tensor.
    """
    if isinstance(activation, str):
        activation = UNNAMED.get(activation, activation)
    if not isinstance(activation, str):
        activation = partial(Pointwise, activation)
    return residual_mlp(
        width, width, layers, width, activation, normalization,
        skip=skip, gain=gain, eps=TINY, seed=seed,
    )  # fmt: skip


def white(batch_size, width, seed):
    """A batch of independent standard normal numbers."""
    return torch.randn(batch_size, width, generator=torch.Generator().manual_seed(1000 + seed))


def gradients(activation, layers, width, batch_size, seed, *, scale=1.0, **kwargs):
    """Squared gradients at the pre-activations and weights of each of `layers` equal layers.

    The inputs are white, of standard deviation `scale`; the rest goes to ``network``.
    """
    model = network(activation, layers, width, seed, **kwargs)
    norms = depth.gradient_norms(model, scale * white(batch_size, width, seed), seed)
    return depth.GradientNorms(norms.signals[1:-1], norms.weights[1:-1])


def rate(squares):
    """Growth per layer between the layers that ``EARLY`` and ``LATE`` leave, from squared norms."""
    first, last = squares[EARLY], squares[-LATE - 1]
    return (first / last) ** (1 / (len(squares) - EARLY - LATE - 1))


def measured_rates(activation, width, batch_size, layers, seeds, **kwargs):
    """The growth rate of each of `seeds` networks at initialisation."""
    return np.array(
        [
            rate(gradients(activation, layers, width, batch_size, seed, **kwargs).signals)
            for seed in range(seeds)
        ]
    )


KINDS = {
    "plain": {"normalization": None, "skip": False},
    "batch norm": {"normalization": "batch", "skip": False},
    "residual": {"normalization": "batch", "skip": True},
}


@cache
def _digits():
    return data.digits()


def classifier(kind, layers, width, seed):
    """A network for the digits, of one of ``KINDS``, ReLU with He's initialisation."""
    return residual_mlp(64, 10, layers, width, "relu", gain=2**0.5, seed=seed, **KINDS[kind])


def accuracy(kind, layers, width, steps, learning_rate, seed, optimizer=torch.optim.SGD):
    """Test accuracy after training, with the statistics of the test set where there is batch norm.

    Statistics of the batch, because running averages lag behind in a short training.
    """
    split = _digits()
    model = classifier(kind, layers, width, seed)
    train(model, split, steps, 64, learning_rate, seed, optimizer=optimizer, every=steps)
    with probes.evaluation(model, "batch"):
        scores = model(split.x_test)
    if not torch.isfinite(scores).all():
        return 0.0
    return (scores.argmax(1) == split.y_test).double().mean().item()


def dynamic_range(layers, learning_rate, seed, steps=1, width=64):
    """Largest over smallest squared weight gradient of a batch-norm network, before and after steps.

    Returns
    -------
    ndarray of shape (steps + 1,)
    """
    split = _digits()
    x, y = split.x_train[:64], split.y_train[:64]
    model = classifier("batch norm", layers, width, seed)
    weights = [p for name, p in model.named_parameters() if name.endswith("linear1.weight")]
    descent = torch.optim.SGD(model.parameters(), lr=learning_rate)
    ranges = []
    for step in range(steps + 1):
        descent.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        squares = [weight.grad.double().square().sum().item() for weight in weights]
        ranges.append(max(squares) / min(squares))
        if step < steps:
            descent.step()
    return np.array(ranges)


def stacked(count, layers, width, batch_size, seed, scale=1.0):
    """Squared gradients by layer of a ReLU network, batch norm in the first `count` layers.

    He's initialisation. The inputs are such that without batch norm the pre-activations of every
    layer have mean square scale^2; over the batch, those of the first layer have that variance.
    """
    left = iter([True] * count)

    def normalization(features):
        return nn.BatchNorm1d(features, TINY) if next(left, False) else nn.Identity()

    norms = gradients(
        "relu", layers, width, batch_size, seed,
        normalization=normalization, gain=2**0.5, scale=scale / 2,
    )  # fmt: skip
    return norms.signals


def asymmetry(activation, layers, width, batch_size, seed):
    """How unlike the examples of a batch become to the network, and how gradients grow.

    Returns
    -------
    spread : ndarray of shape (layers,)
        For each layer: over the batch, the standard deviation over the mean of the squared distance
        of an example's pre-activations from the mean of the batch.
    growth : ndarray of shape (layers - 1,)
        Squared gradients at the pre-activations of a layer over those of the next.
    """
    model = network(activation, layers, width, seed)
    x = white(batch_size, width, seed)
    names = [f"block{number}.body.norm1" for number in range(1, layers + 1)]
    seen = probes.inputs_of(model, names, x, "batch")
    spread = []
    for name in names:
        squares = ((seen[name] - seen[name].mean(axis=0)) ** 2).mean(axis=1)
        spread.append(squares.std() / squares.mean())
    signals = depth.gradient_norms(model, x, seed).signals[1:-1]
    return np.array(spread), signals[:-1] / signals[1:]
