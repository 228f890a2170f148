"""Exercises of the chapter on placement and tuning."""

from hypothesis import strategies as st
from scipy.stats import norm

from bncore.page.exercises import arguments, exercise, numbers


def _dead_on_one_example(x_hat, gamma, beta):
    return (gamma * x_hat + beta <= 0).any(axis=0)


def _without_the_shift(x_hat, gamma, beta):
    return (gamma * x_hat <= 0).all(axis=0)


def _of_whole_examples(x_hat, gamma, beta):
    return (gamma * x_hat + beta <= 0).all()


@exercise(
    "placement-dead",
    inputs=arguments(
        "batch features",
        ("features", numbers(-2, 2)),
        ("features", numbers(-2, 2)),
        batch=(2, 4),
        features=(1, 3),
    ),
    wrong=[_dead_on_one_example, _without_the_shift, _of_whole_examples],
)
def dead(x_hat, gamma, beta):
    """Return, for each unit, whether ReLU(gamma x_hat + beta) is 0 on the whole batch."""
    return (gamma * x_hat + beta <= 0).all(axis=0)


def _the_mean_comes_first(gamma, beta):
    return max(beta, 0.0)


def _only_at_beta_zero(gamma, beta):
    return gamma * norm.pdf(0) + beta / 2


def _forgets_the_scale(gamma, beta):
    return beta * norm.cdf(beta) + norm.pdf(beta)


@exercise(
    "placement-rectified",
    inputs=st.tuples(numbers(0.5, 2), numbers(-2, 2)),
    wrong=[_the_mean_comes_first, _only_at_beta_zero, _forgets_the_scale],
)
def rectified(gamma, beta):
    """Return the mean of ReLU(gamma x_hat + beta) where x_hat is standard normal, gamma > 0."""
    return beta * norm.cdf(beta / gamma) + gamma * norm.pdf(beta / gamma)
