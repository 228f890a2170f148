"""An activation with its derivative, and panels on which both can be integrated.

The derivative comes from torch, so that any function of torch operations will do. Panels are halved
until Gauss-Legendre's rule on a panel agrees with the rule on its halves, and until the integral of
the derivative is the difference of the function. A kink ends in panels too narrow to matter; at a
jump the second test never succeeds, which is how jumps are found.
"""

from collections.abc import Callable
from typing import NamedTuple

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

REACH = 12.0
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(12)
TOLERANCE = 1e-12
NARROWEST = 1e-11
MOST_PANELS = 4000
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
        weights = density(z) * (z[1] - z[0])
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


class Panels(NamedTuple):
    """Nodes and weights of a composite rule: sum(weights * f(z)) is the integral of f."""

    z: np.ndarray
    weights: np.ndarray
    phi: np.ndarray
    dphi: np.ndarray


def nodes(low, high):
    """Nodes and weights of Gauss and Legendre's rule on the panels from `low` to `high`."""
    half = (np.asarray(high) - low) / 2
    middle = low + half
    return middle[..., np.newaxis] + half[..., np.newaxis] * POINTS, half[..., np.newaxis] * WEIGHTS


def panels(function, reach=REACH) -> Panels:
    """Panels on [-reach, reach] on which phi, phi squared and phi' squared are integrated.

    Raises
    ------
    ValueError
        If the function jumps, or is too steep or too rough to be followed.
    """
    edges = _refined(function, _coarse(reach), TOLERANCE)
    z, weights = nodes(edges[:-1], edges[1:])
    phi, dphi = function(z)
    return Panels(*(values.reshape(-1) for values in (z, weights, phi, dphi)))


def breakpoints(function, reach):
    """Edges of panels on [-reach, reach], few even where there are kinks; and the kinks."""
    edges = _refined(function, _coarse(reach), TOLERANCE)
    near = np.flatnonzero(np.diff(edges) < 1e-7)
    first = near[np.flatnonzero(np.diff(near, prepend=-2) > 1)]
    last = near[np.flatnonzero(np.diff(near, append=edges.size + 1) > 1)] + 1
    # With an edge at each kink, a function that is smooth elsewhere needs no narrow panels.
    edges = np.union1d(_coarse(reach), (edges[first] + edges[last]) / 2)
    edges = _refined(function, edges, 1e-9)
    step = 1e-5 * np.array([[-2], [-1], [1], [2]])
    slopes = function(edges + step)[1]
    bend = np.abs((slopes[1] - slopes[0]) - (slopes[3] - slopes[2])) / 1e-5
    return edges, edges[(np.abs(slopes[2] - slopes[1]) > 1e-3) | (bend > 1e-2)]


def _coarse(reach):
    reach = check.positive("reach", reach)
    return np.linspace(-reach, reach, 2 * int(np.ceil(reach)) + 1)


def _refined(function, edges, tolerance):
    """Halve panels until the integrals on them are within the tolerance, and return the edges."""
    low, high = edges[:-1], edges[1:]
    done = [edges[:1]]
    while len(low):
        middle = (low + high) / 2
        whole, scale, climb = _moments(function, low, high)
        if (beyond := ~np.isfinite(scale).all(axis=1)).any():
            raise ValueError(
                "activation is too large or too steep to be squared in float64, for one near "
                f"z = {middle[beyond][0]:.4g}, expected moderate values and slopes"
            )
        left, right = _moments(function, low, middle)[0], _moments(function, middle, high)[0]
        rough = np.abs(whole - left - right) > tolerance * scale
        jumps = np.abs(whole[:, 0] - climb) > tolerance * scale[:, 0]
        narrow = high - low < NARROWEST
        # The last panels around a kink may miss by their width times the change of slope, no more.
        if (lost := narrow & (np.abs(whole[:, 0] - climb) > 1e-8 * scale[:, 0])).any():
            raise ValueError(
                f"activation jumps, or is too steep, at z = {round(middle[lost][0], 6) + 0.0:g}, "
                "expected a continuous function with a square-integrable derivative: a jump would "
                "make E phi'(z)^2 infinite"
            )
        split = (rough.any(axis=1) | jumps) & ~narrow
        done.append(high[~split])
        if 2 * split.sum() + sum(map(len, done)) > MOST_PANELS:
            raise ValueError(
                f"activation has structure that {MOST_PANELS} panels do not resolve, for one near "
                f"z = {middle[split][0]:.4g}, expected a function that is smooth between kinks"
            )
        low = np.concatenate([low[split], middle[split]])
        high = np.concatenate([middle[split], high[split]])
    return np.sort(np.concatenate(done))


def density(z):
    """The density of N(0, 1)."""
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


@np.errstate(over="ignore")
def _moments(function, low, high):
    z, weights = nodes(low, high)
    phi, dphi = function(z)
    p = density(z)
    terms = np.stack([dphi, phi * p, phi**2 * p, dphi**2 * p], axis=1)
    ends = function(np.stack([low, high]))[0]
    size = 1e-3 + np.abs(phi).max(axis=1) + np.abs(ends).max(axis=0)
    weighted = p.max(axis=1)
    scale = np.stack(
        [
            size + (np.abs(dphi) * weights).sum(axis=1),
            1e-3 + size * weighted,
            1e-3 + size**2 * weighted,
            1e-3 + (dphi**2 * p * weights).sum(axis=1),
        ],
        axis=1,
    )
    return (terms * weights[:, np.newaxis]).sum(axis=2), scale, ends[1] - ends[0]
