"""The recorded runs of the chapter on feature scaling: networks whose inputs are scaled, or not.

``make full CHAPTER=mechanics/scaling`` writes recorded.json again, in some ten minutes on one core;
if it is interrupted, it goes on where it was. With ``--paper`` the same code runs ``PAPER`` instead,
more seeds and steps, and writes paper.json; it has not been run here: no chapter, figure or claim
rests on it.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.mechanics.scaling import experiments
from bncore.lab import studies

CONFIGURATION = {
    "seeds": [0, 1, 2, 3],
    "fresh_seeds": list(range(10, 18)),
    "first": {
        "source": ["breast cancer", "product", "sum"],
        "first": ["nothing", "batch norm", "z-score", "logarithm"],
        "learning_rates": [0.01, 0.03, 0.1, 0.3],
        "moments": [250, 500, 1000],
    },
    "whitened": {
        "table": ["breast cancer", "wine"],
        "inputs": ["raw", "whitened"],
        "steps": [100, 1000],
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    },
}
REDUCED = {
    "seeds": [0],
    "fresh_seeds": [1, 2],
    "first": {
        "source": ["breast cancer", "sum"],
        "first": ["batch norm", "logarithm"],
        "learning_rates": [0.01, 0.03, 0.1],
        "moments": [20, 40],
    },
    "whitened": {
        "table": ["wine"],
        "inputs": ["raw", "whitened"],
        "steps": [30],
        "learning_rates": [0.1, 0.3, 1.0],
    },
}
PAPER = {
    **CONFIGURATION,
    "fresh_seeds": list(range(10, 110)),
    "first": {**CONFIGURATION["first"], "moments": [1000, 4000, 16_000]},
}
PATH = Path(__file__).with_name("recorded.json")
EXTENSIONS = 8
LOOKED_AT = 10
"""Comparisons of last accuracies: three ways with batch norm from three sources, z-score with raw on one."""


def run(configuration: dict, cache=None, store=None) -> dict:
    """Accuracy after scaling inputs in four ways, and loss with raw and with whitened inputs.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; grids go on beyond an end at which an arm is best.
    cache : path, optional
        Not used: nothing is downloaded.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "first" and "whitened", each a dict of "tuning" and "fresh", as from
        ``studies.at_best_rates``: of ``experiments.scaled_first``, each arm at the rate of its best
        last accuracy, and of ``experiments.whitened_or_not``, at that of its least loss.
    """
    seeds = configuration["seeds"], configuration["fresh_seeds"]
    first, whitened = (dict(configuration[name]) for name in ("first", "whitened"))
    rates, moments = first.pop("learning_rates"), first.pop("moments")
    found = studies.at_best_rates(
        partial(experiments.scaled_first, moments=moments),
        first,
        rates,
        *seeds,
        "last",
        smaller=False,
        axes={"accuracy": {"steps": moments}},
        extensions=EXTENSIONS,
        store=store,
    )
    rates = whitened.pop("learning_rates")
    losses = studies.at_best_rates(
        experiments.whitened_or_not,
        whitened,
        rates,
        *seeds,
        "loss",
        smaller=True,
        extensions=EXTENSIONS,
        store=store,
    )
    return {
        part: {name: studies.rounded(some) for name, some in pair.items()}
        for part, pair in (("first", found), ("whitened", losses))
    }
