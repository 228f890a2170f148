"""Scaled units against torch, and which weights of a network are invariant."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations import ghost_batches, scale_invariance
from bncore.lab import networks

EPS = torch.finfo(torch.float64).eps

cases = pytest.mark.parametrize("first", range(0, 200, 100))


def apart(a, b):
    return (a - b).abs().max().item()


@cases
def test_jacobians_of_a_scaled_unit(unit, first):
    for seed in range(first, first + 100):
        case = unit(seed)
        jacobian = torch.autograd.functional.jacobian
        by_u, by_w = (jacobian(case.output, (case.w, case.u))[i] for i in (1, 0))
        scaled_u, scaled_w = (jacobian(case.output, (case.a * case.w, case.u))[i] for i in (1, 0))
        rounding, slope = case.rounding(case.w), case.slope(case.w)
        size = abs(case.gamma) + abs(case.beta)
        assert apart(case.output(case.a * case.w), case.output(case.w)) <= rounding * size
        size = slope * (case.w.abs().max() / case.u.abs().max()).item()
        assert apart(scaled_u, by_u) <= rounding * size
        assert apart(case.a * scaled_w, by_w) <= rounding * slope
        flipped = jacobian(case.output, (-case.w, case.u))[1]
        assert apart(flipped, -by_u) <= rounding * size


@cases
def test_gradient_and_hessian_of_a_scale_invariant_loss(unit, first):
    for seed in range(first, first + 100):
        case = unit(seed)
        gradient, hessian = case.derivatives(case.w)
        assert torch.linalg.eigvalsh(hessian)[0] < 0
        longer, flatter = case.derivatives(case.a * case.w)
        rounding, (first, second) = case.rounding(case.w), case.sizes(case.w)
        length = case.w.abs().sum().item()
        assert abs(case.w @ gradient) <= rounding * first * length
        assert apart(hessian @ case.w, -gradient) <= rounding * (second * length + first)
        assert apart(case.a * longer, gradient) <= rounding * first
        assert apart(case.a**2 * flatter, hessian) <= rounding * second


@cases
def test_defect_is_the_change_of_the_output(unit, first):
    for seed in range(first, first + 100):
        rng = np.random.default_rng(seed)
        case = unit(seed, eps=float(10 ** rng.uniform(-3, 1)))
        case.gamma, case.beta = 1.0, 0.0
        a = case.a * rng.choice([-1, 1])
        variance = (case.u @ case.w).var(correction=0).item()
        plain, scaled = case.output(case.w), case.output(a * case.w)
        measured = ((scaled - plain).norm() / plain.norm()).item()
        rounding = case.rounding(case.w)
        defect = scale_invariance.invariance_defect(a, variance, case.eps)
        assert defect == pytest.approx(measured, abs=rounding * (1 + measured))
        deviation = plain.std(correction=0).item()
        shrinkage = scale_invariance.shrinkage(variance, case.eps)
        assert shrinkage == pytest.approx(deviation, rel=rounding, abs=0)
        breaks = scale_invariance.breaking_scale(variance, case.eps)
        at_break = case.output(breaks * case.w).std(correction=0).item()
        assert at_break == pytest.approx(math.sqrt(0.5), rel=rounding, abs=0)


def test_the_defect_without_epsilon_and_at_the_ends_of_the_floats():
    assert scale_invariance.invariance_defect(1e-200, 1.0, 0.0) == 0
    assert scale_invariance.invariance_defect(-3.0, 2.0, 0.0) == 2
    assert scale_invariance.invariance_defect(1e-200, 1.0, 1e-5) == 1
    assert scale_invariance.invariance_defect(1e200, 1.0, 1e-30) <= 4 * EPS


def test_the_radial_part_is_epsilons_share(unit):
    for seed in range(100):
        case = unit(seed, eps=float(10 ** np.random.default_rng(seed).uniform(-3, 1)))
        w = case.w.clone().requires_grad_()
        output = case.output(w)
        loss = (output * case.readout).sum()
        (gradient,) = torch.autograd.grad(loss, w)
        share = case.eps / ((case.u @ case.w).var(correction=0) + case.eps)
        expected = share * (case.readout @ (output.detach() - case.beta))
        size = case.slope(case.w) * case.readout.abs().sum() * case.w.abs().sum()
        assert apart(case.w @ gradient, expected) <= case.rounding(case.w) * size


def test_epsilon_bounds_the_gradient(unit):
    for seed in range(100):
        rng = np.random.default_rng(seed)
        case = unit(seed, eps=float(10 ** rng.uniform(-3, 0)))
        bound = abs(case.gamma) * torch.linalg.matrix_norm(case.u, 2) / math.sqrt(case.eps)
        bound, rounding = bound * case.readout.norm(), 4 * sum(case.u.shape) * EPS
        for a in (1.0, 1e-2, 1e-6):
            w = (a * case.w).requires_grad_()
            (gradient,) = torch.autograd.grad((case.output(w) * case.readout).sum(), w)
            assert gradient.norm() <= bound * (1 + rounding)
        linear = case.gamma * case.u.T @ (case.readout - case.readout.mean()) / math.sqrt(case.eps)
        # To first order in the variance over epsilon, after the smallest a.
        order = 2 * (a * (case.u @ case.w).std(correction=0)) ** 2 / case.eps
        assert apart(gradient, linear) <= bound * (order + rounding)


def random_network(seed):
    rng = np.random.default_rng(seed)
    widths = [6, *rng.integers(2, 9, size=rng.integers(1, 4)).tolist(), 3]
    activation = ("relu", "tanh", "sigmoid")[seed % 3]
    model = networks.mlp(widths, activation, "batch", eps=1e-30, seed=seed).double()
    x = torch.tensor(rng.normal(size=(16, 6)))
    return model, x, torch.tensor(rng.integers(0, 3, size=16))


def gradients(model, x, y, weights):
    return torch.autograd.grad(cross_entropy(model(x), y), list(weights.values()))


@cases
def test_every_unit_of_a_network_is_scale_invariant_by_itself(first):
    for seed in range(first, first + 100):
        model, x, y = random_network(seed)
        weights = scale_invariance.invariant_weights(model, x)
        assert list(weights) == [n for n, _ in model.named_parameters() if n[:6] == "linear"]
        plain, before = model(x), gradients(model, x, y, weights)
        # Sums over the batch in each layer, which may cancel by two digits.
        rounding = 64 * len(x) * len(weights) * EPS
        largest = max(g.norm().item() for g in before)
        for w, g in zip(weights.values(), before, strict=True):
            along = scale_invariance.radial_cosines(w, g) * g.norm(dim=1)
            assert along.abs().max() <= rounding * largest
        factors = [10 ** torch.rand(len(w), 1, dtype=torch.float64) for w in weights.values()]
        with torch.no_grad():
            for w, a in zip(weights.values(), factors, strict=True):
                w *= a
        assert apart(model(x), plain) <= rounding * plain.abs().max()
        for g, now, a in zip(before, gradients(model, x, y, weights), factors, strict=True):
            assert apart(now * a, g) <= rounding * largest


def test_every_channel_of_a_convolution_is_scale_invariant():
    def norm(channels):
        return torch.nn.BatchNorm2d(channels, eps=1e-30)

    model = networks.vgg(11, norm, width=4, size=8, hidden=()).double()
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    weights = scale_invariance.invariant_weights(model, x)
    assert len(weights) == 8
    slopes = gradients(model, x, torch.arange(6), weights)
    rounding = 4 * len(x) * 64 * EPS  # sums over the batch and up to 64 places
    for w, g in zip(weights.values(), slopes, strict=True):
        assert w.ndim == 4
        assert scale_invariance.radial_cosines(w, g).abs().max() <= rounding
    plain = model(x)
    with torch.no_grad():
        for w in weights.values():
            w *= 10 ** (2 * torch.rand(len(w), 1, 1, 1) - 1)
    assert apart(model(x), plain) <= rounding * len(weights) * plain.abs().max()


def test_radial_cosines_against_torch():
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(7, 3, 2, 2, generator=generator) for _ in range(2))
    expected = torch.cosine_similarity(w.flatten(1), g.flatten(1))
    for size in (1.0, 1e-6):
        found = scale_invariance.radial_cosines(w, size * g)
        assert apart(found, expected) <= 16 * torch.finfo(torch.float32).eps
    assert scale_invariance.radial_cosines(w, torch.zeros_like(w)).abs().max() == 0


def test_invariant_weights_are_found_by_what_flows():
    class Crossed(torch.nn.Module):
        """Registered in an order that is not that of the calls; only `b` feeds the norm."""

        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = (
                torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4),
            )  # fmt: skip

        def forward(self, x):
            return self.norm(self.b(torch.relu(self.a(x))))

    model = Crossed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = scale_invariance.invariant_weights(model, torch.randn(5, 4))
    assert list(found) == ["b.weight"]
    assert found["b.weight"] is model.b.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    picture = networks.vgg(11, "batch", width=4, size=8, hidden=(8,))
    names = list(scale_invariance.invariant_weights(picture, torch.randn(3, 3, 8, 8)))
    assert sum("conv" in name for name in names) == 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_cosines_do_not_leave_the_range_of_small_types(dtype, size):
    weight, gradient = (size * torch.randn(2, 5, 40)).to(dtype)
    expected = torch.cosine_similarity(weight.double(), gradient.double(), dim=1)
    found = scale_invariance.radial_cosines(weight, gradient)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=torch.finfo(dtype).eps)


def test_a_batch_norm_that_cuts_across_units_does_not_count():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(5)).double()
    x = torch.randn(6, 5, 4, dtype=torch.float64)
    before = model(x).detach()
    with torch.no_grad():
        model[0].weight[0] *= 3
    assert not torch.allclose(model(x), before)
    with pytest.raises(ValueError, match="no batch norm right after a linear layer"):
        scale_invariance.invariant_weights(model, x)


def test_weights_before_ghost_batches_count():
    model = nn.Sequential(nn.Linear(4, 3), ghost_batches.GhostBatchNorm(3, 2))
    assert list(scale_invariance.invariant_weights(model, torch.randn(6, 4))) == ["0.weight"]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: scale_invariance.shrinkage(0.0, 1e-5),
            ValueError,
            "variance is 0.0, expected a finite number",
        ),
        (
            lambda: scale_invariance.shrinkage(1.0, -1.0),
            ValueError,
            "eps is -1.0, expected a finite number of",
        ),
        (
            lambda: scale_invariance.invariance_defect(0.0, 1.0, 0.1),
            ValueError,
            "scale is 0.0, expected a finite",
        ),
        (
            lambda: scale_invariance.invariance_defect(math.nan, 1.0, 0.1),
            ValueError,
            "scale is nan, expected a finite",
        ),
        (
            lambda: scale_invariance.breaking_scale(-1.0, 0.1),
            ValueError,
            "variance is -1.0, expected",
        ),
        (
            lambda: scale_invariance.radial_cosines(torch.tensor([[1.0], [0.0]]), torch.ones(2, 1)),
            ValueError,
            r"weight\[1\] is 0, expected a unit with a direction",
        ),
        (
            lambda: scale_invariance.invariant_weights(networks.mlp([3, 2, 2]), torch.ones(4, 3)),
            ValueError,
            "the model has no batch norm right after a linear layer",
        ),
        (
            lambda: scale_invariance.invariant_weights(
                networks.mlp([3, 2, 2], "relu", "batch"), torch.ones(1, 3)
            ),
            ValueError,
            r"x has shape \(1, 3\), expected a batch of at least two examples",
        ),
        (
            lambda: scale_invariance.radial_cosines(
                torch.ones(2, 3), torch.tensor([[1.0] * 3, [math.nan] * 3])
            ),
            ValueError,
            r"gradient\[1, 0\] is nan, expected finite values only",
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
            lambda: scale_invariance.shrinkage("1", 0.1),
            TypeError,
            "variance is a str, expected a real number",
        ),
        (
            lambda: scale_invariance.radial_cosines(torch.ones(2, 3), torch.ones(2, 2)),
            ValueError,
            r"gradient has shape \(2, 2\), expected that of weight, \(2, 3\)",
        ),
        (
            lambda: scale_invariance.radial_cosines("a", np.ones((2, 3))),
            TypeError,
            "weight is a str, expected a numpy.ndarray or a list of numbers",
        ),
        (
            lambda: scale_invariance.radial_cosines(torch.ones(2, 3), torch.ones(2, 3) > 0),
            TypeError,
            "gradient has dtype bool, expected real numbers",
        ),
        (
            lambda: scale_invariance.radial_cosines(torch.ones(3), torch.ones(3)),
            ValueError,
            r"weight has shape \(3,\), expected \(units, \*inputs\): give that of a single unit",
        ),
        (
            lambda: scale_invariance.invariant_weights(lambda x: x, torch.ones(4, 3)),
            TypeError,
            "model is a function, expected an nn.Module",
        ),
        (
            lambda: scale_invariance.invariant_weights(
                networks.mlp([3, 2, 2], "relu", "batch"), "abc"
            ),
            TypeError,
            "x is a str, expected a numpy.ndarray or a list",
        ),
    ],
)
def test_errors_teach_where_annotations_are_off(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


class Used(nn.Module):
    """A layer before a batch norm, and something else that sees its output or its weight."""

    def __init__(self, function):
        super().__init__()
        self.function, self.layer = function, nn.Linear(4, 4)
        self.norm, self.other = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.norm(m.layer(x).add_(x)),
        lambda m, x: m.norm(h := m.layer(x)) + h,
        lambda m, x: m.norm(m.layer(m.layer(x))) + m.layer(x).tanh(),
        lambda m, x: m.norm(m.layer(x)) + m.layer.weight[0],
        lambda m, x: m.norm(m.layer(x)) * m.layer.weight.norm(),
    ],
)
def test_weights_that_are_seen_elsewhere_do_not_count(function):
    torch.manual_seed(0)
    model, x = Used(function), torch.randn(9, 4)
    with pytest.raises(ValueError, match="no batch norm right after a linear layer"):
        scale_invariance.invariant_weights(model, x)


def test_a_frozen_batch_norm_does_not_hide_a_length():
    model = networks.mlp([4, 5, 5, 2], "relu", "batch").train()
    x = torch.randn(9, 4)
    model.norm1.eval().requires_grad_(False)
    assert list(scale_invariance.invariant_weights(model, x)) == ["linear2.weight"]
    assert not model.norm1.training
    model.eval()
    assert len(scale_invariance.invariant_weights(model, x)) == 2


def test_cosines_take_lists_and_weights_of_any_size():
    weight, gradient = [[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 0.0]]
    for size in (1e-300, 1e-200, 1.0, 1e200, 1e300):
        w, g = (torch.tensor(v, dtype=torch.float64) for v in (weight, gradient))
        found = scale_invariance.radial_cosines(size * w, g / size)
        np.testing.assert_allclose(found, [0.96, 0], rtol=8 * EPS)
    whole = scale_invariance.radial_cosines([[3, 4], [1, 0]], np.array([[4, 3], [0, 0]]))
    np.testing.assert_allclose(whole, [0.96, 0], rtol=torch.finfo(torch.float32).eps)


def test_shrinkage_and_breaking_scale_at_the_ends_of_the_floats():
    assert scale_invariance.shrinkage(1e-300, 1e10) == pytest.approx(1e-155, rel=8 * EPS, abs=0)
    assert scale_invariance.breaking_scale(1e-300, 1e300) == pytest.approx(
        1e300, rel=8 * EPS, abs=0
    )
    assert scale_invariance.breaking_scale(1.0, 0.0) == 0
    with pytest.raises(ValueError, match=r"variance is 4\.94066e-324, with which the result, inf"):
        scale_invariance.breaking_scale(5e-324, 1e308)
