"""Exercises of the scale invariance chapter."""

import numpy as np

from bncore.page.exercises import arguments, exercise, numbers


def _always_invariant(a, variance, eps):
    return 1.0


def _sign_forgotten(a, variance, eps):
    return np.sqrt((variance + eps) / (variance + eps / a**2))


def _only_the_new_deviation(a, variance, eps):
    return a / np.sqrt(a**2 * variance + eps)


@exercise(
    "scale-invariance-factor",
    inputs=arguments(numbers(-4, 4).filter(bool), numbers(0.5, 4), numbers(0.5, 2)),
    wrong=[_always_invariant, _sign_forgotten, _only_the_new_deviation],
)
def factor(a, variance, eps):
    """Return the factor by which a unit's normalised values change when its weights become a w."""
    return a * np.sqrt((variance + eps) / (a**2 * variance + eps))


def _decay_once(r, rate, decay, gradients):
    for slope in gradients:
        r = (1 - rate * decay) * r + rate**2 * slope**2 / r
    return r


def _gradient_as_at_length_one(r, rate, decay, gradients):
    for slope in gradients:
        r = (1 - rate * decay) ** 2 * r + rate**2 * slope**2
    return r


def _gradient_decayed_too(r, rate, decay, gradients):
    for slope in gradients:
        r = (1 - rate * decay) ** 2 * (r + rate**2 * slope**2 / r)
    return r


@exercise(
    "scale-invariance-length",
    inputs=arguments(
        numbers(0.5, 4),
        numbers(0.5, 1),
        numbers(0.5, 1).map(lambda value: value / 2),
        ("steps", numbers(0.5, 3)),
        steps=(1, 3),
    ),
    wrong=[_decay_once, _gradient_as_at_length_one, _gradient_decayed_too],
)
def length(r, rate, decay, gradients):
    """Return the squared length after steps whose gradients have the given lengths at length 1."""
    for slope in gradients:
        r = (1 - rate * decay) ** 2 * r + rate**2 * slope**2 / r
    return r


def _for_small_steps(rate, decay, slope):
    return (rate * slope**2 / (2 * decay)) ** 0.25


def _squared_length(rate, decay, slope):
    return (rate * slope**2 / (decay * (2 - rate * decay))) ** 0.5


def _gradient_as_if_not_rescaled(rate, decay, slope):
    return rate * slope / np.sqrt(rate * decay * (2 - rate * decay))


@exercise(
    "scale-invariance-equilibrium",
    inputs=arguments(numbers(0.5, 1), numbers(0.5, 1), numbers(0.5, 4)),
    wrong=[_for_small_steps, _squared_length, _gradient_as_if_not_rescaled],
)
def equilibrium(rate, decay, slope):
    """Return the length of w that weight decay and growth keep exactly as it is."""
    return (rate * slope**2 / (decay * (2 - rate * decay))) ** 0.25


def _only_the_last_decay(rate, decays):
    return rate / (1 - rate * decays) ** 2


def _without_this_step(rate, decays):
    shrunk = np.cumprod(1 - rate * decays) / (1 - rate * decays)
    return rate / shrunk**2


def _not_squared(rate, decays):
    return rate / np.cumprod(1 - rate * decays)


@exercise(
    "scale-invariance-changing-decay",
    inputs=arguments(
        numbers(0.5, 1), ("steps", numbers(0, 1).map(lambda value: value / 2)), steps=(1, 4)
    ),
    wrong=[_only_the_last_decay, _without_this_step, _not_squared],
)
def changing_decay(rate, decays):
    """Return the learning rates that do without decay what one rate does with these decays."""
    shrinks = 1 - rate * decays
    after = np.cumprod(shrinks)
    return rate / (after / shrinks * after)
