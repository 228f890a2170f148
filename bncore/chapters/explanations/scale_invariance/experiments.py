"""The experiments of the scale invariance chapter: one unit, its length under decay, the digits."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bncore.explanations import effective_rate, scale_invariance
from bncore.lab import data, networks, probes

WIDTHS = [64, 32, 32, 10]
GAIN = 2**0.5


def perceptron(widths):
    """What makes fully connected ReLU networks: a function of normalization and seed.

    Weights are He's, with the variance 2 / fan_in, or have another gain, or are torch's: ``None``.
    """

    def make(normalization, seed, eps=1e-5, gain=GAIN):
        return networks.mlp(widths, "relu", normalization, eps=eps, gain=gain, seed=seed)

    return make


def vgg(name, **shape):
    """What makes VGGs of a shape for the images of a set: a function of normalization and seed."""
    if name not in data.OPENML:
        raise ValueError(f"data is {name!r}, expected 'mnist' or 'cifar10', with images for a VGG")
    channels, size, _ = data.OPENML[name].shape

    def make(normalization, seed, eps=1e-5, gain=GAIN):
        return networks.vgg(
            normalization=normalization,
            channels=channels,
            size=size,
            eps=eps,
            gain=gain,
            seed=seed,
            **shape,
        )

    return make


class Unit(NamedTuple):
    """A normalised unit without gamma and beta, and targets for its outputs.

    The loss of weights w is half the mean squared distance of BN(inputs w) to the targets.
    """

    inputs: np.ndarray
    targets: np.ndarray

    def value_and_gradient(self, w, eps=0.0):
        """Losses and gradients of weights of shape (runs, inputs)."""
        x = self.inputs @ w.T
        x -= x.mean(axis=0)
        s = np.sqrt((x**2).mean(axis=0) + eps)
        x_hat = x / s
        error = x_hat - self.targets[:, np.newaxis]
        dx = (error - error.mean(axis=0) - x_hat * (error * x_hat).mean(axis=0)) / s
        return (error**2).mean(axis=0) / 2, dx.T @ self.inputs / len(x)


class Linear(Unit):
    """The same unit without batch norm: linear, of inputs less their mean."""

    def value_and_gradient(self, w):
        """Losses and gradients of weights of shape (runs, inputs)."""
        inputs = self.inputs - self.inputs.mean(axis=0)
        error = inputs @ w.T - self.targets[:, np.newaxis]
        return (error**2).mean(axis=0) / 2, error.T @ inputs / len(inputs)


def plane(count=40, seed=3):
    """A unit with two inputs, the first of deviation 1 and the second of deviation 2."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, 2)) * [1, 2]
    return Unit(inputs, inputs @ [1.0, 0.2] + 0.3 * rng.normal(size=count))


def circle_bounds(unit, angles=721):
    """Largest curvature, slope and difference of the loss over directions in the plane.

    The Hessian's eigenvalues come from differences of the gradient.
    """
    turn = np.linspace(0, 2 * np.pi, angles)
    v = np.column_stack([np.cos(turn), np.sin(turn)])
    values, gradients = unit.value_and_gradient(v)
    h, hessians = 1e-5, np.empty((angles, 2, 2))
    for i, e in enumerate(np.eye(2)):
        ahead, behind = (unit.value_and_gradient(v + sign * h * e)[1] for sign in (1, -1))
        hessians[:, i] = (ahead - behind) / (2 * h)
    curvature = np.linalg.eigvalsh((hessians + hessians.transpose(0, 2, 1)) / 2)[:, 1].max()
    return curvature, np.linalg.norm(gradients, axis=1).max(), np.ptp(values)


def descend(unit, start, rate, steps):
    """Gradient descent on one unit; returns the weights, (steps + 1, inputs), and their gradients."""
    w, path, slopes = np.array(start, float), [], []
    for _ in range(steps + 1):
        gradient = unit.value_and_gradient(w[np.newaxis])[1][0]
        path.append(w)
        slopes.append(gradient)
        w = w - rate * gradient
    return np.array(path), np.array(slopes)


class Decayed(NamedTuple):
    """Runs of one unit under weight decay, side by side.

    Attributes
    ----------
    length : ndarray of shape (steps + 1, runs)
    gradient : ndarray of shape (steps, runs)
        Length of each gradient times that of the weights: the gradient at length 1.
    cosine : ndarray of shape (steps, runs)
        Between the weights before and after each step.
    loss : ndarray of shape (steps, runs)
        On each step's batch.
    """

    length: np.ndarray
    gradient: np.ndarray
    cosine: np.ndarray
    loss: np.ndarray


