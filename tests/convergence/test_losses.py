"""The four losses against torch and their stated bounds, and the check of a caller's own."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.convergence import (
    EmpiricalHalfspace,
    EmpiricalNetwork,
    GaussianHalfspace,
    GaussianNetwork,
    losses,
)
from bncore.convergence.losses import Loss

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # careless losses overflow

EPS = np.finfo(np.float64).eps
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
def test_the_derivatives_are_those_of_torch(name, a, near):
    loss = losses.get(name)
    ta = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    value = BY_TORCH[name](ta)
    (first,) = torch.autograd.grad(value.sum(), ta, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), ta)
    for ours, theirs in zip((loss.phi, loss.dphi, loss.d2phi), (value, first, second), strict=True):
        theirs = theirs.detach().numpy()
        # torch takes slopes from 1 - tanh^2 and its like
        near(ours(np.array(a)), theirs, 8 * EPS * np.maximum(np.abs(theirs), 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_derivatives_are_those_of_finite_differences(name, near):
    """Truncated at the third derivative, which is that of tanh' at most: below 4.1."""
    loss = losses.get(name)
    a, h = np.linspace(-12, 12, 501), 1e-5
    for f, df in ((loss.phi, loss.dphi), (loss.dphi, loss.d2phi)):
        rounded = 2 * EPS * (np.abs(f(a)) + np.abs(a * df(a))) / h
        near((f(a + h) - f(a - h)) / (2 * h), df(a), 4.1 * h**2 / 6 + rounded)


@pytest.mark.parametrize("name", NAMES)
def test_the_bounds_are_the_suprema(name):
    loss = losses.get(name)
    a, step = np.linspace(-40, 40, 400001, retstep=True)
    # half a step beside its peak f is lower by f'' step^2 / 8, where f'' is 6 peaks at most
    missed = 6 * step**2 / 8
    for f, bound in ((loss.dphi, loss.slope_bound), (loss.d2phi, loss.curvature_bound)):
        largest = np.abs(f(a)).max()
        if np.isinf(bound):
            assert name == "squared"
            assert f is loss.dphi
        else:
            assert (1 - missed) * bound <= largest <= (1 + 8 * EPS) * bound


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "tanh"])
def test_the_tails_keep_their_relative_accuracy(name, near):
    """Each is a power series in the decay: the second term, at most 4 times the decay, is left out."""
    loss, a = losses.get(name), np.array([-20.0, -100.0, -300.0])
    factor, rate = (4.0, 2.0) if name == "tanh" else (1.0, 1.0)
    decay = np.exp(rate * a)
    error = 4 * decay + 8 * EPS
    if name != "tanh":
        near(loss.phi(a), decay, error * decay)
    near(loss.dphi(a), factor * decay, error * factor * decay)
    near(loss.d2phi(a), rate * factor * decay, error * rate * factor * decay)
    if name == "softplus":
        near(loss.phi(-a), -a, error * -a)
    else:
        near(loss.dphi(-a), factor * decay, error * factor * decay)


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


# ---- derivatives are checked ----


def steep(k):
    def fall(a):
        return 1 / np.cosh(np.clip(k * a, -300, 300)) ** 2

    return Loss(
        lambda a: np.tanh(k * a),
        lambda a: k * fall(a),
        lambda a: -2 * k * k * np.tanh(k * a) * fall(a),
    )


def pseudo_huber(k, center=-1.0):
    def root(a):
        return np.sqrt(1 + (k * (a - center)) ** 2)

    return Loss(
        lambda a: root(a) / k, lambda a: k * (a - center) / root(a), lambda a: k / root(a) ** 3
    )


def ramp(k, center):
    """A softplus that bends at ``center`` within 1/k."""
    soft = losses.get("softplus")
    return Loss(
        lambda a: soft.phi(k * (a - center)),
        lambda a: k * soft.dphi(k * (a - center)),
        lambda a: k * k * soft.d2phi(k * (a - center)),
    )


def scaled(loss, factor):
    return Loss(*(lambda a, f=f: factor * f(a) for f in loss.functions))


