"""What the literature says about batch norm on other data, and about averaged weights.

Networks are those of the recorded run, eight fresh seeds each.
"""

from functools import cache

from bncore.chapters.practice.fine_tuning import full_size
from bncore.lab import recorded, studies
from bncore.page.claims import at_least, claim

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


@claim("li2018, Abstract", "undecided")
def statistics_adapt():
    """Modulating the statistics in all batch norms from those of the source domain to those of the
    target domain adapts a network deeply, without additional components or parameters.
    """
    yield at_least(0, _gained("faded", 4), "accuracy gained on digits of a fifth of the contrast")
    yield at_least(0, _gained("moved", 3), "accuracy gained on digits moved by 1.2 pixels")


@claim("schneider2020, Abstract", "undecided")
def statistics_of_corrupted():
    """Replacing the statistics of the training set by those of the corrupted images consistently
    improves robustness, across 25 models of computer vision. (Here: one small perceptron.)
    """
    yield at_least(0, _gained("faded", 4), "accuracy gained on digits of a fifth of the contrast")
    what = "accuracy gained under noise on each pixel, of standard deviation 0.3"
    yield at_least(0, _gained("noisy", 3), what)


def _by_the_batch(domain, classes, batch_size):
    """Accuracy gained by the statistics of the test batch, over the old ones."""
    found = _record()["at_test_time"].sel(domain=domain, classes=classes, batch_size=batch_size)
    return studies.difference(found.batch, found.kept, looked_at=BATCHES)


@claim("nado2020, Abstract", "holds")
def prediction_time():
    """Batch norm with the statistics of small unlabelled batches at prediction time significantly
    improves accuracy under covariate shift. (Here: a shift of contrast, batches of all ten classes.)
    """
    what = "accuracy gained on digits of a fifth of the contrast, in batches of {}"
    for size in (8, 32, 128):
        yield at_least(0, _by_the_batch("faded", 10, size), what.format(size))


def _worse(name, other="recalibrated"):
    """Test loss of averaged weights with these statistics, above that with others."""
    fresh = _record()["averaged"]["fresh"].sel(weights="averaged")
    return studies.difference(fresh[f"loss_{name}"], fresh[f"loss_{other}"], looked_at=STATISTICS)


@claim("izmailov2018, section 3.2", "holds")
def another_pass():
    """One more pass over the data computes the statistics of the activations with averaged weights,
    which are not collected during training.
    """
    what = (
        "test loss in nats with the statistics of the last weights, above that after another pass"
    )
    yield at_least(0, _worse("kept"), what)
