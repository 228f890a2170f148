"""The recorded runs of the backward chapter: networks with statistics hidden from the gradient.

``make full CHAPTER=mechanics/backward`` writes recorded.json again, in some minutes on one core; if
it is interrupted, it goes on where it was. With ``--paper`` the same code runs ``PAPER`` instead, more
seeds and steps, and writes paper.json; it has not been run here: no chapter, figure or claim rests on
it.
"""

from pathlib import Path

from bncore.chapters.mechanics.backward import experiments
from bncore.lab import studies

CONFIGURATION = {
    "hidden": list(experiments.HIDDEN),
    "steps": [100, 300, 1000],
    "learning_rates": [0.03, 0.1, 0.3, 1.0, 3.0],
    "seeds": [0, 1],
    "fresh_seeds": list(range(2, 12)),
}
REDUCED = {
    "hidden": ["nothing", "mean"],
    "steps": [40],
    "learning_rates": [0.1, 0.3, 1.0],
    "seeds": [0],
    "fresh_seeds": [1, 2],
}
PAPER = {**CONFIGURATION, "steps": [300, 1000, 10_000], "fresh_seeds": list(range(2, 52))}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Training loss with statistics hidden from the gradient, at each rate and at the best one.

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
        "tuning" and "fresh", as from ``studies.at_best_rates``, of ``experiments.loss_with_hidden``.
    """
    c = configuration
    found = studies.at_best_rates(
        experiments.loss_with_hidden,
        {"hidden": c["hidden"], "steps": c["steps"]},
        c["learning_rates"],
        c["seeds"],
        c["fresh_seeds"],
        "loss",
        smaller=True,
        store=store,
    )
    return {name: studies.rounded(some) for name, some in found.items()}
