"""S = E[zz'], the metric of a problem: what may be one, and what is asked of it.

Whether S is definite, and S^-1, are found with its features scaled to length 1, so that no factor
on a feature changes them. Kohler et al. (2019), section 3.
"""

import numpy as np
from jaxtyping import Float, Real
from scipy import linalg

from bncore import arguments as check
from bncore.mechanics import rank

Vector = Float[np.ndarray, "dimension"]
Matrix = Float[np.ndarray, "dimension dimension"]
MatrixLike = Real[np.ndarray, "dimension dimension"] | list | tuple


class Metric:
    """The extreme eigenvalues of second moments S, and their inverse over the range of S.

    Attributes
    ----------
    sizes : Float[ndarray, "dimension"]
        The root mean squares of the features.
    singular : bool
        Whether features depend on each other to working precision; see ``rank.of_second_moments``.
    floor : float
        What rounding may leave of the length of a vector that is 0 in the norm of S, relative to
        its length if the scaled features were orthogonal.
    smallest, largest : float
        mu and L, the extreme eigenvalues of S; mu is 0 if S is singular.
    """

    def __init__(self, S: Matrix, dtype: object = np.float64):
        scaled = rank.of_second_moments(S, dtype)
        self.sizes, self.singular, self.floor = scaled.sizes, scaled.dependent, scaled.floor
        units = np.where(self.sizes > 0, self.sizes, 1.0)[:, np.newaxis]
        # S^-1 = root root'
        self._root = (scaled.axes / units)[:, : scaled.rank] / scaled.singular_values[: scaled.rank]
        self.largest = float(linalg.eigvalsh(S)[-1])
        # eigvalsh loses the smallest beside the largest; of S^-1 it is the largest
        smallest = 0.0 if self.singular else np.linalg.norm(self._root, 2) ** -2.0
        self.smallest = min(float(smallest), self.largest)

    def solve(self, v: Vector) -> Vector:
        """S^-1 v."""
        return self._root @ (v @ self._root)

    def square(self, v: Vector) -> float:
        """v'S^-1 v."""
        v = v @ self._root
        return float(v @ v)


def second_moment(S: MatrixLike) -> Matrix:
    """S as float64, a copy. Refuse all but symmetric positive definite matrices."""
    S = check.array("S", S, 2).astype(np.float64)
    check.finite("S", S)
    if S.shape[0] != S.shape[1] or S.shape[0] == 0:
        raise ValueError(f"S has shape {S.shape}, expected a square matrix")
    check.no_negative("the diagonal of S", S.diagonal())
    lengths = np.sqrt(S.diagonal())
    outside = (lengths > 1e150) | ((lengths < 1e-150) & (lengths > 0))
    if outside.any():
        j = int(outside.argmax())
        raise ValueError(
            f"S[{j}, {j}] is {S[j, j]:.3g}, expected between 1e-300 and 1e300, beyond which sums "
            "leave the range of float64: scale the feature"
        )
    wrong = np.abs(S - S.T) > 1e-10 * np.outer(lengths, lengths)
    if wrong.any():
        i, j = np.unravel_index(wrong.argmax(), S.shape)
        raise ValueError(
            f"S is not symmetric: S[{i}, {j}] is {S[i, j]:.6g} and S[{j}, {i}] is {S[j, i]:.6g}"
        )
    S = (S + S.T) / 2
    scaled = rank.of_second_moments(S)
    if scaled.dependent:
        raise ValueError(
            f"S, with its features scaled to length 1, has the smallest eigenvalue "
            f"{scaled.singular_values[-1] ** 2:.3g}, expected a positive definite matrix: drop "
            "repeated or dependent columns, or bring more samples than columns"
        )
    return S
