"""Scale invariance: identities to rounding, against torch in float64 and against direct computation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations import noise
from bncore.explanations import scale_invariance as si
from bncore.lab import networks

cases = pytest.mark.parametrize("first", range(0, 200, 100))
seeds = st.integers(0, 10**6)


class Case:
    """A small normalised layer with a loss behind it, in float64: L(w) for w of one unit."""

    def __init__(self, seed, eps=1e-300):
        rng = np.random.default_rng(seed)
        m, inputs = int(rng.integers(3, 20)), int(rng.integers(2, 6))
        self.u = torch.tensor(rng.normal(size=(m, inputs)) * np.exp(rng.normal(size=inputs)))
        self.w = torch.tensor(rng.normal(size=inputs))
        self.gamma, self.beta = (float(v) for v in rng.normal(size=2))
        self.readout = torch.tensor(rng.normal(size=m))
        self.a = float(10 ** rng.uniform(-2, 2))
        self.eps = eps

    def output(self, w, u=None):
        x = (self.u if u is None else u) @ w
        x = x - x.mean()
        return self.gamma * x / torch.sqrt((x**2).mean() + self.eps) + self.beta

    def loss(self, w):
        return (torch.tanh(self.output(w)) * self.readout).sum() + (self.output(w) ** 4).mean()

    def derivatives(self, w):
        w = w.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(w), w)
        return gradient, torch.autograd.functional.hessian(self.loss, w.detach())


def close(a, b, scale=None):
    scale = b.abs().max() if scale is None else scale
    return ((a - b).abs().max() / (scale + 1e-300)).item()


@cases
def test_jacobians_of_a_scaled_unit(first):
    for seed in range(first, first + 100):
        case = Case(seed)
        jacobian = torch.autograd.functional.jacobian
        by_u, by_w = (jacobian(case.output, (case.w, case.u))[i] for i in (1, 0))
        scaled_u, scaled_w = (jacobian(case.output, (case.a * case.w, case.u))[i] for i in (1, 0))
        assert close(case.output(case.a * case.w), case.output(case.w)) < 1e-9
        assert close(scaled_u, by_u) < 1e-8
        assert close(case.a * scaled_w, by_w) < 1e-8
        flipped = jacobian(case.output, (-case.w, case.u))[1]
        assert close(flipped, -by_u) < 1e-8


@cases
def test_gradient_and_hessian_of_a_scale_invariant_loss(first):
    for seed in range(first, first + 100):
        case = Case(seed)
        gradient, hessian = case.derivatives(case.w)
        size = hessian.abs().max() * case.w.norm()
        assert torch.linalg.eigvalsh(hessian)[0] < 0
        longer, flatter = case.derivatives(case.a * case.w)
        assert abs(case.w @ gradient) < 1e-9 * (size * case.w.norm() + 1)
        assert close(hessian @ case.w, -gradient, size + gradient.norm()) < 1e-9
        assert close(case.a * longer, gradient, gradient.norm() + size) < 1e-8
        assert close(case.a**2 * flatter, hessian) < 1e-8


@cases
def test_defect_is_the_change_of_the_output(first):
    for seed in range(first, first + 100):
        rng = np.random.default_rng(seed)
        case = Case(seed, eps=float(10 ** rng.uniform(-3, 1)))
        case.gamma, case.beta = 1.0, 0.0
        a = case.a * rng.choice([-1, 1])
        variance = (case.u @ case.w).var(correction=0).item()
        plain, scaled = case.output(case.w), case.output(a * case.w)
        measured = ((scaled - plain).norm() / plain.norm()).item()
        assert si.invariance_defect(a, variance, case.eps) == pytest.approx(measured, abs=1e-9)
        deviation = plain.std(correction=0).item()
        assert si.shrinkage(variance, case.eps) == pytest.approx(deviation, rel=1e-9)
        breaks = si.breaking_scale(variance, case.eps)
        at_break = case.output(breaks * case.w).std(correction=0).item()
        assert at_break == pytest.approx(math.sqrt(0.5), rel=1e-9)


def test_the_defect_without_epsilon_and_at_the_ends_of_the_floats():
    assert si.invariance_defect(1e-200, 1.0, 0.0) == 0
    assert si.invariance_defect(-3.0, 2.0, 0.0) == 2
    assert si.invariance_defect(1e-200, 1.0, 1e-5) == 1
    assert si.invariance_defect(1e200, 1.0, 1e-30) == pytest.approx(0, abs=1e-12)


def test_the_radial_part_is_epsilons_share():
    for seed in range(100):
        case = Case(seed, eps=float(10 ** np.random.default_rng(seed).uniform(-3, 1)))
        w = case.w.clone().requires_grad_()
        output = case.output(w)
        loss = (output * case.readout).sum()
        (gradient,) = torch.autograd.grad(loss, w)
        share = case.eps / ((case.u @ case.w).var(correction=0) + case.eps)
        expected = share * (case.readout @ (output.detach() - case.beta))
        assert (case.w @ gradient).item() == pytest.approx(expected.item(), rel=1e-8, abs=1e-10)


def test_epsilon_bounds_the_gradient():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        case = Case(seed, eps=float(10 ** rng.uniform(-3, 0)))
        bound = abs(case.gamma) * torch.linalg.matrix_norm(case.u, 2) / math.sqrt(case.eps)
        for a in (1.0, 1e-2, 1e-6):
            w = (a * case.w).requires_grad_()
            (gradient,) = torch.autograd.grad((case.output(w) * case.readout).sum(), w)
            assert gradient.norm() <= bound * case.readout.norm() * (1 + 1e-9)
        linear = case.gamma * case.u.T @ (case.readout - case.readout.mean()) / math.sqrt(case.eps)
        assert close(gradient, linear) < 1e-4


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
        weights = si.invariant_weights(model, x)
        assert list(weights) == [n for n, _ in model.named_parameters() if n[:6] == "linear"]
        plain, before = model(x), gradients(model, x, y, weights)
        scale = max(g.norm().item() for g in before)
        for w, g in zip(weights.values(), before, strict=True):
            cosines = si.radial_cosines(w, g)
            enough = g.norm(dim=1) > 1e-6 * scale  # a dead unit has only rounding for a gradient
            assert (cosines[enough].abs() < 1e-6).all()
        factors = [10 ** torch.rand(len(w), 1, dtype=torch.float64) for w in weights.values()]
        with torch.no_grad():
            for w, a in zip(weights.values(), factors, strict=True):
                w *= a
        assert close(model(x), plain) < 1e-6
        for g, now, a in zip(before, gradients(model, x, y, weights), factors, strict=True):
            assert ((now * a - g).norm() / (g.norm() + 1e-3 * scale)).item() < 1e-5


def test_every_channel_of_a_convolution_is_scale_invariant():
    def norm(channels):
        return torch.nn.BatchNorm2d(channels, eps=1e-30)

    model = networks.vgg(11, norm, width=4, size=8, hidden=()).double()
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    weights = si.invariant_weights(model, x)
    assert len(weights) == 8
    slopes = gradients(model, x, torch.arange(6), weights)
    for w, g in zip(weights.values(), slopes, strict=True):
        assert w.ndim == 4
        assert si.radial_cosines(w, g).abs().max() < 1e-8
    plain = model(x)
    with torch.no_grad():
        for w in weights.values():
            w *= 10 ** (2 * torch.rand(len(w), 1, 1, 1) - 1)
    torch.testing.assert_close(model(x), plain)


def test_radial_cosines_against_torch():
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(7, 3, 2, 2, generator=generator) for _ in range(2))
    expected = torch.cosine_similarity(w.flatten(1), g.flatten(1))
    for size in (1.0, 1e-6):
        torch.testing.assert_close(si.radial_cosines(w, size * g), expected)
    assert si.radial_cosines(w, torch.zeros_like(w)).abs().max() == 0


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
    found = si.invariant_weights(model, torch.randn(5, 4))
    assert list(found) == ["b.weight"]
    assert found["b.weight"] is model.b.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    picture = networks.vgg(11, "batch", width=4, size=8, hidden=(8,))
    names = list(si.invariant_weights(picture, torch.randn(3, 3, 8, 8)))
    assert sum("conv" in name for name in names) == 8


def unit_descent(seed, steps, rate, decay, momentum=0.0, schedule=None):
    """Gradient descent with torch's SGD on a unit; the weights before each step and at the end."""
    case = Case(seed)
    w = case.w.clone().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=rate, weight_decay=decay, momentum=momentum)
    if schedule is not None and momentum:
        optimizer.state[w]["momentum_buffer"] = schedule.velocity * w.detach().clone()
    path, slopes = [w.detach().clone()], []
    for step in range(steps):
        if schedule is not None:
            optimizer.param_groups[0]["lr"] = schedule.rates[step]
        optimizer.zero_grad()
        case.loss(w).backward()
        slopes.append(w.grad.clone())
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path), torch.stack(slopes)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_squared_lengths_are_those_of_torch(decay):
    for seed in range(30):
        path, slopes = unit_descent(seed, 10, 0.1, decay)
        r = (path**2).sum(1).numpy()
        at_one = (slopes.norm(dim=1) * path[:-1].norm(dim=1)).numpy()
        np.testing.assert_allclose(si.squared_lengths(0.1, at_one, r[0], decay), r, rtol=1e-8)
        if decay == 0:
            assert (np.diff(r) >= -1e-12 * r[1:]).all()


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_step_turns_the_direction_by_the_effective_rate(decay):
    for seed in range(60):
        path, slopes = unit_descent(seed, 1, 0.1, decay)
        length = path[0].norm().item()
        v, at_one = (path[0] / length).numpy(), (slopes[0] * length).numpy()
        at_one -= (at_one @ v) * v
        turned = si.turn(v, at_one, si.effective_rate(0.1, length, decay))
        np.testing.assert_allclose(turned, (path[1] / path[1].norm()).numpy(), atol=1e-9)
        assert np.linalg.norm(turned) == pytest.approx(1)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_growing_rates_replace_weight_decay(momentum):
    for seed in range(25):
        rate, decay = 0.02 * (1 - momentum), 0.1
        schedule = si.exponential_schedule(rate, decay, 20, momentum)
        decayed, _ = unit_descent(seed, 20, rate, decay, momentum)
        grown, _ = unit_descent(seed, 20, rate, 0.0, momentum, schedule)
        factors = schedule.factor ** -torch.arange(21.0, dtype=torch.float64)
        assert close(grown, factors[:, None] * decayed) < 1e-5
        if momentum == 0:
            assert schedule.factor == pytest.approx(1 - rate * decay)
            assert schedule.velocity == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_factor_is_a_root(momentum):
    for eta_lambda in np.linspace(1e-6, (1 - math.sqrt(momentum)) ** 2 * 0.99, 20):
        schedule = si.exponential_schedule(0.5, eta_lambda / 0.5, 3, momentum)
        a = schedule.factor
        assert a**2 - (1 + momentum - eta_lambda) * a + momentum == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(schedule.rates[1:] / schedule.rates[:-1], a**-2)
        assert schedule.rates[0] == pytest.approx(0.5 / a)


