"""Gradient descent in normalised parameters (GDNP) and the methods to compare it with.

Each takes a problem and a start and returns a ``Trace``. The gradients that a method needs are the
ones recorded: an iteration makes one forward and one adjoint product with the data.
"""

import numpy as np

from bncore import arguments as check
from bncore.convergence.boxes import Unresolved
from bncore.convergence.length import NoFiniteLength, search
from bncore.convergence.problem import Problem, WeightsLike, silent
from bncore.convergence.start import plain_start, start
from bncore.convergence.trace import Recorder, Trace

SEARCHES = ("bisection", "brentq")
LONGEST = 1e100


@silent()
def gdnp(
    problem: Problem,
    w0: WeightsLike,
    *,
    steps: int = 100,
    bisection_steps: int = 20,
    tolerance: float | int = 0.0,
    length_search: str = "bisection",
    relaxation: float | int = 1.0,
) -> Trace:
    """Gradient descent in normalised parameters: a gradient step for the direction, bisection for the length.

    w_next = w - s grad_w f(w, g),    s = -||w||_S^3 / (L g h),    h = c1 u'w

    Here f(w, g) = f(g w / ||w||_S), and c1 is as in ``Problem.coefficients``. The next g comes by
    bisection on the derivative of f(w, g) in g. For Gaussian examples the step is the same for every
    loss: w_next = w - (S w - u ||w||_S^2 / u'w) / L.

    The printed algorithm starts from the length 1; here the first length is searched for too. The
    search begins around the length before, and its bracket is recorded.

    Parameters
    ----------
    problem : Problem
        What to minimise.
    w0 : Real[ndarray, "dimension"]
        A start with u'w0 != 0.
    steps : int
        T_d, the number of direction steps at most.
    bisection_steps : int
        T_s, the halvings of each bracket at most. Brackets shrink with the changes of the length, so
        that twenty find it to a millionth of the last change.
    tolerance : float
        Stop when the gradient's norm at the effective weights is at most this.
    length_search : str
        "bisection", or "brentq" for SciPy's, which needs fewer evaluations.
    relaxation : float
        A factor r on the step s. For Gaussian examples a step leaves at most
        max(abs(1 - r), abs(1 - r mu/L))^2 of the Rayleigh gap, below 1 for r < 2.

    Returns
    -------
    Trace
        With status "no finite length" if f falls for ever along a direction, which is then the last,
        and "unresolved" if f is not computed to its accuracy as far as its best length.

    Raises
    ------
    TypeError, ValueError
        If w0 is 0, orthogonal to u or of another dimension, u is 0, or a setting is out of range;
        if f has no finite length at w0, so that there is no first iterate.

    References
    ----------
    Kohler et al. (2019), algorithm 1 and theorem 2.
    """
    w, line = start(problem, w0)
    recorder = Recorder(steps, tolerance, "GDNP")
    check.positive_integer("bisection_steps", bisection_steps)
    if length_search not in SEARCHES:
        raise ValueError(f"length_search is {length_search!r}, expected one of {SEARCHES}")
    relaxation = check.positive("relaxation", relaxation)
    L, mu = problem.largest_eigenvalue, problem.smallest_eigenvalue
    near, width = 0.0, 1.0
    with recorder.until_unresolved():
        for _ in recorder:
            try:
                length = search(line, bisection_steps, length_search, near, width)
            except NoFiniteLength as reason:
                if not recorder.rows:
                    raise ValueError(f"w0 has no optimal length: {reason}") from None
                recorder.stop("no finite length", str(reason))
                break
            except Unresolved as reason:
                if not recorder.rows:
                    raise Unresolved(
                        f"the optimal length of w0 is out of reach: {reason}"
                    ) from None
                recorder.stop("unresolved", str(reason))
                break
            a, b = length.bracket
            # few halvings may return the end they began at
            left = abs(b - a) * 2.0**-length.halvings
            width = max(2 * abs(length.g - near), left, 1e-12 * abs(length.g), np.finfo(float).tiny)
            near = length.g
            t = near / line.norm
            gradient = line.gradient(t)
            wanted = recorder.add(line, t, gradient)
            recorder.searches.append((length.bracket, length.halvings))
            if not wanted:
                continue
            h = line.coefficients(t)[0] * line.mean
            if h == 0:
                recorder.stop("stalled", "h = c1 u'w is 0, so that the step is not defined")
                continue
            size = relaxation * line.norm**2 / (L * h)
            w = w + size * (gradient - line.Sw * (w @ gradient / line.norm**2))
            line = problem.line(w)
            # the length plays no part; a power of 2 rounds nothing
            if line.norm > LONGEST:
                w = w * 2.0 ** -np.frexp(line.norm)[1]
                line = problem.line(w)
    return recorder.trace(max(abs(1 - relaxation), 1 - relaxation * mu / L) ** 2)


