"""S = E[zz'], the metric of a problem: what may be one.

Kohler et al. (2019), section 3.
"""

import numpy as np
from jaxtyping import Float, Real
from scipy import linalg

from bncore import arguments as check

Matrix = Float[np.ndarray, "dimension dimension"]
MatrixLike = Real[np.ndarray, "dimension dimension"] | list | tuple


def second_moment(S: MatrixLike) -> Matrix:
    """S as float64, a copy. Refuse all but symmetric positive definite matrices."""
    S = check.array("S", S, 2).astype(np.float64)
    check.finite("S", S)
    if S.shape[0] != S.shape[1] or S.shape[0] == 0:
        raise ValueError(f"S has shape {S.shape}, expected a square matrix")
    asymmetry = np.abs(S - S.T)
    if asymmetry.max() > 1e-10 * np.abs(S).max():
        i, j = np.unravel_index(asymmetry.argmax(), S.shape)
        raise ValueError(
            f"S is not symmetric: S[{i}, {j}] is {S[i, j]:.6g} and S[{j}, {i}] is {S[j, i]:.6g}"
        )
    S = (S + S.T) / 2
    definite("S", linalg.eigvalsh(S))
    return S


def definite(name, eigenvalues):
    """Refuse a spectrum whose smallest eigenvalue is 0 or below, to working precision."""
    floor = len(eigenvalues) * np.finfo(np.float64).eps * np.abs(eigenvalues).max()
    if eigenvalues[0] <= floor:
        raise ValueError(
            f"{name} has the smallest eigenvalue {eigenvalues[0]:.3g} beside a largest of "
            f"{eigenvalues[-1]:.3g}, expected a positive definite matrix: drop repeated or "
            "dependent columns, or bring more samples than columns"
        )
