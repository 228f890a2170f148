"""The recorded runs of the inference chapter: other statistics in training, and changed inputs.

``make full CHAPTER=mechanics/inference`` writes recorded.json again, in a quarter of an hour on one
core; if it is interrupted, it goes on where it was. With ``--paper`` the same code trains on MNIST
instead, and writes paper.json. It needs the internet once, to download MNIST. It has not been run
here: no chapter, figure or claim rests on it.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.mechanics.inference import experiments
from bncore.lab import studies

CONFIGURATION = {
    "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0],
    "seeds": [0, 1],
    "fresh_seeds": list(range(2, 14)),
    "statistics": {
        "statistics": list(experiments.STATISTICS),
        "batch_size": [4, 32],
        "moments": [750, 1500, 3000],
    },
    # As many examples pass through the network as in 3000 batches of 32.
    "equal_cost": {"statistics": ["whole training set"], "batch_size": [32], "moments": [71]},
    "changes": {
        "kind": list(experiments.INPUTS),
        "normalization": ["none", "batch"],
        "steps": 1000,
    },
}
REDUCED = {
    "learning_rates": [0.03, 0.1, 0.3],
    "seeds": [0],
    "fresh_seeds": [1, 2],
    "statistics": {
        "statistics": list(experiments.STATISTICS),
        "batch_size": [32],
        "moments": [20, 40],
    },
    "equal_cost": {"statistics": ["whole training set"], "batch_size": [32], "moments": [5]},
    "changes": {"kind": ["digits", "skewed"], "normalization": ["none", "batch"], "steps": 40},
}
PAPER = {
    **CONFIGURATION,
    "data": "mnist",
    "widths": [784, 100, 100, 10],
    "equal_cost": {"statistics": ["whole training set"], "batch_size": [32], "moments": [2]},
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Accuracy of networks trained with other statistics, and of networks whose inputs change.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; grids go on beyond an end at which an arm is best.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "statistics", "equal_cost" and "changes", each a dict of "tuning" and "fresh", as from
        ``studies.at_best_rates``; the first two of ``experiments.trained_with``, the third of
        ``experiments.under_changes``.
    """
    c = configuration
    rates = c["learning_rates"], c["seeds"], c["fresh_seeds"]
    found = {}
    for name in ("statistics", "equal_cost"):
        arms, moments = dict(c[name]), c[name]["moments"]
        del arms["moments"]
        one = partial(
            experiments.trained_with,
            moments=moments,
            widths=tuple(c.get("widths", experiments.WIDTHS)),
            source=c.get("data", "digits"),
            cache=cache,
        )
        pair = studies.at_best_rates(
            one,
            arms,
            *rates,
            "last",
            smaller=False,
            axes={"kept": ("steps",), "exact": ("steps",)},
            store=store and Path(store) / f"{name}-{max(moments)}",
        )
        found[name] = {key: some.assign_coords(steps=moments) for key, some in pair.items()}
    arms = {name: c["changes"][name] for name in ("kind", "normalization")}
    steps = c["changes"]["steps"]
    pair = studies.at_best_rates(
        partial(experiments.under_changes, steps=steps),
        arms,
        *rates,
        "accuracy",
        smaller=False,
        axes={"lost": ("change",), "moved": ("change",)},
        store=store and Path(store) / f"changes-{steps}",
    )
    found["changes"] = {
        key: some.assign_coords(change=list(experiments.CHANGES)) for key, some in pair.items()
    }
    return {
        name: {key: studies.rounded(some) for key, some in pair.items()}
        for name, pair in found.items()
    }
