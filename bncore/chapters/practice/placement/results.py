"""What the recorded runs say: leads of one placement over another, in points of test accuracy."""

from collections.abc import Mapping

from bncore.chapters.practice.placement import experiments
from bncore.lab.intervals import Interval, difference

ARCHITECTURES = (*experiments.ARCHITECTURES, "recurrent")
ACTIVATIONS = {"sigmoid": "sigmoid", "relu": "ReLU"}
NETWORKS = tuple((one, name) for one in ARCHITECTURES for name in ACTIVATIONS)
PAIRS = (("after", "before"), ("before", "none"), ("after", "none"))
RECURRENCES = (("input", "none"), ("input", "before"), ("shared", "before"))
COMPARED = (
    *((*network, *pair) for network in NETWORKS for pair in PAIRS),
    *(("recurrent", name, *pair) for name in ACTIVATIONS for pair in RECURRENCES),
)
LOOKED_AT = len(COMPARED)


def points(full: Mapping, architecture: str, activation: str, placement: str):
    """Test accuracy in per cent over the fresh seeds, at the best rate and gain."""
    found = full["placement"][architecture]["fresh"].accuracy
    return 100 * found.sel(activation=activation, placement=placement, drop=True)


def lead(full: Mapping, architecture: str, activation: str, first: str, second: str) -> Interval:
    """By how many points the first placement is more accurate than the second, of LOOKED_AT.

    Raises
    ------
    ValueError
        If the two are not among COMPARED, in either order: the interval would not allow for them.
    """
    ways = [(architecture, activation, *pair) for pair in ((first, second), (second, first))]
    if not any(way in COMPARED for way in ways):
        raise ValueError(
            f"first is {first!r} and second {second!r} in {architecture} with {activation}, expected two "
            "placements among COMPARED"
        )
    pair = (points(full, architecture, activation, name) for name in (first, second))
    return difference(*pair, looked_at=LOOKED_AT)


def said(interval: Interval) -> str:
    """A lead as the page writes it."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*interval).replace("-", "−")
