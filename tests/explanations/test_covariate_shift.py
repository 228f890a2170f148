"""The shift measure against closed forms, an independent computation, and its own properties."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations.covariate_shift import (
    NoisyBatchNorm,
    Shift,
    gradient_shift,
    layers_of,
    linearized_shift,
    two_linear_layers,
)
from bncore.lab import networks

SEEDS = st.integers(0, 10**6)
few = settings(max_examples=30)


def half_square(outputs, targets):
    return ((outputs - targets) ** 2).sum() / (2 * len(targets))


def batch(seed, inputs=5, outputs=3, examples=12):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randn(examples, outputs, generator=generator, dtype=torch.float64)


def network(seed, normalization="batch", activation="tanh", hidden=(4, 6, 4)):
    widths = [5, *hidden, 3]
    return networks.mlp(widths, activation, normalization, gain=1.0, seed=seed).double()


def by_hand(model, loss, x, y, new):
    """Definition 2.1 on copies of the model, one for each layer."""
    names = [name.rpartition(".")[0] for name, _ in model.named_parameters()]
    layers = []
    for name in names:
        number = "".join(filter(str.isdigit, name)) or "output"
        if not layers or layers[-1][0] != number:
            layers.append((number, []))
        if name not in layers[-1][1]:
            layers[-1][1].append(name)
    rows = []
    for i, (_, modules) in enumerate(layers):
        vectors = []
        for moved in (False, True):
            twin = copy.deepcopy(model)
            before = {m for _, earlier in layers[:i] for m in earlier}
            with torch.no_grad():
                for name, parameter in twin.named_parameters():
                    if moved and name.rpartition(".")[0] in before:
                        parameter.copy_(new[name])
            loss(twin(x), y).backward()
            own = [p.grad for n, p in twin.named_parameters() if n.rpartition(".")[0] in modules]
            vectors.append(torch.cat([gradient.flatten() for gradient in own]).numpy())
        a, b = vectors
        lengths = np.linalg.norm(a), np.linalg.norm(b)
        rows.append((*lengths, np.linalg.norm(b - a), a @ b / (lengths[0] * lengths[1])))
    return np.array(rows).T


def stepped(model, loss, x, y, rate):
    twin = copy.deepcopy(model)
    loss(twin(x), y).backward()
    return {n: (p - rate * p.grad).detach() for n, p in twin.named_parameters()}


def assert_close(shift, expected, rtol=1e-9):
    for name, ours, theirs in zip(Shift._fields[1:], shift[1:], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-11, err_msg=name)


@given(
    SEEDS,
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0, 2),
)
def test_two_linear_layers_have_the_closed_form(seed, inputs, hidden, outputs, rate):
    x, y = batch(seed, inputs, outputs)
    model = nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)
    )
    model = model.double()
    weights = [p.detach().numpy() for p in model.parameters()]
    C, D = (x.T @ x / len(x)).numpy(), (y.T @ x / len(x)).numpy()
    before, after = two_linear_layers(*weights, C, D, rate)
    shift = gradient_shift(model, half_square, x, y, rate)
    scale = 1 + np.linalg.norm(before) + np.linalg.norm(after)
    assert shift.before[1] == pytest.approx(np.linalg.norm(before), abs=1e-12 * scale)
    assert shift.after[1] == pytest.approx(np.linalg.norm(after), abs=1e-12 * scale)
    assert shift.norm[1] == pytest.approx(np.linalg.norm(after - before), abs=1e-12 * scale)


def test_two_scalars_worked_by_hand():
    # L = (2 a b - 1)^2 / 2 at a = 1, b = 2: R = 3, G = 2 * 3 * 1; a moves by -0.1 * 2 * 3 * 2.
    one = np.ones((1, 1))
    before, after = two_linear_layers(one, 2 * one, 2 * one, one, 0.1)
    assert before.item() == pytest.approx(3.0)
    moved = 1 - 0.1 * 2 * 3
    assert after.item() == pytest.approx((2 * moved * 2 - 1) * moved)


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
@pytest.mark.parametrize("seed", range(10))
def test_the_measure_is_the_definition(normalization, activation, seed):
    model, (x, y) = network(seed, normalization, activation), batch(seed)
    new = stepped(model, half_square, x, y, 0.3)
    expected = by_hand(model, half_square, x, y, new)
    assert_close(gradient_shift(model, half_square, x, y, 0.3), expected)
    assert_close(gradient_shift(model, half_square, x, y, new), expected)


@few
@given(SEEDS, st.sampled_from([None, "batch"]), st.floats(0.01, 1))
def test_nothing_shifts_for_the_first_layer_or_without_a_step(seed, normalization, rate):
    model, (x, y) = network(seed, normalization), batch(seed)
    shift = gradient_shift(model, half_square, x, y, rate)
    assert shift.norm[0] == shift.relative[0] == 0
    assert shift.cosine[0] == 1
    assert (shift.norm[1:] > 0).all()
    still = gradient_shift(model, half_square, x, y, 0)
    np.testing.assert_array_equal(still.norm, 0)
    np.testing.assert_array_equal(still.cosine, 1)


@few
@given(SEEDS, st.sampled_from([None, "batch"]), st.integers(0, 3))
def test_updates_of_the_layer_itself_and_of_later_ones_do_not_matter(seed, normalization, layer):
    model, (x, y) = network(seed, normalization), batch(seed)
    new = stepped(model, half_square, x, y, 0.3)
    names = list(layers_of(model, x).values())
    later = {name for group in names[layer:] for name in group}
    other = {n: value + 1 if n in later else value for n, value in new.items()}
    before = gradient_shift(model, half_square, x, y, new)
    after = gradient_shift(model, half_square, x, y, other)
    for ours, theirs in zip(after[1:], before[1:], strict=True):
        np.testing.assert_array_equal(ours[: layer + 1], theirs[: layer + 1])
    if layer < 3:
        assert (after.norm[layer + 1 :] != before.norm[layer + 1 :]).all()


def state(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modes = {name: module.training for name, module in model.named_modules()}
    gradients = {n: p.grad for n, p in model.named_parameters()}
    return {n: value.detach().clone() for n, value in tensors.items()}, modes, gradients


@pytest.mark.parametrize("function", [gradient_shift, linearized_shift])
@pytest.mark.parametrize("normalization", ["batch", NoisyBatchNorm])
def test_the_model_and_the_random_state_stay(function, normalization):
    model, (x, y) = network(0, normalization), batch(0)
    model[1].eval()
    half_square(model(x), y).backward()
    random = torch.get_rng_state()
    tensors, modes, gradients = state(model)
    kept = {name: gradient.clone() for name, gradient in gradients.items()}
    function(model, half_square, x, y, 0.1)
    again, same_modes, same_gradients = state(model)
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    assert same_modes == modes
    assert all(same_gradients[n] is gradients[n] for n in kept)
    assert all(torch.equal(gradients[n], value) for n, value in kept.items())
    assert torch.equal(torch.get_rng_state(), random)


def test_both_gradients_see_the_same_noise():
    model, (x, y) = network(1, NoisyBatchNorm), batch(1)
    np.testing.assert_array_equal(gradient_shift(model, half_square, x, y, 0).norm, 0)
    first = gradient_shift(model, half_square, x, y, 0.1)
    np.testing.assert_array_equal(first, gradient_shift(model, half_square, x, y, 0.1))
    torch.rand(1)
    assert (gradient_shift(model, half_square, x, y, 0.1).norm[1:] != first.norm[1:]).all()


def test_it_works_where_gradients_are_switched_off():
    model, (x, y) = network(0), batch(0)
    expected = gradient_shift(model, half_square, x, y, 0.1)
    with torch.no_grad():
        np.testing.assert_array_equal(gradient_shift(model, half_square, x, y, 0.1), expected)


@few
@given(SEEDS, st.sampled_from([None, "batch"]))
def test_the_linearised_shift_is_the_limit_of_small_steps(seed, normalization):
    model, (x, y) = network(seed, normalization), batch(seed)
    errors = []
    for rate in (1e-4, 1e-5):
        exact = gradient_shift(model, half_square, x, y, rate)
        linear = linearized_shift(model, half_square, x, y, rate)
        assert linear.norm[0] == 0
        errors.append(np.abs(exact.norm[1:] / linear.norm[1:] - 1).max())
    assert errors[1] < 0.2 * errors[0] + 1e-6
    assert errors[1] < 0.05


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_the_linearised_shift_is_made_of_blocks_of_the_hessian(normalization):
    model, (x, y) = network(3, normalization), batch(3)
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def value(vector):
        parts = zip(names, vector.split(sizes), model.parameters(), strict=True)
        values = {name: part.view(like.shape) for name, part, like in parts}
        return half_square(torch.func.functional_call(model, values, (x,)), y)

    model.eval()
    hessian = torch.autograd.functional.hessian(value, flat)
    (gradient,) = torch.autograd.grad(value(flat.requires_grad_()), flat)
    starts = dict(zip(names, np.cumsum([0, *sizes[:-1]]), strict=True))
    spans = [
        np.concatenate([np.arange(starts[n], starts[n] + sizes[names.index(n)]) for n in group])
        for group in layers_of(model, x).values()
    ]
    linear = linearized_shift(model, half_square, x, y, 0.7)
    for i, span in enumerate(spans):
        below = np.concatenate([np.array([], int), *spans[:i]])
        expected = -0.7 * hessian[np.ix_(span, below)] @ gradient[below]
        assert linear.norm[i] == pytest.approx(expected.norm().item(), abs=1e-12)


@few
@given(SEEDS, st.floats(0.2, 5))
def test_batch_norm_lets_scale_trade_for_the_learning_rate(seed, a):
    # Weights before a norm times a, and steps of those weights a^2 times as long in rate.
    model, (x, y) = network(seed), batch(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = 1e-30
    hidden = {f"linear{i}.weight" for i in (1, 2, 3)}
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            if name in hidden:
                parameter.mul_(a)
    new = stepped(model, half_square, x, y, 0.1)
    rescaled = {n: a * value if n in hidden else value for n, value in new.items()}
    layers = {}
    for i in (1, 2, 3):
        layers |= {f"linear{i}": [f"linear{i}.weight"]}
        layers |= {f"norm{i}": [f"norm{i}.weight", f"norm{i}.bias"]}
    layers["output"] = ["output.weight", "output.bias"]
    plain = gradient_shift(model, half_square, x, y, new, layers=layers)
    other = gradient_shift(scaled, half_square, x, y, rescaled, layers=layers)
    factors = np.array([a if name.startswith("linear") else 1 for name in layers])
    np.testing.assert_allclose(other.norm * factors, plain.norm, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(other.relative, plain.relative, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(other.cosine, plain.cosine, atol=1e-7)


@few
@given(SEEDS, st.floats(0.1, 3))
def test_one_input_behind_batch_norm_shifts_nothing(seed, rate):
    x, y = batch(seed, inputs=1, outputs=1)
    first, norm, last = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, eps=1e-30), nn.Linear(1, 1)
    norm.requires_grad_(False)
    model = nn.Sequential(first, norm, last).double()
    shift = gradient_shift(model, half_square, x, y, rate)
    assert shift.before[0] < 1e-10
    assert shift.norm[1] < 1e-9


@few
@given(SEEDS, st.floats(0.01, 3))
def test_the_cosine_is_bounded_by_the_relative_shift(seed, rate):
    model, (x, y) = network(seed), batch(seed)
    shift = gradient_shift(model, half_square, x, y, rate)
    near = shift.relative < 1
    assert (shift.cosine[near] >= np.sqrt(1 - shift.relative[near] ** 2) - 1e-12).all()


class Fixed(nn.Module):
    """Two layers; the second one's gradient is a constant that the first one decides."""

    def __init__(self, first):
        super().__init__()
        self.one = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        self.two = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(self.one.weight, first)
        nn.init.constant_(self.two.weight, 1.0)

    def forward(self, x):
        return self.two(self.one(x))


