"""The recorded runs of the page "Batch norm in ten minutes".

``make full CHAPTER=front/start`` writes recorded.json again, in some ten minutes on one core; if it is
interrupted, it goes on where it was.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.front.start import experiments
from bncore.lab import studies

CONFIGURATION = {
    "norm": ["none", "batch"],
    "learning_rates": [0.03, 0.1, 0.3, 1.0, 3.0],
    "seeds": [0, 1, 2],
    "fresh_seeds": list(range(10, 20)),
    "epochs": 60,
    "epochs_of_mistakes": 15,
    "slow_epochs": 2,
}
REDUCED = {
    **CONFIGURATION,
    "learning_rates": [0.1, 0.3, 1.0],
    "seeds": [0],
    "fresh_seeds": [10, 11],
    "epochs": 2,
    "epochs_of_mistakes": 1,
    "slow_epochs": 1,
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, store=None) -> dict:
    """Each arm at its best rate, and the mistakes at that of batch norm, on fresh seeds.

    Returns
    -------
    dict
        "tuning" and "fresh": ``experiments.arrival`` by norm, rate and seed; the second at the rate
        that arrives in the fewest steps. "mistakes": ``experiments.mistakes`` by seed.
    """
    c = configuration
    found = studies.at_best_rates(
        partial(experiments.arrival, epochs=c["epochs"]),
        {"norm": c["norm"]},
        c["learning_rates"],
        c["seeds"],
        c["fresh_seeds"],
        "steps",
        smaller=True,
        axes={"loss": ["epoch"]},
        store=store,
    )
    rate = found["fresh"].learning_rate.sel(norm="batch").item()
    misused = studies.study(
        partial(
            experiments.mistakes,
            epochs=c["epochs_of_mistakes"],
            slow_epochs=c["slow_epochs"],
        ),
        {"learning_rate": [rate]},
        c["fresh_seeds"],
        store=store,
    )
    return {
        **{name: studies.rounded(one) for name, one in found.items()},
        "mistakes": studies.rounded(misused.squeeze("learning_rate", drop=True)),
    }
