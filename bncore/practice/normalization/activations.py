"""Layer, instance, group and root mean square normalization, in NumPy.

They differ in which entries of (batch, features, *spatial) share their statistics:

layer      all of one example
instance   all of one example and feature
group      all of one example and one of G groups of features
rms        all of one example, without the mean

None looks at another example: training and evaluation are the same. Group norm with 1 group is layer
norm, with one a feature instance norm.
"""

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.practice.normalization.over_axes import Cache, normalize

Batch = Float[np.ndarray, "batch features *spatial"]
BatchLike = Real[np.ndarray, "batch features *spatial"] | check.Listed
VectorLike = check.VectorLike


def layer_norm(
    x: BatchLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each example over all its features and positions, then scale and shift each feature.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    torch's ``group_norm`` with one group; for two axes, its ``layer_norm`` too. Where each position
    is to have its own statistics, as each token of a transformer, hand in positions as examples:
    ``x.reshape(-1, features)``.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        float16, float32 or float64, in any memory order. Lists and integers become float64.
    gamma, beta : Float[ndarray, "features"], optional
        Scale and shift, in any precision; lists and integers take that of x. None means 1 and 0.
    eps : float
        Positive.

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype and memory order of x.
    cache : Cache
        What ``backward`` needs.

    Raises
    ------
    TypeError
        If an argument holds no real numbers, or is a tensor, a sparse matrix or a subclass of
        ndarray.
    ValueError
        If x has fewer than two axes or no values; if an example has one value only; if a
        parameter's shape is not (features,); if anything is NaN or infinite; if eps is not
        positive; or if y leaves the range of the dtype of x.

    References
    ----------
    Ba, Kiros and Hinton (2016).
    """
    return _grouped(x, 1, gamma, beta, eps)


def instance_norm(
    x: BatchLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each feature of each example over its positions, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    torch's ``instance_norm`` without running statistics: batch norm of each example alone.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        As for ``layer_norm``, with at least two positions.
    gamma, beta, eps
        As for ``layer_norm``.

    Returns
    -------
    y, cache
        As from ``layer_norm``.

    Raises
    ------
    TypeError, ValueError
        As ``layer_norm``, and if a feature of an example has one value only.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky (2016).
    """
    return _grouped(x, None, gamma, beta, eps)


def group_norm(
    x: BatchLike,
    groups: int,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each group of features of each example, then scale and shift each feature.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    torch's ``group_norm``. One group is layer norm, one group a feature instance norm.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        As for ``layer_norm``, with at least two values a group.
    groups : int
        A divisor of the number of features. Neighbours form a group.
    gamma, beta, eps
        As for ``layer_norm``.

    Returns
    -------
    y, cache
        As from ``layer_norm``.

    Raises
    ------
    TypeError, ValueError
        As ``layer_norm``, if groups is no divisor of the features, and if a group of an example has
        one value only.

    References
    ----------
    Wu and He (2018).
    """
    return _grouped(x, check.positive_integer("groups", groups), gamma, beta, eps)


def rms_norm(
    x: BatchLike,
    gamma: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Divide each example by the root of its mean square, then scale each feature.

    y = gamma * x / sqrt(mean(x²) + eps)

    For two axes torch's ``rms_norm``; with more, the mean runs over all features and positions of an
    example, as in ``layer_norm``. Nothing is subtracted, so a common shift of x is not removed.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        As for ``layer_norm``; one value an example will do.
    gamma : Float[ndarray, "features"], optional
        Scale. None means 1.
    eps : float
        Positive. The paper has none.

    Returns
    -------
    y, cache
        As from ``layer_norm``.

    Raises
    ------
    TypeError, ValueError
        As ``layer_norm``, but that one value an example will do.

    References
    ----------
    Zhang and Sennrich (2019).
    """
    return _grouped(x, 1, gamma, None, eps, centred=False)


def _grouped(x, groups, gamma, beta, eps, centred=True):
    """Normalise by examples and groups; None means a group for each feature."""
    x = np.asarray(check.with_features("x", x))
    batch, features, *spatial = x.shape
    groups = features if groups is None else groups
    if features % groups:
        raise ValueError(
            f"groups is {groups}, expected a divisor of the number of features of x, {features}"
        )
    eps = check.positive("eps", eps)
    gamma, beta = (
        None if value is None else check.vector(name, value, features, "x", x.dtype)
        for name, value in (("gamma", gamma), ("beta", beta))
    )
    view = (batch, groups, features // groups, *spatial)
    axes = tuple(range(2, len(view)))
    return normalize(x, view, axes, gamma, beta, eps, centred=centred)
