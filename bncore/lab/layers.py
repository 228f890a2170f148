"""The layers that networks are made of: activations by name, a normalisation by one argument.

A network's weights depend on its seed and on their place in the network alone, so that networks
with and without normalisation start from the same weights.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check


class Erf(nn.Module):
    """The error function as an activation."""

    def forward(self, x: Float[torch.Tensor, "..."]):
        return torch.erf(x)


ACTIVATIONS = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "erf": Erf,
}
NORMALIZATIONS = (None, "batch")
PLACEMENTS = ("before", "after")

Activation = str | Callable[[], nn.Module]


class OfWeights(NamedTuple):
    """A normalisation of the weights of a layer, in the place of one of what the layer computes.

    Attributes
    ----------
    change : callable
        From a linear layer or convolution to the layer that takes its place; the same, changed in
        place, will do. It has the same inputs and outputs.
    then : None, "batch" or callable
        A normalisation that stands behind the layer, which then has no bias.
    """

    change: Callable[[nn.Module], nn.Module]
    then: str | Callable[[int], nn.Module] | None = None


Normalization = str | Callable[[int], nn.Module] | OfWeights | None
Placement = Literal["before", "after"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU generator as if freshly seeded; it comes back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Layers:
    """The layers of one network, in order, with names and initial weights.

    Use it inside ``seeded``: it draws from torch's generator, and seeds it anew for each layer.

    Parameters
    ----------
    activation : str or callable
        A name in ACTIVATIONS, or called without arguments.
    normalization : None, "batch", callable or OfWeights
        Called with the number of features; what it returns stands after a linear map. "batch" is
        torch's batch norm for as many axes as the layer's output has. ``OfWeights`` changes the
        weights of hidden layers, and has them keep their bias.
    gain : float, optional
        Weights are N(0, gain² / fan_in), biases 0. Without it torch's own initialisation.
    seed : int
    momentum, eps
        Of "batch".
    placement : {"before", "after"}
        Where the normalisation of a hidden layer stands: before its activation or after it. Only a
        normalisation that comes next takes the bias away.
    """

    def __init__(
        self,
        activation: Activation,
        normalization: Normalization,
        gain: float | None,
        seed: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        placement: Placement = "before",
    ):
        check_choices(activation, normalization, placement)
        check.integer("seed", seed, 0)
        if gain is not None:
            check.positive("gain", gain)
        if momentum is not None:
            check.fraction("momentum", momentum)
        check.positive("eps", eps)
        self._activation, self._gain = activation, gain
        self._change, self._normalization = of_weights(normalization)
        self._batch_norm = {"eps": eps, "momentum": momentum}
        self._seeds = torch.Generator().manual_seed(seed)
        self.placement = placement

    def linear(self, inputs: int, units: int, bias: bool = True) -> nn.Linear:
        """A linear map of features on the last axis."""
        return self._draw(lambda: nn.Linear(inputs, units, bias))

    def convolution(
        self, inputs: int, units: int, kernel: int = 3, stride: int = 1, bias: bool = True
    ) -> nn.Conv2d:
        """A convolution that keeps the image's size where the stride is 1."""
        return self._draw(
            lambda: nn.Conv2d(inputs, units, kernel, stride, padding=kernel // 2, bias=bias)
        )

    def norm(self, features: int, images: bool = False) -> nn.Module | None:
        """The normalisation of that many features, if there is one."""
        if self._normalization is None:
            return None
        if self._normalization == "batch":
            return (nn.BatchNorm2d if images else nn.BatchNorm1d)(features, **self._batch_norm)
        return made("normalization", self._normalization, features)

    def activation(self) -> nn.Module:
        """A fresh activation."""
        if isinstance(self._activation, str):
            return ACTIVATIONS[self._activation]()
        return made("activation", self._activation)

    @property
    def bias(self) -> bool:
        """Whether a layer has a bias although a normalisation may follow."""
        return has_bias(self._normalization, self.placement)

    def hidden(
        self, number: int, role: str, layer: nn.Module, dropout: float = 0.0
    ) -> OrderedDict[str, nn.Module]:
        """A layer, its normalisation and activation as they are placed, dropout; with names."""
        images = isinstance(layer, nn.Conv2d)
        features = layer.out_channels if images else layer.out_features
        layer = self._change(layer)
        found = OrderedDict({f"{role}{number}": layer})
        norm = self.norm(features, images)
        found |= placed(number, norm, self.activation(), self.placement)
        if dropout:
            found[f"dropout{number}"] = nn.Dropout(dropout)
        return found

    def _draw(self, make):
        seed = int(torch.randint(2**62, (), generator=self._seeds, device="cpu"))
        torch.default_generator.manual_seed(seed)
        layer = make()
        if self._gain is not None:
            torch.default_generator.manual_seed(seed)
            nn.init.normal_(layer.weight, std=self._gain / layer.weight[0].numel() ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return layer


def has_bias(normalization: Normalization, placement: Placement) -> bool:
    """Whether a hidden layer has a bias: none where a normalisation comes next and removes it."""
    return of_weights(normalization)[1] is None or placement == "after"


def of_weights(normalization: Normalization) -> tuple[Callable, Normalization]:
    """What changes a layer's weights, if anything does, and the normalisation that stands behind it."""
    if isinstance(normalization, OfWeights):
        return partial(made, "change", normalization.change), normalization.then
    return _as_it_is, normalization


def _as_it_is(layer):
    return layer


@contextmanager
def beside(seed: int, number: int) -> Iterator[None]:
    """Draw what a normalisation starts from, so that the weights drawn after it do not depend on it."""
    state = np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)
    with seeded(int(state[0] >> np.uint64(1))):
        yield


def placed(
    number: int, norm: nn.Module | None, activation: nn.Module, placement: Placement
) -> OrderedDict[str, nn.Module]:
    """A normalisation, if there is one, before or after an activation, each with its name."""
    found = OrderedDict({f"norm{number}": norm, f"activation{number}": activation})
    if norm is None:
        del found[f"norm{number}"]
    elif placement == "after":
        found.move_to_end(f"norm{number}")
    return found


def made(name: str, factory: Callable, *arguments) -> nn.Module:
    """What a factory returns. Refuse anything but a module."""
    module = factory(*arguments)
    if not isinstance(module, nn.Module):
        call = f"({', '.join(map(repr, arguments))})"
        raise TypeError(
            f"{name}{call} returned a {check.type_name(module)}, expected a torch.nn.Module"
        )
    return module


def check_choices(activation, normalization, placement="before"):
    """Refuse an activation or normalisation that is neither known nor callable, or a place."""
    if isinstance(normalization, OfWeights):
        if not callable(normalization.change):
            raise TypeError(
                f"change is {normalization.change!r}, expected a function from a layer to a layer"
            )
        normalization = normalization.then
    for name, value, known, signature in (
        ("activation", activation, tuple(ACTIVATIONS), "a function that returns a module"),
        (
            "normalization",
            normalization,
            NORMALIZATIONS,
            "a function from a number of features to a module",
        ),
    ):
        if not callable(value) and value not in known:
            expected = ", ".join(map(repr, known))
            raise ValueError(f"{name} is {value!r}, expected one of {expected}, or {signature}")
    if placement not in PLACEMENTS:
        raise ValueError(f"placement is {placement!r}, expected 'before' or 'after'")
