"""How squared gradients grow from layer to layer in a network at initialisation, with batch norm.

Mean-field theory: the width is infinite, weights are independent N(0, 1 / inputs) and fresh on the
way back. Then everything is an expectation over one Gaussian variable, or, for a batch of B, over a
point of a sphere. ``propagation`` has the theory without batch norm, and ``gradient_norms`` measures.
Source: Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz (2019), A mean field theory of batch
normalization; rederived.
"""

import numpy as np
from jaxtyping import Float

from bncore import arguments as check
from bncore.explanations import sphere
from bncore.explanations.activation import Activation, Function, Standardized
from bncore.explanations.panels import gaussian

SMALLEST_BATCH, LARGEST_BATCH = 4, 10**7
FLOAT64 = np.finfo(np.float64)


class MeanField:
    """A layer of infinite width with batch norm and an activation, where a batch is symmetric.

    That is the fixed point of the covariance of a batch that treats all examples alike. A batch of B
    is there a point h, uniform on the sphere of radius sqrt(B) in the vectors of mean zero.

    Parameters
    ----------
    activation : str or callable
        "identity", "relu", "leaky_relu" (slope 0.01), "abs", "tanh", "erf", "sigmoid", "gelu",
        "silu", "elu" or "softplus"; or a function of a float64 tensor that acts on each entry by
        itself, the integral of its derivative, with kinks wherever it likes.
    batch_size : int, optional
        Examples in a batch, at least 4: with three the expectation is infinite; at most 10^7. None
        for the limit of large batches.

    Raises
    ------
    TypeError
        If activation is not a function of tensors, or batch_size not an integer.
    ValueError
        If activation is unknown, constant, jumps, grows so fast that the expectation is beyond
        reach, has values or slopes too large or too small for float64, or structure too fine for the
        quadrature; or batch_size is below 4 or above 10^7.
    """

    def __init__(self, activation: Activation, batch_size: int | None = None):
        self._function = Standardized(Function(activation))
        if batch_size is None:
            self._moments = _large_batch(self._function)
        else:
            self._moments = sphere.moments(self._function, _batch_size(batch_size))

    @property
    def growth_rate(self) -> float:
        """Factor by which squared gradients grow per layer, towards the input.

        For a large batch it is E phi'(z)^2 / Var phi(z) with z ~ N(0, 1). For a batch of B,

            lambda_B = E[(B - 1 - h1^2) phi'(h1)^2 + (1 + h1 h2) phi'(h1) phi'(h2)]
                       / ((B - 3) E[phi(h1)^2 - phi(h1) phi(h2)]).

        At least 1, or (B - 2) / (B - 3), which only affine functions reach. Right to 1e-9 of it.
        """
        return self._moments.slopes / self._moments.variance

    @property
    def symmetry_multiplier(self) -> float:
        """Factor by which a layer multiplies small differences between the examples of a batch.

        Where the examples are nearly alike to the network, let 1 + d_i be the squared distance of
        example i from the mean of the batch, over its average. The layer multiplies small d_i by

            mu_B = (A / 2 - C (B - 1) / (B - 2)) / E[phi(h1)^2 - phi(h1) phi(h2)],
            A = E[phi(h1)^2 (h1^2 - 1)],   C = E[phi(h1) phi(h2) (h1^2 - 1)].

        Above 1 the symmetric batch is unstable, and ``growth_rate`` fails in networks deep enough.
        For the identity it is (B - 1) / (B + 1). Right to 1e-9 of it, or of 1 where it is smaller.
        Source: an eigenvalue of the linearised dynamics of Yang et al. (2019); rederived.
        """
        return self._moments.spread / self._moments.variance

    @property
    def batch_variance(self) -> float:
        """Variance over the batch of phi after batch norm, the divisor being B - 1.

        E[phi(h1)^2 - phi(h1) phi(h2)], or Var phi(z) for large batches. This is what a residual
        block adds to the variance of its stream. Right to 1e-9 of it.

        Raises
        ------
        ValueError
            If the activation is so large or so small that it leaves the range of float64.
        """
        size = 2 * self._function.exponent
        with np.errstate(over="ignore", under="ignore"):
            result = float(np.ldexp(self._moments.variance * self._function.deviation**2, size))
        if not FLOAT64.tiny <= result <= FLOAT64.max:
            raise ValueError(
                f"the variance of activation is of the order of 2^{size}, beyond float64, expected "
                "an activation of moderate size: divide it by a constant"
            )
        return result


