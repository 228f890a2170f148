"""Random problems, and how far what is computed of them may be off, shared by the tests of this wing."""

import re

import numpy as np
import pytest

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares, quadrature

EPS = np.finfo(np.float64).eps


@pytest.fixture(scope="session")
def near():
    """See that numbers differ from others by what is allowed at most, a size for each or for all."""

    def judge(found, expected, allowed, what=""):
        found, expected = np.asarray(found), np.asarray(expected)
        assert found.shape == expected.shape, what
        off, allowed = np.broadcast_arrays(np.abs(found - expected), allowed)
        wrong = ~(off <= allowed)
        assert not wrong.any(), (
            f"{what}: {found[wrong][:4]} instead of {expected[wrong][:4]}, "
            f"off by {off[wrong][:4]}, allowed {allowed[wrong][:4]}"
        )

    return judge


@pytest.fixture(scope="session")
def rounding():
    """The rounding of a mean: d products for a score of d features, and n terms of a sample."""

    def of(problem):
        n = problem.Z.shape[0] if isinstance(problem, EmpiricalHalfspace) else 0
        return (n + 4 * problem.dimension) * EPS

    return of


@pytest.fixture(scope="session")
def accuracy(rounding):
    """That of a mean: its rounding, and for Gaussian points what quadrature promises."""

    def of(problem):
        integral = isinstance(problem, GaussianHalfspace)
        return rounding(problem) + (quadrature.ACCURACY if integral else 0.0)

    return of


@pytest.fixture(scope="session")
def error_of(accuracy):
    """How far value, gradient and Hessian product with v of one of the four losses may be off at w.

    By Cauchy and Schwarz what they sum is at most (1 + ||w||_S)^2, 2 (1 + ||w||_S) |z| and
    2 ||v||_S |z|.
    """

    def of(problem, w, v=None):
        v = w if v is None else v
        score, z = 1 + np.sqrt(w @ problem.S @ w), np.sqrt(np.trace(problem.S))
        sizes = np.array([score**2, 2 * score * z, 2 * np.sqrt(v @ problem.S @ v) * z])
        return accuracy(problem) * sizes

    return of


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
