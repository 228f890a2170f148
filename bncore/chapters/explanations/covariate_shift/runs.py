"""One run of each of the chapter's studies, from a case to numbers by name."""

from functools import partial

import numpy as np

from bncore.chapters.explanations.covariate_shift import experiments, measures, readings
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import data, networks, training

# Axes of what the runs return, as in ``studies.study``.
AXES = {
    "losses": ("window",),
    "relative": ("record", "compared", "layer"),
    "cosine": ("record", "compared", "layer"),
    "other": ("record", "layer"),
    "drift": ("record", "activation"),
    "accuracies": ("statistics",),
    "percentiles": ("moment", "activation", "quantile"),
}
FOLLOWED = (1, 4, 7)  # Activations whose percentiles are kept.
EVERY = {"vgg": 1, "linear": 3}  # Layers that are kept, counted from the first.


def task_of(configuration, network, cache=None):
    """The ``Task`` of one network of a configuration of ``full_size``."""
    options, device = configuration[network], configuration["device"]
    if network == "linear":
        sizes = {key: options[key] for key in ("depth", "examples")}
        return experiments.linear(options["width"], options["steps"], **sizes, device=device)
    return experiments.vgg(
        *(options[key] for key in ("width", "size", "steps", "batch_size")),
        source=options["data"],
        depth=options["depth"],
        cache=cache,
        device=device,
    )


def loss_run(kind, learning_rate, seed, *, configuration, network, cache=None):
    """Mean losses over windows of twice "every" steps, and the mean of the last two windows."""
    task = task_of(configuration, network, cache)
    losses = experiments.train(task, kind, learning_rate, seed)[2].losses
    losses = readings.smoothed(losses, 2 * configuration["every"])
    return {"losses": losses, "end": losses[-2:].mean()}


def shift_run(kind, learning_rate, seed, *, configuration, network, cache=None):
    """Losses, shifts and, of the VGG, drifts and accuracies of one run of training."""
    options = configuration[network]
    found = measures.measure(
        task_of(configuration, network, cache),
        kind,
        learning_rate,
        seed,
        options["records"],
        options["one_rate"],
        configuration["move"],
        drift=network == "vgg",
    )
    kept = {
        "losses": readings.smoothed(found.losses, configuration["every"]),
        "relative": found.relative[..., :: EVERY[network]],
        "cosine": found.cosine[..., :: EVERY[network]],
    }
    if network == "vgg":
        kept |= {
            "other": found.other_batch,
            "drift": found.drift,
            "accuracies": np.array(found.accuracies),
        }
    return kept


def noise_run(strength, seed, *, learning_rate, configuration, cache=None):
    """Losses and drift at one record of the VGG with stronger noise."""
    found = measures.measure(
        task_of(configuration, "vgg", cache),
        experiments.noisier(strength),
        learning_rate,
        seed,
        [configuration["noise"]["record"]],
        configuration["vgg"]["one_rate"],
        configuration["move"],
    )
    losses = readings.smoothed(found.losses, configuration["every"])
    return {"losses": losses, "drift": found.drift[0]}


def percentile_run(kind, learning_rate, seed, *, configuration, cache=None):
    """Percentiles of the inputs of units of three layers of the VGG, after each twice "every" steps."""
    task = task_of(configuration, "vgg", cache)
    found = measures.percentiles(task, kind, learning_rate, seed, 2 * configuration["every"])
    return {"percentiles": found[:, FOLLOWED]}


def moved_run(strength, gain, learning_rate, seed, *, steps):
    """Train a perceptron on the digits while whole distributions move, without noise of single values.

    Parameters
    ----------
    strength : float
        How many times the usual shift and stretch follow each batch norm; 0 for none.
    gain : float
        Of the initial weights, over that of He et al. for ReLU.
    learning_rate : float
    seed : int
    steps : int

    Returns
    -------
    dict
        "loss": the mean training loss of the last ten steps.
    """
    moving = partial(NoisyBatchNorm, shift=0.5 * strength, stretch=1 + 0.25 * strength, jitter=0.0)
    model = networks.mlp([64, 32, 32, 32, 32, 10], "relu", moving, gain=gain * 2**0.5, seed=seed)
    history = training.train(model, data.digits(seed), steps, 64, learning_rate, seed)
    return {"loss": history.losses[-10:].mean()}
