"""Weights as a direction and a length: w_tilde = g w / ||w||_S, with ||w||_S = sqrt(w'Sw).

This is what batch normalization does to a unit's weights when its inputs have mean 0 and second
moment S: the batch deviation of x'w is ||w||_S, and gamma is the length g. Vectors come back in the
precision of the weights that were handed in; all is computed in double.
Kohler et al. (2019), equation 9.
"""

import numpy as np

from bncore import arguments as check
from bncore.convergence.data import precision
from bncore.convergence.problem import Weights, WeightsLike, silent, vector
from bncore.convergence.second_moment import MatrixLike, second_moment


def decouple(weights: WeightsLike, S: MatrixLike) -> tuple[Weights, float]:
    """Direction w, with ||w||_S = 1, and length g = ||weights||_S of given weights.

    Raises
    ------
    ValueError
        If the weights are 0, S is not symmetric positive definite, or dimensions differ.
    """
    unit, _, norm = _direction("weights", weights, S)
    return check.narrowed("w", unit, precision(weights)), norm


def couple(w: WeightsLike, g: float | int, S: MatrixLike) -> Weights:
    """The weights g w / ||w||_S.

    Raises
    ------
    ValueError
        If w is 0, S is not symmetric positive definite, or dimensions differ.
    """
    unit, _, _ = _direction("w", w, S)
    g = check.finite_number("g", g)
    with silent():
        return check.narrowed("the weights", g * unit, precision(w))


def gradients(
    w: WeightsLike, g: float | int, S: MatrixLike, gradient: WeightsLike
) -> tuple[Weights, float]:
    """Gradients in w and g of f(g w / ||w||_S), from the gradient of f at g w / ||w||_S.

    dg = w'gradient / ||w||_S
    dw = g / ||w||_S (gradient - S w (w'gradient) / ||w||_S^2)

    dw is orthogonal to w, and shrinks as w grows: the function does not depend on the length of w.

    Raises
    ------
    ValueError
        If w is 0, S is not symmetric positive definite, or dimensions differ.
    """
    unit, S, norm = _direction("w", w, S)
    gradient = vector("gradient", gradient, len(unit), "w")
    g = check.finite_number("g", g)
    with silent():
        along = unit @ gradient
        dw = g / norm * (gradient - S @ unit * along)
        dg = float(check.narrowed("dg", along, np.float64))
        return check.narrowed("dw", dw, precision(w)), dg


def _direction(name, w, S):
    """w scaled to ||w||_S = 1, S and ||w||_S, all in double precision."""
    S = second_moment(S)
    w = vector(name, w, len(S), "S")
    if not w.any():
        raise ValueError(f"{name} is 0, expected a direction: 0 has none")
    size = 2.0 ** np.frexp(np.abs(w).max())[1]  # squares of w itself may leave the range
    w = w / size
    norm = float(np.sqrt(w @ S @ w))
    length = norm * float(size)
    if not 0 < length < np.inf:
        raise ValueError(f"||{name}||_S is {length:g}, out of the range of float64: scale {name}")
    return w / norm, S, length
