"""Networks on the digits at every learning rate: with and without batch norm, or split by weight norm."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import weight_norm

from bncore.chapters.explanations.scale_invariance import experiments
from bncore.lab import data, probes, training

WIDTHS = (64, 64, 64, 10)
LEVELS = (0.1, 0.01)


class Arm(NamedTuple):
    """What is compared: a network, how its weights start, and what the learning rate is that of.

    Attributes
    ----------
    normalization : {None, "batch", "weight", "deviation"}
    gain : float or None
        Weights from N(0, gain² / fan_in); None for torch's own.
    rest : float or None
        Learning rate of all parameters but the weights of hidden layers; None for the same.
    from_data : bool
        Whether weights are scaled and biases shifted, before training, so that the first 64 images
        give each hidden unit mean 0 and variance 1. Salimans and Kingma (2016, section 3) start
        weight normalisation so.
    """

    normalization: str | None
    gain: float | None = experiments.GAIN
    rest: float | None = None
    from_data: bool = False


ARMS = {
    "batch norm": Arm("batch"),
    "no batch norm": Arm(None),
    "batch norm, hidden rate": Arm("batch", rest=0.1),
    "no batch norm, hidden rate": Arm(None, rest=0.1),
    "batch norm, torch's weights": Arm("batch", gain=None),
    "no batch norm, torch's weights": Arm(None, gain=None),
    "weight norm": Arm("weight"),
    "weight norm, normalised start": Arm("weight", from_data=True),
    "no batch norm, normalised start": Arm(None, from_data=True),
    "deviation only": Arm("deviation"),
}


class ByDeviation(torch.nn.Module):
    """Batch norm that subtracts no mean: gamma x / s + beta, with s the deviation of the batch.

    For weights w and inputs of mean 0 and second moment S it divides by the norm of w that S induces,
    in which Kohler et al. (2019) split length from direction.

    Parameters
    ----------
    features : int
    eps : float
    """

    def __init__(self, features, eps=1e-5):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(features))
        self.bias = torch.nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        return self.weight * x / torch.sqrt(x.var(0, correction=0) + self.eps) + self.bias


def task(source="digits", widths=WIDTHS, vgg=None, cache=None):
    """What makes the networks, and a function from a seed to data.

    Parameters
    ----------
    source : {"digits", "mnist", "cifar10"}
    widths : sequence of int
        Of fully connected networks; the first is the number of pixels.
    vgg : dict, optional
        The shape of a VGG instead.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    """
    if vgg is not None:
        return experiments.vgg(source, **vgg), lambda seed: data.standard_images(source, cache)
    pixels = data.rows(source, cache=cache).x_train.shape[1]
    if widths[0] != pixels:
        raise ValueError(
            f"widths[0] is {widths[0]}, expected {pixels}, the pixels of an image of the data set"
        )
    return experiments.perceptron(widths), lambda seed: data.rows(source, seed, cache)


def trained(
    arm: str,
    learning_rate: float,
    seed: int,
    *,
    moments: Sequence[int],
    every: int,
    batch: int = 64,
    examples: int | None = None,
    device: str = "cpu",
    **of,
) -> dict:
    """Training loss and test accuracy after training at one learning rate.

    Parameters
    ----------
    arm : str
        One of ``ARMS``.
    learning_rate : float
        A rate of 0 of the hidden layers' weights leaves them as they start.
    seed : int
        Of the split, the network and the batches.
    moments : sequence of int
        Ascending numbers of steps, multiples of ``every``.
    every : int
        Steps between two measurements.
    batch : int
        Images a step.
    examples : int, optional
        Of the first training images whose loss is measured; by default all.
    device : str
    of
        As for ``task``.

    Returns
    -------
    dict
        ``loss``, over these training images in one batch, with its statistics, in nats, infinite once
        training has diverged, and ``accuracy`` on the test images, with running statistics: one for
        each moment. ``to 0.1`` and ``to 0.01``: the steps to that loss, NaN if it is not reached.
    """
    make, split_of = task(**of)
    split = experiments.moved(split_of(seed), device)
    model = network(ARMS[arm], make, seed, split.x_train[:64].cpu())

    def measured(model, split):
        with probes.evaluation(model, "batch"):
            loss = cross_entropy(model(split.x_train[:examples]), split.y_train[:examples]).item()
        return np.array([loss if loss < np.inf else np.inf, probes.test_accuracy(model, split)])

    def optimizer(parameters, lr):
        hidden, others = hidden_weights(model)
        rest = learning_rate if ARMS[arm].rest is None else ARMS[arm].rest
        return torch.optim.SGD(
            [{"params": hidden, "lr": learning_rate}, {"params": others, "lr": rest}]
        )

    history = training.train(
        model,
        split,
        max(moments),
        batch,
        learning_rate or 1.0,
        seed,
        {"found": measured},
        every=every,
        optimizer=optimizer,
        device=device,
    )
    losses, accuracies = history.records["found"].T
    at = np.searchsorted(history.steps, moments)
    reached = {f"to {level:g}": history.steps[losses < level] for level in LEVELS}
    return {
        "loss": losses[at],
        "accuracy": accuracies[at],
        **{name: float(steps[0]) if len(steps) else np.nan for name, steps in reached.items()},
    }


def network(arm, make, seed, x):
    """The network of an arm; `x` are the images that a normalised start normalises."""
    if arm.normalization == "batch":
        return make("batch", seed, gain=arm.gain)
    if arm.normalization == "deviation":
        return make(ByDeviation, seed, gain=arm.gain)
    model = make(None, seed, gain=arm.gain)
    for name, layer in model.named_children():
        if not isinstance(layer, torch.nn.Linear) or name == "output":
            continue
        if arm.from_data:
            with torch.no_grad():
                values = x @ layer.weight.T
                deviation = values.std(0, correction=0)
                layer.weight /= deviation[:, None]
                layer.bias.copy_(-values.mean(0) / deviation)
                x = layer(x).relu()
        if arm.normalization == "weight":
            weight_norm(layer)
    return model


def grown(arm, learning_rate, seed):
    """Lengths of the hidden layers' weights and of their gradient, after one step over before it.

    The gradient is that of the loss on the training set of the digits, in one batch with its
    statistics.

    Returns
    -------
    dict
        ``weights`` and ``gradient``.
    """
    make, split_of = task()
    split = split_of(seed)
    model = network(ARMS[arm], make, seed, split.x_train[:64])
    hidden, others = hidden_weights(model)
    rest = learning_rate if ARMS[arm].rest is None else ARMS[arm].rest

    def lengths():
        with probes.evaluation(model, "batch"), torch.enable_grad():
            loss = cross_entropy(model(split.x_train), split.y_train)
            slopes = torch.autograd.grad(loss, hidden)
        return [torch.cat([p.detach().flatten() for p in ps]).norm() for ps in (hidden, slopes)]

    def optimizer(parameters, lr):
        return torch.optim.SGD([{"params": hidden, "lr": lr}, {"params": others, "lr": rest}])

    before = lengths()
    training.train(model, split, 1, 64, learning_rate, seed, optimizer=optimizer)
    ratios = [(a / b).item() for a, b in zip(lengths(), before, strict=True)]
    return dict(zip(("weights", "gradient"), ratios, strict=True))


def turned(optimizer, learning_rate, longer, seed, steps):
    """The angle by which training turns the hidden layers' weights of a network with batch norm.

    Parameters
    ----------
    optimizer : callable
        From parameters and a learning rate, such as ``torch.optim.Adam``.
    learning_rate : float
    longer : float
        By which the hidden weights are multiplied before; batch norm does not see it.
    seed, steps : int

    Returns
    -------
    float
        In radians, of all hidden weights as one vector.
    """
    make, split_of = task()
    model, split = make("batch", seed), split_of(seed)
    hidden, _ = hidden_weights(model)
    with torch.no_grad():
        for weight in hidden:
            weight *= longer

    def direction():
        whole = torch.cat([weight.detach().double().flatten() for weight in hidden])
        return whole / whole.norm()

    before = direction()
    training.train(model, split, steps, 64, learning_rate, seed, optimizer=optimizer)
    return 2 * torch.asin((direction() - before).norm() / 2).item()


def hidden_weights(model):
    """The weights of hidden layers, kernels among them, and all other parameters."""
    named = dict(model.named_parameters())
    hidden = [p for name, p in named.items() if p.ndim > 1 and not name.startswith("output")]
    chosen = {id(p) for p in hidden}
    return hidden, [p for p in named.values() if id(p) not in chosen]


def felt(learning_rate, seed, *, steps, at, batch=64, device="cpu", **of):
    """Effective rates of the hidden units of a network with batch norm, without weight decay.

    Parameters
    ----------
    learning_rate, seed, batch, device, of
        As for ``trained``, of the weights before batch norms; all other parameters have 0.1.
    steps : int
    at : sequence of int
        Numbers of steps.

    Returns
    -------
    dict
        ``felt``: the median over the units after each of these numbers of steps.
    """
    make, split_of = task(**of)
    run = experiments.decayed_on_digits(
        learning_rate, 0.0, seed, steps, batch=batch, make=make, split=split_of(seed), device=device
    )
    return {"felt": np.median(learning_rate / run.length**2, axis=1)[list(at)]}
