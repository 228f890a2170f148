"""The theorems' right-hand sides, along a run, each beside the quantity that it bounds.

Two printed forms fail and stand here corrected: the length bound, which is not homogeneous in the
loss as printed, and the direction bound, which takes abs(c1) <= Phi for granted. The proofs are in
the chapters. Kohler et al. (2019), theorems 1 and 2.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bncore import arguments as check
from bncore.convergence.halfspace import GaussianHalfspace
from bncore.convergence.problem import Problem, of_kind
from bncore.convergence.trace import Trace
from bncore.convergence.unit import Unit


class Bound(NamedTuple):
    """What was measured at each iterate, and what it must not exceed."""

    measured: Float[np.ndarray, "iterates"]
    bound: Float[np.ndarray, "iterates"]


def rate(problem: Problem) -> float:
    """(1 - mu/L)^2: a step leaves at most this part of the Rayleigh gap."""
    of_kind(problem)
    return (1 - problem.smallest_eigenvalue / problem.largest_eigenvalue) ** 2


def late_decrease(values: Float[np.ndarray, "iterates"]) -> float:
    """Decrease of the logarithm in the last third of a run, over that in the middle third.

    It is 1 for a linear rate and log(3/2) / log(2) = 0.59 for values of 1/t.
    """
    third = (len(values) - 1) // 3
    falls = -np.diff(np.log(values[third : 3 * third + 1 : third]))
    return float(falls[1] / falls[0])


def least_squares(problem: Problem, trace: Trace) -> Bound:
    """rho(w_t) - rho* <= (1 - mu/L)^(2t) (rho(w_0) - rho*), for GDNP with Gaussian z or least squares.

    References
    ----------
    Kohler et al. (2019), theorem 1.
    """
    _expect(problem, trace)
    return Bound(trace.rayleigh_gap, _decay(problem, trace) * trace.rayleigh_gap[0])


def length(problem: Problem, trace: Trace) -> Bound:
    """(df/dg)^2 <= kappa^2 4^-halvings (b - a)^2, with kappa the problem's curvature bound.

    The second derivative in g is E[phi''(g q) q^2] with E q^2 = 1, hence at most kappa <= zeta / mu in
    size, and bisection leaves g within 2^-halvings abs(b - a) of a zero.

    Raises
    ------
    ValueError
        If the trace has no brackets: it is not of GDNP.
    """
    _expect(problem, trace)
    _bounded("curvature", problem.curvature_bound)
    if trace.brackets is None:
        raise ValueError("trace has no brackets, expected a run of gdnp")
    slopes = np.array([line.slope(t) / line.norm for line, t in _iterates(problem, trace)])
    a, b = trace.brackets.T
    left = 2.0**-trace.halvings * (b - a)
    return Bound(slopes**2, (problem.curvature_bound * left) ** 2)


def direction(problem: Problem, trace: Trace) -> Bound:
    """||w||_S^2 ||df/dw||^2 in S^-1 <= (1 - mu/L)^(2t) Phi^2 g^2 (rho(w_0) - rho*) / (1 + rho*).

    The left side is g^2 c1^2 (rho(w_t) - rho*) exactly; abs(c1) <= Phi / sqrt(1 + rho(w)) by Stein's
    lemma and the Cauchy-Schwarz inequality. For a Gaussian halfspace; Phi = sup abs(phi').
    """
    _expect(problem, trace, GaussianHalfspace)
    measured = [
        t * t * line.norm**2 * problem.dual_square(line.direction_gradient(t))
        for line, t in _iterates(problem, trace)
    ]
    return Bound(np.array(measured), trace.g**2 * _direction_part(problem, trace))


def combined(problem: Problem, trace: Trace) -> Bound:
    """||grad f||^2 in S^-1 at the effective weights <= direction bound / g^2 + length bound.

    The two parts of the gradient, along S w and the rest, are orthogonal in S^-1.
    """
    _expect(problem, trace, GaussianHalfspace)
    measured = [problem.dual_square(line.gradient(t)) for line, t in _iterates(problem, trace)]
    parts = _direction_part(problem, trace) + length(problem, trace).bound
    return Bound(np.array(measured), parts)


def network(problem: Unit, trace: Trace) -> Bound:
    """||grad f||^2 in S^-1 in the weights of one unit <= C^2 (1 - mu/L)^(2t) gap_0 + length bound.

    For Gaussian z and other units at 0 or on the line S^-1 u, w_j = lambda_j S^-1 u. The left side is
    c1^2 (rho(w_t) - rho*) + (df/dg)^2 and abs(c1) is at most
    C = abs(theta_i) (sup loss' sup act' + b g + sup loss'' sup act'^2 sum_j abs(theta_j lambda_j)),
    b = curvature bound / abs(theta_i), since abs(u'w) <= g and rho* <= 0. C depends on t through g.

    References
    ----------
    Kohler et al. (2019), theorem 3, which calls C a constant.
    """
    _expect(problem, trace, Unit)
    loss, act, theta = problem.network.loss, problem.network.activation, problem.network.theta
    lengths = np.delete(np.abs(theta * (problem.W @ problem.u)), problem.i)
    lengths = lengths.sum() / -problem.rayleigh_optimum
    own = abs(theta[problem.i])
    _bounded("slope", loss.slope_bound * act.slope_bound)
    _bounded("curvature", loss.curvature_bound * act.curvature_bound)
    C = (
        own * loss.slope_bound * act.slope_bound
        + problem.curvature_bound * np.abs(trace.g)
        + own * loss.curvature_bound * act.slope_bound**2 * lengths
    )
    measured = [problem.dual_square(line.gradient(t)) for line, t in _iterates(problem, trace)]
    direction = C**2 * least_squares(problem, trace).bound
    return Bound(np.array(measured), direction + length(problem, trace).bound)


def _direction_part(problem, trace):
    _bounded("slope", problem.loss.slope_bound)
    gap = least_squares(problem, trace).bound
    return problem.loss.slope_bound**2 * gap / (1 + problem.rayleigh_optimum)


def _decay(problem, trace):
    return rate(problem) ** np.arange(len(trace.g))


def _expect(problem, trace, *kinds):
    of_kind(problem, *kinds)
    if not isinstance(trace, Trace):
        raise TypeError(f"trace is a {check.type_name(trace)}, expected a Trace, as solvers return")
    if trace.w.shape[1] != problem.dimension:
        raise ValueError(
            f"trace has weights of {trace.w.shape[1]} dimensions, expected a run of the problem, "
            f"which has {problem.dimension}"
        )


def _bounded(name, bound):
    if not np.isfinite(bound):
        raise ValueError(
            f"the {name} of the loss has no known bound, expected a loss with a finite {name}_bound"
        )


def _iterates(problem, trace):
    for w, g in zip(trace.w, trace.g, strict=True):
        line = problem.line(w)
        yield line, g / line.norm
