"""The recorded runs of the chapter on placement and tuning.

``make full CHAPTER=practice/placement`` writes recorded.json again; if it is interrupted, it goes on
where it was. The part on placement takes half an hour on one core. ``python -m
bncore.chapters.full practice/placement --placement`` repeats one of PARTS and keeps the rest.
"""

from pathlib import Path

from bncore.chapters.practice.placement import experiments, tuning
from bncore.lab import recorded

CONFIGURATION = {
    "placement": {
        "architectures": {
            "two layers": 1000,
            "eight layers": 2000,
            "convolution": 4000,
            "recurrent": 4000,
        },
        "doublings": {"two layers": 1, "eight layers": 1, "convolution": 0, "recurrent": 0},
        "activations": ["sigmoid", "relu"],
        "placements": list(experiments.PLACEMENTS),
        "recurrences": list(experiments.RECURRENCES),
        "learning_rates": [0.03, 0.1, 0.3, 1.0, 3.0],
        "seeds": [20, 21, 22],
        "fresh_seeds": list(range(23, 39)),
    },
    "rates": {
        "grid": {
            "activation": ["identity", "relu", "sigmoid"],
            "placement": ["none", "after"],
            "learning_rate": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
        },
        "seeds": list(range(10)),
    },
    "tuning": tuning.CONFIGURATION,
}
REDUCED = {
    "placement": {
        "architectures": {"two layers": 20, "recurrent": 10},
        "doublings": {"two layers": 0, "recurrent": 0},
        "activations": ["relu"],
        "placements": ["none", "after"],
        "recurrences": ["input", "before"],
        "learning_rates": [0.1, 0.3, 1.0],
        "seeds": [0],
        "fresh_seeds": [1, 2],
    },
    "rates": {
        "grid": {
            "activation": ["relu"],
            "placement": ["after"],
            "learning_rate": [0.003, 0.01, 0.03],
        },
        "seeds": [0, 1],
    },
    "tuning": tuning.REDUCED,
}
PATH = Path(__file__).with_name("recorded.json")
PARTS = {"placement": experiments.study, "rates": experiments.early_losses, "tuning": tuning.study}


def run(configuration: dict, store=None) -> dict:
    """Every part of the configuration, by name, as its function in PARTS returns it.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; grids of rates go on beyond an end at which an arm is best.
    store : path, optional
        Folder in which finished runs are kept.
    """
    return {name: PARTS[name](part, store) for name, part in configuration.items()}


OTHERS = recorded.repeats(PATH, PARTS, CONFIGURATION, REDUCED)
