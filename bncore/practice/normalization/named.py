"""Every normalization by its name, as what the networks of ``bncore.lab`` take."""

from collections.abc import Callable
from functools import partial

from torch import nn

from bncore.lab.layers import OfWeights
from bncore.practice.normalization.attentive import Attentive
from bncore.practice.normalization.layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from bncore.practice.normalization.stochastic import Stochastic
from bncore.practice.normalization.switchable import Switchable
from bncore.practice.normalization.weights import with_weight_norm, with_weight_standardization

KINDS = {
    "layer": LayerNorm,
    "instance": InstanceNorm,
    "group": GroupNorm,
    "rms": RMSNorm,
    "switchable": Switchable,
    "attentive": Attentive,
    "stochastic": Stochastic,
}
NAMES = (*KINDS, "weight", "weight standardization")


def named(name: str, **options: object) -> Callable[[int], nn.Module] | OfWeights:
    """A normalization for the networks of the lab: ``mlp(widths, normalization=named("layer"))``.

    Parameters
    ----------
    name : str
        "layer", "instance", "group", "rms", "switchable", "attentive" or "stochastic", a layer behind
        a linear map or convolution; "weight", torch's weight normalization of its weights; or
        "weight standardization", of its weights, with group norm behind it as in the source.
    options
        Of the layer, such as ``groups=4`` of "group" and of the group norm behind standardised weights.

    Returns
    -------
    callable or bncore.lab.layers.OfWeights

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If "weight" is given options; later, when a network is built, if a layer has no such option.
    """
    if name not in NAMES:
        expected = ", ".join(map(repr, NAMES))
        raise ValueError(f"name is {name!r}, expected one of {expected}")
    if name == "weight":
        if options:
            raise TypeError(f"'weight' is given {', '.join(options)}, expected no options")
        return OfWeights(with_weight_norm)
    if name == "weight standardization":
        return OfWeights(with_weight_standardization, partial(GroupNorm, **options))
    return partial(KINDS[name], **options)
