"""What the record of the page on tuning says about each decision."""

import itertools
from collections.abc import Mapping

import xarray as xr

from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.chapters.practice.placement.tuning import ARMS
from bncore.lab import studies

REFERENCES = {
    "layers": ("layers", {"where": "all"}),
    "preparation": ("preparation", {"preparation": "standardised"}),
    "decay": ("no decay", {"decayed": "all", "decay": 0.0}),
    "dropout": ("no dropout", {"place": runs.PLACES[0], "drop": 0.0}),
    "epsilon": ("epsilon", {"inputs": "yes", "eps": 1e-5}),
}
"""What each decision's arms are compared with."""


def effects(full: Mapping, decision: str, **chosen: str) -> dict[tuple, studies.Interval]:
    """Points of test accuracy by which each arm of a decision leads its reference, on fresh seeds.

    Parameters
    ----------
    full : mapping
        From ``study``.
    decision : str
        One of REFERENCES.
    **chosen
        The value of an arm's name, where only some of the arms are meant: ``of="cancer"``.

    Returns
    -------
    dict
        By the values of the arm that are not chosen, in the order of the arms. The intervals allow for
        all of them.
    """
    part, reference = REFERENCES[decision]

    def points(of):
        last = 100 * full[of]["fresh"].accuracy
        return last.sel({name: value for name, value in chosen.items() if name in last.dims})

    usual, last = points(part).sel(reference), points(decision)
    names = [name for name in ARMS[decision][1] if name in last.dims]
    arms = [
        dict(zip(names, arm, strict=True))
        for arm in itertools.product(*(last[name].values.tolist() for name in names))
    ]
    arms = [arm for arm in arms if part != decision or arm != reference]
    return {tuple(arm.values()): _apart(last.sel(arm), usual, len(arms)) for arm in arms}


def widths(start: xr.Dataset, accuracy: float = 0.9) -> xr.DataArray:
    """How many decades of learning rates reach a test accuracy: half a decade for each rate that does.

    Parameters
    ----------
    start : Dataset
        "start" from ``study``.
    accuracy : float

    Returns
    -------
    DataArray
        By normalisation, gain and seed.
    """
    return (start.accuracy >= accuracy).sum("learning_rate") / 2


def widening(start: xr.Dataset) -> dict[float, studies.Interval]:
    """Decades of learning rates that batch norm adds, by initial gain."""
    found = widths(start)
    gains = found.gain.values.tolist()
    return {
        gain: _apart(
            *(found.sel(normalization=kind, gain=gain) for kind in ("batch", "none")), len(gains)
        )
        for gain in gains
    }


def momenta(momentum: Mapping, batch_size: int, steps: int) -> dict[float, studies.Interval]:
    """Points of test accuracy by which each momentum leads torch's, 0.1, on fresh seeds."""
    last = 100 * momentum["fresh"].accuracy.sel(batch_size=batch_size, steps=steps, drop=True)
    others = [one for one in last.momentum.values.tolist() if one != 0.1]
    return {
        one: _apart(last.sel(momentum=one), last.sel(momentum=0.1), len(others)) for one in others
    }


DECISIONS = {
    "In which layers?": (
        "all six hidden layers, not none",
        ("layers", {"where": "all"}),
        ("layers", {"where": "none"}),
    ),
    "Which ε?": (
        "the usual 0.00001, not 10",
        ("epsilon", {"inputs": "yes", "eps": 1e-5}),
        ("epsilon", {"inputs": "yes", "eps": 10.0}),
    ),
    "Raw columns?": (
        "batch norm of the inputs, not of the hidden layers alone",
        ("preparation", {"of": "cancer", "preparation": "raw, inputs"}),
        ("preparation", {"of": "cancer", "preparation": "raw, hidden layers"}),
    ),
    "Dropout of a half?": (
        "behind the last batch norm, not right before each",
        ("dropout", {"place": runs.PLACES[2], "drop": 0.5}),
        ("dropout", {"place": runs.PLACES[0], "drop": 0.5}),
    ),
    "Decay γ and β?": (
        "as you like: sparing them, decay of 0.003",
        ("decay", {"decayed": "weights", "decay": 0.003}),
        ("decay", {"decayed": "all", "decay": 0.003}),
    ),
}
ANCHORS = dict(
    zip(DECISIONS, ("layers", "epsilon", "preparation", "dropout", "decay"), strict=True)
)


def decisions(full: Mapping) -> list[tuple[str, str, studies.Interval, str, str]]:
    """What to decide, what to choose, and what that is worth: rows of the table of decisions.

    Parameters
    ----------
    full : mapping
        From ``study``.

    Returns
    -------
    list of tuple
        Question, choice, effect, its unit, and where the page shows it. The intervals allow for all
        rows.
    """
    rows = len(DECISIONS) + 2
    start, momentum = full["start"], full["momentum"]
    wide = widths(start.isel(gain=start.gain.argsort()[-2].item()))
    accuracies = 100 * momentum["fresh"].accuracy.isel(steps=-1).sel(batch_size=32)
    found = [
        (
            "Which learning rate?",
            "search; from He's weights it may be off by more",
            _apart(*(wide.sel(normalization=kind) for kind in ("batch", "none")), rows),
            "decades",
            "rates",
        ),
        (
            "Which momentum?",
            "0.1, not 0.001, for a thousand steps",
            _apart(*(accuracies.sel(momentum=one) for one in (0.1, 0.001)), rows),
            "points",
            "momentum",
        ),
    ]
    for question, (choice, *pair) in DECISIONS.items():
        values = (100 * full[part]["fresh"].accuracy.sel(arm) for part, arm in pair)
        found.append((question, choice, _apart(*values, rows), "points", ANCHORS[question]))
    return [(*row, f"practice/tuning#tuning-{anchor}") for *row, anchor in found]


def _apart(one, other, looked_at):
    """The mean difference of two arms over their seeds."""
    pair = (arm.reset_coords(drop=True) for arm in (one, other))
    return studies.difference(*pair, looked_at=looked_at)
