"""Count, mean and variance of parts merged into those of the whole, in NumPy.

n = sum n_k,    mean = sum n_k mean_k / n,    n var = sum n_k var_k + sum n_k (mean_k - mean)²

No sum of squares appears, from which a large mean would have to be subtracted again.
Chan, Golub and LeVeque (1983) have it for two parts.
"""

import numpy as np
from jaxtyping import Float, Integer, Real

from bncore import arguments as check

Counts = Integer[np.ndarray, "parts"] | check.Listed
Parts = Real[np.ndarray, "parts *features"] | check.Listed
Whole = Float[np.ndarray, "*features"]


def merge_statistics(counts: Counts, means: Parts, variances: Parts) -> tuple[Whole, Whole]:
    """Mean and variance of all values from those of parts, which may be unequal or empty.

    mean = sum n_k mean_k / n,    var = sum n_k (var_k + (mean_k - mean)²) / n,    n = sum n_k

    The means are taken relative to that of the largest part, r: with K parts,
    (mean_r - mean)² <= K var, so that rounding costs the variance some K units in its last place,
    however large the mean is. It cannot mend what the means that are handed in have lost.

    Parameters
    ----------
    counts : Integer[ndarray, "parts"]
        How many values each part has, the n_k.
    means : Float[ndarray, "parts *features"]
        Any number of features, on any axes after the first, or none. What stands for an empty part
        does not count, even NaN.
    variances : Float[ndarray, "parts *features"]
        Biased: with divisor n_k.

    Returns
    -------
    mean, var : Float[ndarray, "*features"]
        In the dtype of means. The variance is biased; the unbiased one is n / (n - 1) times as large.

    Raises
    ------
    TypeError
        If counts holds no integers, or means or variances no real numbers.
    ValueError
        If shapes disagree, a count or the variance of a part is negative, no part has a value, a
        mean or variance of one that has is not finite, or a result leaves the range of the dtype.

    References
    ----------
    Chan, Golub and LeVeque (1983), section 1.
    """
    counts = _counts(counts)
    means = check.array("means", means)
    if means.ndim == 0 or len(means) != len(counts):
        raise ValueError(
            f"means has shape {means.shape}, expected ({len(counts)}, *features): one mean of each "
            "feature for each entry of counts"
        )
    variances = check.array("variances", variances, dtype=means.dtype)
    if variances.shape != means.shape:
        raise ValueError(
            f"variances has shape {variances.shape}, expected {means.shape}, that of means"
        )
    filled = counts.reshape(-1, *[1] * (means.ndim - 1)) > 0
    centres, spreads = (np.where(filled, a, 0).astype(np.float64) for a in (means, variances))
    check.finite("means", centres)
    check.finite("variances", spreads)
    _refuse_negative("variances", spreads)
    weights = counts / counts.sum(dtype=np.float64)
    origin = centres[counts.argmax()]
    with np.errstate(all="ignore"):
        apart = np.where(filled, centres - origin, 0)
        shift = np.tensordot(weights, apart, 1)
        var = np.tensordot(weights, spreads + (apart - shift) ** 2, 1)
        mean = origin + shift
    return (
        check.narrowed("the mean of all values", np.asarray(mean), means.dtype),
        check.narrowed("the variance of all values", np.asarray(var), means.dtype),
    )


def _counts(value):
    try:
        found = np.asarray(value) if isinstance(value, check.Listed) else value
    except ValueError:
        raise ValueError("counts is a list whose rows do not form an array") from None
    if type(found) is not np.ndarray:
        raise TypeError(
            f"counts is a {check.type_name(value)}, expected a numpy.ndarray or a list of integers"
        )
    if found.ndim != 1 or not found.size:
        raise ValueError(f"counts has shape {found.shape}, expected (parts,), at least one part")
    if found.dtype.kind not in "iu":
        raise TypeError(
            f"counts has dtype {found.dtype}, expected integers: how many values each part has"
        )
    _refuse_negative("counts", found)
    if not found.any():
        raise ValueError("counts is 0 for every part, expected at least one that has values")
    return found


def _refuse_negative(name, value):
    if (value < 0).any():
        first = tuple(int(i) for i in np.argwhere(value < 0)[0])
        raise ValueError(
            f"{name}[{', '.join(map(str, first))}] is {value[first]}, expected at least 0"
        )
