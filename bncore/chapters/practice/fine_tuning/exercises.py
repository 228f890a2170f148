"""Exercises of the chapter on fine-tuning."""

from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _forgets_the_shift(mean, var, weight, scale, shift):
    return scale * mean, scale**2 * var


def _shifts_the_variance_too(mean, var, weight, scale, shift):
    moved = shift * weight.sum()
    return scale * mean + moved, scale**2 * var + moved


def _scales_the_variance_once(mean, var, weight, scale, shift):
    return scale * mean + shift * weight.sum(), abs(scale) * var


@exercise(
    "fine-tuning-faded",
    inputs=arguments(numbers(), numbers(0, 4), "features", numbers(), numbers(), features=(1, 3)),
    wrong=[_forgets_the_shift, _shifts_the_variance_too, _scales_the_variance_once],
)
def faded(mean, var, weight, scale, shift):
    """Return the new mean and variance of a unit whose inputs are all multiplied by scale and moved by shift."""
    return scale * mean + shift * weight.sum(), scale**2 * var


def _plain_average(counts, means, variances):
    return means.mean(), variances.mean()


def _weighted_average(counts, means, variances):
    n = counts.sum()
    return counts @ means / n, counts @ variances / n


def _biased(counts, means, variances):
    mean, _ = _weighted_average(counts, means, variances)
    return mean, (counts @ variances + counts @ (means - mean) ** 2) / counts.sum()


@exercise(
    "fine-tuning-pooled",
    inputs=arguments(
        ("batches", st.integers(2, 5)),
        ("batches", numbers()),
        ("batches", numbers(0, 4)),
        batches=(1, 3),
    ),
    wrong=[_plain_average, _weighted_average, _biased],
)
def pooled(counts, means, variances):
    """Return mean and unbiased variance of all values, from count, mean and biased variance of each batch."""
    n = counts.sum()
    mean = counts @ means / n
    squares = counts @ variances + counts @ (means - mean) ** 2
    return mean, squares / (n - 1)
