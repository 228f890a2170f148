"""Squared gradients that fresh weights on the way back would give, for a forward pass as it is.

The mean-field theory of ``depth`` assumes infinite width, a batch whose examples are all alike, and
weights that are fresh on the way back (gradient independence). Here the last of the three stands
alone: width, batch and forward pass are those of a given network.
Source: the assumption is that of Yang et al. (2019), A mean field theory of batch normalization; the
recursion was derived for this book.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.explanations.activation import Activation, Function


def expected_gradients(
    preactivations: Sequence[Real[np.ndarray, "batch _"] | check.Listed], activation: Activation
) -> Float[np.ndarray, "layers"]:
    """Expected squared gradients at each layer, given what reaches its batch norm.

    Layers are h_l = x_{l-1} W_l' and x_l = phi(BN(h_l)), and h_l is known. Backward, W_{l+1} is
    replaced by independent weights N(0, 1 / n_l), with n_l units in layer l. With J_j the Jacobian of
    the batch norm of unit j and D_j = diag phi'(BN(h_lj)), the sum over the units of layer l of the
    expected outer products of gradients over the batch is

        K_l = sum_j J_j D_j (K_{l+1} / n_l) D_j J_j,

    and E ||dloss/dh_l||^2 = tr K_l. The gradient at the output is white.

    Parameters
    ----------
    preactivations : sequence of Float[ndarray, "batch units"]
        h_1, h_2, ... from the input to the last layer with a batch norm.
    activation : str or callable
        As for ``depth.MeanField``.

    Returns
    -------
    Float[ndarray, "layers"]
        E ||dloss/dh_l||^2 over the expected squared gradient at the network's output.

    Raises
    ------
    TypeError
        If activation is not a function of tensors, or a layer is not an array of real numbers.
    ValueError
        If activation is unknown, there is no layer, layers have unequal batches or fewer than three
        examples, a value is not finite, a unit has the same value for all examples, or a result
        leaves the range of floats.

    Notes
    -----
    Costs of the order of layers times units times batch squared.
    """
    function = Function(activation)
    layers = [
        check.array(f"preactivations[{i}]", h, ndim=2).astype(np.float64).T
        for i, h in enumerate(preactivations)
    ]
    if not layers:
        raise ValueError("preactivations is empty, expected an array for each layer")
    batch = layers[-1].shape[1]
    covariance = np.eye(batch) / batch
    squares = []
    for number, h in reversed(list(enumerate(layers))):
        name = f"preactivations[{number}]"
        direction, length = _directions(h, batch, name)
        _, slope = function(np.sqrt(batch) * direction)
        with np.errstate(over="ignore", invalid="ignore"):
            covariance = _through(covariance / len(h), direction, np.sqrt(batch) * slope / length)
            squares.append(np.trace(covariance))
        if not np.isfinite(squares[-1]):
            raise ValueError(
                f"{name} varies by as little as {length.min():.3g}, with which squared gradients "
                "leave the range of floats, expected layers of moderate size"
            )
    return np.array(squares[::-1])


def _directions(h, batch, name):
    """Units less their means over the batch: unit vectors and lengths."""
    if h.shape[1] != batch or batch < 3:
        raise ValueError(
            f"{name} has a batch of {h.shape[1]}, expected "
            + (f"{batch} as in the last layer" if batch > 2 else "at least 3: two pass no gradient")
        )
    check.finite(name, h)
    # Near 1 by a power of two, so that no square leaves the range and no digit changes.
    exponent = np.frexp(np.abs(h).max(axis=1, keepdims=True))[1]
    h = np.ldexp(h, -exponent)
    centred = h - h.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    constant = length[:, 0] <= 1e-12 * np.linalg.norm(h, axis=1)
    if constant.any():
        raise ValueError(
            f"{name} has the same value for all examples in unit {np.argmax(constant)}, expected "
            "values that vary: batch norm divides by their standard deviation"
        )
    return centred / length, np.ldexp(length, exponent)


def _through(covariance, u, d):
    """Sum over units of P D K D P with P = G - uu', where G removes the mean over the batch.

    One row of u and of the diagonal d a unit.
    """
    product = covariance * (d.T @ d)
    product -= product.mean(axis=0)
    product -= product.mean(axis=1, keepdims=True)
    image = d * ((d * u) @ covariance)
    image -= image.mean(axis=1, keepdims=True)
    cross = u.T @ image
    along = np.sum(u * image, axis=1, keepdims=True)
    return product - cross - cross.T + u.T @ (along * u)
