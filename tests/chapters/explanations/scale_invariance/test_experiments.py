"""The experiments of the chapter on scale invariance, against formulas, other libraries and the record."""

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.scale_invariance import (
    experiments,
)
from bncore.explanations import weight_length
from bncore.lab import data, networks

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
LEAK = 1e-2  # What eps lets channels of small variance feel of their length.


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_the_unit_against_torch(eps):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        unit = experiments.Unit(rng.normal(size=(9, 3)), rng.normal(size=9))
        w = rng.normal(size=(4, 3))
        values, gradients = unit.value_and_gradient(w.copy(), eps)
        ws = torch.tensor(w, requires_grad=True)
        x = torch.tensor(unit.inputs) @ ws.T
        x_hat = (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()
        losses = ((x_hat - torch.tensor(unit.targets)[:, None]) ** 2).mean(0) / 2
        (expected,) = torch.autograd.grad(losses.sum(), ws)
        # Means of nine terms, off by the rounding of the largest over the least deviation.
        wide = (1 + x.abs().max() / x.std(0).min()).item()
        rounding = 9 * EPS * wide * (1 + losses.max().item())
        np.testing.assert_allclose(values, losses.detach().numpy(), rtol=0, atol=rounding)
        rounding = 9 * EPS * wide**2 * (1 + expected.abs().max().item())
        np.testing.assert_allclose(gradients, expected.numpy(), rtol=0, atol=rounding)


def test_the_linear_unit_against_torch():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        unit = experiments.Linear(rng.normal(size=(9, 3)), rng.normal(size=9))
        w = rng.normal(size=(4, 3))
        values, gradients = unit.value_and_gradient(w)
        ws = torch.tensor(w, requires_grad=True)
        x = torch.tensor(unit.inputs) @ ws.T
        losses = ((x - x.mean(0) - torch.tensor(unit.targets)[:, None]) ** 2).mean(0) / 2
        (expected,) = torch.autograd.grad(losses.sum(), ws)
        rounding = 9 * EPS * (1 + x.abs().max().item()) ** 2
        np.testing.assert_allclose(values, losses.detach().numpy(), rtol=0, atol=rounding)
        rounding *= 1 + np.abs(unit.inputs).max()
        np.testing.assert_allclose(gradients, expected.numpy(), rtol=0, atol=rounding)


@pytest.mark.parametrize("seed", range(3))
def test_descent_on_the_linear_unit_reaches_the_least_loss_with_its_penalty(seed):
    decays = np.array([0.03, 0.1, 1.0])
    run = experiments.decayed(
        np.full(3, 0.1), decays, 2000, noise=0, batch=64, seed=seed, kind=experiments.Linear
    )
    found = run.loss[-1] + decays / 2 * run.length[-2] ** 2
    least = [experiments.least_with_penalty(decay, 64, seed=seed) for decay in decays]
    np.testing.assert_allclose(found, least, rtol=64 * 10 * EPS)  # sums over examples and inputs


def test_the_circle_bounds_are_reached_and_kept():
    unit = experiments.plane()
    curvature, slope, drop = experiments.circle_bounds(unit)
    for seed in range(50):
        v = torch.tensor(np.random.default_rng(seed).normal(size=2))
        v /= v.norm()

        def loss(w):
            x = torch.tensor(unit.inputs) @ w
            x = (x - x.mean()) / x.std(correction=0)
            return ((x - torch.tensor(unit.targets)) ** 2).mean() / 2

        hessian = torch.autograd.functional.hessian(loss, v)
        assert torch.linalg.eigvalsh(hessian)[-1] <= curvature * 1.001
        assert torch.autograd.functional.jacobian(loss, v).norm() <= slope * 1.001
        assert unit.value_and_gradient(v.numpy()[None])[0][0] <= drop + 1
    coarse = experiments.circle_bounds(unit, angles=181)
    # A grid misses a peak by the spacing squared, times its curvature.
    missed = 10 * (2 * np.pi / 181) ** 2
    np.testing.assert_allclose(coarse, (curvature, slope, drop), rtol=missed)


@pytest.mark.parametrize("rate", [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3])
def test_descent_on_the_plane_stays_within_the_bounds_and_ends_stable(rate):
    unit, steps = experiments.plane(), 1000
    path, slopes = experiments.descend(unit, [-0.6, 0.8], rate, steps)
    r = (path**2).sum(axis=1)
    bounds = experiments.circle_bounds(unit)
    R = weight_length.length_bound(rate, *bounds)
    assert r[-1] <= R
    least = np.minimum.accumulate((slopes**2).sum(axis=1) * r)[:-1]
    assert (least <= R * (R - 1) / (rate**2 * np.arange(1, steps + 1))).all()
    assert rate / r[-1] < 2 / bounds[0]
    rounding = 4 * EPS * np.abs(path).max()
    np.testing.assert_allclose(np.diff(path, axis=0), -rate * slopes[:-1], rtol=0, atol=rounding)
    assert (np.diff(r) >= -4 * EPS * r[1:]).all()


def test_lengths_under_decay_follow_the_recursion():
    rates, decays = np.array([0.1, 1.0, 5.0]), np.array([0.0, 0.05, 0.1])
    run = experiments.decayed(rates, decays, 200)
    for i, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        exact = weight_length.squared_lengths(rate, run.gradient[:, i], 1.0, decay)
        np.testing.assert_allclose(run.length[:, i] ** 2, exact, rtol=200 * 10 * EPS)  # 200 steps


def test_noisy_units_settle_at_the_prediction_and_still_ones_do_not_with_momentum():
    noisy = experiments.decayed(np.array([0.3]), np.array([0.03]), 1500)
    length, angle = experiments.settled(noisy, 0.3, 0.03)
    assert length[0] == pytest.approx(1, abs=0.03)
    assert angle[0] == pytest.approx(1, abs=0.03)
    still = experiments.decayed(np.array([0.03]), np.array([0.03]), 3000, 0.9, noise=0, batch=64)
    assert experiments.settled(still, 0.03, 0.03, 0.9)[1][0] > 1.3


def test_the_curvature_at_the_goal_against_torch():
    rng = np.random.default_rng(0)
    teacher, _ = rng.normal(size=(2, 10))
    u, t = torch.tensor(rng.normal(size=(64, 10))), torch.tensor(teacher)
    t = t / t.norm()

    def normalised(w):
        x = u @ w
        return (x - x.mean()) / x.std(correction=0)

    def loss(w):
        return ((normalised(w) - normalised(t)) ** 2).mean() / 2

    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, t))[-1].item()
    assert experiments.curvature_at_the_goal(batch=64) == pytest.approx(
        exact, rel=64 * 10 * EPS, abs=0
    )


