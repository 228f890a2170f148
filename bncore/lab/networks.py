"""Networks to experiment on, with or without normalisation by one argument.

Modules are named by role and layer: linear1, norm1, activation1, linear2, ..., output.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from bncore import arguments as check
from bncore.lab.layers import (
    ACTIVATIONS,
    NORMALIZATIONS,
    Activation,
    Layers,
    Normalization,
    Placement,
    beside,
    check_choices,
    has_bias,
    made,
    of_weights,
    placed,
    seeded,
)
from bncore.lab.residual import residual, residual_mlp
from bncore.lab.vgg import vgg

__all__ = [
    "ACTIVATIONS",
    "NORMALIZATIONS",
    "deep_linear",
    "mlp",
    "residual",
    "residual_mlp",
    "vgg",
]


def mlp(
    widths: Sequence[int],
    activation: Activation = "sigmoid",
    normalization: Normalization = None,
    *,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    gain: float | None = None,
    dropout: float = 0.0,
    placement: Placement = "before",
    seed: int = 0,
) -> nn.Sequential:
    """A fully connected network: linear, normalisation, activation for each hidden layer.

    A linear layer before a normalisation has no bias, which subtracting the mean would remove.
    The output layer is linear, with bias, and not normalised.

    Parameters
    ----------
    widths : sequence of int
        Numbers of inputs, of units in each hidden layer, and of outputs.
    activation : str or callable
        Of the hidden layers: "sigmoid", "relu", "tanh", "identity", "leaky_relu", "elu", "gelu",
        "softplus", "erf", or a function that returns a module.
    normalization : None, "batch", callable or layers.OfWeights
        What stands between a hidden layer's linear map and its activation, or after both; a
        function is called with the layer's number of units. ``OfWeights`` changes the weights
        instead.
    momentum : float or None
        Weight of the newest batch in the running statistics; None averages all batches equally.
        Of "batch" only, as eps.
    eps : float
        Added to the variance.
    gain : float, optional
        Draw weights from N(0, gain² / fan_in), biases 0. Without it torch's own initialisation,
        uniform with variance 1 / (3 fan_in).
    dropout : float
        Probability with which a hidden unit is dropped after its activation; above 0 each hidden
        layer ends in dropout1, dropout2, ...
    placement : {"before", "after"}
        Where a normalisation stands: before the activation or after it. "after", linear layers
        keep their bias, and start from the weights of the network without normalisation.
    seed : int
        Of the initial weights. Nothing outside the network is reseeded.

    Returns
    -------
    nn.Sequential
        In training mode, on the CPU, in float32.

    Raises
    ------
    TypeError
        If a width is not an integer, a number is not a real number, or a given function returns
        anything but a module.
    ValueError
        If there are fewer than two widths, a width below 1, an unknown activation,
        normalisation or placement, a momentum or dropout outside [0, 1], or an eps or gain that
        is not positive.
    """
    check_choices(activation, normalization, placement)
    _check(widths, momentum, eps, gain, dropout)
    bias = has_bias(normalization, placement)
    change, normalization = of_weights(normalization)
    layers = OrderedDict()
    with seeded(seed):
        for i, (inputs, units) in enumerate(pairwise(widths[:-1]), start=1):
            layers[f"linear{i}"] = change(_linear(inputs, units, bias, gain))
            norm = None
            if normalization == "batch":
                norm = nn.BatchNorm1d(units, eps, momentum)
            elif normalization is not None:
                with beside(seed, i):
                    norm = made("normalization", normalization, units)
            known = isinstance(activation, str)
            function = made("activation", ACTIVATIONS[activation] if known else activation)
            layers |= placed(i, norm, function, placement)
            if dropout:
                layers[f"dropout{i}"] = nn.Dropout(dropout)
        layers["output"] = _linear(*widths[-2:], True, gain)
    return nn.Sequential(layers)


def deep_linear(
    inputs: int,
    outputs: int,
    depth: int = 25,
    width: int = 64,
    normalization: Normalization = None,
    *,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    gain: float = 1.0,
    seed: int = 0,
) -> nn.Sequential:
    """A deep network without activations: a product of matrices, or of matrices and norms.

    Parameters
    ----------
    inputs, outputs : int
    depth : int
        Number of linear layers, the output layer included.
    width : int
        Units of each hidden layer.
    normalization : None, "batch", callable or layers.OfWeights
        What follows each hidden linear layer, which then has no bias. As in ``mlp``.
    momentum, eps
        Of "batch", as in ``mlp``.
    gain : float
        Weights are drawn from N(0, gain² / fan_in), biases are 0. With gain 1 a layer keeps the
        expected squared length of what it is given.
    seed : int
        Of the weights, which are the same with and without normalisation.

    Returns
    -------
    nn.Sequential
        linear1, norm1, linear2, ..., output.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If a number is outside its range, or the normalisation unknown.
    """
    for name, value in (("inputs", inputs), ("outputs", outputs), ("width", width)):
        check.positive_integer(name, value)
    check.positive_integer("depth", depth)
    make = Layers("identity", normalization, gain, seed, momentum=momentum, eps=eps)
    layers = OrderedDict()
    with seeded(seed):
        for i in range(1, depth):
            layer = make.linear(inputs if i == 1 else width, width, make.bias)
            layers |= make.hidden(i, "linear", layer)
            del layers[f"activation{i}"]
        layers["output"] = make.linear(inputs if depth == 1 else width, outputs)
    return nn.Sequential(layers)


def _linear(inputs, units, bias, gain):
    layer = nn.Linear(inputs, units, bias)
    if gain is not None:
        nn.init.normal_(layer.weight, std=gain / inputs**0.5)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer


def _check(widths, momentum, eps, gain, dropout):
    if len(widths) < 2:
        raise ValueError(
            f"widths is {widths}, expected at least two: (inputs, *hidden layers, outputs)"
        )
    for i, width in enumerate(widths):
        check.positive_integer(f"widths[{i}]", width)
    if momentum is not None:
        check.fraction("momentum", momentum)
    check.positive("eps", eps)
    if gain is not None:
        check.positive("gain", gain)
    check.fraction("dropout", dropout)
