"""The experiments of the smoothness chapter: single units in closed form, and networks that train."""

import math
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq, minimize, root
from torch import nn

from bncore.explanations import landscape, smoothness, spectrum
from bncore.lab import data, modes, networks, probes, recorded, studies, training

KINDS = ("no batch norm", "batch norm", "mean only", "variance only")
UNITS = landscape.UNITS
WIDTH, GAIN, BATCH = 50, 2**0.5, 256
RATES = (0.025, 0.05, 0.1, 0.2, 0.4)
MOVES = (0.001, 0.003, 0.01, 0.03, 0.1)
RECORDED = Path(__file__).with_name("recorded.json")


class Partial(nn.Module):
    """Batch norm with the batch's mean, its variance, both or neither; then a scale and a shift.

    Without the variance there is no scale to learn. With neither it is a bias.

    Parameters
    ----------
    features : int
    centre, scale : bool
    eps : float
    """

    def __init__(self, features, centre, scale, eps=1e-5):
        super().__init__()
        self.centre, self.eps = centre, eps
        self.weight = nn.Parameter(torch.ones(features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x):
        axes = (0, *range(2, x.ndim))
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean = x.mean(axes, keepdim=True)
        y = x - mean if self.centre else x
        if self.weight is not None:
            variance = ((x - mean) ** 2).mean(axes, keepdim=True)
            y = self.weight.reshape(shape) * y / torch.sqrt(variance + self.eps)
        return y + self.bias.reshape(shape)


NORMALISATIONS = {
    "no batch norm": partial(Partial, centre=False, scale=False),
    "batch norm": partial(Partial, centre=True, scale=True),
    "mean only": partial(Partial, centre=True, scale=False),
    "variance only": partial(Partial, centre=False, scale=True),
}


@cache
def digits(images=False):
    """The digits, and the batch of the training set on which everything is measured."""
    split = data.digit_images(8) if images else data.digits()
    return split, split.x_train[:BATCH], split.y_train[:BATCH]


def network(kind, depth, seed, gain=GAIN):
    """A ReLU network of ``depth`` hidden layers; its initial weights are the same for every kind."""
    return networks.mlp(
        [64] + [WIDTH] * depth + [10], "relu", NORMALISATIONS[kind], gain=gain, seed=seed
    )


def vgg(kind, depth, seed, **shape):
    """A VGG; its initial weights are the same for every kind."""
    return networks.vgg(depth, NORMALISATIONS[kind], seed=seed, **shape)


def small_vgg(kind, depth, seed):
    """A VGG of width 8 for the digits."""
    return vgg(kind, depth, seed, width=8, channels=1, size=8, hidden=(64,))


class Walks(NamedTuple):
    """Walks along the gradient, from several points of the training of several networks.

    Attributes
    ----------
    steps : ndarray of shape (records,)
        Training steps before each walk.
    table : ndarray of shape (seeds, records, units, 5, sizes)
        For absolute and relative units, and for each size of step: distance, loss after it,
        change of the gradient, length of the gradient before, loss before.
    """

    steps: np.ndarray
    table: np.ndarray

    def row(self, units, name):
        """One of the five rows, as an array of shape (seeds, records, sizes)."""
        names = ("distance", "loss", "change", "slope", "before")
        return self.table[:, :, UNITS.index(units), names.index(name)]

    def smoothness(self, units):
        """Effective beta-smoothness, of shape (seeds, records)."""
        return (self.row(units, "change") / self.row(units, "distance")).max(axis=-1)

    def relative_change(self, units):
        """Change of the gradient over its length, of shape (seeds, records, sizes)."""
        return self.row(units, "change") / self.row(units, "slope")

    def loss_range(self):
        """Range of the loss along the gradient at the rates, of shape (seeds, records)."""
        losses = np.concatenate(
            [self.row("absolute", "before")[..., :1], self.row("absolute", "loss")], axis=-1
        )
        return np.ptp(losses, axis=-1)


def walk(model, x, y, sizes=(RATES, MOVES)):
    """One walk in each unit, as an entry of ``Walks.table``; NaN where nothing slopes."""
    tables = []
    for units, steps in zip(UNITS, sizes, strict=True):
        if not gradient_of(model, x, y, units).any():
            tables.append(np.full((5, len(steps)), np.nan))
            continue
        found = landscape.along_gradient(model, x, y, steps, units)
        ones = np.ones(len(steps))
        tables.append(
            [found.distances, found.losses, found.changes, found.slope * ones, found.loss * ones]
        )
    return np.array(tables)


def walks(
    kind, depth, seeds=(0, 1, 2), steps=150, every=25, rate=0.1, make=network, on=None,
    batch_size=64, device="cpu", **options,
):  # fmt: skip
    """Train networks of one kind, and walk along the gradient of one batch on the way.

    Parameters
    ----------
    kind : str
    depth, seeds, steps, every, rate, batch_size, device
        Of the networks and their training.
    make : callable
        From kind, depth, seed and the other options to a network.
    on : (Split, x, y), optional
        What to train on, and the batch on which to walk; by default ``digits``.

    Returns
    -------
    Walks
    models : list of nn.Module
        The trained networks.
    """
    split, x, y = on or digits(images=make is small_vgg)
    x, y, tables, models = x.to(device), y.to(device), [], []
    for seed in seeds:
        model = make(kind, depth, seed, **options)
        history = training.train(
            model, split, steps, batch_size, rate, seed,
            {"walk": lambda model, split: walk(model, x, y)}, every=every, device=device,
        )  # fmt: skip
        tables.append(history.records["walk"])
        models.append(model)
    return Walks(history.steps, np.array(tables)), models


def loss_curve(kind, depth, learning_rate, seed, *, moments):
    """Loss over the training set after each number of steps in ``moments``, and the last one.

    Batches of 64. The seed draws the split of the digits, the weights and the order of the batches.
    """
    split, model = data.digits(seed), network(kind, depth, seed)
    record, every = {"loss": probes.loss("train", "batch")}, math.gcd(*moments)
    history = training.train(
        model, split, max(moments), 64, learning_rate, seed, record, every=every
    )
    found = dict(zip(history.steps.tolist(), history.records["loss"], strict=True))
    return {"loss": np.array([found[step] for step in moments]), "last": found[max(moments)]}


@cache
def trained():
    """A network of two layers with batch norm after 100 steps."""
    return walks("batch norm", 2, (0,), 100, 100)[1][0]


class Ends(NamedTuple):
    """The ends of a spectrum.

    Attributes
    ----------
    smallest, largest, tenth : float
        The smallest, the largest and the tenth largest eigenvalue.
    concentration : float
        Share of the squared gradient in the span of the ten largest.
    along : float
        Rayleigh quotient of the gradient.
    """

    smallest: float
    largest: float
    tenth: float
    concentration: float
    along: float


def ends(model, x, y, units="absolute", tol=0.02):
    """The ends of the spectrum of one network on one batch, and the gradient's place in it."""
    operator = spectrum.hessian_operator(model, x, y, units)
    start = np.random.default_rng(0).normal(size=operator.shape[0])
    top, vectors = spectrum.eigsh(operator, k=10, which="LA", v0=start, tol=tol)
    (smallest,) = spectrum.eigsh(
        operator, k=1, which="SA", v0=start, tol=tol, return_eigenvectors=False
    )
    slope = gradient_of(model, x, y, units)
    slope = slope / np.linalg.norm(slope)
    return Ends(
        float(smallest),
        float(top.max()),
        float(top.min()),
        float(((vectors.T @ slope) ** 2).sum()),
        float(slope @ operator.matvec(slope)),
    )


def gradient_of(model, x, y, units="absolute"):
    """The gradient of the cross-entropy by the weight matrices, in one vector."""
    chosen = list(landscape.weights(model).values())
    with modes.evaluation(model, "batch"), torch.enable_grad():
        slopes = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), chosen)
    scales = landscape.unit_scales(model, units)
    parts = [(s * g).reshape(-1).double() for s, g in zip(scales, slopes, strict=True)]
    return torch.cat(parts).numpy(force=True)


