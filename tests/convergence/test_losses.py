"""The four losses against torch, finite differences and their stated bounds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, losses

NAMES = ["softplus", "sigmoid", "tanh", "squared"]
BY_TORCH = {
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "squared": lambda a: (1 + a) ** 2,
}


def test_the_named_losses_are_these_four():
    assert set(losses.LOSSES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@given(a=st.lists(st.floats(-30, 30), min_size=1, max_size=20))
def test_the_derivatives_are_those_of_torch(name, a):
    loss = losses.get(name)
    ta = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    value = BY_TORCH[name](ta)
    (first,) = torch.autograd.grad(value.sum(), ta, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), ta)
    for ours, theirs in zip((loss.phi, loss.dphi, loss.d2phi), (value, first, second), strict=True):
        theirs = theirs.detach().numpy()
        np.testing.assert_allclose(ours(np.array(a)), theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_derivatives_are_those_of_finite_differences(name):
    loss = losses.get(name)
    a, h = np.linspace(-12, 12, 501), 1e-5
    for f, df in ((loss.phi, loss.dphi), (loss.dphi, loss.d2phi)):
        np.testing.assert_allclose((f(a + h) - f(a - h)) / (2 * h), df(a), atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_the_bounds_are_the_suprema(name):
    loss = losses.get(name)
    a = np.linspace(-40, 40, 400001)
    for f, bound in ((loss.dphi, loss.slope_bound), (loss.d2phi, loss.curvature_bound)):
        largest = np.abs(f(a)).max()
        if np.isinf(bound):
            assert name == "squared"
            assert f is loss.dphi
        else:
            assert (1 - 1e-7) * bound <= largest <= (1 + 1e-15) * bound


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "tanh"])
def test_the_tails_keep_their_relative_accuracy(name):
    loss, a = losses.get(name), np.array([-20.0, -100.0, -300.0])
    factor, rate = (4.0, 2.0) if name == "tanh" else (1.0, 1.0)
    if name != "tanh":
        np.testing.assert_allclose(loss.phi(a), np.exp(a), rtol=1e-8)
    np.testing.assert_allclose(loss.dphi(a), factor * np.exp(rate * a), rtol=1e-8)
    np.testing.assert_allclose(loss.d2phi(a), rate * factor * np.exp(rate * a), rtol=1e-8)
    if name == "softplus":
        np.testing.assert_allclose(loss.phi(-a), -a, rtol=1e-8)
    else:
        np.testing.assert_allclose(loss.dphi(-a), factor * np.exp(rate * a), rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_arguments_are_finite_and_keep_their_type(name, dtype):
    loss = losses.get(name)
    a = np.array([-1e6, -1e3, 0.0, 1e3, 1e6], dtype)
    for f in (loss.phi, loss.dphi, loss.d2phi):
        assert np.isfinite(f(a)).all()
        assert f(a).dtype == dtype


def test_get_takes_names_triples_and_losses():
    loss = losses.get("tanh")
    assert losses.get(loss) is loss
    triple = losses.get((np.sin, np.cos, lambda a: -np.sin(a)))
    assert triple.phi is np.sin
    assert triple.dphi is np.cos
    assert triple.slope_bound == triple.curvature_bound == np.inf
    assert triple.name == "custom"


@pytest.mark.parametrize("name", NAMES)
def test_check_derivatives_accepts_the_named_losses(name):
    losses.check_derivatives(losses.get(name))


@pytest.mark.parametrize("name", ["softplus", "tanh"])
def test_check_derivatives_refuses_wrong_ones(name):
    loss = losses.get(name)
    with pytest.raises(ValueError, match="dphi"):
        losses.check_derivatives(losses.get((loss.phi, lambda a: 1.01 * loss.dphi(a), loss.d2phi)))
    with pytest.raises(ValueError, match="d2phi"):
        losses.check_derivatives(losses.get((loss.phi, loss.dphi, lambda a: -loss.d2phi(a))))


REFUSED = {
    "name": ("hinge", ValueError, "loss is 'hinge', expected one of softplus, sigmoid, tanh"),
    "number": (3, TypeError, "loss is a int, expected a name, a triple"),
    "None": (None, TypeError, "loss is a None, expected a name"),
    "pair": ((np.sin, np.cos), TypeError, "loss is a tuple, expected a name, a triple"),
    "triple of numbers": ((1, 2, 3), TypeError, "loss is a tuple, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_losses_are_refused(case, refuses):
    value, error, message = REFUSED[case]
    refuses(message, losses.get, value, kind=error)
    refuses(message, GaussianHalfspace, np.zeros(1), np.eye(1), value, kind=error)
    refuses(message, EmpiricalHalfspace, np.eye(2), value, kind=error)


def test_derivatives_that_are_none_are_refused(refuses):
    wrong = (np.sin, lambda a: np.cos(a) + 1e-3, lambda a: -np.sin(a))
    refuses("dphi(.*) is .*, expected .*, the derivative", losses.check_derivatives, wrong)
    flat = (np.sin, lambda a: 1.0, lambda a: -np.sin(a))
    refuses("dphi returns shape () for scores of shape (401,)", losses.check_derivatives, flat)
    nan = (np.sin, lambda a: np.full_like(a, np.nan), lambda a: -np.sin(a))
    refuses("dphi(-10) is nan, expected", losses.check_derivatives, nan)
    refuses("largest is 0, expected", losses.check_derivatives, "tanh", 0)
    refuses("tolerance is -1, expected", losses.check_derivatives, "tanh", 1.0, -1)