@pytest.mark.parametrize(
    ("first", "moved", "before", "after", "norm", "cosine", "relative"),
    [
        (1.0, -2.0, 1.0, 2.0, 3.0, -1.0, 3.0),
        (0.0, 2.0, 0.0, 2.0, 2.0, math.nan, math.inf),
        (2.0, 0.0, 2.0, 0.0, 2.0, math.nan, 1.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, math.nan, 0.0),
        (1e-200, 3e-200, 1e-200, 3e-200, 2e-200, 1.0, 2.0),
        (math.nan, 1.0, math.nan, 1.0, math.nan, math.nan, math.nan),
    ],
)
def test_gradients_that_are_zero_opposite_tiny_or_lost(
    first, moved, before, after, norm, cosine, relative
):
    model = Fixed(first)
    x = torch.ones(1, 1, dtype=torch.float64)
    new = {
        "one.weight": torch.full((1, 1), moved, dtype=torch.float64),
        "two.weight": torch.zeros(1, 1),
    }
    shift = gradient_shift(model, lambda output, _: output.sum(), x, x, new)
    expected = [before, after, norm, cosine, relative]
    found = [*(values[1] for values in shift[1:]), shift.relative[1]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_layers_are_found_in_the_order_of_the_forward_pass():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)
            self.norms = nn.ModuleList([nn.BatchNorm1d(5), nn.BatchNorm1d(4)])
            self.first = nn.Linear(5, 4, bias=False)
            self.slope = nn.PReLU()

        def forward(self, x):
            return self.last(self.slope(self.norms[1](self.first(self.norms[0](x)))))

    model, (x, y) = Crossed().double(), batch(0)
    norms = [[f"norms.{i}.weight", f"norms.{i}.bias"] for i in (0, 1)]
    expected = {
        "first": [*norms[0], "first.weight", *norms[1], "slope.weight"],
        "last": ["last.weight", "last.bias"],
    }
    assert layers_of(model, x) == expected
    assert list(layers_of(model, x)) == list(expected)
    assert gradient_shift(model, half_square, x, y, 0.1).layers == ("first", "last")


