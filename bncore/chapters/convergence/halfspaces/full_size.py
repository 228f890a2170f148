"""The recorded runs of the halfspaces chapter: GDNP beside its yardsticks, each at its own best step.

``make full CHAPTER=convergence/halfspaces`` writes recorded.json again, in some fifteen minutes on
one core; if it is interrupted, it goes on where it was. ``--paper`` adds an accuracy of a millionth.
"""

from pathlib import Path

from bncore.chapters.convergence.halfspaces import acceleration
from bncore.lab import studies

WITHOUT_BREAST_CANCER = ["digits", "diabetes", "iris", "skewed", "Gaussian"]
CONFIGURATION = {
    "methods": list(acceleration.METHODS),
    "losses": list(acceleration.LOSSES),
    "data": {
        "0.01": ["breast cancer", *WITHOUT_BREAST_CANCER],
        "0.0001": WITHOUT_BREAST_CANCER,
    },
    "steps": [0.5, 0.707, 1.0, 1.41, 2.0],
    "seeds": [0, 1, 2],
    "fresh_seeds": list(range(3, 13)),
}
REDUCED = {
    "methods": ["GDNP", "gradient descent"],
    "losses": ["softplus"],
    "data": {"0.01": ["iris", "skewed"]},
    "steps": [1.0, 1.41, 2.0],
    "seeds": [0, 1],
    "fresh_seeds": [2, 3],
}
PAPER = {
    **CONFIGURATION,
    "data": {**CONFIGURATION["data"], "0.000001": ["diabetes", "iris", "skewed", "Gaussian"]},
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Iterations of each method at each step, and at its best step on fresh seeds.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``, with the data sets by accuracy; grids of steps go on beyond an end at
        which a method is best.
    cache : path, optional
        Not used: nothing is downloaded.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        By accuracy "tuning" and "fresh": iterations and seconds by method, data, loss, step and seed.
    """
    c = configuration
    return {
        accuracy: {
            name: studies.rounded(found)
            for name, found in studies.at_best_rates(
                acceleration.run,
                {
                    "method": c["methods"],
                    "data": data,
                    "loss": c["losses"],
                    "accuracy": [float(accuracy)],
                },
                c["steps"],
                c["seeds"],
                c["fresh_seeds"],
                "iterations",
                smaller=True,
                over="step",
                # On breast cancer descent arrives far beyond the guaranteed step only.
                extensions=20,
                store=store,
            ).items()
        }
        for accuracy, data in c["data"].items()
    }
