"""What the depth chapter measures: gradients by layer at initialisation, and training at depth."""

import math
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermevander
from torch import nn

from bncore.explanations import gradient_independence, gradient_norms, panels
from bncore.explanations.activation import Function, Standardized
from bncore.lab import data, probes
from bncore.lab.residual import residual_mlp
from bncore.lab.training import train

RECORD = Path(__file__).with_name("recorded.json")

TINY = 1e-12
# Activations that have a rate but no name in the lab.
UNNAMED = {"silu": nn.functional.silu, "abs": torch.abs}


class Pointwise(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(
    activation, layers, width, seed, *, normalization="batch", skip=False, gain=1.0, eps=TINY
):
    """A network of `layers` equal layers at initialisation; see ``residual_mlp``.

    Parameters
    ----------
    activation : str or callable
        A name, or a function of a tensor.
    """
    if isinstance(activation, str):
        activation = UNNAMED.get(activation, activation)
    if not isinstance(activation, str):
        activation = partial(Pointwise, activation)
    return residual_mlp(
        width,
        width,
        layers,
        width,
        activation,
        normalization,
        skip=skip,
        gain=gain,
        eps=eps,
        seed=seed,
    )


def variance_by_degree(activation, degrees):
    """Shares of the variance of an activation of N(0, 1) in the Hermite polynomials 1, ..., degrees."""
    rule = panels.gaussian(Standardized(Function(activation)))
    centred = rule.phi - rule.weights @ rule.phi
    polynomials = hermevander(rule.z, degrees)[:, 1:]
    sizes = np.array([float(math.factorial(k)) for k in range(1, degrees + 1)])
    return (rule.weights * centred @ polynomials) ** 2 / sizes / (rule.weights @ centred**2)


def white(batch_size, width, seed):
    """A batch of independent standard normal numbers."""
    return torch.randn(batch_size, width, generator=torch.Generator().manual_seed(1000 + seed))


def gradients(activation, layers, width, batch_size, seed, *, scale=1.0, **kwargs):
    """Squared gradients at the pre-activations and weights of each of `layers` equal layers.

    The inputs are white, of standard deviation `scale`; the rest goes to ``network``.
    """
    model = network(activation, layers, width, seed, **kwargs)
    norms = gradient_norms.gradient_norms(model, scale * white(batch_size, width, seed), seed)
    return gradient_norms.GradientNorms(norms.signals[1:-1], norms.weights[1:-1])


def rate(squares):
    """Growth per layer from the last to the second, the layers of the theorem, from squared norms."""
    return (squares[1] / squares[-1]) ** (1 / (len(squares) - 2))


def measured_rates(activation, width, batch_size, layers, seeds, **kwargs):
    """The growth rate of each of `seeds` networks at initialisation."""
    return np.array(
        [
            rate(gradients(activation, layers, width, batch_size, seed, **kwargs).signals)
            for seed in range(seeds)
        ]
    )


def preactivations(model, layers, x):
    """What reaches the batch norm of each of the `layers` equal layers, arrays (batch, width)."""
    names = [f"block{number}.body.norm1" for number in range(1, layers + 1)]
    seen = probes.inputs_of(model, names, x, "batch")
    return [seen[name] for name in names]


def given_forward(activation, width, batch_size, layers, seeds):
    """The rate that fresh weights on the way back would give each network of ``measured_rates``."""
    return np.array(
        [
            rate(
                gradient_independence.expected_gradients(
                    preactivations(
                        network(activation, layers, width, seed),
                        layers,
                        white(batch_size, width, seed),
                    ),
                    activation,
                )
            )
            for seed in range(seeds)
        ]
    )


def orthogonal_rates(width, batch_size, layers, seeds):
    """As ``measured_rates`` of the identity, but for random orthogonal weights."""
    rates = []
    for seed in range(seeds):
        model = network("identity", layers, width, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for parameter in model.parameters():
                if parameter.shape == (width, width):
                    nn.init.orthogonal_(parameter)
        norms = gradient_norms.gradient_norms(model, white(batch_size, width, seed), seed)
        rates.append(rate(norms.signals[1:-1]))
    return np.array(rates)


KINDS = {
    "plain": {"normalization": None, "skip": False},
    "batch norm": {"normalization": "batch", "skip": False},
    "residual": {"normalization": "batch", "skip": True},
}


def deviation_multiplier(activation, deviation, batch_size=64, units=50_000, seed=0):
    """By what a layer multiplies the deviation of one example among others that are alike.

    Its squared distance from the mean of the batch is 1 + deviation times that of the others. For
    small deviations this is ``depth.symmetry_multiplier``. Sampled units, no network.
    """
    white = np.random.default_rng(seed).normal(size=(units, batch_size))
    function = Function(activation)

    def deviations(scale):
        h = white * np.append(scale, np.ones(batch_size - 1))
        h -= h.mean(axis=1, keepdims=True)
        x = function(h / h.std(axis=1, keepdims=True))[0]
        x -= x.mean(axis=1, keepdims=True)
        squares = (h**2).mean(axis=0), (x**2).mean(axis=0)
        return np.array([square[0] / square[1:].mean() for square in squares])

    # Less what the same sample gives where the example is like the others.
    into, out = deviations((1 + deviation) ** 0.5) - deviations(1.0)
    return out / into


@cache
def _digits():
    return data.digits()


def classifier(kind, layers, width, seed, inputs=64):
    """A network for ten classes, of one of ``KINDS``, ReLU with He's initialisation."""
    return residual_mlp(inputs, 10, layers, width, "relu", gain=2**0.5, seed=seed, **KINDS[kind])


OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def accuracies(
    kind,
    layers,
    learning_rate,
    seed,
    *,
    moments,
    width,
    optimizer="sgd",
    source="digits",
    cache=None,
    batch_size=64,
    device="cpu",
):
    """Test accuracy after each number of steps in `moments`, "accuracy", and the "last" one.

    The seed draws the split of the digits, the weights and the order of the batches. Where there is
    batch norm, it takes the statistics of the test set, which is one batch: running averages lag behind
    in a short training. A network that has diverged gets none right.
    """
    split = data.Split(*(tensor.to(device) for tensor in data.rows(source, seed, cache)))
    model = classifier(kind, layers, width, seed, split.x_train.shape[1])
    history = train(
        model,
        split,
        max(moments),
        batch_size,
        learning_rate,
        seed,
        {"accuracy": _on_test_set},
        every=math.gcd(*moments),
        optimizer=OPTIMIZERS[optimizer],
        device=device,
    )
    found = dict(zip(history.steps.tolist(), history.records["accuracy"], strict=True))
    return {"accuracy": np.array([found[step] for step in moments]), "last": found[max(moments)]}


def _on_test_set(model, split):
    with probes.evaluation(model, "batch"):
        scores = model(split.x_test)
    if not torch.isfinite(scores).all():
        return 0.0
    return (scores.argmax(1) == split.y_test).double().mean().item()


def geometry(kind, layers, width=64, seed=0, examples=200):
    """What is left, in the last hidden layer at initialisation, of how test digits lie to each other.

    Returns
    -------
    cosine : float
        Mean cosine between two examples.
    memory : float
        Correlation, over pairs of examples, of their cosine there with the one at the input, the
        mean over the batch being taken from both.
    """
    x = _digits().x_test[:examples].double()
    model = classifier(kind, layers, width, seed).double()
    last = probes.inputs_of(model, ["output"], x, "batch")["output"]
    pairs = np.triu_indices(examples, 1)

    def cosines(values):
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        return (unit @ unit.T)[pairs]

    x = x.numpy()
    centred = [cosines(values - values.mean(axis=0)) for values in (last, x)]
    return cosines(last).mean(), np.corrcoef(*centred)[0, 1]


def dynamic_range(layers, step, seed, width=64):
    """Largest over smallest squared weight gradient of a batch-norm network, before and after a step.

    Parameters
    ----------
    step : float
        Length of the step over that of the weights, in the layer where this is largest.

    Returns
    -------
    before, after : float
    learning_rate : float
        With which gradient descent takes a step of this length.
    """
    split = _digits()
    x, y = split.x_train[:64], split.y_train[:64]
    model = classifier("batch norm", layers, width, seed)
    weights = [p for name, p in model.named_parameters() if name.endswith("linear1.weight")]

    def squares():
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        return np.array([weight.grad.double().square().sum().item() for weight in weights])

    before = squares()
    lengths = np.array([weight.detach().double().square().sum().item() for weight in weights])
    rate = step / np.sqrt(before / lengths).max()
    torch.optim.SGD(model.parameters(), lr=rate).step()
    after = squares()
    return before.max() / before.min(), after.max() / after.min(), rate


def stacked(count, layers, width, batch_size, seed, scale=1.0):
    """Squared gradients by layer of a ReLU network, batch norm in the first `count` layers.

    He's initialisation. The inputs are such that without batch norm the pre-activations of every
    layer have mean square scale^2; over the batch, those of the first layer have that variance.
    """
    model = _placed(range(1, count + 1), layers, width, seed)
    x = scale / 2 * white(batch_size, width, seed)
    return gradient_norms.gradient_norms(model, x, seed).signals[1:-1]


def one_among(place, layers, width, batch_size, seed, scale=1.0):
    """What one batch norm, in the layer `place`, makes of the squared gradient at the first layer.

    That with it over that without, times the variance over the batch of what it sees, mean of the
    units: the factor by which it would divide a gradient. Networks and inputs as in ``stacked``.
    """
    x = scale / 2 * white(batch_size, width, seed)
    model = _placed((), layers, width, seed)
    variance = preactivations(model, layers, x)[place - 1].var(axis=0).mean()
    norms = [
        gradient_norms.gradient_norms(one, x, seed).signals[1]
        for one in (_placed((place,), layers, width, seed), model)
    ]
    return variance * norms[0] / norms[1]


def _placed(places, layers, width, seed):
    """A ReLU network with batch norm in these layers and He's initialisation."""
    numbers = iter(range(1, layers + 1))

    def normalization(features):
        return nn.BatchNorm1d(features, TINY) if next(numbers) in places else nn.Identity()

    return network("relu", layers, width, seed, normalization=normalization, gain=2**0.5)


def asymmetry(activation, layers, width, batch_size, seed):
    """How unlike the examples of a batch become to the network, and how gradients grow.

    Returns
    -------
    spread : ndarray of shape (layers,)
        For each layer: over the batch, the standard deviation over the mean of the squared distance
        of an example's pre-activations from the mean of the batch.
    growth : ndarray of shape (layers - 1,)
        Squared gradients at the pre-activations of a layer over those of the next.
    expected : ndarray of shape (layers - 1,)
        The same for fresh weights on the way back.
    """
    model = network(activation, layers, width, seed)
    x = white(batch_size, width, seed)
    seen = preactivations(model, layers, x)
    spread = []
    for h in seen:
        squares = ((h - h.mean(axis=0)) ** 2).mean(axis=1)
        spread.append(squares.std() / squares.mean())
    signals = gradient_norms.gradient_norms(model, x, seed).signals[1:-1]
    expected = gradient_independence.expected_gradients(seen, activation)
    return np.array(spread), signals[:-1] / signals[1:], expected[:-1] / expected[1:]


def two_valued(normalization, seed, layers=20, width=128, batch_size=64):
    """A network of sigmoids whose units have two values over the batch: gradients, and those values.

    Inputs are 1 or -1, and a unit sees one unit of the layer below, with weight 1 or -1.

    Returns
    -------
    decades : float
        Of growth of squared gradients from the last layer to the second.
    values : ndarray of shape (batch_size, width)
        What reaches the sigmoids of the last layer.
    """
    model = network("sigmoid", layers, width, seed, normalization=normalization)
    generator = torch.Generator().manual_seed(seed)

    def signs(*shape):
        return torch.randn(*shape, generator=generator).sign()

    with torch.no_grad():
        for weight in model.parameters():
            if weight.shape == (width, width):
                order = torch.randperm(width, generator=generator)
                weight.copy_(torch.diag(signs(width))[:, order])
    x = signs(batch_size, width)
    squares = gradient_norms.gradient_norms(model, x, seed).signals[1:-1]
    last = f"block{layers}.body.activation1"
    values = probes.inputs_of(model, [last], x, "batch")[last]
    return np.log10(squares[1] / squares[-1]), values