def test_frozen_parameters_belong_to_no_layer():
    model, (x, y) = network(0), batch(0)
    model.linear2.requires_grad_(False)
    model.norm1.requires_grad_(False)
    names = layers_of(model, x)
    assert names["linear1"] == ["linear1.weight", "norm2.weight", "norm2.bias"]
    assert list(names) == ["linear1", "linear3", "output"]
    shift = gradient_shift(model, half_square, x, y, 0.1)
    assert (shift.norm[1:] > 0).all()


def test_a_network_of_norms_alone_is_one_layer():
    model, x = nn.Sequential(nn.BatchNorm1d(5), nn.BatchNorm1d(5)).double(), batch(0)[0]
    assert layers_of(model, x) == {"0": ["0.weight", "0.bias", "1.weight", "1.bias"]}


def test_parameters_in_no_layer_stay():
    model, (x, y) = network(0), batch(0)
    layers = layers_of(model, x)
    kept = {name: layers[name] for name in ("linear2", "output")}
    shift = gradient_shift(model, half_square, x, y, 0.1, layers=kept)
    new = stepped(model, half_square, x, y, 0.1)
    still = {n: p.detach() for n, p in model.named_parameters()} | {
        name: new[name] for name in layers["linear2"]
    }
    expected = gradient_shift(model, half_square, x, y, still)
    np.testing.assert_array_equal(shift.norm, expected.norm[[1, 3]])