def test_a_network_keeps_pythagoras_for_every_unit():
    run = experiments.decayed_on_digits(0.3, 0.0, 0, 30)
    grown = (0.3 * run.gradient / run.length[:-1]) ** 2
    rounding = 64 * SINGLE * (run.length**2).max()  # lengths of 64 weights
    np.testing.assert_allclose(np.diff(run.length**2, axis=0), grown, rtol=0, atol=rounding)
    assert run.length.shape == (31, 64)


@pytest.mark.parametrize(("rate", "momentum"), [(1.0, 0.0), (0.1, 0.9)], ids=str)
def test_three_units_in_four_of_a_network_settle_near_the_prediction(rate, momentum):
    run = experiments.decayed_seeds(rate, 0.003, range(3), 800, momentum)
    length, angle = experiments.settled(run, rate, 0.003, momentum)
    assert np.quantile(np.abs(length - 1), 0.75) < 0.1
    assert np.quantile(np.abs(angle - 1), 0.75) < 0.15


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_growing_rates_do_what_weight_decay_does(momentum):
    rate = 0.3 * (1 - momentum)
    apart, growth = experiments.equivalent_on_digits(rate, 0.03, 1, 30, momentum)
    assert apart < 30 * 64 * EPS  # 30 steps, with sums of 64 terms
    assert growth > 1.5
    wrong = {"all_decay": True} if momentum == 0 else {"rest_start": False}
    assert experiments.equivalent_on_digits(rate, 0.03, 1, 30, momentum, **wrong)[0] > 1e-3