def dense(operator):
    """Every eigenvalue of a small symmetric operator, in ascending order."""
    matrix = operator.matmat(np.eye(operator.shape[0]))
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)


def small_spectra(steps, probes=4, width=6, taught=100, seed=0):
    """Exact eigenvalues and Lanczos runs of two networks small enough for both.

    Parameters
    ----------
    steps, probes : int
        Of the Lanczos process.
    width, taught, seed : int
        Units of two hidden layers, steps of training, and the seed of everything.

    Returns
    -------
    dict of str to (eigenvalues, list of (diagonal, off))
        By kind.
    """
    split, x, y = digits()
    x, y, found = x[: BATCH // 2], y[: BATCH // 2], {}
    for kind in KINDS[:2]:
        model = networks.mlp(
            [64, width, width, 10], "relu", NORMALISATIONS[kind], gain=GAIN, seed=seed
        )
        training.train(model, split, taught, 64, 0.1, seed)
        operator = spectrum.hessian_operator(model.double(), x.double(), y)
        rng = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], size=(probes, operator.shape[0]))
        runs = [spectrum.tridiagonal(operator, probe, steps) for probe in signs]
        found[kind] = dense(operator), runs
    return found


def standard_errors(found, eigenvalues, power):
    """How far a moment of ``Spectrum`` is from the exact one, in standard errors of its mean.

    For random signs v the variance of v'Av / n is at most 2 tr(A^2) / n^2.
    """
    n, probes = len(eigenvalues), len(found.nodes)
    error = np.sqrt(2 * (eigenvalues ** (2 * power)).sum() / probes) / n
    return abs(found.moments(power).mean() - (eigenvalues**power).mean()) / error


