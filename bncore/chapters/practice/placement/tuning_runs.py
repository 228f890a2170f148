"""What the page on tuning trains: each run makes its networks for all rates and seeds at once."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from bncore.chapters.practice.placement import horizon
from bncore.explanations import variance_shift
from bncore.lab import data, probes, together
from bncore.lab.layers import Layers, seeded

WIDTHS = (64, 32, 32, 10)
DEEP = (64, 32, 32, 32, 32, 32, 32, 10)
HE = 2**0.5
BATCH = 32
MOMENTA = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0)
LAYERS = {
    "none": (),
    "first": (1,),
    "last": (6,),
    "every other": (1, 3, 5),
    "all": (1, 2, 3, 4, 5, 6),
    "all and the output": (1, 2, 3, 4, 5, 6, 7),
}
PREPARED = {
    "raw": ("raw", ()),
    "raw, hidden layers": ("raw", (1, 2)),
    "raw, inputs": ("raw", (0,)),
    "raw, inputs and hidden layers": ("raw", (0, 1, 2)),
    "standardised": ("standardised", ()),
    "standardised, hidden layers": ("standardised", (1, 2)),
}
PLACES = ("before batch norm", "after the activation", "after the last one")
DECAYED = {
    "all": lambda name: True,
    "weights": lambda name: not name.startswith("norm"),
    "γ and β": lambda name: name.startswith("norm"),
}


class ManyMomenta(nn.BatchNorm1d):
    """Batch norm that keeps running statistics for each of MOMENTA: they do not touch its training."""

    def __init__(self, features: int):
        super().__init__(features)
        shape = len(MOMENTA), features
        self.register_buffer("means", torch.zeros(shape))
        self.register_buffer("variances", torch.ones(shape))
        self.register_buffer("momenta", torch.tensor(MOMENTA)[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                for kept, new in ((self.means, x.mean(0)), (self.variances, x.var(0))):
                    kept.mul_(1 - self.momenta).add_(self.momenta * new)
        return super().forward(x)

    def use(self, i: int) -> None:
        """Let evaluation use the statistics of the momentum of that number."""
        self.running_mean.copy_(self.means[i])
        self.running_var.copy_(self.variances[i])


def network(
    widths, normalised, seed, *, activation="relu", gain=HE, eps=1e-5, norm="batch", drop=()
) -> nn.Sequential:
    """A perceptron with batch norm in some of its layers, from weights that do not depend on which.

    Parameters
    ----------
    widths : sequence of int
    normalised : collection of int
        The layers, from 1, between whose linear map and activation batch norm stands; 0 is one of the
        inputs, the last layer's stands behind the output.
    seed : int
    activation, gain, eps, norm
        As in ``Layers``; ``norm`` is its normalisation.
    drop : tuple (str, float), optional
        One of PLACES, and the probability with which a value is dropped there.
    """
    plain = Layers(activation, None, gain, seed)
    normal = Layers(activation, norm, gain, seed, eps=eps)
    last = len(widths) - 1
    place, rate = drop or ("", 0.0)
    layers = OrderedDict()
    with seeded(seed):
        if 0 in normalised:
            layers["norm0"] = normal.norm(widths[0])
        for i, (inputs, units) in enumerate(pairwise(widths), start=1):
            both = [
                make.linear(inputs, units, bias) for make, bias in ((plain, True), (normal, False))
            ]
            name = f"linear{i}" if i < last else "output"
            layers[name] = both[i in normalised]
            if rate and place == PLACES[0] and i < last:
                layers[f"before{i}"] = nn.Dropout(rate)
            if i in normalised:
                layers[f"norm{i}"] = normal.norm(units)
            if i < last:
                layers[f"activation{i}"] = plain.activation()
            here = {PLACES[1]: i < last, PLACES[2]: i == last - 1}.get(place, False)
            if rate and here:
                layers[f"dropout{i}"] = nn.Dropout(rate)
    return nn.Sequential(layers)


def digits(seed: int) -> data.Split:
    """The digits, half to learn from and half to test on."""
    return data.digits(seed, 0.5)


def trained(
    make, rates, seeds, steps, *, split=digits, batch_size=BATCH, record=None, moments=(), **options
):
    """Networks, one for each rate and seed, their splits and what was recorded on the way."""
    splits = {seed: split(seed) for seed in set(seeds)}
    splits = [splits[seed] for seed in seeds]
    models = [make(seed) for seed in seeds]
    found = together.train(
        models, splits, steps, batch_size,
        learning_rate=rates, seeds=seeds, record=record, moments=moments, **options,
    )  # fmt: skip
    return models, splits, found


def accuracies(make, rates, seeds, steps, **options):
    """The same, recorded test "accuracy" at the end and "half" of the way there: ``horizon.settled``."""
    models, splits, found = trained(
        make, rates, seeds, steps, record={"accuracy": probes.test_accuracy},
        moments=horizon.moments(steps), **options,
    )  # fmt: skip
    return models, splits, horizon.settled(found["accuracy"], steps)


def by_layers(where, rates, seeds, *, steps):
    """Six hidden layers of 32 ReLU units, batch norm in some of LAYERS."""
    return accuracies(lambda seed: network(DEEP, LAYERS[where], seed), rates, seeds, steps)[2]


def by_momentum(batch_size, rates, seeds, *, moments):
    """Test accuracies after some numbers of steps, with the running statistics of each of MOMENTA."""

    def measured(model, split):
        values = []
        for i in range(len(MOMENTA)):
            for module in model.modules():
                if isinstance(module, ManyMomenta):
                    module.use(i)
            values.append(probes.test_accuracy(model, split))
        return np.array(values)

    _, _, found = trained(
        lambda seed: network(WIDTHS, (1, 2), seed, norm=ManyMomenta), rates, seeds, max(moments),
        batch_size=batch_size, record={"accuracy": measured}, moments=moments,
    )  # fmt: skip
    return found


def paths(batch_size, rates, seeds, *, steps):
    """Where the means of both layers' sums go in training, and where running means are at its end.

    Returns
    -------
    dict
        By "layer" and "feature": "exact" means over the training set before each step and after the
        last; "deviations" over the training set at the end; "kept" running means by momentum.
    """
    norms = ["norm1", "norm2"]

    def sums(model, split):
        return list(probes.inputs_of(model, norms, split.x_train, "batch").values())

    def exact(model, split):
        return np.array([one.mean(0) for one in sums(model, split)])

    models, splits, found = trained(
        lambda seed: network(WIDTHS, (1, 2), seed, norm=ManyMomenta), rates, seeds, steps,
        batch_size=batch_size, record={"exact": exact}, moments=tuple(range(steps + 1)),
    )  # fmt: skip
    last = [sums(*one) for one in zip(models, splits, strict=True)]
    kept = [[model.get_submodule(name).means.numpy() for name in norms] for model in models]
    return {
        "exact": found["exact"],
        "deviations": np.array([[one.std(0) for one in both] for both in last]),
        "kept": np.array(kept),
    }


def by_epsilon(inputs, eps, rates, seeds, *, steps):
    """Batch norm of so large an ε in the hidden layers, and of the inputs too ("yes") or not ("no").

    Returns
    -------
    dict
        "accuracy" and "half"; "start" and "end", the median variance of the second layer's sums over
        the training set before and after training; "largest" normalised input or, without batch norm
        of the inputs, sum of the test set.
    """
    normalised = (0, 1, 2) if inputs == "yes" else (1, 2)

    def make(seed):
        return network(WIDTHS, normalised, seed, eps=eps)

    def variance(model, split):
        return float(
            np.median(probes.inputs_of(model, ["norm2"], split.x_train, "batch")["norm2"].var(0))
        )

    def largest(model, split):
        following = "linear1" if inputs == "yes" else "activation1"
        return float(np.abs(probes.inputs_of(model, [following], split.x_test)[following]).max())

    untrained = [variance(make(seed), digits(seed)) for seed in seeds]
    models, splits, found = accuracies(make, rates, seeds, steps)
    pairs = list(zip(models, splits, strict=True))
    return {
        **found,
        "start": np.array(untrained),
        "end": np.array([variance(*one) for one in pairs]),
        "largest": np.array([largest(*one) for one in pairs]),
    }


def by_start(normalization, gain, rates, seeds, *, steps):
    """Two hidden layers of ReLU from weights of this gain, with batch norm or without ("none")."""
    normalised = (1, 2) if normalization == "batch" else ()
    return accuracies(
        lambda seed: network(WIDTHS, normalised, seed, gain=gain), rates, seeds, steps
    )[2]


def table(name: str, prepared: str, seed: int) -> data.Split:
    """A table of columns of unlike scale, half to learn from, as it is or each column standardised.

    "cancer" is scikit-learn's breast cancer: 30 columns with deviations from 0.003 to 570. "pixels" are
    the digits with each pixel multiplied by a number from 0.01 to 100 and moved by 3 of its ranges.
    """
    if name == "cancer":
        x, y = load_breast_cancer(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(x))
        test = len(x) // 2
        x, y = torch.tensor(x[order]), torch.tensor(y[order])
        split = data.Split(x[test:], y[test:], x[:test], y[:test])
    else:
        scale = torch.tensor(10 ** np.random.default_rng(seed).uniform(-2, 2, size=64))
        split = digits(seed)
        x_train, x_test = (scale * (x.double() + 3) for x in (split.x_train, split.x_test))
        split = split._replace(x_train=x_train, x_test=x_test)
    if prepared == "standardised":
        mean, deviation = split.x_train.mean(0), split.x_train.std(0)
        deviation[deviation < 1e-9 * mean.abs()] = 1.0
        x_train, x_test = ((x - mean) / deviation for x in (split.x_train, split.x_test))
        split = split._replace(x_train=x_train, x_test=x_test)
    return split._replace(x_train=split.x_train.float(), x_test=split.x_test.float())


def by_preparation(of, preparation, rates, seeds, *, steps):
    """Two hidden layers of ReLU on a ``table``, prepared and normalised as one of PREPARED says."""
    prepared, normalised = PREPARED[preparation]
    widths = (30, 32, 32, 2) if of == "cancer" else WIDTHS
    return accuracies(
        lambda seed: network(widths, normalised, seed), rates, seeds, steps,
        split=lambda seed: table(of, prepared, seed),
    )[2]  # fmt: skip


def by_dropout(place, drop, rates, seeds, *, steps):
    """Batch norm in both hidden layers, and dropout in one of PLACES.

    Returns
    -------
    dict
        "accuracy" and "half"; "measured", the variance that a batch norm meets at test time over the one
        that it keeps, and "predicted" from what comes before: geometric means over its units. It is the
        first batch norm behind a dropout that the data reach.
    """
    models, splits, found = accuracies(
        lambda seed: network(WIDTHS, (1, 2), seed, drop=(place, drop)), rates, seeds, steps
    )
    ratios = np.array([_ratios(*one, place, drop) for one in zip(models, splits, strict=True)])
    return {**found, "measured": ratios[:, 0], "predicted": ratios[:, 1]}


def _ratios(model, split, place, drop):
    """Variance at test time over the one that is kept, measured, and predicted."""
    if drop == 0 or place == PLACES[2]:
        return 1.0, 1.0
    if not all(bool(torch.isfinite(one).all()) for one in model.state_dict().values()):
        return np.nan, np.nan
    layer = 1 if place == PLACES[0] else 2
    names = f"linear{layer}", f"norm{layer}"
    seen = probes.inputs_of(model, names, split.x_train, "batch")
    inputs, sums = (seen[name].astype(float) for name in names)
    kept = model.get_submodule(f"norm{layer}").running_var.double().numpy()
    moves = sums.var(0) > 0
    if place == PLACES[0]:
        of_each = [variance_shift.direct(1 - drop, one.mean(), one.var()) for one in sums.T[moves]]
    else:
        moments = inputs.mean(0), np.cov(inputs.T)
        weights = model.get_submodule(names[0]).weight.detach().double().numpy()[moves]
        of_each = [variance_shift.behind_weights(1 - drop, weight, *moments) for weight in weights]
    measured = sums.var(0, ddof=1)[moves] / kept[moves]
    return tuple(float(np.exp(np.mean(np.log(one)))) for one in (measured, of_each))


def by_decay(decayed, decay, rates, seeds, *, steps):
    """Batch norm in both hidden layers, and weight decay on all parameters, or on some of DECAYED.

    Returns
    -------
    dict
        "accuracy" and "half"; "scale", the root mean square γ of either batch norm.
    """
    models, _, found = accuracies(
        lambda seed: network(WIDTHS, (1, 2), seed), rates, seeds, steps,
        weight_decay=[decay] * len(seeds), decayed=DECAYED[decayed],
    )  # fmt: skip
    scales = [
        [norm.weight.detach().square().mean().sqrt().item() for norm in (model.norm1, model.norm2)]
        for model in models
    ]
    return {**found, "scale": np.array(scales)}
