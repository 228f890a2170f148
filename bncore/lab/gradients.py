"""The gradients at batch norms in a network, and batch norms that hide statistics from them.

Hiding the dependence of mean or variance on the batch leaves the output as it is and changes the
gradient. Source: Ioffe and Szegedy (2015), section 2.
"""

import copy
import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore import tensors
from bncore.lab import graphs
from bncore.lab.data import Split

STATISTICS = ("mean", "variance")


class HiddenStatistics(BatchNorm):
    """Batch norm that treats some of the batch's statistics as constants in the gradient.

    The output is that of torch's batch norm. On the way back, in training mode, a hidden statistic
    passes no gradient, as if it did not depend on the batch. Running statistics are kept as by torch.

    Parameters
    ----------
    num_features : int
        Number of features, on axis 1 of inputs (batch, features, *spatial).
    hidden : collection of {"mean", "variance"}
        Which statistics the gradient does not see.
    eps : float
        Added to the variance.
    momentum, affine, track_running_stats
        As in torch.

    Raises
    ------
    TypeError
        If num_features is not an integer, or eps not a real number.
    ValueError
        If hidden names anything else, num_features is below 1 or eps is not positive.

    References
    ----------
    Ioffe and Szegedy (2015), section 2: normalisation outside the gradient descent step.
    """

    def __init__(
        self,
        num_features: int,
        hidden: Collection[str],
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        _check(hidden)
        features = check.positive_integer("num_features", num_features)
        check.positive("eps", eps)
        super().__init__(features, eps, momentum, affine, track_running_stats)
        self.hidden = tuple(hidden)

    def forward(self, x: Float[torch.Tensor, "batch features *spatial"]):
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        with torch.no_grad():
            super().forward(x)  # The running statistics.
        axes, each = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = exact.mean(axes, keepdim=True)
        if "mean" in self.hidden:
            mean = mean.detach()
        var = ((exact - mean) ** 2).mean(axes, keepdim=True)
        if "variance" in self.hidden:
            var = var.detach()
        y = (exact - mean) / torch.sqrt(var + self.eps)
        if self.weight is not None:
            y = self.weight.reshape(each) * y
        if self.bias is not None:
            y = y + self.bias.reshape(each)
        return y.to(x.dtype)

    def _check_input_dim(self, x):
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, {self.num_features}, *spatial)"
            )


def hide_statistics(
    model: nn.Module,
    hidden: Collection[str],
    example: tensors.Examples | tuple[torch.Tensor, ...] | None = None,
) -> nn.Module:
    """A copy of a network with each batch norm replaced by one that hides its statistics.

    The copy computes what the model computes, in training mode and in evaluation mode. Learned scales
    and shifts, running statistics, modes, and what is frozen are those of the model.

    Parameters
    ----------
    model : nn.Module
        It stays as it is. Its calls are traced, to see that all of its batch norms are modules.
    hidden : collection of {"mean", "variance"}
        As in ``HiddenStatistics``.
    example : Float[Tensor, "examples *features"], or a tuple of tensors, optional
        What the model may be applied to in its mode: the copy is compared with it.

    Raises
    ------
    TypeError
        If model is no module, or example holds no real numbers.
    ValueError
        If hidden names anything else, the calls cannot be traced, a batch norm is of a class of
        one's own, has hooks or is called as a function, or the copy differs from the model on the
        example.
    """
    _check(hidden)
    graphs.check_model(model)
    changed = copy.deepcopy(model)
    for name in graphs.batch_norms(model, graphs.traced(model).graph):
        norm = changed.get_submodule(name)
        graphs.replace(changed, name, _hiding(norm, hidden))
    if example is not None:
        arguments = graphs.inputs(example, model)
        exact, wide = graphs.in_double(model, arguments)
        other = changed if exact is model else copy.deepcopy(changed).double()
        graphs.check_same(exact, other, wide, "the changed network")
    return changed


def _hiding(norm, hidden):
    new = HiddenStatistics(
        norm.num_features, hidden, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    for held in ("_parameters", "_buffers"):
        setattr(new, held, dict(getattr(norm, held)))
    new.training = norm.training
    return new


def hidden_weight_length(model: nn.Module, split: Split) -> float:
    """A probe: Euclidean length of the weights of all linear layers but the last.

    The last is the last in ``model.modules()``, which names layers in the order of registration.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return math.hypot(
        *(
            torch.linalg.vector_norm(layer.weight.detach(), dtype=torch.float64).item()
            for layer in layers[:-1]
        )
    )


class Crossing(NamedTuple):
    """What one batch norm received: its input, and the gradient of the loss at its output."""

    x: Float[np.ndarray, "batch features *spatial"]
    dy: Float[np.ndarray, "batch features *spatial"]


def crossings(model: nn.Module, x: tensors.Examples, y: tensors.Labels) -> list[Crossing]:
    """Send one batch through a classifier and its gradient back, and listen at each of torch's batch norms.

    Parameters
    ----------
    model : nn.Module
        In training mode; its running statistics are updated.
    x, y : Tensor
        Inputs and labels; the loss is the mean cross-entropy.

    Returns
    -------
    list of Crossing
        In the order of the calls, in float64. Not finite where the model's outputs are not.

    Raises
    ------
    TypeError
        If x holds no real numbers, or y no integers.
    ValueError
        If x is empty or not finite, or y is not one label for each example.
    """
    x = tensors.examples("x", x, model)
    y = tensors.labels("y", y, len(x), x.device)
    seen = []

    def keep(layer, inputs, output):
        # What follows may change in place what it is given.
        seen.append((inputs[0].detach().clone(), output))
        return output.clone()

    norms = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
    hooks = [layer.register_forward_hook(keep) for layer in norms]
    try:
        with torch.enable_grad():
            loss = cross_entropy(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(loss, [output for _, output in seen])
    return [
        Crossing(inputs.double().numpy(force=True), dy.double().numpy(force=True))
        for (inputs, _), dy in zip(seen, gradients, strict=True)
    ]


def _check(hidden):
    for name in hidden:
        if name not in STATISTICS:
            expected = ", ".join(map(repr, STATISTICS))
            raise ValueError(f"hidden holds {name!r}, expected only {expected}")
