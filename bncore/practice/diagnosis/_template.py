"""What the laid out chapter shows until its own text stands."""

import numpy as np
from jaxtyping import Float

from bncore import arguments as check


def centred(
    x: Float[np.ndarray, "batch features"] | list | tuple,
) -> Float[np.ndarray, "batch features"]:
    """Return the batch without its mean, x - E[x], feature by feature.

    Parameters
    ----------
    x : array of shape (batch, features)

    Raises
    ------
    TypeError, ValueError
        If x is no such array.
    """
    x = check.array("x", x, ndim=2)
    return x - x.mean(axis=0)
