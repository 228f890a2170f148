"""What the explanations measure, as it is written on the board: a few lines each, no checks.

The other modules of this wing compute the same to a known accuracy, for networks of torch, and check
what they are given.
"""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bncore.mechanics import textbook


def gradient_shift(gradient, old, new):
    """How much each layer's gradient changes because the layers before it have moved.

    ``gradient`` goes from a list of weights, one array a layer, to the list of gradients.
    """
    before = gradient(old)
    return [np.linalg.norm(gradient(new[:i] + old[i:])[i] - before[i]) for i in range(len(old))]


def squared_lengths(rate, gradients, start, decay=0.0):
    """Squared lengths of scale-invariant weights; gradients have these lengths at length 1."""
    lengths = [start]
    for G in gradients:
        r = lengths[-1]
        lengths.append((1 - rate * decay) ** 2 * r + rate**2 * G**2 / r)
    return np.array(lengths)


def effective_rate(rate, length, decay=0.0):
    """The learning rate that the direction of scale-invariant weights feels."""
    return rate / (1 - rate * decay) / length**2


def normalised_gradient(y, g, gamma):
    """A loss has the gradient g behind a batch norm: its gradient in front of it, for one feature."""
    y_hat, m = (y - y.mean()) / y.std(), len(y)
    return gamma / y.std() * (g - g.mean() - y_hat * (g @ y_hat) / m)


def normalised_hessian(y, g, H, gamma):
    """The same for second derivatives."""
    sigma, m = y.std(), len(y)
    y_hat = (y - y.mean()) / sigma
    P = np.eye(m) - 1 / m - np.outer(y_hat, y_hat) / m
    bend = np.outer(y_hat, P @ g)
    own = bend + bend.T + (g @ y_hat) * P
    return (gamma / sigma) ** 2 * P @ H @ P - gamma / (m * sigma**2) * own


def curvature_product(model, x, y, v):
    """Second derivatives of the loss by the weight matrices, times v, which has a part for each."""
    weights = [w for w in model.parameters() if w.ndim > 1]
    loss = cross_entropy(model(x), y)
    slopes = torch.autograd.grad(loss, weights, create_graph=True)
    along = sum((s * part).sum() for s, part in zip(slopes, v, strict=True))
    return torch.autograd.grad(along, weights)


def stiffest(product, v, steps=30):
    """The eigenvalue of largest size, and its direction, by power iteration from v."""
    for _ in range(steps):
        length = sum((part**2).sum() for part in v).sqrt()
        unit = [part / length for part in v]
        v = product(unit)
    return sum((a * b).sum() for a, b in zip(unit, v, strict=True)).item(), unit


def lanczos(A, v, steps):
    """Diagonal and off-diagonal of the tridiagonal matrix that A is for the first Krylov vectors."""
    basis, diagonal, off = [v / np.linalg.norm(v)], [], []
    for _ in range(steps):
        image = A @ basis[-1]
        diagonal.append(basis[-1] @ image)
        for _ in range(2):
            image = image - sum((b @ image) * b for b in basis)
        off.append(np.linalg.norm(image))
        basis.append(image / off[-1])
    return np.array(diagonal), np.array(off[:-1])


def spectrum(diagonal, off):
    """Points and their weights that stand for the spectrum of A, seen from the first vector."""
    T = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    points, vectors = np.linalg.eigh(T)
    return points, vectors[0] ** 2


def growth_rate(phi, dphi):
    """Growth of squared gradients a layer with batch norm, for large batches."""
    z, weights = np.polynomial.hermite_e.hermegauss(100)
    weights /= weights.sum()
    centred = phi(z) - weights @ phi(z)
    return (weights @ dphi(z) ** 2) / (weights @ centred**2)


def growth_rate_of_a_batch(phi, dphi, B):
    """The same for batches of B: an expectation over two coordinates of a sphere."""
    x, w = np.polynomial.legendre.leggauss(200)
    a, r, radius = np.pi / 2 * x, -1 / (B - 1), np.sqrt(B - 1)
    h = radius * np.sin(a)[:, None]
    width = np.sqrt(1 - r**2) * radius * np.cos(a)[:, None]
    k = r * h + width * np.sin(a)
    p = np.outer(w * np.cos(a) ** (B - 3), w * np.cos(a) ** (B - 4))
    p /= p.sum()
    slopes = (B - 1 - h**2) * dphi(h) ** 2 + (1 + h * k) * dphi(h) * dphi(k)
    variance = phi(h) ** 2 - phi(h) * phi(k)
    return (p * slopes).sum() / ((B - 3) * (p * variance).sum())


def gradient_norms(weights, x, dy, phi, dphi, eps=0.0):
    """Squared gradients at the linear layers of a network with batch norms, one row an example."""
    kept, norms = [], []
    for W in weights[:-1]:
        h = x @ W.T
        y, cache = textbook.forward(h, np.ones(len(W)), np.zeros(len(W)), eps)
        kept.append((cache, dphi(y)))
        x = phi(y)
    for W, (cache, slope) in zip(weights[:0:-1], kept[::-1], strict=True):
        norms.append((dy**2).sum())
        dy = textbook.backward(dy @ W * slope, cache)[0]
    return [*norms, (dy**2).sum()][::-1]


def variance_variance(m, var, kurtosis):
    """Variance of the biased variance of a batch of m independent values."""
    return var**2 * (m - 1) * ((m - 1) * kurtosis - m + 3) / m**3


def ghost_batch_norm(x, size, eps):
    """Batch norm of parts of a batch, each by itself."""
    ghosts = x.reshape(-1, size, x.shape[1])
    mean = ghosts.mean(axis=1, keepdims=True)
    var = ghosts.var(axis=1, keepdims=True)
    return ((ghosts - mean) / np.sqrt(var + eps)).reshape(x.shape)
