"""VGG: stages of 3 by 3 convolutions that each end in a pooling, then fully connected layers.

Source: Simonyan and Zisserman (2015), Table 1.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from bncore import arguments as check
from bncore.lab.layers import Layers, Normalization, Placement, seeded

# Convolutions in each of the five stages, by the network's name in the paper.
STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg(
    depth: int = 11,
    normalization: Normalization = None,
    *,
    width: int = 64,
    channels: int = 3,
    size: int = 32,
    classes: int = 10,
    hidden: Sequence[int] = (512,),
    dropout: float = 0.0,
    gain: float = 2**0.5,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    placement: Placement = "before",
    seed: int = 0,
) -> nn.Sequential:
    """A VGG of any width for square images of any size.

    The paper's networks are those of ``width=64, channels=3, size=224, classes=1000,
    hidden=(4096, 4096), dropout=0.5``. There the last feature map has 7 by 7 pixels, here as many
    as five halvings leave: it is flattened as it is, without averaging. An image of fewer than 32
    pixels a side is one pixel before the last stage, and is not pooled again.

    Parameters
    ----------
    depth : {11, 13, 16, 19}
        The paper's name of the network: its number of convolutions plus the paper's three fully
        connected layers.
    normalization : None, "batch", callable or layers.OfWeights
        What follows each convolution and each hidden linear layer, which then have no bias. As in
        ``networks.mlp``; a function must take (batch, features, height, width) and, where there
        are hidden linear layers, (batch, features).
    width : int
        Channels of the first stage; the next have 2, 4, 8 and 8 times as many.
    channels, size : int
        Of the images, which have size by size pixels.
    classes : int
    hidden : sequence of int
        Units of the fully connected layers between feature map and output; may be empty.
    dropout : float
        Probability with which a unit of a hidden linear layer is dropped after its activation.
    gain : float
        Weights are drawn from N(0, gain² / fan_in), biases are 0.
    momentum, eps
        Of "batch", as in ``networks.mlp``.
    placement : {"before", "after"}
        Where a normalisation stands: before the activation, or after it, in which case layers keep
        their bias. Pooling comes last.
    seed : int
        Of the weights, which are the same with and without normalisation, and wherever it stands.

    Returns
    -------
    nn.Sequential
        conv1, norm1, activation1, pool1, conv2, ..., flatten, then the linear layers, numbered
        on (linear9 after conv8), and output. pool1 to pool5 are numbered by stage.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If the depth, the normalisation or the placement is unknown, or a number outside its range.

    References
    ----------
    Simonyan and Zisserman (2015), configurations A, B, D and E of Table 1.
    """
    if depth not in STAGES:
        expected = ", ".join(map(str, STAGES))
        raise ValueError(f"depth is {depth!r}, expected one of {expected}")
    for name, value in (("width", width), ("channels", channels), ("size", size)):
        check.positive_integer(name, value)
    check.positive_integer("classes", classes)
    for i, units in enumerate(hidden):
        check.positive_integer(f"hidden[{i}]", units)
    check.fraction("dropout", dropout)
    make = Layers(
        "relu", normalization, gain, seed, momentum=momentum, eps=eps, placement=placement
    )
    layers, number, inputs = OrderedDict(), 0, channels
    with seeded(seed):
        for stage, convolutions in enumerate(STAGES[depth]):
            units = width * min(2**stage, 8)
            for _ in range(convolutions):
                number += 1
                layer = make.convolution(inputs, units, bias=make.bias)
                layers |= make.hidden(number, "conv", layer)
                inputs = units
            if size > 1:
                layers[f"pool{stage + 1}"] = nn.MaxPool2d(2)
                size //= 2
        layers["flatten"] = nn.Flatten()
        inputs *= size**2
        for units in hidden:
            number += 1
            layer = make.linear(inputs, units, make.bias)
            layers |= make.hidden(number, "linear", layer, dropout)
            inputs = units
        layers["output"] = make.linear(inputs, classes)
    return nn.Sequential(layers)