def noisy(shape, **strengths):
    torch.manual_seed(0)
    layer = NoisyBatchNorm(shape[1], **strengths)
    return layer, torch.randn(shape) * 3 + 5


@pytest.mark.parametrize("shape", [(4000, 3), (500, 3, 8), (100, 3, 8, 5)])
def test_the_noise_has_the_moments_that_it_says(shape):
    layer, x = noisy(shape, shift=0.5, stretch=1.25, jitter=0.1)
    axes = [0, *range(2, len(shape))]
    means, deviations = [], []
    for _ in range(400):
        y = layer(x).detach()
        means.append(y.mean(axes))
        deviations.append(y.std(axes))
    means, deviations = torch.stack(means), torch.stack(deviations)
    # The mean of a batch is that of its feature's noise: uniform on (-0.5, 0.5).
    assert means.abs().max() < 0.52
    assert means.abs().max(0).values.min() > 0.45
    np.testing.assert_allclose(means.std(), 0.5 / 3**0.5, rtol=0.05)
    # var = (scale^2 + jitter^2) + jitter^2 / 3, with scale uniform on (1, 1.25).
    spread = deviations**2 - 0.1**2 * (1 + 1 / 3)
    assert 0.95 < spread.min() < spread.max() < 1.25**2 * 1.05
    np.testing.assert_allclose(spread.mean(), (1.25**3 - 1) / 0.75, rtol=0.02)
    # Features and steps are disturbed independently.
    assert np.abs(np.corrcoef(means.numpy().T) - np.eye(3)).max() < 0.2
    assert abs(np.corrcoef(means[1:, 0], means[:-1, 0])[0, 1]) < 0.2