def decayed(rates, decays, steps, momentum=0.0, batch=32, noise=1.0, inputs=10, seed=0, kind=Unit):
    """Train one unit on fresh batches, or on one batch over and over, with weight decay.

    Parameters
    ----------
    rates, decays : ndarray of shape (runs,)
    steps : int
    momentum : float
    batch : int
        Examples a step.
    noise : float
        Deviation of the noise in the targets; 0 also means one batch for all steps, and targets
        that the unit can meet.
    inputs : int
    seed : int
        Of teacher, start and batches, which all runs share.
    kind : {Unit, Linear}
    """
    rng = np.random.default_rng(seed)
    teacher, start = rng.normal(size=(2, inputs))
    w = np.tile(start / np.linalg.norm(start), (len(rates), 1))
    teacher /= np.linalg.norm(teacher)
    rates, decays, velocity = rates[:, np.newaxis], decays[:, np.newaxis], np.zeros_like(w)
    lengths, gradients, cosines, losses = [np.linalg.norm(w, axis=1)], [], [], []
    u = rng.normal(size=(batch, inputs))
    clean = (u @ teacher - (u @ teacher).mean()) / (u @ teacher).std()
    for _ in range(steps):
        if noise:
            u = rng.normal(size=(batch, inputs))
            clean = u @ teacher
        unit = kind(u, clean + noise * rng.normal(size=batch) if noise else clean)
        loss, gradient = unit.value_and_gradient(w)
        velocity = momentum * velocity + gradient + decays * w
        after = w - rates * velocity
        lengths.append(np.linalg.norm(after, axis=1))
        gradients.append(np.linalg.norm(gradient, axis=1) * lengths[-2])
        cosines.append((w * after).sum(axis=1) / lengths[-2] / lengths[-1])
        losses.append(loss)
        w = after
    return Decayed(*map(np.array, (lengths, gradients, cosines, losses)))


def curvature_at_the_goal(batch, inputs=10, seed=0):
    """Largest curvature, at length 1, where the unit of ``decayed`` without noise meets its targets.

    There the loss is 1 - cos in the product of the inputs' covariance S, and its Hessian in the
    direction t is (S - S t t'S / t'St) / t'St.
    """
    rng = np.random.default_rng(seed)
    teacher, _ = rng.normal(size=(2, inputs))
    t = teacher / np.linalg.norm(teacher)
    S = np.cov(rng.normal(size=(batch, inputs)), rowvar=False, bias=True)
    square = t @ S @ t
    return np.linalg.eigvalsh((S - np.outer(S @ t, S @ t) / square) / square)[-1]


def least_with_penalty(decay, batch, inputs=10, seed=0):
    """Least loss plus penalty of the linear unit of ``decayed`` without noise.

    The loss is half (w - t)'S(w - t), with t the weights that meet the targets, so it is half
    decay t'S (S + decay I)^-1 t.
    """
    rng = np.random.default_rng(seed)
    t, _ = rng.normal(size=(2, inputs))
    S = np.cov(rng.normal(size=(batch, inputs)), rowvar=False, bias=True)
    return decay * t @ S @ np.linalg.solve(S + decay * np.eye(inputs), t) / (t @ S @ t) / 2


def split_parameters(model, x):
    """The weights that batch norm makes scale-invariant, and all other parameters."""
    inside = list(scale_invariance.invariant_weights(model, x).values())
    chosen = {id(weight) for weight in inside}
    return inside, [p for p in model.parameters() if id(p) not in chosen]


def decayed_on_digits(
    rate, decay, seed, steps, momentum=0.0, rest=0.1, batch=64, make=None, split=None, device="cpu"
):
    """Train a network on the digits, or on other images, with decay of the weights before batch norms.

    Parameters
    ----------
    rate, decay, momentum : float
        For the weights before a batch norm.
    seed : int
        Of the split, the network and the batches.
    steps : int
    rest : float
        Learning rate of all other parameters.
    batch : int
    make : callable, optional
        As ``perceptron`` returns them; by default one of ``WIDTHS``.
    split : Split, optional
        Instead of the digits.
    device : str

    Returns
    -------
    Decayed
        With one run for each hidden unit, or output channel of a convolution.
    """
    split = moved(data.digits(seed) if split is None else split, device)
    model = (make or perceptron(WIDTHS))("batch", seed, eps=1e-12).to(device)
    inside, others = split_parameters(model, split.x_train[:8])
    optimizer = torch.optim.SGD(
        [
            {"params": inside, "lr": rate, "weight_decay": decay, "momentum": momentum},
            {"params": others, "lr": rest},
        ]
    )
    lengths, gradients, cosines, losses = [_lengths(inside)], [], [], []
    for picks in _batches(len(split.x_train), batch, steps, seed):
        loss = cross_entropy(model(split.x_train[picks]), split.y_train[picks])
        optimizer.zero_grad()
        loss.backward()
        before = [weight.detach().clone() for weight in inside]
        gradients.append(_lengths([weight.grad for weight in inside]) * lengths[-1])
        optimizer.step()
        lengths.append(_lengths(inside))
        cosines.append(
            np.concatenate(
                [
                    torch.cosine_similarity(a.flatten(1), b.detach().flatten(1)).numpy(force=True)
                    for a, b in zip(before, inside, strict=True)
                ]
            )
        )
        losses.append(loss.item())
    return Decayed(*map(np.array, (lengths, gradients, cosines, losses)))


