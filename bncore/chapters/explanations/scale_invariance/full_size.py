"""The sweep over five decades of learning rates: digits, with and without batch norm.

``make full CHAPTER=explanations/scale_invariance`` writes recorded.json again, in a quarter of an
hour on one core; if it is interrupted, it goes on where it was. With ``--paper`` the same code runs ``PAPER``
instead, and writes paper.json: a VGG-11 of width 64 on CIFAR-10, as Arora, Li and Lyu (2019) trained a
VGG at many learning rates of its scale-invariant weights. It makes some 170 runs of 15,000 steps one
after the other. It needs the internet once, to download CIFAR-10 (``--cache`` says where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.

The sweep of fully connected networks on MNIST:

    run({**CONFIGURATION, "source": "mnist", "widths": [784, 64, 64, 10]}, "folder")
"""

from functools import partial
from pathlib import Path

import numpy as np

from bncore.chapters.explanations.scale_invariance import rates
from bncore.lab import studies


def decades(first, last, each=2):
    """Rates from 10^first to 10^last, so many a decade, as people write them."""
    count = round((last - first) * each) + 1
    return [float(f"{10**power:.4g}") for power in np.linspace(first, last, count)]


CONFIGURATION = {
    "tuned": {
        "one rate": {
            "arms": ["batch norm", "no batch norm"],
            "rates": decades(-3, 2),
            "moments": [100, 500, 2000],
            "exchanged": True,
        },
        "split": {
            "arms": [
                "weight norm",
                "weight norm, normalised start",
                "no batch norm, normalised start",
                "deviation only",
            ],
            "rates": decades(-1, 0.5),
            "moments": [100, 500, 1000],
        },
    },
    "swept": {
        "hidden rate": {
            "arms": ["batch norm, hidden rate", "no batch norm, hidden rate"],
            "rates": [0.0, *decades(-3, 2)],
            "moments": [100, 500],
        },
        "torch's weights": {
            "arms": ["batch norm, torch's weights", "no batch norm, torch's weights"],
            "rates": decades(-2, 0.5),
            "moments": [100, 500],
        },
    },
    "tracked": {"rates": decades(-3, 2, each=1), "steps": 500},
    "seeds": [0, 1, 2, 3, 4],
    "fresh_seeds": list(range(5, 15)),
    "every": 5,
    "widths": list(rates.WIDTHS),
}
REDUCED = {
    **CONFIGURATION,
    "tuned": {
        "one rate": {
            "arms": ["batch norm"],
            "rates": [0.1, 0.3162, 1.0],
            "moments": [100, 300],
        },
    },
    "swept": {
        "hidden rate": {
            "arms": ["batch norm, hidden rate", "no batch norm, hidden rate"],
            "rates": [0.0, 0.1],
            "moments": [40],
        },
        "split": {
            "arms": ["weight norm, normalised start", "no batch norm, torch's weights"],
            "rates": [0.1],
            "moments": [40],
        },
    },
    "tracked": {"rates": [0.1, 100.0], "steps": 40},
    "seeds": [0],
    "fresh_seeds": [1],
}
PAPER = {
    "tuned": {
        "one rate": {
            "arms": ["batch norm", "no batch norm"],
            "rates": decades(-3, 2),
            "moments": [1000, 5000, 15_000],
        },
    },
    "swept": {
        "hidden rate": {
            "arms": ["batch norm, hidden rate", "no batch norm, hidden rate"],
            "rates": [0.0, *decades(-3, 2)],
            "moments": [1000, 5000, 15_000],
        },
    },
    "tracked": {"rates": decades(-3, 2, each=1), "steps": 15_000},
    "seeds": [0, 1, 2],
    "fresh_seeds": [3, 4, 5],
    "every": 500,
    "source": "cifar10",
    "vgg": {"depth": 11, "width": 64, "hidden": [512]},
    "batch": 128,
    "examples": 5_000,
    "device": "cuda",
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Train at every learning rate, in each arm, with every seed.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; arms are those of ``rates.ARMS``. ``tuned`` are studies whose grids go
        on beyond an end at which an arm is best, and whose arms are run again on fresh seeds; grids of
        ``swept`` stay. Optionally ``source``, "digits", "mnist" or "cifar10", which must fit the first
        of ``widths``; the shape of a ``vgg``; ``batch``, by default 64; ``examples``, the number of
        training images over which the loss is taken in one batch, by default all; and ``device``.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        For each study what ``rates.trained`` measures by arm, learning rate and seed. For the tuned
        ones also "one rate, fresh to 0.1" and the like: each arm at the rate that gets to that loss
        first, on fresh seeds, and, where two arms are ``exchanged``, "one rate, exchanged to 0.1": each at
        the rate of the other. "felt": effective rates by learning rate, seed and number of steps.
    """
    c, found = configuration, {}
    options = {key: c[key] for key in ("source", "widths", "vgg", "batch", "device") if key in c}
    options |= {"cache": cache}

    for name, part in {**c["tuned"], **c["swept"]}.items():
        one = partial(
            rates.trained,
            moments=part["moments"],
            every=c["every"],
            examples=c.get("examples"),
            **options,
        )
        study = _tuned if name in c["tuned"] else _swept
        axes = {key: {"steps": part["moments"]} for key in ("loss", "accuracy")}
        runs = study(one, part, c["seeds"], c["fresh_seeds"], axes=axes, store=store)
        found |= {f"{name}{end}": some for end, some in runs.items()}
    steps = c["tracked"]["steps"]
    at = sorted({0, steps, *np.geomspace(1, steps, 25).round().astype(int).tolist()})
    one = partial(rates.felt, steps=steps, at=at, **options)
    grid = {"learning_rate": c["tracked"]["rates"]}
    found["felt"] = studies.study(one, grid, c["seeds"], axes={"felt": {"steps": at}}, store=store)
    return {name: studies.rounded(some) for name, some in found.items()}


def _swept(one, part, seeds, _, **kept):
    grid = {"arm": part["arms"], "learning_rate": part["rates"]}
    return {"": studies.study(one, grid, seeds, **kept)}


def _tuned(one, part, seeds, fresh_seeds, **kept):
    arms = {"arm": part["arms"]}
    tuning = studies.tuned(one, arms, part["rates"], seeds, "to 0.01", smaller=True, **kept)
    found = {"": tuning}
    for level in (f"to {level:g}" for level in rates.LEVELS):
        chosen = studies.best(tuning, level, smaller=True)
        found[f", fresh {level}"] = studies.confirmed(one, chosen, fresh_seeds, **kept)
        if part.get("exchanged"):
            other = chosen.assign(learning_rate=chosen.learning_rate.roll(arm=1))
            found[f", exchanged {level}"] = studies.confirmed(one, other, fresh_seeds, **kept)
    return found
