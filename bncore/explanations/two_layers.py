"""The covariate shift of a linear network of two layers, in closed form."""

import numbers
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check


class TwoLayers(NamedTuple):
    """The second layer's gradient in a linear network of two layers, before and after a step."""

    before: Float[np.ndarray, "outputs hidden"]
    after: Float[np.ndarray, "outputs hidden"]


def two_linear_layers(
    W1: check.Listed | Real[np.ndarray, "hidden inputs"],
    W2: check.Listed | Real[np.ndarray, "outputs hidden"],
    C: check.Listed | Real[np.ndarray, "inputs inputs"],
    D: check.Listed | Real[np.ndarray, "outputs inputs"],
    learning_rate: numbers.Real,
) -> TwoLayers:
    """The shift of the second layer of x -> W2 W1 x in closed form.

    For the loss E (W2 W1 x - y)^2 / 2 with C = E[x x'] and D = E[y x'], and R = W2 W1 C - D,

        G  = R W1',
        G' = (R - h W2 W2' R C) (W1 - h W2' R)'      after a step of learning rate h.

    Parameters
    ----------
    W1, W2 : ndarray
        The weights.
    C, D : ndarray
        Second moments of the inputs, and of outputs and inputs.
    learning_rate : float
        Of the first layer's step; at least 0.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers, or learning_rate not a number.
    ValueError
        If shapes disagree, a value is not finite, entries of C differ from those of C' by more than
        a thousandth of what they can be at most, (C_ii C_jj)^(1/2), or learning_rate is negative or
        not finite, or a gradient leaves the range of W1's dtype.
    """
    h = check.nonnegative("learning_rate", learning_rate)
    W1 = _matrix("W1", W1)
    W2, C, D = (_matrix(name, v, W1.dtype) for name, v in (("W2", W2), ("C", C), ("D", D)))
    (hidden, inputs), outputs = W1.shape, len(W2)
    for name, value, expected in (
        ("W2", W2, (outputs, hidden)),
        ("C", C, (inputs, inputs)),
        ("D", D, (outputs, inputs)),
    ):
        if value.shape != expected:
            raise ValueError(
                f"{name} has shape {value.shape}, expected {expected} beside W1 and W2"
            )
    wide = C.astype(np.float64)
    sizes = np.sqrt(np.abs(wide.diagonal()))
    if (np.abs(wide - wide.T) > 1e-3 * np.outer(sizes, sizes)).any():
        raise ValueError("C is not symmetric, expected second moments E[x x']")
    dtype = W1.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        W1, W2, D = (value.astype(np.float64) for value in (W1, W2, D))
        R = W2 @ W1 @ wide - D
        moved = W1 - h * W2.T @ R
        before, after = R @ W1.T, (R - h * W2 @ W2.T @ R @ wide) @ moved.T
    return TwoLayers(
        check.narrowed("the gradient", before, dtype),
        check.narrowed("the gradient after the step", after, dtype),
    )


def _matrix(name, value, dtype=None):
    value = check.array(name, value, dtype=dtype)
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name} has shape {value.shape}, expected a matrix with entries")
    check.finite(name, value)
    return value
