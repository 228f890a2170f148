"""How signal and gradient change from layer to layer in a network without normalisation.

Mean-field theory: the width is infinite, and weights are fresh on the way back. Then a layer is an
expectation over one Gaussian variable. ``depth`` has the theory with batch norm.
Poole et al. (2016); Schoenholz et al. (2017).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bncore import arguments as check
from bncore.explanations.activation import Activation, Function, Standardized
from bncore.explanations.panels import gaussian

FLOAT64 = np.finfo(np.float64)


class Propagation(NamedTuple):
    """What mean-field theory predicts for a network without normalisation.

    Attributes
    ----------
    variance : Float[ndarray, "layers"]
        Mean square q of a pre-activation in layer 1, 2, ...
    growth : Float[ndarray, "layers"]
        Factor chi by which squared gradients grow from the pre-activations of the next layer to
        those of this one.
    """

    variance: Float[np.ndarray, "layers"]
    growth: Float[np.ndarray, "layers"]


def propagate(
    activation: Activation,
    weight_variance: float | int,
    layers: int,
    variance: float | int = 1.0,
    bias_variance: float | int = 0.0,
) -> Propagation:
    """Follow signal and gradient through a network without normalisation.

    With weights N(0, weight_variance / inputs) and biases N(0, bias_variance),

        q_{l+1} = weight_variance E phi(sqrt(q_l) z)^2 + bias_variance,
        chi_l   = weight_variance E phi'(sqrt(q_l) z)^2.

    Squared gradients with respect to the pre-activations of layer l are chi_l times those of layer
    l + 1: below 1 they vanish towards the input, above 1 they explode.

    Parameters
    ----------
    activation : str or callable
        As for ``depth.MeanField``.
    weight_variance, bias_variance : float
        Variance of a weight times the number of inputs; variance of a bias.
    layers : int
        Number of layers.
    variance : float
        q_1, the mean square of a pre-activation of the first layer.

    Raises
    ------
    TypeError, ValueError
        If the activation is refused as by ``depth.MeanField``, a variance is not positive (that of the
        bias: negative), layers is not a positive integer, the variance leaves (1e-12, 1e12), or a
        factor is beyond float64.
    """
    function = Function(activation)
    # Refuses what has no growth rate, a constant for one.
    exponent = Standardized(function).exponent
    weight = check.positive("weight_variance", weight_variance)
    bias = check.nonnegative("bias_variance", bias_variance)
    layers = check.positive_integer("layers", layers)
    q = check.positive("variance", variance)
    variances, growth = [], []
    for _ in range(layers):
        if not 1e-12 < q < 1e12:
            raise ValueError(
                f"the variance of layer {len(growth) + 1} is {q:.3g}, expected between 1e-12 and "
                "1e12: choose another weight_variance or fewer layers"
            )
        scale = np.sqrt(q)
        rule = gaussian(_Stretched(function, scale, exponent))
        variances.append(q)
        squares = float(rule.weights @ rule.phi**2), float(rule.weights @ rule.dphi**2)
        with np.errstate(over="ignore", under="ignore"):
            square, slope = weight * np.ldexp(squares, 2 * exponent)
        if squares[1] and not FLOAT64.tiny <= slope <= FLOAT64.max:
            raise ValueError(
                f"squared gradients change by a factor of {slope:.3g} in layer {len(variances)}, "
                "beyond float64: expected an activation and a weight_variance of moderate size"
            )
        growth.append(slope)
        # The stretched function was divided by `scale`, and its derivative was not.
        q = float(q * square + bias)
    return Propagation(np.array(variances), np.array(growth))


class _Stretched:
    """z -> phi(scale z) / scale, which has the derivative phi'(scale z); both over 2^exponent."""

    def __init__(self, function, scale, exponent):
        self.function, self.scale, self.exponent = function, scale, exponent

    def __call__(self, z):
        phi, dphi = (np.ldexp(values, -self.exponent) for values in self.function(self.scale * z))
        return phi / self.scale, dphi
