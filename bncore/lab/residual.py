"""Residual networks, and the same networks with their skip connections removed.

Source: He, Zhang, Ren and Sun (2016), deep residual learning.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check
from bncore.lab.layers import Activation, Layers, Normalization, Placement, seeded


class Residual(nn.Module):
    """A block: after(shortcut(x) + body(x)), or after(body(x)) without a shortcut.

    Parameters
    ----------
    body : nn.Module
    shortcut : nn.Module or None
        ``nn.Identity`` for a plain skip connection.
    after : nn.Module, optional
        By default nothing happens to the sum.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, after: nn.Module | None = None):
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.after = nn.Identity() if after is None else after

    def forward(self, x: Float[torch.Tensor, "batch *features"]):
        y = self.body(x)
        return self.after(y if self.shortcut is None else self.shortcut(x) + y)


def residual(
    blocks: int,
    width: int = 16,
    normalization: Normalization = "batch",
    *,
    skip: bool = True,
    stages: int = 1,
    channels: int = 1,
    classes: int = 10,
    activation: Activation = "relu",
    gain: float = 2**0.5,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    placement: Placement = "before",
    seed: int = 0,
) -> nn.Sequential:
    """A convolutional residual network: one convolution, blocks of two, an average, a linear map.

    ``residual(3, 16, stages=3, channels=3)`` is the paper's 20-layer network for CIFAR-10, except
    that shortcuts between stages are 1 by 1 convolutions, the paper's option B. Images may have
    any size, as the last feature map is averaged.

    Parameters
    ----------
    blocks : int
        In each stage.
    width : int
        Channels of the first stage. Each later stage has twice as many and half the image's size.
    normalization : None, "batch", callable or layers.OfWeights
        What follows each convolution, which then has no bias. As in ``networks.mlp``.
    skip : bool
        Whether each block adds its input to its result. Weights are the same either way.
    stages : int
    channels, classes : int
    activation : str or callable
        As in ``networks.mlp``: within each block, and after each sum.
    gain : float
        Weights are drawn from N(0, gain² / fan_in), biases are 0.
    momentum, eps
        Of "batch", as in ``networks.mlp``.
    placement : {"before", "after"}
        Where a normalisation stands: before each activation, or after it. "after", layers keep
        their bias, the second normalisation of a block follows the activation of its sum, and a
        shortcut that changes the size has none.
    seed : int
        Of the weights, which are the same with and without normalisation, and wherever it stands.

    Returns
    -------
    nn.Sequential
        conv1, norm1, activation1, block1, block2, ..., pool, flatten, output. Block k is a
        ``Residual`` whose body has conv1, norm1, activation1, conv2 and norm2; what follows its
        sum is ``after``.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If a number is outside its range, or an activation, normalisation or placement unknown.

    References
    ----------
    He, Zhang, Ren and Sun (2016), sections 3.3 and 4.2.
    """
    for name, value in (("blocks", blocks), ("width", width), ("stages", stages)):
        check.positive_integer(name, value)
    for name, value in (("channels", channels), ("classes", classes)):
        check.positive_integer(name, value)
    make = Layers(
        activation, normalization, gain, seed, momentum=momentum, eps=eps, placement=placement
    )
    with seeded(seed):
        layers = make.hidden(1, "conv", make.convolution(channels, width, bias=make.bias))
        inputs, number = width, 0
        for stage in range(stages):
            units = width * 2**stage
            for _ in range(blocks):
                number += 1
                stride = 1 if inputs == units else 2
                layers[f"block{number}"] = _block(make, inputs, units, stride, skip)
                inputs = units
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = make.linear(inputs, classes)
    return nn.Sequential(layers)


def _block(make, inputs, units, stride, skip):
    body = make.hidden(1, "conv", make.convolution(inputs, units, stride=stride, bias=make.bias))
    body |= make.hidden(2, "conv", make.convolution(units, units, bias=make.bias))
    after = body.pop("activation2")
    if make.placement == "after" and "norm2" in body:
        after = nn.Sequential(OrderedDict(activation=after, norm=body.pop("norm2")))
    shortcut = nn.Identity()
    if stride > 1:
        # Drawn whether used or not, so that later layers do not depend on it.
        conv = make.convolution(inputs, units, 1, stride, bias=make.bias)
        projection = make.hidden(1, "conv", conv)
        del projection["activation1"]
        if make.placement == "after":
            projection.pop("norm1", None)
        shortcut = nn.Sequential(projection)
    return Residual(nn.Sequential(body), shortcut if skip else None, after)


def residual_mlp(
    inputs: int,
    outputs: int,
    blocks: int,
    width: int,
    activation: Activation = "relu",
    normalization: Normalization = "batch",
    *,
    skip: bool = True,
    gain: float | None = None,
    dropout: float = 0.0,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    placement: Placement = "before",
    seed: int = 0,
) -> nn.Sequential:
    """A fully connected residual network: h + activation(norm(W h)) in each block.

    Without skip connections it is a plain network, activation(norm(W h)) in each block.

    Parameters
    ----------
    inputs, outputs : int
    blocks : int
    width : int
        Units of each block.
    activation, normalization, gain, dropout, momentum, eps
        As in ``networks.mlp``.
    skip : bool
        Whether each block adds its input to its result. Weights are the same either way.
    placement : {"before", "after"}
        Where a block's normalisation stands: before its activation, or after it, in which case the
        linear map keeps its bias.
    seed : int
        Of the weights, which are the same with and without normalisation, and wherever it stands.

    Returns
    -------
    nn.Sequential
        input (a linear map, not normalised), block1, block2, ..., output. Block k is a
        ``Residual`` whose body has linear1, norm1 and activation1.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If a number is outside its range, or an activation, normalisation or placement unknown.
    """
    for name, value in (("inputs", inputs), ("outputs", outputs), ("blocks", blocks)):
        check.positive_integer(name, value)
    check.positive_integer("width", width)
    check.fraction("dropout", dropout)
    make = Layers(
        activation, normalization, gain, seed, momentum=momentum, eps=eps, placement=placement
    )
    with seeded(seed):
        layers = OrderedDict(input=make.linear(inputs, width))
        for number in range(1, blocks + 1):
            body = make.hidden(1, "linear", make.linear(width, width, make.bias), dropout)
            shortcut = nn.Identity() if skip else None
            layers[f"block{number}"] = Residual(nn.Sequential(body), shortcut)
        layers["output"] = make.linear(width, outputs)
    return nn.Sequential(layers)
