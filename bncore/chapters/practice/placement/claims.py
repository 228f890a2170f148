"""What the literature says about the place of batch norm."""

from functools import cache

from bncore.chapters.practice.placement import full_size, results
from bncore.lab import recorded, studies
from bncore.page.claims import at_least, claim, otherwise, under

TIPS = "readingnotes, Tips for using batch normalization"
SEEDS = len(full_size.CONFIGURATION["placement"]["fresh_seeds"])
LEAD = (
    "points of test accuracy by which {} leads {} the activation, {}, digits, {} steps, each at its best "
    f"rate and gain, {SEEDS} fresh seeds, interval for {results.LOOKED_AT} comparisons"
)


@cache
def _full():
    return recorded.load(full_size.PATH)["full"]


def _lead(architecture, activation, first, second):
    name = f"{architecture}, {results.ACTIVATIONS[activation]}"
    found = results.lead(_full(), architecture, activation, first, second)
    steps = _full()["placement"][architecture]["steps"]
    return at_least(0, found, LEAD.format(first, second, name, steps))


def _accuracy(architecture, activation, placement):
    values = results.points(_full(), architecture, activation, placement)
    name = f"{architecture}, {results.ACTIVATIONS[activation]}"
    return at_least(
        80,
        values.mean().item(),
        f"test accuracy in per cent with batch norm {placement} the activation, {name}, digits, mean "
        f"of {SEEDS} seeds (a guess: 10)",
    )


@claim(TIPS, "holds")
def every_kind():
    """Batch norm can be used in fully connected, convolutional and recurrent networks."""
    for architecture in results.ARCHITECTURES:
        yield _accuracy(architecture, "relu", "before")


@claim(TIPS, "holds")
def either_place():
    """Batch norm may be put before or after the activation function of the layer before."""
    for placement in ("before", "after"):
        yield _accuracy("two layers", "sigmoid", placement)
        yield _accuracy("convolution", "relu", placement)


@claim(TIPS, "fails")
def probably_before():
    """Batch norm probably belongs before the activation."""
    for network in results.NETWORKS:
        yield _lead(*network, "before", "after")


@claim("sharad, Practical Tips", "fails")
def applied_after():
    """Batch norm is applied after the activation function, such as ReLU or sigmoid."""
    for network in results.NETWORKS:
        yield _lead(*network, "after", "before")


@claim(TIPS, "fails")
def s_shaped():
    """For S-shaped activation functions, batch norm goes after the activation."""
    for architecture in results.ARCHITECTURES:
        yield _lead(architecture, "sigmoid", "after", "before")


@claim(TIPS, "undecided")
def non_gaussian():
    """For activation functions whose outputs may be non-Gaussian, batch norm goes before the
    activation. (Here the ReLU.)
    """
    for architecture in results.ARCHITECTURES:
        yield _lead(architecture, "relu", "before", "after")


@claim("readingnotes, How to standardize", "holds")
def sums_better():
    """Where activations would be non-Gaussian, the sums that go into the activation function may be
    the better place for standardising.
    """
    yield _lead("eight layers", "relu", "before", "after")


@claim(TIPS, "holds")
def case_by_case():
    """Whether batch norm goes before or after depends on the case."""
    full, pair = _full(), ("after", "before")
    for first, second in (pair, pair[::-1]):
        surest = max(results.NETWORKS, key=lambda one: results.lead(full, *one, first, second).low)
        yield _lead(*surest, first, second)


@claim("sharad, Practical Tips", "depends")
def stabilises():
    """Batch norm after the activation stabilises training by normalising the distributions of the
    activations, above all where there are nonlinearities.
    """
    decades = (_full()["rates"].loss < 1).sum("learning_rate") / 2
    what = (
        "decades of learning rates, in halves, at which 100 steps bring the loss below 1, with batch "
        f"norm after the activation less without, two hidden layers, digits, {{}}, "
        f"{decades.sizes['seed']} seeds, intervals for four differences"
    )
    gain = decades.sel(placement="after", drop=True) - decades.sel(placement="none", drop=True)
    linear = gain.sel(activation="identity", drop=True)
    for heading, name in (
        (under("the activation saturates, as a sigmoid does"), "sigmoid"),
        (otherwise("it is a ReLU, which gains no more than no activation"), "relu"),
    ):
        yield heading
        one, title = gain.sel(activation=name, drop=True), results.ACTIVATIONS[name]
        yield at_least(0.5, studies.difference(one, 0 * one, looked_at=4), what.format(title))
        more = studies.difference(one, linear, looked_at=4)
        yield at_least(0.5, more, what.format(f"{title} less the same without an activation"))
