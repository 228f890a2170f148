"""The spectra of the chapter's networks: their ends, their density, and every eigenvalue of small ones."""

from typing import NamedTuple

import numpy as np

from bncore.chapters.explanations.smoothness.experiments import (
    BATCH,
    GAIN,
    KINDS,
    NORMALISATIONS,
    digits,
    gradient_of,
)
from bncore.explanations import spectrum
from bncore.lab import networks, training


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


def density_of(model, x, y, steps=40, probes=2, seed=0):
    """Lanczos quadrature of the second derivatives of one network on one batch."""
    return spectrum.lanczos(spectrum.hessian_operator(model, x, y), steps, probes, seed)
