"""What batch norm is given, and what goes on to the next layer, where a unit's sums are normal."""

from numbers import Real

import numpy as np
from jaxtyping import Float
from scipy.stats import norm


def rectified_moments(shift: Real, order: int = 4) -> Float[np.ndarray, "orders"]:
    r"""Moments $M_k = \mathrm{E}[\max(z, 0)^k]$ for $z \sim N(a, 1)$, k = 0 to ``order``.

    $M_0 = \Phi(a)$, the share of positive values; $M_1 = a\,\Phi(a) + \varphi(a)$; then
    $M_k = a M_{k-1} + (k-1) M_{k-2}$, by parts.

    Parameters
    ----------
    shift : float
        a, the mean of z.
    order : int
        At least 1.
    """
    found = [norm.cdf(shift), shift * norm.cdf(shift) + norm.pdf(shift)]
    for k in range(2, order + 1):
        found.append(shift * found[-1] + (k - 1) * found[-2])
    return np.array(found[: order + 1])


def rectified_kurtosis(shift: Real) -> float:
    """Fourth central moment of max(z, 0) over the square of its variance; 3 if it were normal."""
    _, mean, second, third, fourth = rectified_moments(shift)
    variance = second - mean**2
    return float((fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2)


def noise_of_variance(kurtosis: Real, m: int) -> float:
    r"""Deviation of the variance of a batch of m independent values, over its mean.

    $\sqrt{(\kappa - \frac{m-3}{m-1}) / m}$, exact for any distribution of kurtosis $\kappa$.
    """
    return float(np.sqrt((kurtosis - (m - 3) / (m - 1)) / m))