def growth_rate(activation: Activation, batch_size: int | None = None) -> float:
    """Factor by which squared gradients grow per layer: ``MeanField.growth_rate``."""
    return MeanField(activation, batch_size).growth_rate


def batch_variance(activation: Activation, batch_size: int | None = None) -> float:
    """Variance over the batch of an activation after batch norm: ``MeanField.batch_variance``."""
    return MeanField(activation, batch_size).batch_variance


def symmetry_multiplier(activation: Activation, batch_size: int | None = None) -> float:
    """What becomes of small differences between examples: ``MeanField.symmetry_multiplier``."""
    return MeanField(activation, batch_size).symmetry_multiplier


def smallest_growth_rate(batch_size: int) -> float:
    """(B - 2) / (B - 3): the growth rate of a linear network, and a lower bound for every other.

    Raises
    ------
    TypeError, ValueError
        If batch_size is not an integer from 4 to 10^7.
    """
    B = _batch_size(batch_size)
    return (B - 2) / (B - 3)


def relu_growth_rate(batch_size: int) -> float:
    """The growth rate of ReLU for a batch of B, in closed form; pi / (pi - 1) for large B.

    With r = -1 / (B - 1), J'(r) = 1 - arccos(r) / pi and J(r) = sqrt(1 - r^2) / pi + r J'(r),

        lambda_B = ((B - 1 + J'(r)) / (1 - J(r)) - 1) / (B - 3).

    Raises
    ------
    TypeError, ValueError
        If batch_size is not an integer from 4 to 10^7.
    """
    B = _batch_size(batch_size)
    r = -1 / (B - 1)
    slope = 1 - np.arccos(r) / np.pi
    kernel = np.sqrt(1 - r * r) / np.pi + r * slope
    return float(((B - 1 + slope) / (1 - kernel) - 1) / (B - 3))


def residual_growth(
    rate: float | int, blocks: int, offset: float | int
) -> Float[np.ndarray, "{blocks}+1"]:
    """Squared gradients in a residual network with batch norm, over those at its end.

    Each block adds phi(BN(W x)) to x. The variance under the l-th batch norm is proportional to
    l + offset, so that block l = 1, ..., blocks multiplies squared gradients by
    1 + rate / (l - 1 + offset): a power of depth instead of an exponential.

    Parameters
    ----------
    rate : float
        The growth rate of the same layer without the skip connection, from ``growth_rate``.
    blocks : int
        Number of blocks.
    offset : float
        Variance of a unit over the batch at the input of the first block, in units of the variance
        that one block adds.

    Returns
    -------
    Float[ndarray, "blocks + 1"]
        Before block 1, before block 2, ..., after the last block: there it is 1.

    Raises
    ------
    TypeError
        If rate or offset is not a number, or blocks not an integer.
    ValueError
        If one of them is not positive, or the growth is beyond float64.
    """
    rate, offset = check.positive("rate", rate), check.positive("offset", offset)
    blocks = check.positive_integer("blocks", blocks)
    with np.errstate(over="ignore"):
        factors = np.log1p(rate / (np.arange(blocks) + offset))
        growth = np.exp(np.cumsum(factors[::-1])[::-1])
    if not np.isfinite(growth[0]):
        raise ValueError(
            f"squared gradients grow by a factor of 10^{factors.sum() / np.log(10):.3g} for rate "
            f"{rate:g}, blocks {blocks} and offset {offset:g}, beyond float64: expected a smaller "
            "rate, fewer blocks or a larger offset"
        )
    return np.append(growth, 1.0)


def _large_batch(function):
    """What ``sphere.moments`` becomes for large batches: h1 and h2 are independent N(0, 1)."""
    rule = gaussian(function)
    centred = rule.phi - rule.weights @ rule.phi
    return sphere.Moments(
        float(rule.weights @ rule.dphi**2),
        float(rule.weights @ centred**2),
        float(rule.weights @ (centred**2 * (rule.z**2 - 1))) / 2,
    )


def _batch_size(value):
    try:
        size = check.integer("batch_size", value, least=SMALLEST_BATCH)
    except ValueError as error:
        raise ValueError(
            f"{error}: a batch of two passes no gradient, and with three the expected squared "
            "gradient is infinite"
        ) from None
    if size > LARGEST_BATCH:
        raise ValueError(
            f"batch_size is {size}, expected at most {LARGEST_BATCH}: larger batches lose digits, "
            "and their rate differs by less than a millionth from that of the largest"
        )
    return size
