"""The gradients at batch norms in a network, and batch norms that hide statistics from them.

Hiding the dependence of mean or variance on the batch leaves the output as it is and changes the
gradient. Source: Ioffe and Szegedy (2015), section 2.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.lab.data import Split

STATISTICS = ("mean", "variance")


class HiddenStatistics(nn.Module):
    """Batch norm over (batch, features) that treats some of its statistics as constants.

    The output is that of batch norm in training mode. On the way back, a hidden statistic passes
    no gradient, as if it did not depend on the batch.

    Parameters
    ----------
    num_features : int
        Number of features.
    hidden : collection of {"mean", "variance"}
        Which statistics the gradient does not see.
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        If hidden names anything else.

    References
    ----------
    Ioffe and Szegedy (2015), section 2: normalisation outside the gradient descent step.
    """

    def __init__(self, num_features: int, hidden: Collection[str], eps: float = 1e-5):
        _check(hidden)
        super().__init__()
        self.hidden, self.eps = tuple(hidden), eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Float[torch.Tensor, "batch features"]):
        mean = x.mean(0)
        var = ((x - mean) ** 2).mean(0)
        if "mean" in self.hidden:
            mean = mean.detach()
        if "variance" in self.hidden:
            var = var.detach()
        return self.weight * (x - mean) / torch.sqrt(var + self.eps) + self.bias


def hide_statistics(model: nn.Sequential, hidden: Collection[str]) -> nn.Sequential:
    """Copy a network with each `BatchNorm1d` replaced by one that hides its statistics.

    Linear layers and activations are shared with the given network, so use one of the two only.

    Parameters
    ----------
    model : nn.Sequential
    hidden : collection of {"mean", "variance"}
        As in ``HiddenStatistics``.

    Raises
    ------
    ValueError
        If hidden names anything else.
    """
    _check(hidden)
    layers = OrderedDict(model.named_children())
    for name, layer in layers.items():
        if isinstance(layer, nn.BatchNorm1d):
            layers[name] = HiddenStatistics(layer.num_features, hidden, layer.eps)
    return nn.Sequential(layers)


def hidden_weight_length(model: nn.Module, split: Split) -> float:
    """A probe: Euclidean length of the weights of all linear layers but the last."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    squares = sum((layer.weight.detach() ** 2).sum().item() for layer in layers[:-1])
    return squares**0.5


class Crossing(NamedTuple):
    """What one batch norm received: its input, and the gradient of the loss at its output."""

    x: Float[np.ndarray, "batch features"]
    dy: Float[np.ndarray, "batch features"]


def crossings(
    model: nn.Module,
    x: Float[torch.Tensor, "batch inputs"],
    y: Int[torch.Tensor, "batch"],
) -> list[Crossing]:
    """Send one batch through a classifier and its gradient back, and listen at each batch norm.

    Parameters
    ----------
    model : nn.Module
        In training mode; its running statistics are updated.
    x, y : Tensor
        Inputs and labels; the loss is the mean cross-entropy.

    Returns
    -------
    list of Crossing
        In the order of the layers, in float64.
    """
    seen = []

    def keep(layer, inputs, output):
        seen.append((inputs[0].detach(), output))

    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d)]
    hooks = [layer.register_forward_hook(keep) for layer in norms]
    try:
        loss = cross_entropy(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(loss, [output for _, output in seen])
    return [
        Crossing(inputs.double().numpy(), dy.double().numpy())
        for (inputs, _), dy in zip(seen, gradients, strict=True)
    ]


def _check(hidden):
    for name in hidden:
        if name not in STATISTICS:
            expected = ", ".join(map(repr, STATISTICS))
            raise ValueError(f"hidden holds {name!r}, expected only {expected}")
