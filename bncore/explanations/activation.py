"""An activation with its derivative, by name or as any function of torch operations.

The derivative comes from torch. That it is the function's own is seen where both are integrated, in
``panels``.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bncore import arguments as check
from bncore.explanations import _models

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda z: z * 1.0,
    "relu": nn.functional.relu,
    "leaky_relu": nn.functional.leaky_relu,
    "abs": torch.abs,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "elu": nn.functional.elu,
    "softplus": nn.functional.softplus,
}

Activation = str | Callable[[torch.Tensor], torch.Tensor]

# Deviations of N(0, 1) up to which a function is looked at.
REACH = 12.0
SMALLEST = 1e-290
TOO_FAST = (
    f"activation grows so fast that its expectation under N(0, 1) is not reached within {REACH:g} "
    "deviations, expected slower growth than exp(z^2 / 4)"
)


class Function:
    """A function of one number and its derivative, evaluated on arrays.

    Parameters
    ----------
    activation : str or callable
        One of ``ACTIVATIONS``, or a function of a float64 tensor made of differentiable torch
        operations that acts on each entry by itself.
    """

    def __init__(self, activation):
        self.name = activation if isinstance(activation, str) else check.type_name(activation)
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                known = ", ".join(map(repr, ACTIVATIONS))
                raise ValueError(
                    f"activation is {activation!r}, expected one of {known}, or a function of a "
                    "tensor"
                )
            activation = ACTIVATIONS[activation]
        elif not callable(activation) or isinstance(activation, type):
            what = activation.__name__ + " (a class)" if isinstance(activation, type) else self.name
            raise TypeError(
                f"activation is a {what}, expected a name or a function of a tensor, such as "
                "torch.tanh or an instance of a module"
            )
        self.function = activation
        z = np.linspace(-REACH, REACH, 97)
        # Fewer of them, and not as many on either side of 0: what sums over its inputs shows.
        whole, back, some = self(z)[0], self(z[::-1])[0][::-1], self(z[:60])[0]
        same = np.allclose(whole, back, 1e-12, 1e-12) and np.allclose(
            whole[:60], some, 1e-12, 1e-12
        )
        if not same:
            raise ValueError(
                "activation gives other values for the same inputs among others or in another "
                "order, expected a function of one number without chance"
            )

    def __call__(self, z):
        """Return phi(z) and phi'(z) for an array z of any shape."""
        with torch.enable_grad():
            x = torch.tensor(z.copy(), dtype=torch.float64, requires_grad=True)
            try:
                # A clone, because torch refuses to change a leaf in place.
                y = self.function(x.clone())
                slope = self._slope(x, y)
            except _models.REFUSALS as error:
                raise TypeError(
                    "activation cannot be applied to a torch tensor, expected a function of "
                    f"differentiable torch operations ({_models.first_line(error)})"
                ) from error
            if slope is None or y.shape != x.shape or y.dtype != x.dtype:
                given = (
                    f"{tuple(y.shape)} of {y.dtype}"
                    if isinstance(y, torch.Tensor)
                    else f"a {check.type_name(y)}"
                )
                raise ValueError(
                    f"activation returns {given} for a tensor of shape {tuple(x.shape)} of "
                    f"{x.dtype}, expected the same shape and dtype"
                )
        phi, dphi = y.detach().numpy(), slope.numpy()
        for what, values in (("activation", phi), ("the derivative of activation", dphi)):
            if not np.isfinite(values).all():
                bad = np.argmin(np.isfinite(values).reshape(-1))
                raise ValueError(
                    f"{what} is {values.reshape(-1)[bad]} at z = {z.reshape(-1)[bad]:.4g}, expected "
                    f"finite values for abs(z) up to {REACH:g}"
                )
        return phi, dphi

    @staticmethod
    def _slope(x, y):
        if not isinstance(y, torch.Tensor):
            return None
        if not y.requires_grad:
            if (y != y.flatten()[:1]).any():
                raise RuntimeError("its result is cut off from its argument and has no derivative")
            return torch.zeros_like(x)
        (slope,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
        return torch.zeros_like(x) if slope is None else slope


class Standardized:
    """A function shifted and scaled to mean 0 and variance 1 under N(0, 1), up to a per mille.

    Growth rates do not notice, and the tolerances of the quadrature mean the same for every function.

    Attributes
    ----------
    mean, deviation : float
        Of the function over 2^exponent, a power of two near its size.
    """

    def __init__(self, function):
        z = np.linspace(-REACH, REACH, 4801)
        weights = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
        phi, _ = function(z)
        largest = np.abs(phi[np.abs(z) < 6]).max()
        if 0 < largest < SMALLEST:
            raise ValueError(
                f"activation is at most {largest:.3g} for abs(z) up to 6, expected {SMALLEST:g} or "
                "more: smaller numbers lose their last digits"
            )
        # Scaled first, so that no square leaves the range of float64; by a power of two nothing is
        # rounded.
        self.function, self.exponent = function, int(np.frexp(largest)[1])
        with np.errstate(over="ignore", invalid="ignore"):
            phi = np.ldexp(phi, -self.exponent)
            self.mean = weights @ phi
            self.deviation = np.sqrt(weights @ (phi - self.mean) ** 2)
        if not self.deviation < np.inf:
            raise ValueError(TOO_FAST)
        if not self.deviation > 1e-6 * np.ldexp(largest, -self.exponent):
            raise ValueError(
                "activation is constant, or varies by less than a millionth of its size under "
                "N(0, 1), expected a function that varies"
            )

    def __call__(self, z):
        phi, dphi = (np.ldexp(values, -self.exponent) for values in self.function(z))
        return (phi - self.mean) / self.deviation, dphi / self.deviation
