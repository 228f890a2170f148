"""Weights as a direction and a length: w_tilde = g w / ||w||_S, with ||w||_S = sqrt(w'Sw).

This is what batch normalization does to a unit's weights when its inputs have mean 0 and second
moment S: the batch deviation of x'w is ||w||_S, and gamma is the length g.
Kohler et al. (2019), equation 9.
"""

import numpy as np

from bncore import arguments as check
from bncore.convergence.problem import Weights, WeightsLike, vector
from bncore.convergence.second_moment import MatrixLike, second_moment


def decouple(weights: WeightsLike, S: MatrixLike) -> tuple[Weights, float]:
    """Direction w, with ||w||_S = 1, and length g = ||weights||_S of given weights.

    Raises
    ------
    ValueError
        If the weights are 0, S is not symmetric positive definite, or dimensions differ.
    """
    weights, _, norm = _direction("weights", weights, S)
    return weights / norm, norm


def couple(w: WeightsLike, g: float | int, S: MatrixLike) -> Weights:
    """The weights g w / ||w||_S.

    Raises
    ------
    ValueError
        If w is 0, S is not symmetric positive definite, or dimensions differ.
    """
    w, _, norm = _direction("w", w, S)
    return check.finite_number("g", g) * w / norm


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
    w, S, norm = _direction("w", w, S)
    gradient = vector("gradient", gradient, len(w), "w")
    along = float(w @ gradient)
    dw = check.finite_number("g", g) / norm * (gradient - S @ w * (along / norm**2))
    return dw, along / norm


def _direction(name, w, S):
    S = second_moment(S)
    w = vector(name, w, len(S), "S")
    if not w.any():
        raise ValueError(f"{name} is 0, expected a direction: 0 has none")
    return w, S, float(np.sqrt(w @ S @ w))