HUBER = Loss(  # its second derivative jumps at -1.4 and 0.8
    lambda a: np.where(np.abs(a + 0.3) < 1.1, (a + 0.3) ** 2 / 2, 1.1 * np.abs(a + 0.3) - 0.605),
    lambda a: np.clip(a + 0.3, -1.1, 1.1),
    lambda a: (np.abs(a + 0.3) < 1.1).astype(float),
)
HINGE = Loss(lambda a: np.maximum(0, 1 + a), lambda a: (a > -1).astype(float), np.zeros_like)
WAVE = Loss(np.sin, np.cos, lambda a: -np.sin(a))
RIGHT = {
    **losses.LOSSES,
    "sine": WAVE,
    "sine on a hill": Loss(lambda a: 1e6 + np.sin(a), np.cos, lambda a: -np.sin(a)),
    "exponential": Loss(np.exp, np.exp, np.exp),
    "double well": Loss(
        lambda a: (a * a - 1) ** 2, lambda a: 4 * a * (a * a - 1), lambda a: 12 * a * a - 4
    ),
    "Huber": HUBER,
    "squared hinge": Loss(
        lambda a: np.maximum(0, 1 + a) ** 2,
        lambda a: 2 * np.maximum(0, 1 + a),
        lambda a: 2.0 * (a > -1),
    ),
    "careless softplus": Loss(
        lambda a: np.log1p(np.exp(a)),
        lambda a: 1 / (1 + np.exp(-a)),
        lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2,
    ),
    "careless tanh": Loss(
        np.tanh, lambda a: 1 - np.tanh(a) ** 2, lambda a: -2 * np.tanh(a) * (1 - np.tanh(a) ** 2)
    ),
    "constant": Loss(np.ones_like, np.zeros_like, np.zeros_like),
    **{f"tanh({k} a)": steep(k) for k in (1e-3, 50, 1e4)},
    **{f"pseudo-Huber {k}": pseudo_huber(k) for k in (1e-6, 2, 1e3, 1e5)},
    "ramp at 700": ramp(10, 700),
}


@pytest.mark.parametrize("factor", [1.0, 1e8, 1e-8, -3.0])
@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_are_accepted(name, factor):
    losses.check_derivatives(scaled(RIGHT[name], factor))


@pytest.mark.parametrize("factor", [1.0, 1e8, 1e-8])
@given(
    name=st.sampled_from(sorted(set(RIGHT) - {"constant", "exponential"})),
    order=st.sampled_from([1, 2]),
    error=st.sampled_from([-2.0, -1.0, 1e-4, 1e4]),
)
def test_wrong_derivatives_are_refused(factor, name, order, error):
    functions = [*RIGHT[name].functions]
    right = functions[order]
    functions[order] = lambda a: (1 + error) * right(a)
    what = ("phi", "dphi", "d2phi")[order]
    with pytest.raises(ValueError, match=what):
        losses.check_derivatives(scaled(Loss(*functions), factor))


@given(center=st.floats(-1e3, 1e3), wide=st.floats(0.05, 5), share=st.floats(0.01, 1))
def test_a_derivative_that_is_wrong_in_one_place_is_refused(center, wide, share):
    """Of the softplus that bends at ``center``, right elsewhere."""
    right = ramp(1 / wide, center)
    wrong = Loss(right.phi, right.dphi, lambda a: (1 - share) * right.d2phi(a))
    losses.check_derivatives(right)
    with pytest.raises(ValueError, match=r"d2phi\(.*\) is .*, expected .*, the slope of dphi"):
        losses.check_derivatives(wrong)


@given(at=st.floats(-30, 30), size=st.sampled_from([1e-8, 1.0, 1e8]))
def test_jumps_are_refused(at, size):
    step = Loss(lambda a: size * (a > at), np.zeros_like, np.zeros_like)
    with pytest.raises(ValueError, match="phi jumps by"):
        losses.check_derivatives(step)
    kink = Loss(lambda a: size * np.maximum(0, a - at), lambda a: size * (a > at), np.zeros_like)
    losses.check_derivatives(kink, smooth=False)
    with pytest.raises(ValueError, match="dphi jumps by " + re.escape(f"{size:.3g}")):
        losses.check_derivatives(kink)


