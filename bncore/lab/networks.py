"""Networks to experiment on, with or without normalisation by one argument.

Modules are named by role and layer: linear1, norm1, activation1, linear2, ..., output.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from bncore.mechanics import _arguments as check

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}
NORMALIZATIONS = (None, "batch")


def mlp(
    widths: Sequence[int],
    activation: Literal["sigmoid", "relu", "tanh"] = "sigmoid",
    normalization: Literal["batch"] | None = None,
    *,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    gain: float | None = None,
    seed: int = 0,
) -> nn.Sequential:
    """A fully connected network: linear, normalisation, activation for each hidden layer.

    A linear layer before a normalisation has no bias, which subtracting the mean would remove.
    The output layer is linear, with bias, and not normalised.

    Parameters
    ----------
    widths : sequence of int
        Numbers of inputs, of units in each hidden layer, and of outputs.
    activation : {"sigmoid", "relu", "tanh"}
        Of the hidden layers.
    normalization : {None, "batch"}
        What stands between a hidden layer's linear map and its activation.
    momentum : float or None
        Weight of the newest batch in the running statistics; None averages all batches equally.
    eps : float
        Added to the variance.
    gain : float, optional
        Draw weights from N(0, gain² / fan_in), biases 0. Without it torch's own initialisation,
        uniform with variance 1 / (3 fan_in).
    seed : int
        Of the initial weights. Nothing outside the network is reseeded.

    Returns
    -------
    nn.Sequential
        In training mode, on the CPU, in float32.

    Raises
    ------
    TypeError
        If a width is not an integer, or a number is not a real number.
    ValueError
        If there are fewer than two widths, a width below 1, an unknown activation or
        normalisation, a momentum outside [0, 1], or an eps or gain that is not positive.
    """
    _check(widths, activation, normalization, momentum, eps, gain)
    layers = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i, (inputs, units) in enumerate(pairwise(widths[:-1]), start=1):
            layers[f"linear{i}"] = _linear(inputs, units, normalization is None, gain)
            if normalization == "batch":
                layers[f"norm{i}"] = nn.BatchNorm1d(units, eps, momentum)
            layers[f"activation{i}"] = ACTIVATIONS[activation]()
        layers["output"] = _linear(*widths[-2:], True, gain)
    return nn.Sequential(layers)


def _linear(inputs, units, bias, gain):
    layer = nn.Linear(inputs, units, bias)
    if gain is not None:
        nn.init.normal_(layer.weight, std=gain / inputs**0.5)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer


def _check(widths, activation, normalization, momentum, eps, gain):
    if len(widths) < 2:
        raise ValueError(
            f"widths is {widths}, expected at least two: (inputs, *hidden layers, outputs)"
        )
    for i, width in enumerate(widths):
        check.positive_integer(f"widths[{i}]", width)
    for name, value, known in (
        ("activation", activation, tuple(ACTIVATIONS)),
        ("normalization", normalization, NORMALIZATIONS),
    ):
        if value not in known:
            expected = ", ".join(map(repr, known))
            raise ValueError(f"{name} is {value!r}, expected one of {expected}")
    if momentum is not None:
        check.fraction("momentum", momentum)
    check.positive("eps", eps)
    if gain is not None:
        check.positive("gain", gain)
