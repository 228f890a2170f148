"""Exercises of the chapter on diagnosis."""

from bncore.page.exercises import arguments, exercise


def _leaves_the_mean(x):
    return x


def _over_the_features(x):
    return x - x.mean(axis=1, keepdims=True)


@exercise(
    "diagnosis-centre",
    inputs=arguments("batch features", batch=(2, 4), features=(1, 3)),
    wrong=[_leaves_the_mean, _over_the_features],
)
def centre(x):
    """Return the batch without its mean, feature by feature."""
    return x - x.mean(axis=0)
