"""The neural networks chapter's experiments against the package, torch and finite differences."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from bncore.chapters.convergence.neural_networks import deep, exercises, experiments, figures
from bncore.convergence import EmpiricalNetwork, GaussianNetwork
from bncore.lab import data, networks

seeds = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def measured():
    return {kind: deep.dependence(kind, seeds=(0, 1), steps=4, every=2) for kind in ("batch", None)}


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_the_grid_in_the_plane_agrees_with_the_package(seed):
    rng = np.random.default_rng(seed)
    u, S = experiments.stretched(4.0)
    theta, W = rng.normal(size=2), rng.uniform(-1, 1, size=(2, 2))
    plane, network = experiments.Plane(u, S, theta), GaussianNetwork(u, S, theta)
    assert plane.value(W) == pytest.approx(network.value(W), abs=1e-8)
    np.testing.assert_allclose(plane.gradient(W), network.gradient(W), atol=1e-8)
    for ours, theirs in zip(plane.second_order(W), network.second_order(W), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_values_are_those_of_the_first_unit():
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 2.0])
    first, other = np.array([[0.3, -1.0], [1.0, 0.5]]), np.array([-0.4, 0.7])
    expected = [plane.value(np.vstack([w, other])) for w in first]
    np.testing.assert_allclose(plane.values(first, other), expected)
    np.testing.assert_allclose(plane.values(first, other, every=2), expected, atol=1e-3)


@given(seeds)
def test_angles_are_to_the_line_in_the_norm_of_s(seed):
    angle = np.random.default_rng(seed).uniform(0, 90)
    w = experiments.turned(angle, 1.7)
    assert experiments.off_line(w[np.newaxis])[0] == pytest.approx(angle, abs=1e-5)
    assert w @ experiments.S @ w == pytest.approx(1.7**2)


@pytest.mark.parametrize("condition", [2.0, 20.0])
def test_stretched_problems_have_the_stated_numbers(condition):
    u, S = experiments.stretched(condition, strength=0.3)
    eigenvalues = np.linalg.eigvalsh(S)
    assert eigenvalues[1] / eigenvalues[0] == pytest.approx(condition)
    assert u @ np.linalg.solve(S, u) == pytest.approx(0.3)


@pytest.mark.parametrize("theta", [1.5, 3.0])
def test_the_best_pair_is_off_the_line_and_below_it(theta):
    plane, on, off = experiments.splayed(theta, 0.49)
    for pair in (on, off):
        np.testing.assert_allclose(plane.gradient(pair), 0, atol=1e-12)
    assert experiments.off_line(on, plane.u, plane.S).max() < 1e-6
    assert experiments.off_line(off, plane.u, plane.S).min() > 3
    assert plane.value(off) < plane.value(on) - 1e-8
    assert np.abs(np.linalg.eigvalsh(plane.second_order(off)[1])).min() < 1e-10


def test_the_curvature_of_turning_a_pair_apart_is_that_of_the_proposition():
    plane, on, _ = experiments.splayed(1.5, 0.49)
    v, h = np.array([[0.0, 1.0], [0.0, -1.0]]), 1e-3
    second = plane.value(on + h * v) - 2 * plane.value(on) + plane.value(on - h * v)
    B = plane.second_order(on)[1]
    assert second / h**2 == pytest.approx(2 * (B[0, 0] - B[0, 1]), rel=1e-2)


def test_a_unit_on_the_line_stays_there_only_with_the_others():
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 3.0])
    for angle, off in ((0, False), (60, True)):
        other = experiments.turned(angle, 1.5)
        best = plane.best_first(experiments.line(), other)
        assert (experiments.off_line(best[np.newaxis])[0] > 1) == off
        alpha, B = plane.second_order(np.vstack([best, other]))
        answer = exercises.one_unit(alpha[0], B[0, 0], B[0, 1:], other[None], plane.u, plane.S)
        np.testing.assert_allclose(answer, best, atol=1e-5)


def test_turns_keep_their_bounds_and_undo_each_other():
    _, judged, after, layers = experiments.unit_by_unit(3.0, steps=15, halvings=25)
    for turn in judged:
        assert (turn.measured <= turn.bound).all()
    assert after[1, 0] < 1e-7 < 1e-5 < after[2, 0]
    assert not layers[0].any()
    assert layers[1][0].any()
    assert not layers[1][1].any()


def test_critical_points_off_the_line_have_a_singular_matrix():
    angles, conditions = experiments.critical_points((3, 2), 0.25)
    off = angles > 0.01
    assert off.any()
    assert not off.all()
    assert conditions[off].max() < 1e-9 < 1e-7 < conditions[~off].min()


@settings(deadline=None)
@given(seeds)
def test_the_exercise_on_b_agrees_with_the_package(seed):
    rng = np.random.default_rng(seed)
    Z, W, theta = rng.normal(size=(9, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    out = np.tanh(Z @ W.T)
    first = 1 / (1 + np.exp(-out @ theta))
    answer = exercises.second_order(
        first, first * (1 - first), 1 - out**2, -2 * out * (1 - out**2), theta
    )
    np.testing.assert_allclose(answer, EmpiricalNetwork(Z, theta).second_order(W)[1], atol=1e-12)


@given(seeds)
def test_the_split_is_orthogonal_in_s(seed):
    rng = np.random.default_rng(seed)
    W, u, factor = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(4, 4))
    S = factor @ factor.T + np.eye(4)
    p, V = exercises.split(W, u, S)
    np.testing.assert_allclose(np.outer(p, np.linalg.solve(S, u)) + V, W, atol=1e-10)
    np.testing.assert_allclose(V @ u, 0, atol=1e-9)


def test_with_batch_norm_the_whole_gradient_turns():
    split = data.digits()
    for normalization, whole in (("batch", True), (None, False)):
        model = networks.mlp([64, 8, 10], "tanh", normalization, eps=1e-12)
        cross_entropy(model(split.x_train[:50]), split.y_train[:50]).backward()
        layer = model.linear1.weight
        part = deep.direction_part(layer.grad, layer.detach())
        assert torch.allclose(part, layer.grad, atol=1e-6) == whole
        expected = exercises.direction_change(
            layer.grad.numpy(), 2 * layer.grad.numpy(), layer.detach().numpy()
        )
        assert expected == pytest.approx(1, rel=1e-4)


def test_measuring_leaves_the_network_as_it_is():
    split, model = data.digits(), networks.mlp(deep.WIDTHS, "tanh", "batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changes, blocks, reach, loss = deep.measure(model, split.x_train[:64], split.y_train[:64])
    assert changes.shape == (2, 5, 2)
    assert blocks.shape == (2, 5)
    assert reach > 0
    assert loss > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert (np.diff(changes[:, :3, 0], axis=1) > 0).all()


def test_the_norm_of_mixed_second_derivatives():
    split = data.digits()
    model = networks.mlp(deep.WIDTHS, "tanh", gain=1.0).double()
    x, y = split.x_train[:20].double(), split.y_train[:20]
    blocks = deep.measure(model, x, y, probes=60)[1]
    (upper,) = torch.autograd.grad(
        cross_entropy(model(x), y), model.linear4.weight, create_graph=True
    )
    rows = torch.eye(upper.numel()).double().reshape(-1, *upper.shape)
    (mixed,) = torch.autograd.grad(
        upper, model.linear3.weight, rows, retain_graph=True, is_grads_batched=True
    )
    exact = mixed.norm().item()
    assert blocks[0, deep.OTHERS.index(3)] == pytest.approx(exact, rel=0.15)


def test_the_figures_show_what_was_measured(measured):
    kind = "same learning rate"
    above, below = figures.moved_below(measured, kind, 1).axes
    for line, kept in zip(above.lines, measured.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), kept.change[kind][:, :, 1].mean(axis=0))
    for line, kept in zip(below.lines, measured.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), kept.cosine[kind][:, :, 1].mean(axis=0))
    for name, field in (("as it is", "blocks"), ("free of scale", "relative_blocks")):
        (ax,) = figures.second_derivatives(measured, name, 5).axes
        expected = getattr(measured["batch"], field)[:, :, 3].mean(axis=0)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)


def test_the_figure_of_the_held_unit_marks_the_best_weights():
    above, below = figures.held_elsewhere(90).axes
    plane, held, answers = figures.best_answers()
    chosen = list(figures.TURNED).index(90)
    np.testing.assert_allclose(above.lines[-1].get_xydata()[0], answers[chosen])
    assert below.lines[1].get_ydata()[0] == pytest.approx(
        experiments.off_line(answers[[chosen]])[0]
    )
    gradient = plane.gradient(np.vstack([answers[chosen], held[chosen]]))[0]
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_the_figure_of_the_pair_has_its_minimum_where_b_is_singular():
    above, below = figures.splay(1.5).axes
    splays, values = above.lines[1].get_xydata().T
    zero = np.interp(0, below.lines[1].get_ydata(), splays)
    assert abs(splays[values.argmin()] - zero) < 1
    assert above.lines[2].get_xdata()[0] == pytest.approx(zero, abs=0.2)


def test_the_figure_of_turns_shows_bounds_and_gradients():
    _, judged, after, _ = experiments.unit_by_unit(3.0, steps=5, halvings=20, sweeps=3)
    above, below = figures.turns(3.0, judged, after, 0.7).axes
    np.testing.assert_allclose(above.lines[0].get_ydata(), judged[0].measured)
    np.testing.assert_allclose(above.lines[1].get_ydata(), judged[0].bound)
    np.testing.assert_allclose(below.lines[1].get_ydata(), np.maximum(after[:, 1], 1e-20))
    ends, law = below.lines[2].get_xydata().T
    np.testing.assert_array_equal(ends, [2, 4, 6])
    np.testing.assert_allclose(law[1:] / law[:-1], 0.7)
    assert law[-1] == pytest.approx(after[-1].sum())


@pytest.mark.parametrize("condition", [2, 20])
def test_many_passes_shrink_the_gradient_as_predicted_and_end_in_a_saddle(condition):
    plane, _, after, layers = experiments.unit_by_unit(
        float(condition), steps=12, halvings=20, sweeps=12
    )
    end, factor = experiments.on_the_line(plane)
    totals = experiments.totals(after)
    assert len(totals) == 12
    assert totals[-1] / totals[-2] == pytest.approx(factor, rel=0.01)
    np.testing.assert_allclose(plane.gradient(end), 0, atol=1e-9)
    away = [np.abs(layer - end).max() for layer in (layers[16], layers[-1])]
    assert away[1] < 0.7 * away[0]
    curvature, pair = experiments.beside_the_line(plane, end)
    assert curvature < -1e-4
    np.testing.assert_allclose(plane.gradient(pair), 0, atol=1e-7)
    assert plane.value(pair) < plane.value(end)
    assert experiments.off_line(pair, plane.u, plane.S).min() > 1


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_curvature_of_leaving_the_line_is_that_of_b(seed):
    rng = np.random.default_rng(seed)
    plane = experiments.Plane(experiments.U, experiments.S, rng.normal(size=2))
    W, a = np.outer(rng.normal(size=2), experiments.line()), rng.normal(size=2)
    v = np.array([-plane.u[1], plane.u[0]])
    V = np.outer(a, v)
    second = np.sum(V * plane.hessian_product(W, V))
    B = plane.second_order(W)[1]
    assert second == pytest.approx(a @ B @ a * (v @ plane.S @ v), abs=1e-6)
