"""The recorded runs of the inference chapter: other statistics in training, and changed inputs.

``make full CHAPTER=mechanics/inference`` writes recorded.json again, in a quarter of an hour on one
core; if it is interrupted, it goes on where it was. ``python -m bncore.chapters.full
mechanics/inference --use`` repeats the part on networks in use and keeps the rest. With ``--paper``
the same code trains on MNIST instead, and writes paper.json. It needs the internet once, to download MNIST. It has not been run
here: no chapter, figure or claim rests on it.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.mechanics.inference import experiments
from bncore.lab import recorded, studies

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
    "use": {
        "learning_rates": [0.03, 0.1, 0.3],
        "mismatch": {
            "arms": {"normalization": ["batch", "renorm"], "batch_size": [2, 8, 32]},
            "steps": 600,
        },
        "alone": {"arms": {"kind": ["fully connected", "convolutional"]}, "steps": 600},
        "in_company": {
            "arms": {"kind": ["digits"]},
            "steps": 1000,
            "sizes": [2, 8, 32, 128, 449],
        },
        "seeds": [0, 1],
        "fresh_seeds": {
            "mismatch": list(range(2, 10)),
            "alone": list(range(2, 14)),
            "in_company": list(range(2, 32)),
        },
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
    "use": {
        "learning_rates": [0.1, 0.3, 1.0],
        "mismatch": {"arms": {"normalization": ["renorm"], "batch_size": [8]}, "steps": 40},
        "alone": {"arms": {"kind": ["fully connected"]}, "steps": 40},
        "in_company": {"arms": {"kind": ["digits"]}, "steps": 40, "sizes": [8, 32]},
        "seeds": [0],
        "fresh_seeds": {"mismatch": [1, 2], "alone": [1, 2], "in_company": [1, 2]},
    },
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
        ``experiments.under_changes``; and "use", as from ``use``.
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
        found[name] = studies.at_best_rates(
            one,
            arms,
            *rates,
            "last",
            smaller=False,
            axes={key: {"steps": moments} for key in ("kept", "exact")},
            store=store,
        )
    arms = {name: c["changes"][name] for name in ("kind", "normalization")}
    found["changes"] = studies.at_best_rates(
        partial(experiments.under_changes, steps=c["changes"]["steps"]),
        arms,
        *rates,
        "accuracy",
        smaller=False,
        axes={key: {"change": list(experiments.CHANGES)} for key in ("lost", "moved")},
        store=store,
    )
    rounded = {
        name: {key: studies.rounded(some) for key, some in pair.items()}
        for name, pair in found.items()
    }
    return {**rounded, "use": use(c["use"], store)}


def use(c, store=None):
    """Networks in use: "mismatch", "alone" and "in_company", each of the experiment of that name.

    Each a dict of "tuning" and "fresh", as from ``studies.at_best_rates``.
    """
    found = {}
    for name in ("mismatch", "alone", "in_company"):
        fixed = dict(c[name])
        arms, sizes = fixed.pop("arms"), fixed.get("sizes")
        along = {"contrast": [1.0, 0.3], "batch_size": sizes}
        pair = studies.at_best_rates(
            partial(getattr(experiments, name), **fixed),
            arms,
            c["learning_rates"],
            c["seeds"],
            c["fresh_seeds"][name],
            "kept" if name == "alone" else "accuracy",
            smaller=False,
            axes={"gain": along} if sizes else None,
            store=store,
        )
        found[name] = {key: studies.rounded(some) for key, some in pair.items()}
    return found


OTHERS = recorded.repeats(PATH, {"use": use}, CONFIGURATION, REDUCED)
