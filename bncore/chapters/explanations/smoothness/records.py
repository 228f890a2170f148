"""The recorded run of the smoothness chapter, and what is read off it."""

from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import kendalltau

from bncore.chapters.explanations.smoothness.experiments import KINDS, network
from bncore.explanations import landscape, spectrum
from bncore.lab import recorded, studies

RECORDED = Path(__file__).with_name("recorded.json")
LATE = slice(50, None)  # Records from step 50 on.
START = slice(0, 0)  # That before training.


@cache
def record():
    """The recorded run of ``full_size``."""
    return recorded.load(RECORDED)


def of(part, depth, kinds=KINDS):
    """The recorded walks or spectra of one depth, kind by kind, over seed first.

    Yields
    ------
    str, Dataset
        Only the kinds that were recorded.
    """
    found = record()["full"][part].sel(depth=depth).transpose("kind", "seed", ...)
    for kind in kinds:
        if kind in found.kind:
            yield kind, found.sel(kind=kind)


def tuned_ratio(first, second, depth, steps):
    """Geometric mean, over seeds, of the loss of one kind over that of another, with its interval.

    Each kind at its own best rate; the interval allows for 48 comparisons: of two smooth kinds with
    two others, at three depths and four moments.
    """
    loss = np.log(record()["full"]["tuned"]["curves"].loss.sel(depth=depth, steps=steps))
    found = studies.difference(loss.sel(kind=first), loss.sel(kind=second), looked_at=48)
    return studies.Interval(*np.exp(found).tolist())


def ratios(depth, measure, at_equal_loss=False, kinds=KINDS[:2], part="walks"):
    """What the recorded networks without batch norm measure, over what those with it do.

    Parameters
    ----------
    depth : int
    measure : {"absolute", "relative", "change", "range"}
        Effective smoothness in either unit; the gradient's relative change after a step of 0.3 %
        of the weights; or the range of the loss over the learning rates of the walk.
    at_equal_loss : bool
        Compare at the loss of the network with batch norm, where the other one comes down to it,
        rather than at the same step.
    kinds : pair of str
        Other kinds to compare.
    part : {"walks", "common"}
        Each kind trained at its own best rate, or both at one.

    Returns
    -------
    DataArray over seed and record, NaN where there is nothing to compare
    """
    found = record()["full"][part].sel(depth=depth).transpose("kind", "seed", "record")
    plain, normalised = (found.sel(kind=kind) for kind in kinds)
    theirs, ours = plain[measure], normalised[measure]
    if at_equal_loss:
        theirs = theirs.copy()
        for row, at, wanted in zip(
            theirs.values, np.log(plain.loss.values), np.log(normalised.loss.values), strict=True
        ):
            order = np.argsort(at)
            known = np.log(row)[order]
            row[:] = np.exp(np.interp(wanted, at[order], known, left=np.nan, right=np.nan))
    return theirs.drop_vars("kind") / ours.drop_vars("kind")


def log_ratio(depth, measure, records=LATE, **options):
    """Mean over records of the logarithm of ``ratios``, with its interval over the seeds.

    The interval allows for 75 comparisons: of four measures at three depths, before training and
    later, each at its own rate and at one rate; and of three measures of three other pairs of kinds.
    """
    rows = np.log(ratios(depth, measure, **options)).sel(record=records).mean("record")
    return studies.difference(rows, xr.zeros_like(rows), looked_at=75)


def earlier_range(depth, kind):
    """Logarithm of the range of one kind's loss at steps 25 to 100 over that at steps 125 to 200.

    Mean over the seeds with its interval, for the 75 comparisons of ``log_ratio`` and nine more: three
    ways to part the steps, at three depths.
    """
    found = np.log(record()["full"]["walks"]["range"].sel(depth=depth, kind=kind))
    early, late = (
        found.sel(record=part).mean("record") for part in (slice(25, 100), slice(125, None))
    )
    return studies.difference(early, late, looked_at=84)


def mean(values):
    """Mean over the seeds of what was recorded of one network, with its interval.

    It allows for 36 comparisons of the ends of spectra: two measures of three depths at the best
    rates, of two layers at five others, and of six and ten layers at four, and the shares without
    batch norm that stand beside them.
    """
    return studies.difference(values, xr.zeros_like(values), looked_at=36)


def rank_agreement(depth, units, steps):
    """Kendall's tau over the four kinds, of the smoothness that they have and the loss that they reach.

    Parameters
    ----------
    depth : int
    units : {"absolute", "relative"}
    steps : int
        After which the loss is looked at. Smoothness is the mean over the walks until then.

    Returns
    -------
    Interval
        Mean over the seeds: 1 where the smoother of two kinds always has the lower loss. It allows
        for 18 comparisons: three depths, two units, and 100, 200 and 800 steps.
    """
    full = record()["full"]
    walked = full["walks"][units].sel(depth=depth, record=slice(1, steps))
    rough = np.log(walked).mean("record").transpose("seed", "kind")
    loss = full["tuned"]["curves"].loss.sel(depth=depth, steps=steps).transpose("seed", "kind")
    found = [kendalltau(*pair).statistic for pair in zip(rough.values, loss.values, strict=True)]
    taus = xr.DataArray(found, {"seed": rough.seed}, ["seed"])
    return studies.difference(taus, xr.zeros_like(taus), looked_at=18)


def recorded_density(kind, depth, when):
    """The recorded quadrature of one kind of network.

    Parameters
    ----------
    kind : str
    depth : int
    when : {"start", "end"}

    Returns
    -------
    list of Spectrum
        One for each seed.
    """
    kept = record()["full"][f"{when} density"].sel(kind=kind, depth=depth)
    nodes, weights = (kept[name].transpose("seed", "probe", "node").values for name in _NODES)
    # The file keeps three digits of a weight, and their sum is 1 to no more than that.
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return [spectrum.Spectrum(*pair) for pair in zip(nodes, weights, strict=True)]


_NODES = ("nodes", "weights")


def outside(kind, depth, when, size=1.0):
    """Recorded estimates of how many eigenvalues lie above size, and how many below -size.

    Returns
    -------
    ndarray of int, of shape (seeds, 2)
    """
    n = parameters(depth)
    shares = [
        [(one.weights * (sign * one.nodes > size)).sum(axis=-1).mean() for sign in (1, -1)]
        for one in recorded_density(kind, depth, when)
    ]
    return np.round(n * np.array(shares)).astype(int)


def parameters(depth):
    """Number of weights of a network, those of the normalisations not counted."""
    return sum(p.numel() for p in landscape.weights(network(KINDS[0], depth, 0)).values())
