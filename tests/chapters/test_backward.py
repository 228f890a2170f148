"""The backward chapter's reference answers against torch, and its figures against the code."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import batch_norm, layer_norm

from bncore.chapters.mechanics.backward import exercises, experiments, figures
from bncore.mechanics import transform


def tensors(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def normalised(x, gamma, eps):
    return batch_norm(x[:, None], None, None, gamma, None, training=True, eps=eps)[:, 0]


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_a_batch_of_two(seed, eps):
    dy, x, gamma = tensors(seed, 2, 2, 1)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(normalised(x, gamma, eps), x, dy)
    answer = exercises.batch_of_two(dy.numpy(), x.detach().numpy(), gamma.item(), eps)
    np.testing.assert_allclose(answer, dx.numpy(), atol=1e-10 / eps)


@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(1e-3, 1))
def test_the_double_backward_pass(seed, m, eps):
    v, dy, x, gamma = tensors(seed, m, m, m, 1)
    for tensor in (dy, x, gamma):
        tensor.requires_grad_()
    (dx,) = torch.autograd.grad(normalised(x, gamma, eps), x, dy, create_graph=True)
    expected = torch.autograd.grad((v * dx).sum(), (x, dy, gamma))
    given_arrays = [tensor.detach().numpy() for tensor in (v, dy, x)]
    answer = exercises.double(*given_arrays, gamma.item(), eps)
    for ours, theirs in zip(answer, expected, strict=True):
        scale = 1 + np.abs(theirs.numpy()).max()
        np.testing.assert_allclose(ours / scale, theirs.numpy().squeeze() / scale, atol=1e-9)


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_layer_norm(seed, eps):
    dy, x, gamma = tensors(seed, (3, 5), (3, 5), 5)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(layer_norm(x, (5,), gamma, eps=eps), x, dy)
    answer = exercises.layer_norm(dy.numpy(), x.detach().numpy(), gamma.numpy(), eps)
    np.testing.assert_allclose(answer, dx.numpy(), atol=1e-10)


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_the_gradient_from_the_output(seed, eps):
    dy, x, gamma, beta = tensors(seed, (6, 3), (6, 3), 3, 3)
    y, cache = transform.forward(x.numpy(), gamma.numpy(), beta.numpy(), eps)
    answer = exercises.from_output(dy.numpy(), y, gamma.numpy(), beta.numpy(), 1 / cache.inv_std)
    np.testing.assert_allclose(answer, transform.backward(dy.numpy(), cache).dx, atol=1e-9)


@given(st.integers(0, 10**6), st.integers(3, 9))
def test_normalising_by_the_mean_absolute_deviation(seed, m):
    dy, x = tensors(seed, m, m)
    x.requires_grad_()
    centred = x - x.mean()
    (dx,) = torch.autograd.grad(centred / centred.abs().mean(), x, dy)
    answer = exercises.absolute_deviation(dy.numpy(), x.detach().numpy())
    np.testing.assert_allclose(answer, dx.numpy(), rtol=1e-9, atol=1e-9)


def heights(fig, panel, label):
    lines = {line.get_label(): line for line in fig.axes[panel].get_lines()}
    points = np.asarray(lines[label].get_ydata(), dtype=float).ravel()
    plt.close(fig)
    return points


@pytest.mark.parametrize(("level", "tilt"), [(1, 0), (-2, 2), (0.5, -1)])
def test_what_arrives_is_blind_to_level_and_tilt(level, tilt):
    moved = figures.fit(level, tilt)
    plain = figures.fit(0, 0)
    np.testing.assert_allclose(
        heights(moved, 1, "what arrives"), heights(plain, 1, "what arrives"), atol=1e-9
    )
    assert not np.allclose(
        heights(moved, 0, "what the loss asks for"), heights(plain, 0, "what the loss asks for")
    )


@pytest.mark.parametrize("eps", [1e-5, 0.1, 10.0])
def test_the_measured_leak_lies_on_the_predicted_curve(eps):
    measured = heights(figures.leaking(eps), 1, "measured")
    np.testing.assert_allclose(measured, eps / (1 + eps), rtol=1e-6)


@pytest.mark.parametrize("m", [3, 4, 16])
def test_the_histogram_of_surviving_shares_follows_its_prediction(m):
    fig = figures.surviving(m)
    (line,) = [line for line in fig.axes[0].get_lines() if "predicted" in str(line.get_label())]
    grid, density = line.get_data()
    for bar in fig.axes[0].patches:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        expected = (right ** ((m - 2) / 2) - left ** ((m - 2) / 2)) / (right - left)
        spread = (expected / (right - left) / 4000) ** 0.5
        assert abs(bar.get_height() - expected) < 5 * spread + 0.02
    np.testing.assert_allclose(density, (m - 2) / 2 * grid ** (m / 2 - 2))
    plt.close(fig)


@pytest.mark.parametrize("step", figures.STEPS)
def test_the_graph_marks_the_edges_that_carry_the_gradient(step):
    values = {name: np.array([1.0, -0.5]) for name in figures.STEPS[1:]}
    fig = figures.graph(step, values)
    node = "ℓ" if step == "forward" else step.removeprefix("∂ℓ/∂")
    thick = [patch for patch in fig.axes[0].patches if patch.get_linewidth() == 4]
    assert len(thick) == (0 if step == "forward" else sum(a == node for a, _ in figures.EDGES))
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert ("= 1   −0.5" in texts) == (step != "forward")
    plt.close(fig)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_bias_drifts_on_a_line_unless_the_gradient_or_a_shift_takes_the_level(rate):
    path, losses = experiments.drifting_bias(50, rate, seen=False)
    np.testing.assert_allclose(path, path[1] * np.arange(50), rtol=1e-9)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-12)
    stays, _ = experiments.drifting_bias(50, rate, seen=True)
    np.testing.assert_allclose(stays, 0, atol=1e-12)
    settles, _ = experiments.drifting_bias(50, rate, seen=False, output_bias=True)
    limit = path[1] / rate
    np.testing.assert_allclose(settles, limit * (1 - (1 - rate) ** np.arange(50)), rtol=1e-9)


def test_a_division_by_the_deviation_multiplies_the_drift():
    plain, _ = experiments.drifting_bias(2, seen=False, factor=0.1)
    divided, _ = experiments.drifting_bias(2, seen=False, factor=0.1, divide=True)
    u = 0.1 * np.random.default_rng(8).normal(size=16)
    np.testing.assert_allclose(divided[1], plain[1] / u.std())


def test_the_shares_on_digits_sum_to_one_and_a_batch_of_two_keeps_nothing():
    shares = experiments.shares_on_digits([2, 8], seed=0, steps=2)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares[0, 2] < 1e-6 < shares[1, 2]


def test_hiding_the_mean_lengthens_the_weights_along_the_mean_image():
    _, plain, off_mean = experiments.hidden_on_digits((), seed=0, steps=40)
    losses, blind, towards_mean = experiments.hidden_on_digits(("mean",), seed=0, steps=40)
    assert losses.shape == (40,)
    assert blind[0] == plain[0]
    assert blind[-1] > 1.5 * plain[-1]
    assert off_mean < 0.1 < 0.5 < towards_mean < 1


def test_numerical_derivatives_err_as_predicted():
    steps = np.array([1e-12, 1e-9, 1e-5, 1e-4, 1e-3])
    errors, predicted = experiments.difference_errors(steps)
    for name in ("forward", "central"):
        assert (errors[name] < 10 * predicted[name]).all()
    np.testing.assert_allclose(errors["forward"][2:], predicted["forward"][2:], rtol=0.02)
    np.testing.assert_allclose(errors["central"][3:], predicted["central"][3:], rtol=0.02)
    assert errors["complex step"][0] < 1e-14
