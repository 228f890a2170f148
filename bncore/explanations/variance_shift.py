"""The variance that batch norm meets behind dropout, in training and at test time.

Dropout keeps a value with probability p and divides it by p, which leaves its mean and adds to its
variance; at test time it does nothing. A batch norm behind it keeps the variance of training.
Source: Li, Chen, Hu and Yang (2019).
"""

import numbers

import numpy as np
from jaxtyping import Real

from bncore import arguments as check

VectorLike = Real[np.ndarray, "inputs"] | check.Listed


def direct(keep: numbers.Real, mean: numbers.Real, var: numbers.Real) -> float:
    """Variance at test over variance in training of a value with dropout right before batch norm.

    It is p / (1 + (1 - p) mean² / var): at most p, and less the further the mean is from 0.

    Parameters
    ----------
    keep : float
        Probability p with which dropout keeps a value: above 0 and at most 1. torch's dropout takes
        1 - p.
    mean, var : float
        Of the value before dropout; var is positive.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If keep is outside (0, 1], mean not finite, or var not positive.

    References
    ----------
    Li et al. (2019), section 3, case (a).
    """
    keep, var = _keep(keep), check.positive("var", var)
    mean = check.finite_number("mean", mean)
    return keep / (1 + (1 - keep) * mean / var * mean)


def behind_weights(
    keep: numbers.Real,
    weight: VectorLike,
    mean: VectorLike,
    covariance: Real[np.ndarray, "inputs inputs"] | check.Listed,
) -> float:
    """The same ratio for a weighted sum of values with dropout: a linear layer between the two.

    With C the covariance it is w'Cw over w'Cw + (1 - p) / p sum of w_i² (C_ii + mean_i²).

    Parameters
    ----------
    keep : float
        As in ``direct``.
    weight : Float[ndarray, "inputs"]
        Of one unit. A constant added to the sum changes nothing.
    mean, covariance : Float[ndarray, "inputs"], Float[ndarray, "inputs inputs"]
        Of the values before dropout.

    Raises
    ------
    TypeError
        If keep is not a real number or another argument not an array of them.
    ValueError
        If keep is outside (0, 1], shapes do not fit, values are not finite, the covariance is not
        symmetric, a variance of a value or of the sum is negative, or the sum in training has no
        variance.

    References
    ----------
    Li et al. (2019), section 3, case (b), where all means, variances and correlations are alike.
    """
    keep = _keep(keep)
    weight = check.array("weight", weight)
    if weight.ndim != 1 or len(weight) == 0:
        raise ValueError(f"weight has shape {weight.shape}, expected (inputs,): those of one unit")
    check.finite("weight", weight)
    mean = check.vector("mean", mean, len(weight), "weight", weight.dtype)
    covariance = check.array("covariance", covariance, dtype=weight.dtype)
    if covariance.shape != 2 * weight.shape:
        raise ValueError(
            f"covariance has shape {covariance.shape}, expected {2 * weight.shape}: one row and "
            "one column for each weight"
        )
    check.finite("covariance", covariance)
    rounding = 100 * np.finfo(covariance.dtype).eps
    given = covariance
    # The ratio knows no scale, and squares of what is near 1 stay in range.
    weight, mean, covariance = (value.astype(float) for value in (weight, mean, covariance))
    size = max(np.abs(covariance).max() ** 0.5, np.abs(mean).max()) or 1.0
    covariance, mean = covariance / size / size, mean / size
    weight = weight / (np.abs(weight).max() or 1.0)
    rounding *= np.abs(covariance).max()
    apart = np.abs(covariance - covariance.T)
    if apart.max() > rounding:
        i, j = np.unravel_index(apart.argmax(), apart.shape)
        raise ValueError(
            f"covariance[{i}, {j}] is {given[i, j]:g} and covariance[{j}, {i}] is "
            f"{given[j, i]:g}, expected a symmetric matrix"
        )
    test = weight @ covariance @ weight
    if (np.diag(covariance) < 0).any() or test < -rounding * np.abs(weight).sum() ** 2:
        raise ValueError(
            f"covariance gives the weighted sum the variance {test * size * size:g} and its values "
            f"at least {np.diag(given).min():g}, expected none below 0: it is no covariance"
        )
    test = max(test, 0.0)
    added = (1 - keep) * (weight**2 @ (np.diag(covariance) + mean**2))
    if not keep * test + added > 0:
        raise ValueError(
            "the weighted sum has no variance in training, expected a positive one: give a "
            "covariance and weights that are not all zero"
        )
    return float(keep * test / (keep * test + added))


def _keep(value):
    value = check.positive("keep", value)
    if value > 1:
        raise ValueError(f"keep is {value}, expected a probability above 0 and at most 1")
    return value
