"""Checks of arguments, shared by this wing; see ``bncore.mechanics._arguments`` for the rest."""

import numpy as np
from scipy import linalg

from bncore import arguments as check


def real_array(name, value, ndim):
    """The value as a float array of ``ndim`` axes. Refuse other types, NaN and infinity."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise TypeError(
            f"{name} is a {check.type_name(value)}, expected an array of real numbers"
            if not isinstance(value, np.ndarray)
            else f"{name} has dtype {value.dtype}, expected real numbers"
        )
    if value.ndim != ndim:
        raise ValueError(f"{name} has shape {value.shape}, expected {ndim} axes")
    if value.dtype.kind != "f":
        value = value.astype(np.float64)
    check.finite(name, value)
    return value


def finite_number(name, value):
    """The value as a float. Refuse anything but a real number, NaN and infinity."""
    value = check.number(name, value)
    if not np.isfinite(value):
        raise ValueError(f"{name} is {value}, expected a finite number")
    return value


def vector(name, value, length, of):
    """The value as float64. Refuse anything but ``length`` finite numbers."""
    value = real_array(name, value, 1)
    if value.shape != (length,):
        raise ValueError(
            f"{name} has shape {value.shape}, expected ({length},), the dimension of {of}"
        )
    return value.astype(np.float64)


def second_moment(S):
    """S as float64 and its eigenvalues, ascending. Refuse all but symmetric positive definite S."""
    S = real_array("S", S, 2).astype(np.float64)
    if S.shape[0] != S.shape[1] or S.shape[0] == 0:
        raise ValueError(f"S has shape {S.shape}, expected a square matrix")
    asymmetry = np.abs(S - S.T).max()
    if asymmetry > 1e-10 * np.abs(S).max():
        i, j = np.unravel_index(np.abs(S - S.T).argmax(), S.shape)
        raise ValueError(
            f"S is not symmetric: S[{i}, {j}] is {S[i, j]:.6g} and S[{j}, {i}] is {S[j, i]:.6g}"
        )
    S = (S + S.T) / 2
    eigenvalues = linalg.eigvalsh(S)
    definite("S", eigenvalues)
    return S, eigenvalues


def definite(name, eigenvalues):
    """Refuse a spectrum whose smallest eigenvalue is 0 or below, to working precision."""
    floor = len(eigenvalues) * np.finfo(np.float64).eps * np.abs(eigenvalues).max()
    if eigenvalues[0] <= floor:
        raise ValueError(
            f"{name} has the smallest eigenvalue {eigenvalues[0]:.3g} beside a largest of "
            f"{eigenvalues[-1]:.3g}, expected a positive definite matrix: drop repeated or "
            "dependent columns, or bring more samples than columns"
        )


def start(w0, problem):
    """A start at which the direction of the weights is defined and is not a dead one."""
    w0 = vector("w0", w0, problem.dimension, "the problem")
    if not w0.any():
        raise ValueError("w0 is 0, expected a direction: 0 has none")
    line = problem.line(w0)
    if not line.norm > 0:
        raise ValueError("w0 has length 0 in the norm of S: the data do not move along it")
    if np.linalg.norm(problem.u) <= 1e-15 * np.sqrt(problem.largest_eigenvalue):
        raise ValueError(
            "u is 0, expected a mean of z that is not: rho is 0 in every direction, and no "
            "direction is better than another"
        )
    floor = 1e-14 * np.linalg.norm(problem.u) * np.linalg.norm(w0)
    if abs(line.mean) <= floor:
        raise ValueError(
            "rho(w0) is 0 because w0 is orthogonal to u, expected u'w0 != 0: the gradient of rho "
            "vanishes there; add a multiple of u to w0"
        )
    return w0, line
