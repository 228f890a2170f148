"""What the literature says about batch norm on other data, and about averaged weights.

Networks are those of the recorded run, eight seeds each.
"""

from functools import cache

from bncore.chapters.practice.fine_tuning import full_size
from bncore.lab import recorded, studies
from bncore.page.claims import at_least, at_most, claim, otherwise, under

# What stands in the figures of the chapter: four kinds of change at five amounts each.
CHANGES = 20
# Test batches: of two domains, four numbers of classes and seven sizes.
BATCHES = 56
# Three kinds of statistics beside the last weights.
STATISTICS = 3


@cache
def _record():
    return recorded.load(full_size.PATH)["full"]


def _gained(kind, step):
    """Accuracy gained by statistics of the changed digits, over the old ones."""
    found = _record()["untrained"].sel(kind=kind, step=step)
    return studies.difference(found.recalibrated, found.kept, looked_at=CHANGES)


def _left(kind, step):
    """Accuracy that a change costs although the statistics are those of the changed digits."""
    found = _record()["untrained"].sel(kind=kind)
    return studies.difference(
        found.kept.sel(step=0), found.recalibrated.sel(step=step), looked_at=CHANGES
    )


@claim("li2018, Abstract", "depends")
def statistics_adapt():
    """Statistics of the target domain in all batch norms, in place of those of the source, adapt a
    network to that domain, without further components or parameters.
    """
    yield under("the domains differ by one positive factor and a shift of all inputs: faded digits")
    yield at_least(0.4, _gained("faded", 4), "accuracy gained on digits of a fifth of the contrast")
    yield at_most(0.02, _left("faded", 4), "accuracy that is still lost to fading")
    yield otherwise("they differ in where things are: moved digits")
    yield at_most(0.1, _left("moved", 3), "accuracy that is still lost to a move by 1.2 pixels")


@claim("schneider2020, Abstract", "depends")
def statistics_of_corrupted():
    """Statistics estimated on the corrupted images improve accuracy on them."""
    yield under("the corruption takes contrast")
    yield at_least(0.4, _gained("faded", 4), "accuracy gained on digits of a fifth of the contrast")
    yield otherwise("it is independent noise on each pixel, of standard deviation 0.3")
    yield at_least(0.03, _gained("noisy", 3), "accuracy gained on noisy digits")


def _by_the_batch(domain, classes, batch_size):
    """Accuracy gained by the statistics of the test batch, over the old ones."""
    found = _record()["at_test_time"].sel(domain=domain, classes=classes, batch_size=batch_size)
    return studies.difference(found.batch, found.kept, looked_at=BATCHES)


@claim("nado2020, Abstract", "depends")
def prediction_time():
    """Under covariate shift, batch norm with the statistics of the test batch improves accuracy."""
    yield under("the shift is one of contrast, and batches are large and hold all classes")
    yield at_least(0.4, _by_the_batch("faded", 10, 128), "accuracy gained in batches of 128")
    yield otherwise("each batch holds one class")
    yield at_least(0.05, _by_the_batch("faded", 1, 128), "accuracy gained in batches of 128")


def _worse(name, other="recalibrated"):
    """Test loss of averaged weights with these statistics, above that with others."""
    fresh = _record()["averaged"]["fresh"].sel(weights="averaged")
    return studies.difference(fresh[f"loss_{name}"], fresh[f"loss_{other}"], looked_at=STATISTICS)


@claim("izmailov2018, section 3.2", "depends")
def another_pass():
    """A network with batch norm whose weights were averaged needs another pass over the data, for the
    statistics of its activations.
    """
    yield under("it has the running statistics of the last weights")
    yield at_least(0.01, _worse("kept"), "test loss in nats above that after another pass")
    yield otherwise("running statistics were averaged along with the weights, in a small network")
    yield at_least(0.005, _worse("averaged"), "test loss in nats above that after another pass")
