"""The variance that batch norm meets behind dropout, in training and at test time.

Dropout keeps a value with probability p and divides it by p, which leaves its mean and adds to its
variance; at test time it does nothing. A batch norm behind it keeps the variance of training.
Source: Li, Chen, Hu and Yang (2019).
"""

from numbers import Real

import numpy as np
from jaxtyping import Float

from bncore import arguments as check


def direct(keep: Real, mean: Real, var: Real) -> float:
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
    mean = check.number("mean", mean)
    if not np.isfinite(mean):
        raise ValueError(f"mean is {mean}, expected a finite number")
    return keep / (1 + (1 - keep) * (mean / var * mean))


def behind_weights(
    keep: Real,
    weight: Float[np.ndarray, "inputs"],
    mean: Float[np.ndarray, "inputs"],
    covariance: Float[np.ndarray, "inputs inputs"],
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
        If keep is not a real number or another argument not a floating-point array.
    ValueError
        If keep is outside (0, 1], shapes do not fit, values are not finite, the covariance is not
        symmetric, a variance of a value or of the sum is negative, or the sum in training has no
        variance.

    References
    ----------
    Li et al. (2019), section 3, case (b), where all means, variances and correlations are alike.
    """
    keep = _keep(keep)
    check.array("weight", weight)
    if weight.ndim != 1 or len(weight) == 0:
        raise ValueError(f"weight has shape {weight.shape}, expected (inputs,): those of one unit")
    check.finite("weight", weight)
    check.vector("mean", mean, len(weight), "weight")
    check.array("covariance", covariance)
    if covariance.shape != 2 * weight.shape:
        raise ValueError(
            f"covariance has shape {covariance.shape}, expected {2 * weight.shape}: one row and "
            "one column for each weight"
        )
    check.finite("covariance", covariance)
    rounding = 100 * np.finfo(covariance.dtype).eps * np.abs(covariance).max().astype(float)
    weight, mean, covariance = (value.astype(float) for value in (weight, mean, covariance))
    apart = np.abs(covariance - covariance.T)
    if apart.max() > rounding:
        i, j = np.unravel_index(apart.argmax(), apart.shape)
        raise ValueError(
            f"covariance[{i}, {j}] is {covariance[i, j]:g} and covariance[{j}, {i}] is "
            f"{covariance[j, i]:g}, expected a symmetric matrix"
        )
    test = weight @ covariance @ weight
    if (np.diag(covariance) < 0).any() or test < -rounding * np.abs(weight).sum() ** 2:
        raise ValueError(
            f"covariance gives the weighted sum the variance {test:g} and its values at least "
            f"{np.diag(covariance).min():g}, expected none below 0: it is no covariance"
        )
    test = max(test, 0.0)
    train = test + (1 - keep) / keep * (weight**2 @ (np.diag(covariance) + mean**2))
    if not train > 0:
        raise ValueError(
            f"the weighted sum has variance {train:g} in training, expected a positive one: give "
            "a covariance and weights that are not all zero"
        )
    return float(test / train)


def _keep(value):
    value = check.positive("keep", value)
    if value > 1:
        raise ValueError(f"keep is {value}, expected a probability above 0 and at most 1")
    return value