def density_of(model, x, y, steps=40, probes=2, seed=0):
    """Lanczos quadrature of the second derivatives of one network on one batch."""
    return spectrum.lanczos(spectrum.hessian_operator(model, x, y), steps, probes, seed)


@cache
def record():
    """The recorded run of ``full_size``."""
    return recorded.load(RECORDED)


def tuned_ratio(first, second, depth, steps):
    """Geometric mean, over seeds, of the loss of one kind over that of another, with its interval.

    Each kind at its own best rate; the interval allows for 48 comparisons: of two smooth kinds with
    two others, at three depths and four moments.
    """
    loss = np.log(record()["full"]["tuned"]["curves"].loss.sel(depth=depth, steps=steps))
    found = studies.difference(loss.sel(kind=first), loss.sel(kind=second), looked_at=48)
    return studies.Interval(*np.exp(found).tolist())


def ratios(depth, measure, at_equal_loss=False, kinds=KINDS[:2]):
    """What the recorded networks without batch norm measure, over what those with it do.

    Parameters
    ----------
    depth : int
    measure : {"absolute", "relative", "change", "range"}
        Effective smoothness in either unit; the gradient's relative change after a step of 0.3 %
        of the weights; or the range of the loss over the learning rates of the walk.
    at_equal_loss : bool
        Compare at the loss of the network with batch norm, where the other one comes down to it,
        rather than at the same step.
    kinds : pair of str
        Other kinds to compare.

    Returns
    -------
    ndarray of shape (seeds, records), NaN where there is nothing to compare
    """
    plain, normalised = (record()["full"]["depths"][f"{kind}, {depth}"] for kind in kinds)
    values = np.array(plain[measure]), np.array(normalised[measure])
    if not at_equal_loss:
        return values[0] / values[1]
    rows = []
    losses = np.log(plain["loss"]), np.log(normalised["loss"])
    for theirs, loss, ours, wanted in zip(values[0], losses[0], values[1], losses[1], strict=True):
        order = np.argsort(loss)
        found = np.interp(
            wanted, loss[order], np.log(theirs)[order], left=np.nan, right=np.nan
        )  # fmt: skip
        rows.append(np.exp(found) / ours)
    return np.array(rows)


def recorded_density(kind, depth, when):
    """The recorded quadrature of one kind of network.

    Parameters
    ----------
    kind : str
    depth : int
    when : {"start", "end"}

    Returns
    -------
    list of Spectrum
        One for each seed.
    """
    kept = record()["full"]["densities"][f"{kind}, {depth}"]
    nodes, weights = (np.array(kept[f"{what} at {when}"]) for what in ("nodes", "weights"))
    # The file keeps four digits of a weight, and their sum is 1 to no more than that.
    weights /= weights.sum(axis=-1, keepdims=True)
    return [spectrum.Spectrum(*pair) for pair in zip(nodes, weights, strict=True)]


def outside(kind, depth, when, size=1.0):
    """Recorded estimates of how many eigenvalues lie above size, and how many below -size.

    Returns
    -------
    ndarray of int, of shape (seeds, 2)
    """
    n = parameters(depth)
    shares = [
        [(one.weights * (sign * one.nodes > size)).sum(axis=-1).mean() for sign in (1, -1)]
        for one in recorded_density(kind, depth, when)
    ]
    return np.round(n * np.array(shares)).astype(int)


def parameters(depth):
    """Number of weights of a network, those of the normalisations not counted."""
    return sum(p.numel() for p in landscape.weights(network(KINDS[0], depth, 0)).values())


