"""Exercises of the page on tuning."""

from hypothesis import strategies as st

from bncore.page.exercises import exercise


def _as_long_as_the_weights(rate, gain, other):
    return rate * other / gain


def _the_other_way_round(rate, gain, other):
    return rate * (gain / other) ** 2


POSITIVE = st.floats(0.25, 4).map(lambda value: round(value, 2))


@exercise(
    "placement-same-turn",
    inputs=st.tuples(POSITIVE, POSITIVE, POSITIVE),
    wrong=[_as_long_as_the_weights, _the_other_way_round],
)
def same_turn(rate, gain, other):
    """Return the rate that turns weights of another gain as far as this one does those of the first."""
    return rate * (other / gain) ** 2
