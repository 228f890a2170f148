"""Exercises of the chapter on diagnosis."""

import math

from hypothesis import strategies as st

from bncore.page.exercises import exercise


def _one_too_few(momentum, share):
    return max(updates(momentum, share) - 1, 0)


def _in_keras(momentum, share):
    return updates(1 - momentum, share)


@exercise(
    "diagnosis-updates",
    inputs=st.tuples(st.sampled_from([0.5, 0.1, 0.01]), st.sampled_from([0.9, 0.3, 0.05, 0.01])),
    wrong=[_one_too_few, _in_keras],
)
def updates(momentum, share):
    """Return after how many updates the initial statistics weigh at most `share`."""
    count, weight = 0, 1.0
    while weight > share:
        count, weight = count + 1, weight * (1 - momentum)
    return count


def _examples_only(shape, devices):
    return shape[0] // devices


def _of_the_whole_batch(shape, devices):
    return shape[0] * math.prod(shape[2:])


@st.composite
def _batches(draw):
    devices, each = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rest = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    return (devices * each, *rest), devices


@exercise("diagnosis-values", inputs=_batches(), wrong=[_examples_only, _of_the_whole_batch])
def values(shape, devices):
    """Return of how many values a device takes each mean."""
    return shape[0] // devices * math.prod(shape[2:])


def _rate_of_one(count, luck):
    return (1 - luck) / count


def _luck_itself(count, luck):
    return luck ** (1 / count)


@exercise(
    "diagnosis-no-alarm",
    inputs=st.tuples(st.integers(1, 200), st.sampled_from([0.5, 0.1, 0.05, 0.025])),
    wrong=[_rate_of_one, _luck_itself],
)
def no_alarm(count, luck):
    """Return the rate at which `count` networks in a row raise no alarm with probability `luck`."""
    return 1 - luck ** (1 / count)