# --- single units ---------------------------------------------------------------------------


class Quadratic(NamedTuple):
    """A loss z'Hz/2 + b'z of one feature over a batch, behind a batch norm with input y."""

    y: np.ndarray
    H: np.ndarray
    b: np.ndarray
    gamma: float

    @property
    def z(self):
        """Output of the batch norm, with beta = 0."""
        return self.gamma * smoothness.normalise(self.y[:, None])[0][:, 0]

    @property
    def g(self):
        """Gradient at z."""
        return self.H @ self.z + self.b

    @property
    def own_g(self):
        """Gradient of the same loss in a network without batch norm, at its own y."""
        return self.H @ self.y + self.b

    def slope(self):
        """The gradient at y through the batch norm, by automatic differentiation."""
        y = torch.tensor(self.y, requires_grad=True)
        return torch.autograd.grad(self.loss(y), y)[0].numpy()

    def second(self):
        """The second derivatives at y through the batch norm, by automatic differentiation."""
        return torch.autograd.functional.hessian(self.loss, torch.tensor(self.y)).numpy()

    def loss(self, y):
        """The loss as a function of the batch norm's input."""
        c = y - y.mean()
        z = self.gamma * c / torch.sqrt((c**2).mean())
        return z @ torch.tensor(self.H) @ z / 2 + torch.tensor(self.b) @ z


