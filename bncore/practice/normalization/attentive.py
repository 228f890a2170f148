"""Attentive normalization: each example mixes several scales and shifts by what it holds."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore import tensors

Batch = Float[torch.Tensor, "batch features *spatial"]


class PlainBatchNorm(BatchNorm):
    """Batch norm without scale and shift, for inputs of any number of axes.

    Parameters
    ----------
    features : int
        On axis 1.
    """

    def __init__(self, features: int):
        super().__init__(features, affine=False)

    def _check_input_dim(self, input):
        tensors.layer_input("x", input, self.num_features, self.running_mean.dtype)
        if self.training and (count := check.values_per_feature(input)) < 2:
            raise ValueError(
                f"x has shape {tuple(input.shape)}, {count} values of each feature, expected at "
                "least 2 in training mode: one value has no deviation"
            )


class Attentive(nn.Module):
    """Attentive normalization, for inputs of any number of axes.

    y = sum_k p_k(x) (weight_k * x_hat + bias_k),    p(x) = softmax(A m(x) + a)

    x_hat is x normalised, without scale and shift; m(x) holds the mean of each feature of an example
    over its positions, and A and a are learned. So each example has its own scale and shift, a mixture
    of K. With one component it is the plain normalisation with that scale and shift.

    Our reading, where the sources leave room: a softmax weighs the components, so that a single one
    has the weight 1; m is of the input itself; scales start near 1 and shifts near 0 with deviation
    0.1, since equal ones would never part. A single component starts at 1 and 0.

    Parameters
    ----------
    features : int
        On axis 1.
    components : int
        K.
    normalization : callable, optional
        From a number of features to a module without scale and shift, such as
        ``partial(LayerNorm, affine=False)``. None stands for ``PlainBatchNorm``.

    Raises
    ------
    TypeError
        If a number is of the wrong type, or normalization returns no module; in a forward pass, if
        the input is no tensor of the layer's dtype.
    ValueError
        If a number is below 1; in a forward pass, if the input has other features or no positions,
        or what the normalisation refuses.

    References
    ----------
    Li, Sun and Wu (2020).
    """

    def __init__(
        self,
        features: int,
        components: int = 5,
        normalization: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.features = check.positive_integer("features", features)
        components = check.positive_integer("components", components)
        self.norm = (normalization or PlainBatchNorm)(features)
        if not isinstance(self.norm, nn.Module):
            raise TypeError(
                f"normalization({features}) returned a {check.type_name(self.norm)}, expected a "
                "torch.nn.Module"
            )
        self.attention = nn.Linear(features, components)
        spread = 0.1 if components > 1 else 0.0
        self.weight = nn.Parameter(1 + spread * torch.randn(components, features))
        self.bias = nn.Parameter(spread * torch.randn(components, features))

    def forward(self, x: Batch) -> Batch:
        """Normalise, then scale and shift as the example says."""
        p = self.weights_of(x)
        each = (*x.shape[:2], *[1] * (x.ndim - 2))
        scale, shift = (p @ self.weight).reshape(each), (p @ self.bias).reshape(each)
        return (self.norm(x) * scale + shift).to(x.dtype)

    def weights_of(self, x: Batch) -> Float[torch.Tensor, "batch components"]:
        """The weight of each component for each example: not negative, with the sum 1."""
        tensors.layer_input("x", x, self.features, self.weight.dtype)
        if x.numel() == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected at least one value")
        means = x.to(self.weight.dtype).reshape(*x.shape[:2], -1).mean(2)
        return self.attention(means).softmax(1)