def test_single_values_stray_from_the_noise_of_their_feature():
    layer, _ = noisy((2, 1), shift=0, stretch=1, jitter=1)
    m = layer(torch.zeros(20000, 1)).detach()
    assert 0.99 < m.abs().max() <= 1
    assert m.var().item() == pytest.approx(1 / 3, rel=0.05)
    signs = torch.tensor([[1.0], [-1.0]]).repeat(10000, 1)
    s = (layer(signs) * signs).detach()
    assert s.mean().item() == pytest.approx(1, abs=0.05)
    assert s.var().item() == pytest.approx(1 + 1 / 3, rel=0.05)


def test_the_noise_is_absent_in_evaluation_and_when_its_strengths_are_none():
    layer, x = noisy((64, 3))
    plain = nn.BatchNorm1d(3)
    plain(x), layer(x)
    assert torch.equal(layer.eval()(x), plain.eval()(x))
    quiet, x = noisy((64, 3), shift=0, stretch=1, jitter=0)
    assert torch.equal(quiet(x), nn.BatchNorm1d(3)(x))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "model is a int, expected an nn.Module"),
        ({"model": nn.Linear}, TypeError, "model is the class Linear, expected an nn.Module"),
        ({"model": nn.LazyLinear(3)}, ValueError, "model's weight has no shape yet, expected one"),
        (
            {"model": nn.Linear(5, 3, dtype=torch.complex64)},
            TypeError,
            "model's weight is complex, expected real parameters",
        ),
        (
            {"model": nn.Linear(4, 3).double()},
            ValueError,
            r"model cannot be applied to x of shape \(12, 5\) and torch.float64: ",
        ),
        ({"x": np.ones((12, 5))}, TypeError, "x is a ndarray, expected a tensor"),
        ({"y": None}, TypeError, "y is a None, expected a tensor"),
        ({"x": torch.zeros(0, 5)}, ValueError, r"x has shape \(0, 5\), expected at least one"),
        ({"y": torch.full((12, 3), math.nan)}, ValueError, r"y\[0, 0\] is nan, expected finite"),
        ({"loss": "mse"}, TypeError, "loss is a str, expected a function of outputs and y"),
        (
            {"loss": lambda o, y: y.squeeze(7)},
            ValueError,
            r"loss cannot be applied to the model's outputs, a tensor of shape \(12, 3\), and y, a",
        ),
        ({"update": "fast"}, TypeError, "update is a str, expected a learning rate"),
        ({"update": True}, TypeError, "update is a bool"),
        ({"update": -0.1}, ValueError, "update is -0.1, expected a finite number of at least 0"),
        ({"update": math.inf}, ValueError, "update is inf"),
        ({"update": {}}, ValueError, r"update lacks linear1.weight.* has nothing too many"),
        ({"update": {"a": 1}}, ValueError, "has a too many"),
        ({"update": {3: 1}}, ValueError, "has 3 too many"),
        ({"layers": {}}, ValueError, "layers is empty, expected at least one layer"),
        ({"layers": {"a": 3}}, ValueError, r"layers\['a'\] is 3, expected a sequence"),
        (
            {"layers": {"a": [["output.bias"]]}},
            ValueError,
            r"names \['output.bias'\], expected one",
        ),
        ({"layers": [1]}, TypeError, "layers is a list, expected a mapping"),
        ({"layers": {"a": "linear1.weight"}}, ValueError, r"layers\['a'\] is 'linear1.weight'"),
        ({"layers": {"a": []}}, ValueError, "at least one parameter name"),
        ({"layers": {"a": ["b"]}}, ValueError, "names 'b', expected one of the trainable"),
        (
            {"layers": {"a": ["output.bias"], "b": ["output.bias"]}},
            ValueError,
            "names 'output.bias' again",
        ),
        ({"loss": lambda o, y: o}, ValueError, r"loss returns a tensor of shape \(12, 3\)"),
        ({"loss": lambda o, y: 0.5}, ValueError, "loss returns a float, expected a tensor"),
        ({"loss": lambda o, y: y.sum()}, ValueError, "loss returns a constant"),
    ],
)
@pytest.mark.parametrize("function", [gradient_shift, linearized_shift])
def test_what_does_not_fit_is_refused(unchecked, function, arguments, error, message):
    x, y = batch(0)
    call = {"model": network(0), "loss": half_square, "x": x, "y": y, "update": 0.1, **arguments}
    options = {"layers": call.pop("layers")} if "layers" in call else {}
    with pytest.raises(error, match=message):
        function(*call.values(), **options)


