"""What the literature says about small batches."""

from functools import cache

import torch

from bncore.chapters.practice.small_batches import full_size
from bncore.lab import recorded, studies
from bncore.page.claims import at_least, at_most, claim, otherwise, under
from bncore.practice.renormalization import BatchRenorm

# Nine arms beside batch norm at six sizes, batch norm at 64 against five others, three pairs in
# batches of one, and fresh statistics for three arms at seven, six and six sizes.
LOOKED_AT = 54 + 5 + 3 + 19
WHAT = "digits, each at its best rate, 20 fresh seeds"
# What counts as no difference, as where training is done.
POINT = 0.5


@cache
def _fresh(part):
    return 100 * recorded.load(full_size.PATH)["full"][part]["fresh"]


def _gain(m, other):
    """By how many points batch norm errs less in batches of m than in others."""
    error = _fresh("sizes").error.sel(arm="batch norm")
    apart = error.sel(batch_size=other), error.sel(batch_size=m)
    return studies.difference(*apart, looked_at=LOOKED_AT)


def _gap(part, arm, m):
    """By how many points test errors in training mode and at inference differ."""
    one = _fresh(part).sel(arm=arm, batch_size=m)
    looked_at = 12 if part == "sizes" else 2
    return studies.difference(one.company, one.error, looked_at=looked_at)


@claim("readingnotes, Improvement", "holds")
def differ():
    """When the batch is too small, performance in training and at inference can differ."""
    what = f"points that test batches of 4 lose by their own statistics, {WHAT}"
    yield at_least(0, _gap("sizes", "batch norm", 4), what)


@claim("readingnotes, Improvement", "holds")
def unlike_batches():
    """When mini-batches do not represent the distribution of the training set, performance in
    training and at inference can differ.
    """
    what = f"points that batches of 32 with two digits each lose by their own statistics, {WHAT}"
    yield at_least(0, _gap("unlike", "batch norm", 32), what)


@claim("readingnotes, Improvement", "depends")
def renormalization_solves():
    """Batch renormalisation can solve the difference between training and inference."""
    what = (
        f"points by which errors in training mode and at inference differ, batches of {{}}, {WHAT}"
    )
    yield under("batches hold four examples or eight")
    for m in (4, 8):
        of_size = what.format(m)
        yield at_least(POINT, _gap("sizes", "batch norm", m), f"{of_size}: batch norm")
        corrected = _gap("sizes", "renormalised", m)
        yield at_most(POINT, corrected, f"{of_size}: batch renormalization")
        yield at_least(-POINT, corrected, f"{of_size}: batch renormalization")
    yield otherwise("they hold two")
    of_size = f"{what.format(2)}: batch renormalization"
    yield at_most(POINT, _gap("sizes", "renormalised", 2), of_size)


@claim("sharad, Practical Tips", "undecided")
def largest_works_best():
    """Batch norm works best with large batches."""
    what = f"points by which batch norm errs less in batches of 64 than in those of {{}}, {WHAT}"
    for m in (2, 4, 8, 16, 32):
        yield at_least(0, _gain(64, m), what.format(m))


@claim("sharad, Limitations", "fails")
def requires_large():
    """Batch norm requires a large batch. (Requires: in batches of 4 and 8 it errs by five points more
    than in those of 64.)
    """
    for m in (4, 8):
        yield at_least(5, _gain(64, m), f"points lost in batches of {m} against 64, {WHAT}")


@claim("ioffe2017, Abstract", "depends")
def same_outputs():
    """Batch renormalization ensures that the training and inference models generate the same outputs,
    which depend on individual examples rather than on the batch.
    """
    what = (
        "largest distance of outputs in training from those at inference, 1000 normal batches of {}"
    )
    yield under("no correction reaches its limit, as in batches of 64")
    yield at_most(1e-4, _distance(64), what.format(64))
    yield otherwise("some do, as in batches of 2, with the limits 3 and 5")
    yield at_most(1e-4, _distance(2), what.format(2))


def _distance(m):
    """With exact running statistics, of 32 features."""
    generator, largest = torch.Generator().manual_seed(0), 0.0
    layer = BatchRenorm(32, momentum=0.0)
    layer.num_batches_tracked.fill_(1)
    for _ in range(1000):
        x = torch.randn(m, 32, generator=generator)
        apart = layer.train()(x) - layer.eval()(x)
        largest = max(largest, apart.abs().max().item())
    return largest