def quadratics(count, seed=0, convex=False, largest=20):
    """Random losses of one feature, with batches of 3 to ``largest`` values of any spread."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        m = int(rng.integers(3, largest + 1))
        A = rng.normal(size=(m, m))
        H = A @ A.T / m if convex else (A + A.T) / 2
        y = rng.normal() + np.exp(rng.normal()) * rng.normal(size=m)
        yield Quadratic(y, H, rng.normal(size=m), float(rng.normal()))


def worst_inputs(t, m=8, seed=0):
    """Squared weight gradients of a unit whose inputs have norm 1, spread t along the weights.

    Inputs are t s_i and r_i for weights (1, 0), so that y = t s moves little and the normalised
    batch does not depend on t. The loss is the logistic one with random labels.

    Returns
    -------
    plain, normalised : float
        Of the unit without and with batch norm.
    """
    rng = np.random.default_rng(seed)
    s, r, labels = rng.normal(size=m), rng.normal(size=m), rng.choice([-1.0, 1.0], size=m)
    X = np.column_stack([t * s, r])
    X = X / np.linalg.norm(X, 2)
    found = []
    for normalised in (False, True):
        w = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        z = torch.tensor(X) @ w
        if normalised:
            z = (z - z.mean()) / torch.sqrt(((z - z.mean()) ** 2).mean())
        loss = nn.functional.softplus(-torch.tensor(labels) * z).mean()
        found.append(float((torch.autograd.grad(loss, w)[0] ** 2).sum()))
    return tuple(found)


class Unit(NamedTuple):
    """One unit with two weights: mean of sqrt(1 + (z - target)^2) - 1 over a batch.

    Without batch norm z = x'w + b, with it z = gamma (x'w - mean)/deviation + beta.
    """

    X: np.ndarray
    targets: np.ndarray

    def losses(self, outputs):
        """The loss of outputs, over their last axis."""
        return (np.sqrt(1 + (outputs - self.targets) ** 2) - 1).mean(axis=-1)

    def optimum(self, bias=True):
        """The weights, and the outputs, that minimise the loss without batch norm."""
        columns = np.column_stack([self.X, np.ones(len(self.X))]) if bias else self.X

        def slope(w):
            return columns.T @ self.slopes(columns @ w)

        start = np.zeros(columns.shape[1])
        near = minimize(lambda w: self.losses(columns @ w), start, jac=slope, method="BFGS").x
        w = root(slope, near, tol=1e-14).x
        return w[:2], columns @ w

    def slopes(self, outputs):
        """The gradient of the loss by the outputs."""
        apart = outputs - self.targets
        return apart / np.sqrt(1 + apart**2) / len(apart)

    def at(self, angle, gamma, beta):
        """The loss with batch norm at weights (cos, sin) of one angle or of several."""
        y = np.stack([np.cos(angle), np.sin(angle)], axis=-1) @ self.X.T
        y_hat = (y - y.mean(axis=-1, keepdims=True)) / y.std(axis=-1, keepdims=True)
        return self.losses(gamma * y_hat + beta)

    def best_angles(self, gamma, beta):
        """The angles of all local minima with batch norm."""
        grid = np.linspace(-np.pi, np.pi, 361)[:-1]
        values, width = self.at(grid, gamma, beta), grid[1] - grid[0]
        lowest = (values <= np.roll(values, 1)) & (values < np.roll(values, -1))

        def slope(angle):
            y = self.X @ np.array([np.cos(angle), np.sin(angle)])
            z = gamma * (y - y.mean()) / y.std() + beta
            d = smoothness.gradient(y[:, None], self.slopes(z)[:, None], np.array([gamma]))[:, 0]
            return d @ self.X @ np.array([-np.sin(angle), np.cos(angle)])

        return [
            brentq(slope, angle - width, angle + width, xtol=1e-14) for angle in grid[lowest]
        ]  # fmt: skip


def initialisation(count, matched=True, bias=True, agreeing=True, seed=0):
    """By how much the printed bound on the distance to an optimum is exceeded.

    Parameters
    ----------
    count : int
        Number of random units, each with a random start W_0.
    matched : bool
        Whether gamma and beta are the deviation and the mean of the optimal outputs without batch
        norm, rather than 1 and 0.
    bias : bool
        Whether the unit without batch norm has a bias.
    agreeing : bool
        Whether <W_0, W*> is positive.

    Returns
    -------
    ndarray of shape (count,)
        Squared distance to the nearest optimum of the unit with batch norm, minus the bound, over
        the squared distance to W*. At most zero where the bound holds.
    """
    rng, excess = np.random.default_rng(seed), []
    for _ in range(count):
        X = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 2)) + rng.normal(size=2)
        unit = Unit(X, 2 * rng.normal(size=12))
        (best, outputs), start = unit.optimum(bias), rng.normal(size=2)
        if (start @ best > 0) != agreeing:
            start = -start
        gamma, beta = (outputs.std(), outputs.mean()) if matched else (1.0, 0.0)
        nearest = min(
            smoothness.distance_to_ray(start, np.array([np.cos(a), np.sin(a)]))
            for a in unit.best_angles(gamma, beta)
        )
        square = best @ best
        plain = (start - best) @ (start - best)
        bound = plain - (square - best @ start) ** 2 / square
        excess.append((nearest**2 - bound) / plain)
    return np.array(excess)


def mean_direction(units, m=4096, seed=0):
    """Largest eigenvalue of the second moment of independent ReLU units, as it is and centred."""
    X = np.maximum(np.random.default_rng(seed).normal(size=(m, units)), 0)
    centred = X - X.mean(axis=0)
    return tuple(float(np.linalg.eigvalsh(Z.T @ Z / m)[-1]) for Z in (X, centred))


def level_share(model, x, y):
    """Share of the squared gradient behind each normalisation that is level, over all its units."""
    return [
        (g.double().sum(dim=0) ** 2 / len(g)).sum().item() / (g.double() ** 2).sum().item()
        for *_, g in _gradients_behind(model, x, y)
    ]


def _gradients_behind(model, x, y):
    """Each normalisation with its input and the gradient of the cross-entropy at its output."""
    seen = []
    norms = [layer for layer in model.modules() if isinstance(layer, Partial)]
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, out: seen.append((layer, inputs[0], out)))
        for layer in norms
    ]
    try:
        with modes.evaluation(model, "batch"), torch.enable_grad():
            loss = nn.functional.cross_entropy(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    slopes = torch.autograd.grad(loss, [out for *_, out in seen])
    return [(layer, inputs, g) for (layer, inputs, _), g in zip(seen, slopes, strict=True)]


def removed_share(model, x, y) -> Sequence[np.ndarray]:
    """For each normalisation: share of g that is level or tilt, sign of the tilt, gamma^2/sigma^2.

    Returns
    -------
    list of ndarray of shape (3, features)
    """
    found = []
    for layer, inputs, g in _gradients_behind(model, x, y):
        batch, g = inputs.detach().double().numpy(), g.double().numpy()
        gamma = layer.weight.detach().double().numpy()
        # Float64 sums of float32 values: a dead unit has g = 0, and nothing to share.
        alive = (g**2).sum(axis=0) > 0
        batch, g, gamma = batch[:, alive], g[:, alive], gamma[alive]
        terms = smoothness.squared_gradient(batch, g, gamma)
        y_hat, _ = smoothness.normalise(batch)
        found.append(
            np.array(
                [(terms.level + terms.tilt) / terms.whole, (g * y_hat).sum(axis=0), terms.factor]
            )
        )
    return found
