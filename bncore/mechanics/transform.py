"""The batch-normalizing transform and its gradients.

y = gamma * x_hat + beta,    x_hat = (x - mean) / sqrt(var + eps),    statistics over the batch.
Ioffe and Szegedy (2015), Algorithm 1 and section 3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bncore.mechanics import _arguments as check
from bncore.mechanics._blocks import along_features, centred, feature_sum

Batch = Float[np.ndarray, "batch features *spatial"]
Vector = Float[np.ndarray, "features"]


class Gradients(NamedTuple):
    """Gradients of the loss with respect to the inputs of ``forward``.

    ``dgamma`` and ``dbeta`` are None where the parameter was None.
    """

    dx: Batch
    dgamma: Vector | None
    dbeta: Vector | None


class Steps(NamedTuple):
    """Every partial derivative on the way back, in the order in which the chain rule meets them.

    In ``dvar`` the mean is held fixed; ``dmean`` counts the path through the variance too.
    """

    dx_hat: Batch
    dvar: Vector
    dmean: Vector
    dx: Batch
    dgamma: Vector | None
    dbeta: Vector | None


@dataclass(frozen=True, eq=False, repr=False)
class Cache:
    """What ``forward`` keeps for ``backward``: the input itself, not a copy, and its statistics.

    The mean is kept in two parts, shift + residual, because one number of x's precision cannot
    hold the mean of a batch far from 0 to a small fraction of its deviation.

    Attributes
    ----------
    x : Float[ndarray, "batch features *spatial"]
        The input of ``forward``. Changing it before ``backward`` is an error.
    gamma : Float[ndarray, "features"] or None
        A copy of the scale.
    eps : float
        Added to the variance.
    shift : Float[ndarray, "features"]
        A number near each feature's mean, in the precision of the computation.
    residual : Float[ndarray, "features"]
        mean - shift, in double precision.
    var : Float[ndarray, "features"]
        Biased variance (divisor m), in double precision.
    """

    x: Batch
    gamma: Vector | None
    beta_dtype: np.dtype | None
    eps: float
    shift: Vector
    residual: Vector
    var: Vector
    fingerprint: bytes
