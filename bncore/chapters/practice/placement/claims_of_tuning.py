"""What the literature says about the layers in which batch norm is needed."""

from functools import cache

from bncore.chapters.practice.placement import full_size, tuning
from bncore.lab import recorded, studies
from bncore.page.claims import at_least, at_most, claim

EVERY = "all and the output"
SEEDS = len(tuning.CONFIGURATION["fresh_seeds"])
WHERE = (
    f"six hidden layers of ReLU on the digits, each arm at its own best rate, {SEEDS} fresh seeds, "
    "intervals for five arms"
)


@cache
def _points():
    layers = recorded.load(full_size.PATH)["full"]["tuning"]["layers"]
    return 100 * layers["fresh"].accuracy


def _ahead(one, other):
    """Points of test accuracy by which batch norm in some layers leads that in others."""
    pair = (_points().sel(where=where, drop=True) for where in (one, other))
    return studies.difference(*pair, looked_at=5)


@claim("sharad, Practical Tips", "holds")
def not_every_layer():
    """Batch norm is not always needed in every layer. (Judged by the output layer: leaving it out there
    costs less than a point.)
    """
    yield at_most(
        1,
        _ahead(EVERY, "all"),
        f"points of test accuracy lost without batch norm behind the output layer: {WHERE}",
    )


@claim("sharad, Practical Tips", "undecided")
def some_layers_only():
    """The best use of batch norm may be in some layers only, found by trying configurations."""
    parts = [_ahead(where, EVERY) for where in ("first", "last", "every other", "all")]
    yield at_least(
        0,
        max(parts),
        "points of test accuracy by which the best of four configurations, which leave out the output "
        f"layer or more, leads batch norm behind every layer: {WHERE}",
    )
