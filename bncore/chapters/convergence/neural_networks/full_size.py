"""The recorded runs of the neural networks chapter: how much a layer's gradient hangs on the others.

``make full CHAPTER=convergence/neural_networks`` writes recorded.json again, in some two minutes on one
core; if it is interrupted, it goes on where it was. ``--paper`` repeats it on a hundred fresh seeds.
"""

from pathlib import Path

from bncore.chapters.convergence.neural_networks import deep
from bncore.lab import studies

CONFIGURATION = {
    "kinds": ["batch norm", "none"],
    "learning_rates": [0.03, 0.1, 0.3, 1.0],
    "seeds": [0, 1, 2, 3, 4],
    "fresh_seeds": list(range(5, 25)),
}
REDUCED = {
    "kinds": ["batch norm"],
    "learning_rates": [0.1, 0.3, 1.0],
    "seeds": [0],
    "fresh_seeds": [5],
}
PAPER = {**CONFIGURATION, "fresh_seeds": list(range(5, 105))}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Both kinds at each learning rate of training, and at their best one on fresh seeds.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; grids go on beyond an end at which a kind is best.
    cache : path, optional
        Not used: nothing is downloaded.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "tuning" and "fresh": what ``deep.summary`` returns, by kind, learning rate and seed; the best
        rate is that with the least median loss.
    """
    c = configuration
    found = studies.at_best_rates(
        deep.summary,
        {"kind": c["kinds"]},
        c["learning_rates"],
        c["seeds"],
        c["fresh_seeds"],
        "loss",
        smaller=True,
        axes=deep.AXES,
        store=store,
    )
    return {name: studies.rounded(one, digits=3) for name, one in found.items()}