def decayed_seeds(rate, decay, seeds, steps, momentum=0.0):
    """The same with several seeds: their units side by side, and the mean of their losses."""
    runs = [decayed_on_digits(rate, decay, seed, steps, momentum) for seed in seeds]
    *units, losses = (list(field) for field in zip(*runs, strict=True))
    return Decayed(*(np.concatenate(values, axis=1) for values in units), np.mean(losses, axis=0))


def _lengths(weights):
    return np.concatenate(
        [w.detach().double().flatten(1).norm(dim=1).numpy(force=True) for w in weights]
    )


def moved(split, device):
    """A split on a device."""
    return data.Split(*(tensor.to(device) for tensor in split))


def _batches(count, size, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    taken = 0
    while True:
        order = torch.randperm(count, generator=generator)
        for picks in order[: count - count % size].split(size):
            if taken == steps:
                return
            yield picks
            taken += 1


def settled(run, rate, decay, momentum=0.0):
    """Length over its predicted equilibrium, and angle over its, in the last third of a run.

    Returns
    -------
    length, angle : ndarray of shape (runs,)
        Mean length over the equilibrium of the root mean square gradient at length 1, which is
        measured in the same steps; root mean square angle of a step over arccos(1 - ...).
    """
    last = len(run.gradient) // 3
    slopes = np.sqrt((run.gradient[-last:] ** 2).mean(axis=0))
    angles = np.sqrt((np.arccos(np.clip(run.cosine[-last:], -1, 1)) ** 2).mean(axis=0))
    found = [effective_rate.equilibrium(rate, decay, float(g), momentum) for g in slopes]
    expected = np.array([[balance.length, balance.angle] for balance in found])
    return run.length[-last:].mean(axis=0) / expected[:, 0], angles / expected[:, 1]


def equivalent_on_digits(
    rate, decay, seed, steps, momentum=0.0, *, all_decay=False, rest_start=True, rest=0.1, eps=1e-30
):
    """Train once with weight decay and once with the growing rates that replace it, in float64.

    Parameters
    ----------
    rate, decay, momentum : float
        Of the run with weight decay, for the weights before a batch norm.
    seed : int
    steps : int
    all_decay : bool
        Let weight decay act on all parameters.
    rest_start : bool
        Give the second run the momentum that the theorem asks for; otherwise it starts at rest.
    rest : float
        Learning rate of all other parameters.
    eps : float
        Of the batch norms.

    Returns
    -------
    apart : float
        Largest difference of the two networks' class probabilities on the test images, at the end.
    growth : float
        Final rate over first rate of the second run.
    """
    split = data.digits(seed)
    x, y = split.x_train.double(), split.y_train
    schedule = effective_rate.exponential_schedule(rate, decay, steps, momentum)
    ends = []
    for grows in (False, True):
        model = networks.mlp(WIDTHS, "relu", "batch", eps=eps, seed=seed).double()
        inside, others = split_parameters(model, x[:8])
        velocity = schedule.velocity if grows and rest_start else 0.0
        buffers = [velocity * weight.detach() for weight in inside]
        shrinks = 0.0 if grows else decay
        for step, picks in enumerate(_batches(len(x), 64, steps, seed)):
            loss = cross_entropy(model(x[picks]), y[picks])
            gradients = torch.autograd.grad(loss, inside + others)
            eta = schedule.rates[step] if grows else rate
            with torch.no_grad():
                for i, (weight, gradient) in enumerate(zip(inside, gradients, strict=False)):
                    buffers[i] = momentum * buffers[i] + gradient + shrinks * weight
                    weight -= eta * buffers[i]
                for p, gradient in zip(others, gradients[len(inside) :], strict=True):
                    p -= rest * (gradient + (0.0 if grows or not all_decay else decay) * p)
        with probes.evaluation(model, "batch"):
            ends.append(model(split.x_test.double()).softmax(dim=1))
    return (ends[0] - ends[1]).abs().max().item(), schedule.rates[-1] / schedule.rates[0]
