"""Where a run may start: at weights that have a direction, and not a dead one."""

import numpy as np

from bncore.convergence.problem import Line, Problem, Weights, WeightsLike, of_kind, silent, vector

ROUNDING = 64 * float(np.finfo(np.float64).eps)


def plain_start(problem: Problem, w0: WeightsLike) -> Weights:
    """w0 as float64, for methods that may start anywhere."""
    of_kind(problem)
    return vector("w0", w0, problem.dimension)


def start(problem: Problem, w0: WeightsLike) -> tuple[Weights, Line]:
    """w0 as float64 and f along it, for methods that step a direction.

    Raises
    ------
    ValueError
        If w0 is 0 or of length 0 in the norm of S, u is 0, or w0 is orthogonal to u: rho is then
        flat there, and no step follows.
    """
    w0 = plain_start(problem, w0)
    with silent():
        line = problem.line(w0)
        problem.expect_direction("w0", line)
    problem.expect_mean()
    if abs(line.mean) <= np.abs(w0) @ (ROUNDING * np.abs(problem.u) + problem.mean_error):
        raise ValueError(
            "rho(w0) is 0 because w0 is orthogonal to u, expected u'w0 != 0: the gradient of rho "
            "vanishes there; add a multiple of u to w0"
        )
    return w0, line
