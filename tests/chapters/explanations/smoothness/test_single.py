"""Single units of the chapter on smoothness, against formulas and automatic differentiation."""

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.smoothness import single

EPS = float(np.finfo(np.float64).eps)
XTOL = 1e-14  # To which a best angle is found.


@pytest.mark.parametrize("case", list(single.quadratics(5, seed=9)))
def test_quadratics_have_the_gradient_they_say(case):
    z = torch.tensor(case.z, requires_grad=True)
    loss = z @ torch.tensor(case.H) @ z / 2 + torch.tensor(case.b) @ z
    size = np.abs(case.H) @ np.abs(case.z) + np.abs(case.b)
    rounding = 4 * len(case.z) * EPS * size.max()
    gradient = torch.autograd.grad(loss, z)[0].numpy()
    np.testing.assert_allclose(gradient, case.g, rtol=0, atol=rounding)
    rounding *= np.abs(case.z).sum()
    assert float(case.loss(torch.tensor(case.y))) == pytest.approx(loss.item(), abs=rounding)
    h = EPS ** (1 / 3)
    numeric = [
        (case.loss(torch.tensor(case.y + h * e)) - case.loss(torch.tensor(case.y - h * e)))
        / (2 * h)
        for e in np.eye(len(case.y))
    ]
    # Central differences leave h squared times a third derivative, each of 1 / deviation, and the
    # rounding of the loss over h.
    size = np.abs(case.slope()).max() + np.abs(case.g).max() / case.y.std()
    left = 10 * (h / case.y.std()) ** 2 * size + rounding / h
    np.testing.assert_allclose(numeric, case.slope(), rtol=0, atol=left)


def test_convex_quadratics_are_convex():
    for case in single.quadratics(20, convex=True):
        values = np.linalg.eigvalsh(case.H)
        assert values[0] > -len(values) * EPS * values[-1]


def test_the_worst_inputs_have_norm_one_and_a_slope_that_grows_like_one_over_t():
    large, small = 1e-2, 1e-4
    plain, normalised = zip(*(single.worst_inputs(t) for t in (large, small)), strict=True)
    expected = (large / small) ** 2
    assert normalised[1] / normalised[0] == pytest.approx(expected, rel=10 * large**2, abs=0)
    assert max(plain) <= 1 / 8 * (1 + 16 * EPS)


@pytest.mark.parametrize("bias", [True, False])
def test_the_optimum_of_a_unit_has_no_slope_and_no_better_neighbour(bias):
    rng = np.random.default_rng(0)
    unit = single.Unit(rng.normal(size=(12, 2)) + 1, 2 * rng.normal(size=12))
    _, outputs = unit.optimum(bias)
    slopes = unit.X.T @ unit.slopes(outputs)
    rounding = 12 * 4 * EPS * (1 + np.abs(unit.X).max()) * np.abs(outputs).max()
    np.testing.assert_allclose(slopes, 0, atol=rounding)
    if bias:
        assert unit.slopes(outputs).sum() == pytest.approx(0, abs=rounding)
    for _ in range(50):
        move = unit.X @ (0.1 * rng.normal(size=2)) + bias * 0.1 * rng.normal()
        assert unit.losses(outputs + move) >= unit.losses(outputs)


def test_the_best_angles_are_the_lowest_of_a_fine_grid():
    rng = np.random.default_rng(1)
    unit = single.Unit(rng.normal(size=(12, 2)) + 1, 2 * rng.normal(size=12))
    found = unit.best_angles(1.3, 0.2)
    grid = np.linspace(-np.pi, np.pi, 20001)
    values = unit.at(grid, 1.3, 0.2)
    assert min(unit.at(a, 1.3, 0.2) for a in found) <= values.min() * (1 + 12 * EPS)
    for angle in found:
        near = unit.at(angle + np.array([-1e-4, 1e-4]), 1.3, 0.2)
        assert (near >= unit.at(angle, 1.3, 0.2)).all()


@pytest.mark.parametrize(
    ("options", "broken"),
    [
        ({}, False),
        ({"matched": False}, True),
        ({"bias": False}, True),
        ({"agreeing": False}, True),
    ],
)
def test_the_initialisation_bound_needs_each_condition(options, broken):
    excess = single.initialisation(30, seed=8, **options)
    assert (excess.max() > 0.01) if broken else (np.abs(excess).max() < 100 * XTOL)


@pytest.mark.parametrize("units", [20, 80])
def test_the_mean_direction_is_as_stiff_as_predicted(units):
    whole, centred = single.mean_direction(units, m=20000, seed=3)
    rest = 1 / 2 - 1 / (2 * np.pi)
    assert whole == pytest.approx(rest + units / (2 * np.pi), rel=0.03)
    assert rest < centred < 1.3 * rest


def test_the_squared_gradient_in_front_falls_with_the_square_of_the_cosine():
    cosines = np.linspace(-0.9, 0.9, 7)
    found = single.squared_slopes(cosines, 20, seed=3)
    expected = np.tile(1 - cosines[:, None] ** 2, (1, 20))
    # Sums of 16 values, beside a level that is taken away.
    np.testing.assert_allclose(found, expected, rtol=0, atol=16 * 64 * EPS)


@pytest.mark.parametrize("convex", [True, False])
def test_relative_norms_are_preserved(convex):
    count = 0
    for case in single.preserving(40, seed=5, convex=convex):
        d, g, values = case.slope(), case.g, np.linalg.eigvalsh(case.H)
        assert case.gamma > 0
        assert (values[0] > 0) == convex
        quotients = [v @ case.H @ v / (v @ v) for v in (d, g)]
        assert abs(quotients[0] - quotients[1]) < 1000 * EPS * np.abs(values).max()
        count += 1
    assert count > 30