def test_new_values_of_another_kind_or_shape_are_refused(unchecked):
    model, (x, y) = network(0), batch(0)
    new = stepped(model, half_square, x, y, 0.1)
    with pytest.raises(TypeError, match=r"update\['output.bias'\] is a float, expected a tensor"):
        gradient_shift(model, half_square, x, y, new | {"output.bias": 1.0})
    with pytest.raises(ValueError, match=r"shape \(2,\), expected that of the parameter, \(3,\)"):
        gradient_shift(model, half_square, x, y, new | {"output.bias": torch.zeros(2)})
    with pytest.raises(TypeError, match=r"has dtype torch.int64, expected a floating-point one"):
        gradient_shift(model, half_square, x, y, new | {"output.bias": torch.arange(3)})


@pytest.mark.parametrize("function", [gradient_shift, linearized_shift])
def test_frozen_parameters_neither_move_nor_count(function):
    model, (x, y) = network(0), batch(0)
    model.linear1.weight.requires_grad_(False)
    shift = function(model, half_square, x, y, 0.1)
    assert shift.layers == ("linear2", "linear3", "output")
    held = {name: p.detach() for name, p in model.named_parameters() if name.startswith("norm1")}
    model.norm1.requires_grad_(False)
    without = function(model, half_square, x, y, 0.1)
    # The norm before the first layer that trains belongs to it and moves with it.
    assert held.keys() == {"norm1.weight", "norm1.bias"}
    assert without.layers == shift.layers
    assert without.norm[0] == shift.norm[0] == 0 < without.norm[1]


def test_gradients_are_taken_where_torch_takes_none():
    model, (x, y) = network(0), batch(0)
    expected = gradient_shift(model, half_square, x, y, 0.1)
    with torch.no_grad():
        found = gradient_shift(model, half_square, x, y, 0.1)
    np.testing.assert_array_equal(found.norm, expected.norm)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode is on"):
        gradient_shift(model, half_square, x, y, 0.1)


def test_models_without_plain_layers_are_refused():
    x = batch(0)[0]
    with pytest.raises(ValueError, match="model has no trainable parameters"):
        layers_of(nn.ReLU(), x)
    frozen = nn.Linear(5, 5).double().requires_grad_(False)
    with pytest.raises(ValueError, match="model has no trainable parameters"):
        gradient_shift(frozen, half_square, x, x, 0.1)
    twice = nn.Sequential(nn.Linear(5, 5)).double()
    twice.forward = lambda x: twice[0](twice[0](x))
    with pytest.raises(ValueError, match="0 takes part 2 times in the forward pass"):
        layers_of(twice, x)
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one parameter"):
        layers_of(tied, x)
    idle = nn.Sequential(nn.Linear(5, 5)).double()
    idle.forward = lambda x: x
    with pytest.raises(ValueError, match="0 takes no part in the forward pass"):
        layers_of(idle, x)