@silent()
def gradient_descent(
    problem: Problem,
    w0: WeightsLike,
    *,
    steps: int = 100,
    learning_rate: float | int | None = None,
    tolerance: float | int = 0.0,
) -> Trace:
    """Plain gradient descent on the weights, w - learning_rate * gradient.

    Parameters
    ----------
    learning_rate : float, optional
        By default 1 / smoothness, the step that the theory guarantees.

    Other parameters, errors and result are those of ``gdnp``, but any start is allowed.
    """
    w = plain_start(problem, w0)
    recorder = Recorder(steps, tolerance, "Gradient descent")
    rate = _learning_rate(problem, learning_rate)
    with recorder.until_unresolved():
        for _ in recorder:
            line = problem.line(w)
            gradient = line.gradient(1.0)
            if recorder.add(line, 1.0, gradient):
                w = w - rate * gradient
    return recorder.trace()


@silent()
def accelerated_gradient_descent(
    problem: Problem,
    w0: WeightsLike,
    *,
    steps: int = 100,
    learning_rate: float | int | None = None,
    tolerance: float | int = 0.0,
) -> Trace:
    """Nesterov's accelerated gradient method with momentum t / (t + 3).

    The trace holds the extrapolated points, at which the gradients are taken.
    Parameters, errors and result are those of ``gradient_descent``.

    References
    ----------
    Nesterov (2004), section 2.2.
    """
    w = plain_start(problem, w0)
    recorder = Recorder(steps, tolerance, "Accelerated gradient descent")
    rate = _learning_rate(problem, learning_rate)
    before = w
    with recorder.until_unresolved():
        for t in recorder:
            line = problem.line(w)
            gradient = line.gradient(1.0)
            if recorder.add(line, 1.0, gradient):
                after = w - rate * gradient
                w = after + t / (t + 3) * (after - before)
                before = after
    return recorder.trace()


@silent()
def batch_norm_gradient_descent(
    problem: Problem,
    w0: WeightsLike,
    *,
    learning_rate: float | int,
    g0: float | int = 1.0,
    steps: int = 100,
    tolerance: float | int = 0.0,
) -> Trace:
    """Plain gradient descent on w and g of f(g w / ||w||_S): batch normalization as it is trained.

    Parameters
    ----------
    learning_rate : float
        Of both w and g.
    g0 : float
        The first length.

    Other parameters, errors and result are those of ``gdnp``.
    """
    w, line = start(problem, w0)
    recorder = Recorder(steps, tolerance, "Gradient descent with batch norm")
    rate = check.positive("learning_rate", learning_rate)
    g = check.finite_number("g0", g0)
    with recorder.until_unresolved():
        for _ in recorder:
            t = g / line.norm
            gradient = line.gradient(t)
            if recorder.add(line, t, gradient):
                along = w @ gradient
                step = t * (gradient - line.Sw * (along / line.norm**2))
                w, g = w - rate * step, g - rate * along / line.norm
                line = problem.line(w)
    return recorder.trace()


@silent()
def weight_normalization(
    problem: Problem,
    w0: WeightsLike,
    *,
    learning_rate: float | int,
    g0: float | int | None = None,
    steps: int = 100,
    tolerance: float | int = 0.0,
) -> Trace:
    """Plain gradient descent on w and g of f(g w / ||w||), with the Euclidean norm.

    Parameters
    ----------
    learning_rate : float
        Of both w and g.
    g0 : float, optional
        The first length, by default that of w0: the effective weights then start at w0.

    Other parameters, errors and result are those of ``gdnp``.

    References
    ----------
    Salimans and Kingma (2016).
    """
    w, line = start(problem, w0)
    recorder = Recorder(steps, tolerance, "Weight normalization")
    rate = check.positive("learning_rate", learning_rate)
    g = float(np.linalg.norm(w)) if g0 is None else check.finite_number("g0", g0)
    with recorder.until_unresolved():
        for _ in recorder:
            norm = float(np.linalg.norm(w))
            t = g / norm
            gradient = line.gradient(t)
            if recorder.add(line, t, gradient, g=g):
                along = w @ gradient / norm
                w, g = w - rate * t * (gradient - w * (along / norm)), g - rate * along
                line = problem.line(w)
    return recorder.trace()


def _learning_rate(problem, learning_rate):
    if learning_rate is not None:
        return check.positive("learning_rate", learning_rate)
    if not 0 < problem.smoothness < np.inf:
        raise ValueError(
            f"learning_rate is None, expected a number: the default is 1 / smoothness, and with the "
            f"loss's curvature bound of {problem.curvature_bound:g} the smoothness is "
            f"{problem.smoothness:g}"
        )
    return 1 / problem.smoothness