def test_what_is_given_is_told_beside_what_was_expected(refuses):
    check = losses.check_derivatives
    wrong = (np.sin, lambda a: np.cos(a) + 1e-3, lambda a: -np.sin(a))
    refuses("dphi(-16) is -0.956659, expected -0.957659, the slope of phi there", check, wrong)
    refuses("dphi returns shape () for scores of shape", check, (np.sin, lambda a: 1.0, np.sin))
    nan = (np.sin, lambda a: np.where(a > 2, np.nan, np.cos(a)), lambda a: -np.sin(a))
    refuses("dphi(2.0.*) is nan, expected a finite number for abs(a) up to 32", check, nan)
    barrier = (lambda a: -np.log(-a), lambda a: -1 / a, lambda a: 1 / a**2)
    refuses("phi(0) is inf, expected a finite number", check, barrier)
    loose = Loss(np.sin, np.cos, lambda a: -np.sin(a), 0.5, 1.0)
    refuses("slope_bound is 0.5, but dphi(.*) is .*1: expected the largest", check, loose)
    loose = Loss(np.sin, np.cos, lambda a: -np.sin(a), 1.0, 0.9)
    refuses("curvature_bound is 0.9, but d2phi(.*)", check, loose)


WRONG = (np.sin, np.cos, np.sin)
U1, S1 = np.array([0.1]), np.eye(1)
PROBLEMS = {
    "Gaussian halfspace": lambda loss: GaussianHalfspace(U1, S1, loss),
    "sample halfspace": lambda loss: EmpiricalHalfspace(np.eye(2), loss),
    "Gaussian network": lambda loss: GaussianNetwork(U1, S1, [1.0], loss),
    "sample network": lambda loss: EmpiricalNetwork(np.eye(2), [1.0], loss),
    "Gaussian activation": lambda act: GaussianNetwork(U1, S1, [1.0], "softplus", act),
    "sample activation": lambda act: EmpiricalNetwork(np.eye(2), [1.0], "softplus", act),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_problem_checks_its_functions_when_it_is_made(kind):
    with pytest.raises(ValueError, match=r"d2phi\(.*\) is .*, expected"):
        PROBLEMS[kind](WRONG)
    nan = (np.sin, lambda a: np.full_like(a, np.nan), lambda a: -np.sin(a))
    with pytest.raises(ValueError, match=r"dphi\(0\) is nan, expected a finite number"):
        PROBLEMS[kind](nan)
    PROBLEMS[kind]((np.sin, np.cos, lambda a: -np.sin(a)))
    clipped = (lambda a: np.clip(a, -1, 1), lambda a: (np.abs(a) < 1) * 1.0, np.zeros_like)
    if kind.startswith("Gaussian"):
        with pytest.raises(ValueError, match="dphi jumps"):
            PROBLEMS[kind](clipped)
    else:
        PROBLEMS[kind](clipped)


def test_a_loss_is_checked_once():
    calls = []
    loss = Loss(lambda a: calls.append(1) or np.sin(a), np.cos, lambda a: -np.sin(a))
    for _ in range(3):
        EmpiricalHalfspace(np.eye(2), loss)
    made = len(calls)
    losses.checked(loss)
    assert len(calls) == made > 0


# ---- what quadrature takes from a loss ----


def test_the_width_is_where_the_slope_changes_and_at_most_one():
    assert losses.get("softplus").width == losses.get("squared").width == 1.0
    loss = Loss(np.sin, np.cos, np.sin, 2.0, 8.0)
    assert loss.width == 0.25
    assert Loss(np.sin, np.cos, np.sin, 8.0, 2.0).width == 1.0
    assert Loss(np.sin, np.cos, np.sin, 8.0, 0.0).width == 1.0
    assert loss.functions == (np.sin, np.cos, np.sin)


def test_the_sizes_are_the_largest_magnitudes_near_0(near):
    sizes = np.array([4.0, 4.0, 2.0])
    near(losses.get("squared").sizes, sizes, 4 * EPS * sizes)
    near(scaled(losses.get("squared"), -2.0).sizes, 2 * sizes, 8 * EPS * sizes)


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
