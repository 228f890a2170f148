"""The recorded runs of the chapter on fine-tuning, part by part.

``make full CHAPTER=practice/fine_tuning`` writes recorded.json again, in a quarter of an hour on one
core; if it is interrupted, it goes on where it was. ``ARGS=--moved`` repeats one of PARTS.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.practice.fine_tuning import averaging, experiments, padded
from bncore.lab import recorded, studies, together

RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
SEEDS = {"seeds": [0, 1], "fresh_seeds": list(range(2, 10))}
MOVED = {
    "way": ["all", "statistics frozen", "batch norms only", "recalibrated first"],
    "domain": ["moved"],
    "examples": [200],
    "learning_rates": RATES,
}
CONFIGURATION = {
    "untrained": {
        "kind": list(experiments.CHANGES),
        "step": list(range(6)),
        "seeds": list(range(2, 10)),
    },
    "at_test_time": {
        "domain": ["unchanged", "faded"],
        "classes": [1, 2, 5, 10],
        "batch_size": [2, 4, 8, 16, 32, 64, 128],
        "seeds": list(range(2, 10)),
    },
    "faded": {
        "way": list(experiments.WAYS),
        "domain": ["faded"],
        "examples": [20, 200],
        "batch_size": [4, 20],
        "steps": 200,
        "learning_rates": RATES,
        **SEEDS,
    },
    "moved": {
        **MOVED,
        "batch_size": [20],
        "steps": 1600,
        "seeds": [10, 11, 12],
        "fresh_seeds": list(range(13, 23)),
    },
    "small": {**MOVED, "batch_size": [4], "steps": 1200, **SEEDS},
    "averaged": {
        "weights": ["last", "averaged"],
        "steps": 1200,
        "learning_rates": RATES,
        **SEEDS,
    },
    "padded": padded.CONFIGURATION,
}
REDUCED = {
    "untrained": {"kind": ["faded", "moved"], "step": [0, 4], "seeds": [1, 2]},
    "at_test_time": {
        "domain": ["faded"],
        "classes": [1, 10],
        "batch_size": [4, 64],
        "seeds": [1, 2],
    },
    "faded": {
        "way": ["all", "statistics frozen"],
        "domain": ["faded"],
        "examples": [20],
        "batch_size": [4],
        "steps": 20,
        "source_steps": 40,
        "learning_rates": [0.01, 0.03, 0.1],
        "seeds": [0],
        "fresh_seeds": [1, 2],
    },
    "averaged": {
        "weights": ["averaged"],
        "steps": 100,
        "learning_rates": [0.01, 0.03, 0.1],
        "seeds": [0],
        "fresh_seeds": [1, 2],
    },
    "padded": padded.REDUCED,
}
PATH = Path(__file__).with_name("recorded.json")


def _measured(name):
    """A part that trains nothing."""

    def part(configuration, store=None):
        grid = {key: value for key, value in configuration.items() if key != "seeds"}
        of = getattr(experiments, name)
        return studies.rounded(studies.study(of, grid, configuration["seeds"], store=store))

    return part


def _tuned(study, one, score, smaller):
    """A part whose arms are compared at their best rates; numbers of steps are handed to ``one``."""

    def part(configuration, store=None):
        c = dict(configuration)
        rates = [c.pop(name) for name in ("learning_rates", "seeds", "fresh_seeds")]
        steps = {name: c.pop(name) for name in ("steps", "source_steps") if name in c}
        run = partial(one, **steps)
        pair = study(run, c, *rates, score, smaller=smaller, store=store)
        return {key: studies.rounded(found) for key, found in pair.items()}

    return part


_trained = _tuned(together.at_best_rates, experiments.fine_tuned, "accuracy", smaller=False)
PARTS = {
    "untrained": _measured("untrained"),
    "at_test_time": _measured("at_test_time"),
    "faded": _trained,
    "moved": _trained,
    "small": _trained,
    "averaged": _tuned(
        studies.at_best_rates, averaging.averaged, "loss_recalibrated", smaller=True
    ),
    "padded": padded.study,
}
OTHERS = recorded.repeats(PATH, PARTS, CONFIGURATION, REDUCED)


def run(configuration: dict, store=None) -> dict:
    """What becomes of a trained network on changed digits, of averaged weights, and of padding.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``, with any of PARTS; grids of rates go on beyond an end at which an arm is
        best.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "untrained" and "at_test_time", each as from ``studies.study`` of the experiment of that name;
        "averaged", a dict of "tuning" and "fresh" as from ``studies.at_best_rates``, by test loss;
        "faded", "moved" and "small" (moved digits in small batches), such dicts by accuracy; and
        "padded", as from ``padded.study``.
    """
    return {name: PARTS[name](part, store) for name, part in configuration.items()}
