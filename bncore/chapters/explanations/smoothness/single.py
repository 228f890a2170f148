"""Single units in closed form, of which everything can be computed."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq, minimize, root
from torch import nn

from bncore.explanations import smoothness


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


def preserving(count, seed=0, convex=True):
    """Random losses whose H preserves the relative norms of the gradients, with gamma > 0.

    With v = g/|g| and u = d/|d|, the gradients behind and in front of the batch norm, u'Hu = v'Hv: a
    random H, to which a multiple of ww' is added, w being u or v less its part along the other.
    With ``convex`` H is positive definite, otherwise it has both signs or is negative.
    """
    for case in quadratics(count, seed, convex):
        case = case._replace(gamma=abs(case.gamma))
        g, d = case.g, case.slope()
        v, u = g / np.linalg.norm(g), d / np.linalg.norm(d)
        apart = u @ case.H @ u - v @ case.H @ v
        w = v - (v @ u) * u if apart > 0 else u - (v @ u) * v
        H = case.H + abs(apart) / (w @ w) ** 2 * np.outer(w, w)
        if convex or np.linalg.eigvalsh(H)[0] < 0:
            yield case._replace(H=H, b=g - H @ case.z)


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

        pairs = [(angle - width, angle + width) for angle in grid[lowest]]
        return [brentq(slope, *pair, xtol=1e-14) for pair in pairs]


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


def squared_slopes(cosines, count=100, m=16, seed=0):
    """Squared gradients in front of a batch norm layer, by automatic differentiation.

    The loss is half the squared distance of the layer's output to targets, which are such that the
    gradient there has a given cosine with the normalised values, beside a level of its own.

    Parameters
    ----------
    cosines : sequence of float
    count, m, seed : int
        Random features, size of the batch, and the seed of both.

    Returns
    -------
    ndarray of shape (len(cosines), count)
        For each feature, relative to the same without correlation.
    """
    rng = np.random.default_rng(seed)
    y = torch.tensor(rng.normal(size=(m, count)), requires_grad=True)
    layer = nn.BatchNorm1d(count, eps=1e-30, dtype=torch.float64)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    y_hat, _ = smoothness.normalise(y.detach().numpy())
    rest = rng.normal(size=(m, count))
    rest -= rest.mean(axis=0) + y_hat * (rest * y_hat).mean(axis=0)
    rest /= np.linalg.norm(rest, axis=0)
    level, squares = rng.normal(size=count), []
    for cosine in (0, *cosines):
        g = cosine * y_hat / m**0.5 + (1 - cosine**2) ** 0.5 * rest + level
        z = layer(y)
        loss = ((z - (z.detach() - torch.tensor(g))) ** 2).sum() / 2
        squares.append((torch.autograd.grad(loss, y)[0] ** 2).sum(dim=0).numpy())
    return np.array(squares[1:]) / squares[0]