@given(seeds)
def test_the_equilibrium_is_a_fixed_point_and_attracts(seed):
    rng = np.random.default_rng(seed)
    rate, slope = 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-2, 1)
    decay = rng.uniform(0.02, 0.9) / rate
    found = si.equilibrium(rate, decay, slope)
    constant = np.full(2000, slope)
    kept = si.squared_lengths(rate, constant[:1], found.length**2, decay)
    assert kept[1] == pytest.approx(kept[0], rel=1e-9)
    far = si.squared_lengths(rate, constant, 9 * found.length**2, decay)
    assert far[-1] == pytest.approx(found.length**2, rel=1e-6)
    step = rate * slope / found.length**2
    assert found.angle == pytest.approx(math.atan2(step, 1 - rate * decay), rel=1e-9)
    assert found.effective_rate == si.effective_rate(rate, found.length, decay)
    known = (rate * slope**2 / (2 * decay)) ** 0.25
    assert found.length == pytest.approx(known, rel=rate * decay)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_equilibrium_of_random_gradients(momentum):
    rng = np.random.default_rng(0)
    rate, decay, slope, runs = 0.2 * (1 - momentum), 0.1, 3.0, 1000
    w, v = rng.normal(size=(runs, 8)), np.zeros((runs, 8))
    for _ in range(500):
        g = rng.normal(size=w.shape)
        g -= (g * w).sum(1, keepdims=True) * w / (w**2).sum(1, keepdims=True)
        g *= slope / np.linalg.norm(g, axis=1, keepdims=True) / np.linalg.norm(w, axis=1)[:, None]
        v = momentum * v + g + decay * w
        w, before = w - rate * v, w
    found = si.equilibrium(rate, decay, slope, momentum)
    lengths = np.linalg.norm(w, axis=1)
    cosines = (w * before).sum(1) / lengths / np.linalg.norm(before, axis=1)
    assert lengths.mean() == pytest.approx(found.length, rel=0.01)
    assert np.sqrt((np.arccos(cosines) ** 2).mean()) == pytest.approx(found.angle, rel=0.03)


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
        exact = si.squared_lengths(rate, np.full(steps, grown), start, decay)[-1]
        smooth = si.smooth_squared_lengths(np.array([float(steps)]), rate, grown, start, decay)[0]
        errors.append(abs(exact / smooth - 1))
    assert errors[1] < 0.02
    assert errors[1] < 0.6 * errors[0] + 1e-12


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_tiny_decays_keep_their_digits(momentum):
    steps, first = np.array([1.0, 1e4]), np.arange(4)
    for decay in 10.0 ** -np.arange(6, 40, 2):
        small = 0.1 * decay
        found = si.equilibrium(0.1, decay, 2.0, momentum)
        assert found.angle == pytest.approx(math.sqrt(2 * small / (1 + momentum)), rel=1e-6)
        growing = si.exponential_schedule(0.1, decay, 4, momentum)
        assert 1 - growing.factor == pytest.approx(small / (1 - momentum), rel=1e-4, abs=1e-16)
        known = 0.1 * (1 + (2 * first + 1) * small / (1 - momentum))
        np.testing.assert_allclose(growing.rates, known, rtol=1e-9)
        if momentum:
            velocity = -small / (1 - momentum) / 0.1
            assert growing.velocity == pytest.approx(velocity, rel=1e-4)
        kept = si.smooth_squared_lengths(steps, 0.1, 2.0, 1.5)
        np.testing.assert_allclose(
            si.smooth_squared_lengths(steps, 0.1, 2.0, 1.5, decay), kept, rtol=5e4 * small + 1e-14
        )


