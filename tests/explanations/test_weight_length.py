"""Lengths against those of torch, bounds, and the limit of small steps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.explanations import weight_length

seeds = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_squared_lengths_are_those_of_torch(unit_descent, decay):
    for seed in range(30):
        path, slopes = unit_descent(seed, 10, 0.1, decay)
        r = (path**2).sum(1).numpy()
        at_one = (slopes.norm(dim=1) * path[:-1].norm(dim=1)).numpy()
        # A step rounds the weights, and the gradient by some roundings of its own length.
        rounding = 64 * EPS * (1 + 0.1 * at_one / r[:-1]).sum()
        found = weight_length.squared_lengths(0.1, at_one, r[0], decay)
        np.testing.assert_allclose(found, r, rtol=rounding)
        if decay == 0:
            assert (np.diff(r) >= -rounding * r[1:]).all()


@given(seeds)
def test_smooth_lengths_are_the_limit_of_small_steps(seed):
    rng = np.random.default_rng(seed)
    slope, start, total = rng.uniform(0.3, 3), rng.uniform(0.5, 2), rng.uniform(0.2, 2)
    decay = rng.choice([0.0, rng.uniform(0.1, 1)])
    errors = []
    for steps in (200, 400):
        # With decay the clock is rate * decay * steps; the noise term needs rate ~ 1 / steps too.
        rate = total / steps
        grown = slope * math.sqrt(steps / total)
        exact = weight_length.squared_lengths(rate, np.full(steps, grown), start, decay)[-1]
        smooth = weight_length.smooth_squared_lengths(
            np.array([float(steps)]), rate, grown, start, decay
        )[0]
        errors.append(abs(exact / smooth - 1))
    assert errors[1] < 0.02
    # Halved, up to the rounding of four hundred steps.
    assert errors[1] < 0.6 * errors[0] + 4 * 400 * EPS


def test_no_rate_is_too_large_for_the_bound():
    v = np.array([[math.cos(t), math.sin(t)] for t in np.linspace(0, 2 * np.pi, 721)])
    for seed in range(8):
        rng = np.random.default_rng(seed)
        u = torch.tensor(rng.normal(size=(20, 2)) * [1, 3])
        target = torch.tensor(rng.normal(size=20))

        def loss(w, u=u, target=target):
            x = u @ w.T
            x = (x - x.mean(0)) / x.std(0, correction=0)
            return torch.nn.functional.softplus(3 * target[:, None] * x).mean(0)

        points = torch.tensor(v, requires_grad=True)
        values = loss(points)
        (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        rows = [
            torch.autograd.grad(slopes[:, i].sum(), points, retain_graph=True)[0] for i in (0, 1)
        ]
        curvature = torch.linalg.eigvalsh(torch.stack(rows, 1))[:, 1].max().item()
        slope = slopes.detach().norm(dim=1).max().item()
        drop = (values.max() - values.min()).item()
        for rate in 10.0 ** np.arange(-2, 4):
            w = torch.tensor(v[[100]])
            lengths, at_one = [1.0], []
            for _ in range(40):
                w.requires_grad_()
                (g,) = torch.autograd.grad(loss(w).sum(), w)
                at_one.append((g.norm() * w.detach().norm()).item() ** 2)
                w = (w - rate * g).detach()
                lengths.append((w**2).sum().item())
            # A thousandth more for what lies between the points.
            bound = weight_length.length_bound(rate, curvature * 1.001, slope * 1.001, drop * 1.001)
            assert max(lengths) <= bound
            least = np.minimum.accumulate(at_one)
            limit = bound * (bound - 1) / (rate**2 * np.arange(1, 41))
            assert (least <= limit).all()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: weight_length.squared_lengths(0.1, np.array([1.0, -1.0])),
            ValueError,
            r"gradients\[1\] is -1.0, expected at least 0",
        ),
        (
            lambda: weight_length.squared_lengths(0.1, np.ones(2), start=0.0),
            ValueError,
            "start is 0.0, expected a finite number above 0",
        ),
        (
            lambda: weight_length.smooth_squared_lengths(np.array([-1.0]), 0.1, 1.0),
            ValueError,
            "steps holds -1.0, expected at least 0",
        ),
        (
            lambda: weight_length.length_bound(0.1, 1.0, -1.0, 1.0),
            ValueError,
            "slope is -1.0, expected",
        ),
        (
            lambda: weight_length.length_bound(1e200, 1.0, 1.0, 1.0),
            ValueError,
            r"rate is 1e\+200, with which the result, inf, leaves the range of floats",
        ),
        (
            lambda: weight_length.squared_lengths(0.5, np.zeros(2000), decay=1.0),
            ValueError,
            "gradients has 2000 entries, expected fewer or others: after 538 steps the squared "
            "length is 0.0",
        ),
    ],
)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: weight_length.squared_lengths(0.1, np.ones((2, 2))),
            ValueError,
            r"gradients has shape \(2, 2\), expected one number a step",
        ),
    ],
)
def test_errors_teach_where_annotations_are_off(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_the_growth_law_bounds_the_recursion():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rate, slope, start = 10 ** rng.uniform(-2, 1, size=3)
        t = np.arange(2001.0)
        r = weight_length.squared_lengths(rate, np.full(2000, slope), start)
        c = (rate * slope) ** 2
        law = weight_length.smooth_squared_lengths(t, rate, slope, start)
        np.testing.assert_allclose(law**2, start**2 + 2 * c * t, rtol=16 * EPS)
        excess = c**2 / start**2 + c / 2 * np.log1p(2 * c * t / start**2)
        rounding = 8 * len(r) * EPS
        assert (r**2 >= law**2 * (1 - rounding)).all()
        assert (r**2 <= (law**2 + excess) * (1 + rounding)).all()
        # The first step uses up the first part of the excess, so that a smaller one would fail.
        assert r[1] ** 2 - law[1] ** 2 >= c**2 / start**2 - 16 * EPS * r[1] ** 2


def test_the_squared_lengths_add_up_for_any_gradients():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rate, start = 10 ** rng.uniform(-2, 1, size=2)
        slopes = rng.exponential(size=200)
        r = weight_length.squared_lengths(rate, slopes, start)
        terms = 2 * (rate * slopes) ** 2 + (rate * slopes) ** 4 / r[:-1] ** 2
        expected = start**2 + np.cumsum(terms)
        np.testing.assert_allclose(r[1:] ** 2, expected, rtol=8 * len(r) * EPS)


def test_no_length_leaves_the_range_on_the_way():
    # Steps of 1e-20 times the length, whose squares would be 0.
    found = weight_length.squared_lengths(1.0, np.array([1e-160, 1e-160]), start=1e-300)
    np.testing.assert_allclose(found, [1e-300, 1e-20, 1e-20], rtol=8 * EPS)
    found = weight_length.squared_lengths(1.0, np.array([1e-162]), start=1e-310)
    # A start below the normal numbers has few digits itself.
    rounding = float(np.finfo(np.float64).smallest_subnormal) / 1e-310
    assert found[1] == pytest.approx(1e-14, rel=rounding, abs=0)
    found = weight_length.squared_lengths(1e-170, np.array([1.0]), start=1e-310)
    assert found[1] == pytest.approx(1e-30, rel=rounding, abs=0)
    long = weight_length.smooth_squared_lengths([1e308], 1.0, 1.0, decay=0.9)
    assert long[0] == pytest.approx((1 / 1.8) ** 0.5, rel=8 * EPS, abs=0)
    with pytest.raises(
        ValueError, match=r"the squared length.* is inf, beyond the largest float64"
    ):
        weight_length.smooth_squared_lengths(np.ones(1), 1e200, 1e200)
    with pytest.raises(ValueError, match=r"the squared length.* beyond the largest float16"):
        weight_length.smooth_squared_lengths(np.ones(1, np.float16), 1e3, 1e3)


def test_lists_and_integers_are_taken():
    slopes = np.array([1.0, 2.0, 3.0])
    expected = weight_length.squared_lengths(0.1, slopes)
    for values in (slopes.tolist(), [1, 2, 3], np.array([1, 2, 3])):
        np.testing.assert_array_equal(weight_length.squared_lengths(0.1, values), expected)
    expected = weight_length.smooth_squared_lengths(slopes, 0.1, 2.0)
    for values in (slopes.tolist(), [1, 2, 3], np.array([1, 2, 3])):
        found = weight_length.smooth_squared_lengths(values, 0.1, 2.0)
        np.testing.assert_array_equal(found, expected)


def test_the_bound_is_the_formula_written_out():
    rng = np.random.default_rng(0)
    for _ in range(100):
        rate, curvature, slope, drop, start = 10 ** rng.uniform(-2, 2, size=5)
        first = max(start, rate * curvature + rate**2 * slope**2 / start)
        found = weight_length.length_bound(rate, curvature, slope, drop, start)
        assert found == pytest.approx(first + 2 * rate * drop, rel=16 * EPS, abs=0)


def test_smooth_lengths_are_the_formula_written_out():
    rng = np.random.default_rng(0)
    for _ in range(100):
        rate, slope, start = 10 ** rng.uniform(-1, 1, size=3)
        decay, t = 0.1 / rate, 10 ** rng.uniform(0, 2)
        e = rate * slope**2 / (2 * decay)
        expected = math.sqrt(e + (start**2 - e) * math.exp(-4 * rate * decay * t))
        found = weight_length.smooth_squared_lengths([t], rate, slope, start, decay)[0]
        cancelled = 1 + max(e, start**2) / expected**2
        assert found == pytest.approx(expected, rel=16 * EPS * cancelled, abs=0)
