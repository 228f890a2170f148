"""Where a run may start: at weights that have a direction, and not a dead one."""

import numpy as np

from bncore.convergence.problem import Line, Problem, Weights, vector


def start(w0, problem: Problem) -> tuple[Weights, Line]:
    """w0 as float64, and f along it.

    Raises
    ------
    ValueError
        If w0 is 0 or of length 0 in the norm of S, u is 0, or w0 is orthogonal to u: rho is then
        flat there, and no step follows.
    """
    w0 = vector("w0", w0, problem.dimension)
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
