"""Normalizations beside batch norm: of activations and of weights, in NumPy and as layers of torch.

    y, cache = group_norm(x, 4, gamma, beta)
    dx, dgamma, dbeta = backward(dy, cache)
    model = networks.mlp([64, 32, 10], normalization=named("group", groups=4))

All that is in NumPy stands on one core, the statistics of an array over chosen axes.
"""

from bncore.practice.normalization.activations import (
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from bncore.practice.normalization.attentive import Attentive
from bncore.practice.normalization.layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from bncore.practice.normalization.named import named
from bncore.practice.normalization.over_axes import Cache, backward, normalize
from bncore.practice.normalization.stochastic import Stochastic
from bncore.practice.normalization.switchable import Switchable
from bncore.practice.normalization.weights import (
    WeightStandardization,
    weight_norm,
    weight_standardization,
    with_weight_norm,
    with_weight_standardization,
)

__all__ = [
    "Attentive",
    "Cache",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "RMSNorm",
    "Stochastic",
    "Switchable",
    "WeightStandardization",
    "backward",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "named",
    "normalize",
    "rms_norm",
    "weight_norm",
    "weight_standardization",
    "with_weight_norm",
    "with_weight_standardization",
]
