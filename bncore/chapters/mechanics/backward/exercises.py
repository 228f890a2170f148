"""Exercises of the backward chapter."""

import numpy as np

from bncore.page.exercises import arguments, exercise, numbers


def _no_gradient(dy, x, gamma, eps):
    return np.zeros(2)


def _statistics_of_two_held_fixed(dy, x, gamma, eps):
    return gamma * dy / np.sqrt(x.var() + eps)


def _leak_without_its_scale(dy, x, gamma, eps):
    return gamma * eps / (x.var() + eps) * (dy - dy.mean())


@exercise(
    "backward-batch-of-two",
    inputs=arguments("batch", "batch", numbers(0.5, 2), numbers(0.5, 1), batch=2),
    wrong=[_no_gradient, _statistics_of_two_held_fixed, _leak_without_its_scale],
)
def batch_of_two(dy, x, gamma, eps):
    """Return the gradient with respect to the two values of a batch of two, eps included."""
    half = (dy[0] - dy[1]) / 2
    return gamma * eps / (x.var() + eps) ** 1.5 * half * np.array([1.0, -1.0])


def _statistics_held_fixed(dy, x, gamma, eps):
    return gamma * dy / np.sqrt(x.var(axis=0) + eps)


def _without_variance_term(dy, x, gamma, eps):
    return gamma * (dy - dy.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def _unbiased_variance(dy, x, gamma, eps):
    s = np.sqrt(x.var(axis=0, ddof=1) + eps)
    x_hat = (x - x.mean(axis=0)) / s
    return gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))


@exercise(
    "backward-closed-form",
    inputs=arguments(
        "batch features",
        "batch features",
        ("features", numbers(0.5, 2)),
        numbers(0.5, 1),
        batch=(2, 5),
        features=(1, 2),
    ),
    wrong=[_statistics_held_fixed, _without_variance_term, _unbiased_variance],
)
def closed_form(dy, x, gamma, eps):
    """Return the gradient of the loss with respect to the input of batch normalization."""
    s = np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) / s
    return gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))


def _forgets_beta(dy, y, gamma, beta, s):
    x_hat = y / gamma
    return gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))


def _takes_y_for_x_hat(dy, y, gamma, beta, s):
    return gamma / s * (dy - dy.mean(axis=0) - y * (dy * y).mean(axis=0))


@exercise(
    "backward-from-output",
    inputs=arguments(
        "batch features",
        "batch features",
        ("features", numbers(0.5, 2)),
        "features",
        ("features", numbers(0.5, 2)),
        batch=(2, 4),
        features=(1, 2),
    ),
    wrong=[_forgets_beta, _takes_y_for_x_hat],
)
def from_output(dy, y, gamma, beta, s):
    """Return the gradient with respect to x from the output y, gamma, beta and s, without x."""
    x_hat = (y - beta) / gamma
    return gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))


def _gamma_outside(dy, x, gamma, eps):
    s = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / s
    tilt = x_hat * (dy * x_hat).mean(axis=1, keepdims=True)
    return gamma / s * (dy - dy.mean(axis=1, keepdims=True) - tilt)


@exercise(
    "backward-layer-norm",
    inputs=arguments(
        "batch features",
        "batch features",
        ("features", numbers(0.5, 2)),
        numbers(0.5, 1),
        batch=(1, 3),
        features=(2, 4),
    ),
    wrong=[_gamma_outside, closed_form],
)
def layer_norm(dy, x, gamma, eps):
    """Return the gradient with respect to x of layer normalization, over the features."""
    s = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / s
    g = dy * gamma
    tilt = x_hat * (g * x_hat).mean(axis=1, keepdims=True)
    return (g - g.mean(axis=1, keepdims=True) - tilt) / s


def _only_the_path_through_s(v, dy, x, gamma, eps):
    s = np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) / s
    passed = v - v.mean() - x_hat * (v * x_hat).mean()
    through_s = -gamma / s**2 * x_hat * (passed * dy).mean()
    return through_s, gamma / s * passed, (passed * dy).sum() / s


def _without_the_path_through_s(v, dy, x, gamma, eps):
    s = np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) / s
    a, b = (v * x_hat).mean(), (dy * x_hat).mean()
    passed_v, passed_dy = v - v.mean() - a * x_hat, dy - dy.mean() - b * x_hat
    return (
        -gamma / s**2 * (b * passed_v + a * passed_dy),
        gamma / s * passed_v,
        (passed_v * dy).sum() / s,
    )


@exercise(
    "backward-double",
    inputs=arguments("batch", "batch", "batch", numbers(0.5, 2), numbers(0.5, 1), batch=(2, 4)),
    wrong=[_only_the_path_through_s, _without_the_path_through_s],
)
def double(v, dy, x, gamma, eps):
    """Return the gradients of sum(v * dx) with respect to x, dy and gamma, for one feature."""
    s = np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) / s
    a, b = (v * x_hat).mean(), (dy * x_hat).mean()
    passed_v, passed_dy = v - v.mean() - a * x_hat, dy - dy.mean() - b * x_hat
    both = (passed_v * dy).mean()
    return (
        -gamma / s**2 * (b * passed_v + a * passed_dy + both * x_hat),
        gamma / s * passed_v,
        len(x) * both / s,
    )


def _deviation_of_the_square(dy, x):
    d = np.abs(x - x.mean()).mean()
    x_hat = (x - x.mean()) / d
    return (dy - dy.mean() - x_hat * (dy * x_hat).mean()) / d


def _signs_not_centred(dy, x):
    d = np.abs(x - x.mean()).mean()
    x_hat = (x - x.mean()) / d
    return (dy - dy.mean() - np.sign(x - x.mean()) * (dy * x_hat).mean()) / d


@exercise(
    "backward-absolute-deviation",
    inputs=arguments("batch", "batch", batch=(3, 5)).filter(
        lambda pair: np.abs(pair[1] - pair[1].mean()).min() > 0.05
    ),
    wrong=[_deviation_of_the_square, _signs_not_centred],
)
def absolute_deviation(dy, x):
    """Return the gradient of x -> (x - mean) / d, where d is the mean absolute deviation."""
    signs = np.sign(x - x.mean())
    d = np.abs(x - x.mean()).mean()
    x_hat = (x - x.mean()) / d
    return (dy - dy.mean() - (signs - signs.mean()) * (dy * x_hat).mean()) / d
