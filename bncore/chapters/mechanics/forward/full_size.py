"""The recorded runs of the forward chapter: deep networks at every learning rate, trained to the end.

``make full CHAPTER=mechanics/forward`` writes recorded.json again, in an hour on one core; if
it is interrupted, it goes on where it was. With ``--paper`` the same code trains ``PAPER`` instead, the
network of Ioffe and Szegedy's first figure on MNIST, and writes paper.json. It needs the internet once,
to download MNIST. It has not been run here: no chapter, figure or claim rests on it.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.mechanics.forward import experiments
from bncore.lab import studies

CONFIGURATION = {
    "networks": list(experiments.NETWORKS),
    "learning_rates": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "seeds": [0, 1, 2, 3, 4],
    "fresh_seeds": list(range(5, 15)),
    "moments": [100, 300, 1000, 3000, 10_000],
}
REDUCED = {
    "networks": ["sigmoid, batch norm", "ReLU, gain √2"],
    "learning_rates": [0.03, 0.1, 0.3],
    "seeds": [0, 1],
    "fresh_seeds": [2, 3],
    "moments": [20, 60],
}
PAPER = {
    **CONFIGURATION,
    "fresh_seeds": list(range(5, 10)),
    "moments": [100, 1000, 10_000, 50_000],
    "widths": [784, 100, 100, 100, 10],
    "data": "mnist",
}
PATH = Path(__file__).with_name("recorded.json")
AXES = {"accuracy": ("steps",)}


def run(configuration: dict, cache=None, store=None) -> dict:
    """Test accuracy of each network at each rate, and at its best rate on fresh seeds.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; grids go on beyond an end at which a network is best.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "tuning" and "fresh": accuracies by network, learning rate, seed and number of steps; the
        second at the rate at which the median of the last accuracy is best.
    """
    c = configuration
    widths = tuple(c.get("widths", experiments.WIDTHS))
    one = partial(
        experiments.accuracies, moments=c["moments"], widths=widths,
        source=c.get("data", "digits"), cache=cache,
    )  # fmt: skip
    found = studies.at_best_rates(
        one, {"network": c["networks"]}, c["learning_rates"], c["seeds"], c["fresh_seeds"], "last",
        smaller=False, axes=AXES, store=store,
    )  # fmt: skip
    return {
        name: studies.rounded(some.assign_coords(steps=c["moments"]))
        for name, some in found.items()
    }