@given(st.floats(0.01, 0.99))
def test_the_largest_decay_that_the_theorem_allows_is_allowed(momentum):
    largest = (1 - math.sqrt(momentum)) ** 2
    for rate in (0.1, 0.3, 0.7):
        found = si.exponential_schedule(rate, largest / rate, 2, momentum)
        assert found.factor == pytest.approx(math.sqrt(momentum), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_cosines_do_not_leave_the_range_of_small_types(dtype, size):
    weight, gradient = (size * torch.randn(2, 5, 40)).to(dtype)
    expected = torch.cosine_similarity(weight.double(), gradient.double(), dim=1)
    found = si.radial_cosines(weight, gradient)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.01)


def test_a_batch_norm_that_cuts_across_units_does_not_count():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(5)).double()
    x = torch.randn(6, 5, 4, dtype=torch.float64)
    before = model(x).detach()
    with torch.no_grad():
        model[0].weight[0] *= 3
    assert not torch.allclose(model(x), before)
    with pytest.raises(ValueError, match="no batch norm right after a linear layer"):
        si.invariant_weights(model, x)


def test_weights_before_ghost_batches_count():
    model = nn.Sequential(nn.Linear(4, 3), noise.GhostBatchNorm(3, 2))
    assert list(si.invariant_weights(model, torch.randn(6, 4))) == ["0.weight"]


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
            bound = si.length_bound(rate, curvature * 1.001, slope * 1.001, drop * 1.001)
            assert max(lengths) <= bound
            least = np.minimum.accumulate(at_one)
            limit = bound * (bound - 1) / (rate**2 * np.arange(1, 41))
            assert (least <= limit).all()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: si.shrinkage(0.0, 1e-5), ValueError, "variance is 0.0, expected a finite number"),
        (lambda: si.shrinkage(1.0, -1.0), ValueError, "eps is -1.0, expected a finite number of"),
        (
            lambda: si.invariance_defect(0.0, 1.0, 0.1),
            ValueError,
            "scale is 0.0, expected a finite",
        ),
        (
            lambda: si.invariance_defect(math.nan, 1.0, 0.1),
            ValueError,
            "scale is nan, expected a finite",
        ),
        (lambda: si.breaking_scale(-1.0, 0.1), ValueError, "variance is -1.0, expected"),
        (lambda: si.effective_rate(0.1, 0.0), ValueError, "length is 0.0, expected"),
        (lambda: si.effective_rate(2.0, 1.0, 0.5), ValueError, r"rate \* decay is 1, expected bel"),
        (
            lambda: si.squared_lengths(0.1, np.array([1.0, -1.0])),
            ValueError,
            r"gradients\[1\] is -1.0, expected at least 0",
        ),
        (
            lambda: si.squared_lengths(0.1, np.ones(2), start=0.0),
            ValueError,
            "start is 0.0, expected a finite number above 0",
        ),
        (
            lambda: si.smooth_squared_lengths(np.array([-1.0]), 0.1, 1.0),
            ValueError,
            "steps holds -1.0, expected at least 0",
        ),
        (lambda: si.equilibrium(0.1, 0.0, 1.0), ValueError, "decay is 0, expected a number above"),
        (lambda: si.equilibrium(0.1, 0.1, 0.0), ValueError, "gradient is 0.0, expected"),
        (
            lambda: si.equilibrium(0.1, 0.1, 1.0, 1.0),
            ValueError,
            r"momentum is 1.0, expected a number in \[0, 1\)",
        ),
        (lambda: si.length_bound(0.1, 1.0, -1.0, 1.0), ValueError, "slope is -1.0, expected"),
        (
            lambda: si.exponential_schedule(0.1, 1.0, 3, 0.9),
            ValueError,
            r"rate \* decay is 0.1, expected at most .* = 0.00263: beyond it no real",
        ),
        (
            lambda: si.exponential_schedule(0.9, 1.0, 1000),
            ValueError,
            "steps is 1000, expected fewer: the learning rate leaves the range of floats after 154",
        ),
        (
            lambda: si.exponential_schedule(0.1, 0.1, 0),
            ValueError,
            "steps is 0, expected at least 1",
        ),
        (
            lambda: si.turn(np.array([2.0, 0.0]), np.array([0.0, 1.0]), 0.1),
            ValueError,
            "direction has length 2, expected 1",
        ),
        (
            lambda: si.turn(np.array([1.0, 0.0]), np.array([1.0, 1.0]), 0.1),
            ValueError,
            "gradient has the cosine 0.707 with direction, expected 0",
        ),
        (
            lambda: si.radial_cosines(torch.tensor([[1.0], [0.0]]), torch.ones(2, 1)),
            ValueError,
            r"weight\[1\] is 0, expected a unit with a direction",
        ),
        (
            lambda: si.invariant_weights(networks.mlp([3, 2, 2]), torch.ones(4, 3)),
            ValueError,
            "the model has no batch norm right after a linear layer",
        ),
        (
            lambda: si.invariant_weights(
                networks.mlp([3, 2, 2], "relu", "batch"), torch.ones(1, 3)
            ),
            ValueError,
            r"x has shape \(1, 3\), expected a batch of at least two examples",
        ),
        (
            lambda: si.radial_cosines(torch.ones(2, 3), torch.tensor([[1.0] * 3, [math.nan] * 3])),
            ValueError,
            r"gradient\[1\] has an entry that is not finite",
        ),
        (
            lambda: si.effective_rate(0.1, 1e-200),
            ValueError,
            "length is 1e-200, with which the result, inf, leaves the range of floats",
        ),
        (
            lambda: si.length_bound(1e200, 1.0, 1.0, 1.0),
            ValueError,
            r"rate is 1e\+200, with which the result, inf, leaves the range of floats",
        ),
        (
            lambda: si.squared_lengths(0.5, np.zeros(2000), decay=1.0),
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
        (lambda: si.shrinkage("1", 0.1), TypeError, "variance is a str, expected a real number"),
        (
            lambda: si.squared_lengths(0.1, np.ones((2, 2))),
            ValueError,
            r"gradients has shape \(2, 2\), expected one number a step",
        ),
        (
            lambda: si.turn(np.ones(2), np.ones(3), 0.1),
            ValueError,
            r"direction has shape \(2,\) and gradient \(3,\), expected two vectors",
        ),
        (
            lambda: si.radial_cosines(torch.ones(2, 3), torch.ones(2, 2)),
            ValueError,
            r"gradient has shape \(2, 2\), expected that of weight, \(2, 3\)",
        ),
        (
            lambda: si.radial_cosines(np.ones((2, 3)), np.ones((2, 3))),
            TypeError,
            "weight is a ndarray, expected a floating-point torch.Tensor",
        ),
        (
            lambda: si.radial_cosines(torch.ones(2, 3).int(), torch.ones(2, 3).int()),
            TypeError,
            "weight is a torch.int32, expected a floating-point torch.Tensor",
        ),
        (
            lambda: si.radial_cosines(torch.ones(3), torch.ones(3)),
            ValueError,
            r"weight has shape \(3,\), expected \(units, \*inputs\): give that of a single unit",
        ),
        (
            lambda: si.invariant_weights(lambda x: x, torch.ones(4, 3)),
            TypeError,
            "model is a function, expected a torch.nn.Module",
        ),
        (
            lambda: si.invariant_weights(networks.mlp([3, 2, 2], "relu", "batch"), np.ones((4, 3))),
            TypeError,
            "x is a ndarray, expected a torch.Tensor",
        ),
        (
            lambda: si.exponential_schedule(0.1, 0.1, 2.5),
            TypeError,
            "steps is a float, expected an integer",
        ),
    ],
)
def test_errors_teach_where_annotations_are_off(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
