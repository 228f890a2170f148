"""Random moments of a half-space problem, shared by the tests of this wing."""

import re

import numpy as np
import pytest

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares


@pytest.fixture(scope="session")
def moments():
    """(u, S) with u'S^-1 u = ``share``, eigenvalues from 1/condition to 1 times ``size``."""

    def draw(seed, dimension=5, condition=10.0, share=0.5, size=1.0):
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
        inner = rng.uniform(-np.log(condition), 0, size=max(dimension - 2, 0))
        values = size * np.exp(np.r_[-np.log(condition), inner, 0.0])[:dimension]
        S = basis * values @ basis.T
        e = rng.normal(size=dimension)
        u = (basis * np.sqrt(values)) @ e * np.sqrt(share) / np.linalg.norm(e)
        return u, (S + S.T) / 2

    return draw


@pytest.fixture(scope="session")
def cloud():
    """Rows z of a problem that is not separable, of mean about -1 along the first axis."""

    def draw(seed, n=200, dimension=4, mean=-0.7):
        rng = np.random.default_rng(seed)
        mixing = np.eye(dimension) + 0.3 * rng.normal(size=(dimension, dimension))
        Z = rng.normal(size=(n, dimension)) @ mixing
        Z[:, 0] += mean
        return Z

    return draw


@pytest.fixture(scope="session")
def problem_of(moments, cloud):
    """A problem of one of the three kinds in four dimensions, with the softplus for a loss."""

    def draw(kind, seed, **options):
        if kind == "sample":
            return EmpiricalHalfspace(cloud(seed))
        u, S = moments(seed, 4, **options)
        return LeastSquares(u, S) if kind == "least squares" else GaussianHalfspace(u, S)

    return draw


@pytest.fixture
def refuses(unchecked):
    """Call a function and see it refuse, past the annotations, with this message; ".*" stands for any text."""

    def call(message, function, *arguments, kind=ValueError, **options):
        pattern = re.escape(message).replace(r"\.\*", ".*")
        with pytest.raises(kind, match=pattern):
            function(*arguments, **options)

    return call
