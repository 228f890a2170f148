"""The spectra of the networks of the chapter on smoothness, against dense matrices."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.chapters.explanations.smoothness import experiments, spectra
from bncore.explanations import spectrum

EPS = float(np.finfo(np.float64).eps)


def test_ends_are_those_of_the_dense_matrix():
    _, x, y = experiments.digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, last = nn.Linear(64, 4, bias=False), nn.Linear(4, 10)
        norm = experiments.Partial(4, True, True)
        model = nn.Sequential(first, norm, nn.ReLU(), last).double()
    tol = 1e-8
    found = spectra.ends(model, x.double(), y, "relative", tol=tol)
    operator = spectrum.hessian_operator(model, x.double(), y, "relative")
    values, vectors = np.linalg.eigh(operator.matmat(np.eye(operator.shape[0])))
    assert found.smallest == pytest.approx(values[0], abs=10 * tol * values[-1])
    assert (found.largest, found.tenth) == pytest.approx(
        (values[-1], values[-10]), rel=10 * tol, abs=0
    )
    slope = experiments.gradient_of(model, x.double(), y, "relative")
    shares = (vectors.T @ slope) ** 2 / (slope @ slope)
    # Vectors turn by the tolerance over the distance to the next value.
    turned = 10 * tol * values[-1] / (values[-10] - values[-11])
    assert found.concentration == pytest.approx(shares[-10:].sum(), abs=turned)
    rounding = len(values) * EPS * values[-1]
    assert found.along == pytest.approx(shares @ values, abs=rounding)
