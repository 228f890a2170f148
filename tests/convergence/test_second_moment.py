"""What may be a second moment, and what is asked of one."""

import numpy as np
import pytest

from bncore.convergence import GaussianHalfspace, LeastSquares

U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


SECOND_MOMENTS = {
    "text": (np.full((2, 2), "a"), TypeError, "S has dtype <U1, expected"),
    "complex": (S.astype(complex), TypeError, "S has dtype complex128, expected"),
    "vector": (U, ValueError, "S has shape (2,), expected 2 axes"),
    "oblong": (S[:1], ValueError, "S has shape (1, 2), expected a square matrix"),
    "empty": (S[:0, :0], ValueError, "S has shape (0, 0), expected a square matrix"),
    "NaN": (with_entry(S, (1, 0), np.nan), ValueError, "S[1, 0] is nan, expected finite"),
    "infinite": (with_entry(S, (0, 0), np.inf), ValueError, "S[0, 0] is inf, expected finite"),
    "not symmetric": (
        with_entry(S, (0, 1), 0.3),
        ValueError,
        "S is not symmetric: S[0, 1] is 0.3 and S[1, 0] is 0.2",
    ),
    "singular": (np.ones((2, 2)), ValueError, "has the smallest eigenvalue .* positive definite"),
    "indefinite": (
        np.diag([1.0, -1.0]),
        ValueError,
        "the diagonal of S[1] is -1.0, expected at least 0",
    ),
    "negative": (-S, ValueError, "the diagonal of S[0] is -1.0, expected"),
    "zero": (0 * S, ValueError, "has the smallest eigenvalue 0, expected"),
}
MEANS = {
    "matrix": (U[None], ValueError, "u has shape (1, 2), expected (2,): one entry for each"),
    "long": (
        np.ones(3),
        ValueError,
        "u has shape (3,), expected (2,): one entry for each of the 2 features of S",
    ),
    "NaN": (np.array([np.nan, 0]), ValueError, "u[0] is nan, expected finite"),
}


@pytest.mark.parametrize("kind", [LeastSquares, GaussianHalfspace])
@pytest.mark.parametrize("case", SECOND_MOMENTS)
def test_second_moments_are_refused(case, kind, refuses):
    value, error, message = SECOND_MOMENTS[case]
    refuses(message, kind, U, value, kind=error)


@pytest.mark.parametrize("kind", [LeastSquares, GaussianHalfspace])
@pytest.mark.parametrize("case", MEANS)
def test_means_are_refused(case, kind, refuses):
    value, error, message = MEANS[case]
    refuses(message, kind, value, S, kind=error)
