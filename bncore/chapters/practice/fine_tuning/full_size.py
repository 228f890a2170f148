"""The recorded runs of the chapter on fine-tuning.

``make full CHAPTER=practice/fine_tuning`` writes recorded.json again, in a quarter of an hour on one
core; if it is interrupted, it goes on where it was.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.practice.fine_tuning import averaging, experiments, padded
from bncore.lab import studies

MOVED = ["all", "statistics frozen", "batch norms only", "recalibrated first"]
CONFIGURATION = {
    "untrained": {"kind": list(experiments.CHANGES), "step": list(range(6))},
    "at_test_time": {
        "domain": ["unchanged", "faded"],
        "classes": [1, 2, 5, 10],
        "batch_size": [2, 4, 8, 16, 32, 64, 128],
    },
    "fine_tuned": {
        "faded": {
            "way": list(experiments.WAYS),
            "domain": ["faded"],
            "examples": [20, 200],
            "batch_size": [4, 20],
            "steps": 200,
        },
        "moved": {
            "way": MOVED,
            "domain": ["moved"],
            "examples": [200],
            "batch_size": [20],
            "steps": 800,
        },
        "moved, small batches": {
            "way": MOVED,
            "domain": ["moved"],
            "examples": [200],
            "batch_size": [4],
            "steps": 1200,
        },
    },
    "averaged": {"weights": ["last", "averaged"]},
    "averaged_steps": 1200,
    "padded": padded.CONFIGURATION,
    "learning_rates": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
    "seeds": [0, 1],
    "fresh_seeds": list(range(2, 10)),
}
REDUCED = {
    "untrained": {"kind": ["faded", "moved"], "step": [0, 4]},
    "at_test_time": {"domain": ["faded"], "classes": [1, 10], "batch_size": [4, 64]},
    "fine_tuned": {
        "faded": {
            "way": ["all", "statistics frozen"],
            "domain": ["faded"],
            "examples": [20],
            "batch_size": [4],
            "steps": 40,
        },
    },
    "averaged": {"weights": ["averaged"]},
    "averaged_steps": 100,
    "padded": padded.REDUCED,
    "learning_rates": [0.01, 0.03, 0.1],
    "seeds": [0],
    "fresh_seeds": [1, 2],
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, store=None) -> dict:
    """What becomes of a trained network on changed digits, and of averaged weights.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; grids of rates go on beyond an end at which an arm is best.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "untrained" and "at_test_time", each as from ``studies.study`` of the experiment of that name,
        over the fresh seeds; "averaged", a dict of "tuning" and "fresh" as from
        ``studies.at_best_rates``, by test loss; "fine_tuned", such a dict by accuracy for each part
        of the configuration; and "padded", as from ``padded.study``.
    """
    c = configuration
    rates = c["learning_rates"], c["seeds"], c["fresh_seeds"]
    alone = {
        name: studies.study(getattr(experiments, name), c[name], c["fresh_seeds"], store=store)
        for name in ("untrained", "at_test_time")
    }
    fine_tuned = {}
    for name, part in c["fine_tuned"].items():
        arms = {key: value for key, value in part.items() if key != "steps"}
        one = partial(experiments.fine_tuned, steps=part["steps"])
        fine_tuned[name] = studies.at_best_rates(
            one, arms, *rates, "accuracy", smaller=False, store=store
        )
    averages = studies.at_best_rates(
        partial(averaging.averaged, steps=c["averaged_steps"]),
        c["averaged"],
        *rates,
        "loss_recalibrated",
        smaller=True,
        store=store,
    )
    return {
        **{name: studies.rounded(found) for name, found in alone.items()},
        "fine_tuned": {name: _rounded(pair) for name, pair in fine_tuned.items()},
        "averaged": _rounded(averages),
        "padded": padded.study(c["padded"], store),
    }


def _rounded(pair):
    return {key: studies.rounded(found) for key, found in pair.items()}