def test_parameters_are_split_in_two():
    model = networks.mlp([64, 8, 10], "relu", "batch")
    inside, others = experiments.split_parameters(model, data.digits().x_train[:4])
    assert [p.shape for p in inside] == [(8, 64)]
    assert len(inside) + len(others) == len(list(model.parameters()))


def test_channels_of_a_convolution_keep_pythagoras(small_images):
    make, split = (
        experiments.vgg("cifar10", depth=11, width=2, hidden=[4]),
        data.standard_images("cifar10"),
    )
    run = experiments.decayed_on_digits(0.1, 0.0, 0, 4, batch=8, make=make, split=split)
    grown = (0.1 * run.gradient / run.length[:-1]) ** 2
    np.testing.assert_allclose(np.diff(run.length**2, axis=0), grown, rtol=LEAK, atol=LEAK**2)
    assert run.length.shape == (5, 2 + 4 + 8 + 8 + 4 * 16 + 4)
    expected = np.cos(np.arctan(0.1 * run.gradient / run.length[:-1] ** 2))
    np.testing.assert_allclose(run.cosine, expected, rtol=0, atol=LEAK**2)


def test_a_noisy_unit_grows_by_the_law():
    rates = np.array([0.1, 1.0, 10.0])
    run = experiments.decayed(rates, np.zeros(3), 2000)
    growth = run.length[2000] / run.length[1000]
    np.testing.assert_allclose(growth, 2**0.25, rtol=0.03)
    terms = 1 + 2 * rates**2 * np.cumsum(run.gradient**2, axis=0)
    ratio = (terms[1999] / terms[999]) ** 0.25
    excess = (rates * run.gradient) ** 4 / run.length[:-1] ** 4
    left_out = (excess.sum(axis=0) / terms[999])[:2].max()
    np.testing.assert_allclose(growth[:2], ratio[:2], rtol=left_out)
    rounding = 2000 * 10 * EPS  # 2000 steps
    whole = terms[-1] + excess.sum(axis=0)
    np.testing.assert_allclose(run.length[-1] ** 4, whole, rtol=rounding)
    assert excess[0, 2] / excess[:, 2].sum() > 0.95  # nearly all of it from the first step
    with_excess = terms + np.cumsum(excess, axis=0)
    assert ratio[2] - growth[2] > 0.01
    expected = (with_excess[1999, 2] / with_excess[999, 2]) ** 0.25
    assert growth[2] == pytest.approx(expected, rel=rounding, abs=0)


@pytest.mark.parametrize("a", [0.25, 4.0])
def test_longer_weights_need_a_larger_rate_and_less_decay(a):
    for seed in range(20):
        unit = experiments.plane(seed=seed)

        def directions(start, rate, decay, unit=unit):
            w, path = start, []
            for _ in range(30):
                w = (1 - rate * decay) * w - rate * unit.value_and_gradient(w[None])[1][0]
                path.append(w / np.linalg.norm(w))
            return np.array(path)

        start = np.random.default_rng(seed).normal(size=2)
        plain = directions(start, 0.1, 0.5)
        # Powers of two change no digit.
        np.testing.assert_array_equal(directions(a * start, 0.1 * a**2, 0.5 / a**2), plain)
        # With the decay unchanged the run is another one, as the chapter says.
        if a < 1:
            assert np.abs(directions(a * start, 0.1 * a**2, 0.5) - plain).max() > 1e-4
