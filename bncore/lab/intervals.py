"""How far two arms are apart over common seeds, and whether that is told from chance.

The level of every interval allows for all that was looked at (Bonferroni).
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from bncore import arguments as check


class Interval(NamedTuple):
    """A mean difference and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def separates(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def difference(
    first: xr.DataArray, second: xr.DataArray, *, looked_at: int, confidence: float = 0.95
) -> Interval:
    """The mean of first - second over common seeds, with Student's interval.

    mean ± t s / sqrt(n), with s the standard deviation of the n paired differences and t the
    quantile of Student's distribution at 1 - (1 - confidence) / (2 looked_at): Bonferroni's
    allowance for so many differences that were looked at.

    Parameters
    ----------
    first, second : xarray.DataArray
        Over ``seed`` alone.
    looked_at : int
        Number of arms, sizes and records that were compared, this one among them.
    confidence : float
        Of all the intervals together.

    Raises
    ------
    ValueError
        If the arrays have other axes or seeds, fewer than two, or a number that is not finite.
    """
    apart = _paired(first, second)
    n, mean = len(apart), float(apart.mean())
    t = stats.t.isf(_outside(looked_at, confidence) / 2, n - 1)
    reach = float(t * apart.std(ddof=1) / n**0.5)
    return Interval(mean, mean - reach, mean + reach)


class MedianInterval(NamedTuple):
    """A median difference and the ends of its confidence interval."""

    median: float
    low: float
    high: float

    @property
    def separates(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def median_difference(
    first: xr.DataArray, second: xr.DataArray, *, looked_at: int, confidence: float = 0.95
) -> MedianInterval:
    """The median of first - second over common seeds, with the exact interval of the sign test.

    The k-th smallest and the k-th largest of the n paired differences, with the largest k for which
    P(B < k) <= (1 - confidence) / (2 looked_at), B binomial of n and 1/2. It asks nothing of how the
    differences are distributed: a seed on which one arm diverges counts as one difference, however
    large.

    Parameters
    ----------
    first, second, looked_at, confidence
        As for ``difference``.

    Raises
    ------
    ValueError
        As ``difference``, or if there are too few seeds for any k.
    """
    apart = _paired(first, second)
    level = 1 - _outside(looked_at, confidence)
    low, high = map(float, stats.quantile_test(apart, p=0.5).confidence_interval(level))
    if np.isnan([low, high]).any():
        raise ValueError(
            f"first has {len(apart)} seeds, expected more: with so few the interval of a median has no "
            f"ends at the confidence {level:.4g}"
        )
    return MedianInterval(float(np.median(apart)), low, high)


def _paired(first, second):
    """The differences by seed."""
    for name, one in (("first", first), ("second", second)):
        if one.dims != ("seed",):
            raise ValueError(f"{name} has the axes {one.dims}, expected seed alone")
    if first.seed.values.tolist() != second.seed.values.tolist() or first.size < 2:
        raise ValueError(
            f"first has the seeds {first.seed.values.tolist()} and second "
            f"{second.seed.values.tolist()}, expected the same ones, at least two"
        )
    apart = first.values - second.values
    check.finite("first - second", apart)
    return apart


def _outside(looked_at, confidence):
    """The probability outside one of so many intervals: Bonferroni's."""
    looked_at = check.positive_integer("looked_at", looked_at)
    return (1 - check.fraction("confidence", confidence)) / looked_at
