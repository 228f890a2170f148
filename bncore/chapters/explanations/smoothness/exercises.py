"""Exercises of the smoothness chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _spread(drawn):
    """Whether the batch, the first argument, has two different values."""
    return np.ptp(drawn[0]) > 0


def _level_only(y, g, gamma):
    return gamma**2 / y.var() * ((g**2).sum() - g.sum() ** 2 / len(g))


def _without_the_factor(y, g, gamma):
    y_hat = (y - y.mean()) / y.std()
    return (g**2).sum() - g.sum() ** 2 / len(g) - (g @ y_hat) ** 2 / len(g)


def _unbiased(y, g, gamma):
    y_hat = (y - y.mean()) / y.std(ddof=1)
    rest = (g**2).sum() - g.sum() ** 2 / len(g) - (g @ y_hat) ** 2 / len(g)
    return gamma**2 / y.var(ddof=1) * rest


@exercise(
    "smoothness-squared-gradient",
    inputs=arguments("batch", "batch", numbers(0.5, 2), batch=3).filter(_spread),
    wrong=[_level_only, _without_the_factor, _unbiased],
)
def squared_gradient(y, g, gamma):
    """Return the squared length of the gradient of the normalised loss, for one feature."""
    y_hat = (y - y.mean()) / y.std()
    rest = (g**2).sum() - g.sum() ** 2 / len(g) - (g @ y_hat) ** 2 / len(g)
    return gamma**2 / y.var() * rest


def _symmetric(drawn):
    y, g, H, gamma = drawn
    return y, g, H + H.T, gamma


def _rest(y, g):
    y_hat = (y - y.mean()) / y.std()
    return y_hat, g - g.mean() - y_hat * (g @ y_hat) / len(g)


def _only_through(y, g, H, gamma):
    d = gamma / y.std() * _rest(y, g)[1]
    return gamma**2 / y.var() * d @ H @ d


def _other_sign(y, g, H, gamma):
    y_hat, rest = _rest(y, g)
    d = gamma / y.std() * rest
    return gamma**2 / y.var() * d @ H @ d + gamma / (len(y) * y.var()) * (g @ y_hat) * (d @ d)


def _along_g(y, g, H, gamma):
    y_hat, rest = _rest(y, g)
    d = gamma / y.std() * rest
    return gamma**2 / y.var() * (g @ H @ g - (g @ y_hat) * (d @ d) / (len(y) * gamma))


@exercise(
    "smoothness-curvature",
    inputs=arguments("batch", "batch", "batch batch", numbers(0.5, 2), batch=3)
    .filter(_spread)
    .map(_symmetric),
    wrong=[_only_through, _other_sign, _along_g],
)
def curvature(y, g, H, gamma):
    """Return d' times the second derivatives of the normalised loss times d, d its gradient."""
    y_hat, rest = _rest(y, g)
    d = gamma / y.std() * rest
    return gamma**2 / y.var() * d @ H @ d - gamma / (len(y) * y.var()) * (g @ y_hat) * (d @ d)


def _to_the_line(start, optimum):
    return start @ start - (start @ optimum) ** 2 / (optimum @ optimum)


def _to_the_point(start, optimum):
    return (start - optimum) @ (start - optimum)


@exercise(
    "smoothness-nearest-optimum",
    inputs=arguments("d", "d", d=(1, 3)).filter(lambda drawn: drawn[1].any()),
    wrong=[_to_the_line, _to_the_point],
)
def nearest_optimum(start, optimum):
    """Return the squared distance of a start to the ray of all positive multiples of an optimum."""
    along = max(start @ optimum, 0.0) / (optimum @ optimum)
    return ((start - along * optimum) ** 2).sum()


def _matrix(diagonal, off):
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)


def _mean_of_powers(diagonal, off, power):
    return np.trace(np.linalg.matrix_power(_matrix(diagonal, off), power)) / len(diagonal)


def _not_squared(diagonal, off, power):
    values, vectors = np.linalg.eigh(_matrix(diagonal, off))
    return (np.abs(vectors[0]) * values**power).sum()


def _first_vector(diagonal, off, power):
    values, vectors = np.linalg.eigh(_matrix(diagonal, off))
    return (vectors[:, 0] ** 2 * values**power).sum()


@exercise(
    "smoothness-moment",
    inputs=arguments(
        ("steps", numbers(-3, 3)), ("rest", numbers(0.5, 3)), st.integers(1, 4), steps=3, rest=2
    ),
    wrong=[_mean_of_powers, _not_squared, _first_vector],
)
def moment(diagonal, off, power):
    """Return what one Lanczos run, given by its tridiagonal matrix, says about tr(A^power) / n."""
    return np.linalg.matrix_power(_matrix(diagonal, off), power)[0, 0]