def test_shared_parameters_are_measured_where_layers_say_so():
    x = batch(0)[0]
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    tied[1].weight = tied[0].weight
    shift = gradient_shift(tied, half_square, x, x, 0.1, layers={"both": ["0.weight"]})
    assert shift.norm == 0 < shift.before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features is 0, expected at least 1"),
        ({"num_features": 2.5}, TypeError, "num_features is a float"),
        ({"shift": -1}, ValueError, "shift is -1"),
        ({"stretch": 0.5}, ValueError, "stretch is 0.5, expected at least 1"),
        ({"stretch": 0}, ValueError, "stretch is 0"),
        ({"jitter": "a"}, TypeError, "jitter is a str"),
    ],
)
def test_noise_that_cannot_be_is_refused(unchecked, arguments, error, message):
    with pytest.raises(error, match=message):
        NoisyBatchNorm(**{"num_features": 3, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((4, 3)), TypeError, "x is a ndarray, expected a tensor"),
        (
            torch.zeros(3),
            ValueError,
            r"x has shape \(3,\), expected \(batch, features, \*spatial\)",
        ),
        (torch.zeros(4, 2), ValueError, "x has 2 features on axis 1, expected 3, those of"),
        (torch.zeros(1, 3), ValueError, "1 values of each feature, expected at least 2"),
        (torch.zeros(0, 3), ValueError, "0 values of each feature, expected at least 2"),
        (torch.zeros(4, 3).long(), TypeError, "x has dtype torch.int64, expected torch.float32"),
        (torch.zeros(4, 3).double(), TypeError, "dtype torch.float64, expected torch.float32"),
    ],
)
def test_noise_needs_a_batch_that_fits(unchecked, x, error, message):
    with pytest.raises(error, match=message):
        NoisyBatchNorm(3)(x)


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("other", DTYPES)
@pytest.mark.parametrize("own", DTYPES)
def test_noise_takes_the_dtypes_that_torch_mixes(unchecked, own, other, training):
    layer, x = NoisyBatchNorm(3).to(own).train(training), torch.ones(4, 3, dtype=other)
    if own == other or (own == torch.float32 and other in DTYPES[:2]):
        assert layer(x).dtype == other
    else:
        with pytest.raises(TypeError, match=f"x has dtype {other}, expected {own}, that of the"):
            layer(x)


def test_noise_takes_one_example_where_nothing_is_learned():
    assert NoisyBatchNorm(3).eval()(torch.ones(1, 3)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"W1": np.ones(2)}, ValueError, r"W1 has shape \(2,\), expected a matrix"),
        ({"W1": [[1.0]]}, TypeError, "W1 is a list"),
        ({"W1": np.ones((0, 2))}, ValueError, r"W1 has shape \(0, 2\), expected a matrix with"),
        ({"D": np.full((4, 2), np.nan)}, ValueError, r"D\[0, 0\] is nan, expected finite"),
        (
            {"C": np.array([[1.0, 2.0], [0.0, 1.0]])},
            ValueError,
            r"C is not symmetric, expected second moments E\[x x'\]",
        ),
        *(
            ({"C": np.array([[large, 1], [0, 1]], dtype)}, ValueError, "C is not symmetric")
            for dtype, large in ((float, 1e3), (float, 9e5), (np.float16, 6e4))
        ),
        ({"W2": np.ones((4, 2))}, ValueError, r"W2 has shape \(4, 2\), expected \(4, 3\)"),
        ({"C": np.ones((3, 3))}, ValueError, r"C has shape \(3, 3\), expected \(2, 2\)"),
        ({"D": np.ones((2, 4))}, ValueError, r"D has shape \(2, 4\), expected \(4, 2\)"),
        ({"learning_rate": -1}, ValueError, "learning_rate is -1"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(unchecked, arguments, error, message):
    shapes = {"W1": (3, 2), "W2": (4, 3), "C": (2, 2), "D": (4, 2)}
    call = {name: np.ones(shape) for name, shape in shapes.items()} | {"learning_rate": 0.1}
    with pytest.raises(error, match=message):
        two_linear_layers(**(call | arguments))


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_in_single_precision(seed):
    model = networks.vgg(11, "batch", width=2, channels=1, size=8, hidden=(8,), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 10
    shift = gradient_shift(model, cross_entropy, x, y, 0.1)
    assert len(shift.layers) == 10
    assert shift.norm[0] == 0
    double = gradient_shift(copy.deepcopy(model).double(), cross_entropy, x.double(), y, 0.1)
    np.testing.assert_allclose(shift.before, double.before, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_second_moments_apart_in_their_last_digit_are_symmetric_enough(dtype):
    rng, one, above = np.random.default_rng(0), np.ones, np.triu_indices(4, 1)
    for _ in range(100):
        x = rng.normal(size=(200, 4)) * 10 ** rng.uniform(-1, 0, size=4)
        C = (x.T @ x / len(x)).astype(dtype)
        C[above] = np.nextafter(C[above], dtype(0))
        assert (C[above] != C.T[above]).all()
        two_linear_layers(one((3, 4), dtype), one((2, 3), dtype), C, one((2, 4), dtype), 0.1)
