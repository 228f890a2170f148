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
    "steps": ("level",),
    "distance": ("record",),
    "percentiles": ("moment", "activation", "quantile"),
}
FOLLOWED = (1, 4, 7)  # Activations whose percentiles are kept.
LEVELS = (0.5, 0.1)  # Losses to which steps are counted.
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


def distance_run(kind, learning_rate, seed, *, configuration, cache=None):
    """Kolmogorov's distance of one step of the VGG, at each record, median over activations."""
    task, records = task_of(configuration, "vgg", cache), configuration["vgg"]["records"]
    taken, found = iter(range(task.steps + 1)), []

    def probe(model, split):
        if next(taken) in records:
            found.append(np.median(measures.distance_of_step(model, split, learning_rate)))
        return 0.0

    experiments.train(task, kind, learning_rate, seed, {"all": probe}, every=1)
    return {"distance": np.array(found)}


def returned_run(times, learning_rate, seed, *, drift, configuration, cache=None):
    """Train the VGG with batch norm, its means moved again as they move without it, layer by layer.

    Parameters
    ----------
    times : float
        How many times as far.
    learning_rate : float
    seed : int
    drift : sequence of shape (records, activations)
        How far one step moves the mean of an activation's inputs without batch norm, in deviations.
    configuration, cache
        As for the other runs.

    Returns
    -------
    dict
        "steps" to the losses ``LEVELS``; "end", the mean loss of the last four windows; "accuracies".
    """
    task = task_of(configuration, "vgg", cache)
    sizes = readings.between(configuration["vgg"]["records"], drift, task.steps)
    taken = iter(range(task.steps + 1))

    def move(model, split):
        norms = [part for part in model.modules() if isinstance(part, NoisyBatchNorm)]
        for norm, size in zip(norms, sizes[next(taken)], strict=True):
            # Two draws from U(-s, s) are 2s/3 apart on average.
            norm.shift = 1.5 * times * size
        return 0.0

    moved = partial(NoisyBatchNorm, shift=0.0, stretch=1.0, jitter=0.0)
    model, split, history = experiments.train(
        task, moved, learning_rate, seed, {"moved": move}, every=1
    )
    losses = readings.smoothed(history.losses, configuration["every"])
    return {
        "steps": np.array(
            [readings.steps_to(losses, one, configuration["every"]) for one in LEVELS]
        ),
        "end": losses[-4:].mean(),
        "accuracies": np.array(measures.accuracies(model, split)),
    }


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
