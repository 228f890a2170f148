"""The shift of gradients against its definition, the Hessian and closed forms."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations.covariate_shift import Shift, gradient_shift, linearized_shift
from bncore.explanations.layering import layers_of
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import networks

SEEDS = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps


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


def rounding(before, after, examples=12):
    """Of gradients, sums over a batch that may cancel by a digit; of their lengths and cosines."""
    length = 64 * examples * EPS * max(before.max(), after.max())
    return length, length / min(before.min(), after.min())


def assert_close(shift, expected):
    length, cosine = rounding(*expected[:2])
    for name, ours, theirs in zip(Shift._fields[1:], shift[1:], expected, strict=True):
        atol = cosine if name == "cosine" else length
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=name)


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
    assert shift.cosine[0] == pytest.approx(1, abs=4 * EPS)
    assert (shift.norm[1:] > 0).all()
    still = gradient_shift(model, half_square, x, y, 0)
    np.testing.assert_array_equal(still.norm, 0)
    np.testing.assert_allclose(still.cosine, 1, rtol=0, atol=4 * EPS)


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
    rounded = rounding(exact.before, exact.after)[0] / linear.norm[1:].min()
    assert errors[1] < 0.2 * errors[0] + rounded
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
        block, slope = hessian[np.ix_(span, below)], gradient[below]
        size = 0.7 * (block.norm() * slope.norm()).item()
        expected = 0.7 * (block @ slope).norm().item()
        assert linear.norm[i] == pytest.approx(expected, abs=16 * len(x) * EPS * size)


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
    length, cosine = rounding(plain.before, plain.after)
    np.testing.assert_allclose(other.norm * factors, plain.norm, rtol=0, atol=length)
    atol = cosine * (1 + plain.relative.max())
    np.testing.assert_allclose(other.relative, plain.relative, rtol=0, atol=atol)
    np.testing.assert_allclose(other.cosine, plain.cosine, rtol=0, atol=atol)


@few
@given(SEEDS, st.floats(0.1, 3))
def test_one_input_behind_batch_norm_shifts_nothing(seed, rate):
    x, y = batch(seed, inputs=1, outputs=1)
    first, norm, last = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, eps=1e-30), nn.Linear(1, 1)
    norm.requires_grad_(False)
    model = nn.Sequential(first, norm, last).double()
    shift = gradient_shift(model, half_square, x, y, rate)
    # What the norm subtracts, and what is behind it, over the examples.
    error, reach = (model(x) - y).abs().max(), x.abs().max() / x.std(correction=0)
    rounded = 16 * len(x) * EPS * reach
    assert shift.before[0] <= rounded * error * (last.weight / first.weight).abs()
    assert shift.norm[1] <= rounded * (error + last.weight.abs() * reach)


@few
@given(SEEDS, st.floats(0.01, 3))
def test_the_cosine_is_bounded_by_the_relative_shift(seed, rate):
    model, (x, y) = network(seed), batch(seed)
    shift = gradient_shift(model, half_square, x, y, rate)
    near = shift.relative < 1
    cosine, rounded = shift.cosine[near], 4 * 40 * EPS  # sums over up to forty parameters
    assert (cosine >= -rounded).all()
    assert (cosine**2 >= 1 - shift.relative[near] ** 2 - rounded).all()


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
    np.testing.assert_allclose(found, expected, rtol=8 * EPS)


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
    atol = rounding(expected.before, expected.after)[0]
    np.testing.assert_allclose(shift.norm, expected.norm[[1, 3]], rtol=0, atol=atol)


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
        ({"x": {}}, TypeError, "x is a dict, expected a numpy.ndarray or a list of numbers"),
        ({"y": None}, TypeError, "y is a None, expected a numpy.ndarray or a list"),
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
    with pytest.raises(TypeError, match=r"update\['output.bias'\] is a float, expected a numpy"):
        gradient_shift(model, half_square, x, y, new | {"output.bias": 1.0})
    with pytest.raises(ValueError, match=r"shape \(2,\), expected that of the parameter, \(3,\)"):
        gradient_shift(model, half_square, x, y, new | {"output.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"update\['output.bias'\]\[1\] is nan, expected finite"):
        gradient_shift(model, half_square, x, y, new | {"output.bias": [0.0, math.nan, 0.0]})


def test_arrays_lists_and_integers_are_taken():
    model, (x, y) = network(0), batch(0)
    new = stepped(model, half_square, x, y, 0.1) | {"output.bias": torch.arange(3.0).double()}
    expected = gradient_shift(model, half_square, x, y, new)
    for listed in (np.asarray, lambda v: v.tolist()):
        changed = {name: listed(value.detach()) for name, value in new.items()}
        found = gradient_shift(model, half_square, listed(x), listed(y), changed)
        np.testing.assert_array_equal(found.norm, expected.norm)
    whole = gradient_shift(model, half_square, x.round(), y, new)
    found = gradient_shift(model, half_square, x.round().int(), y, new | {"output.bias": [0, 1, 2]})
    np.testing.assert_array_equal(found.norm, whole.norm)


def test_tokens_stay_integers_for_an_embedding():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 3)).double()
    x, y = torch.arange(12).reshape(6, 2) % 7, torch.arange(6) % 3
    assert gradient_shift(model, cross_entropy, x, y, 0.1).layers == ("0", "2")


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


def test_shared_parameters_are_measured_where_layers_say_so():
    x = batch(0)[0]
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    tied[1].weight = tied[0].weight
    shift = gradient_shift(tied, half_square, x, x, 0.1, layers={"both": ["0.weight"]})
    assert shift.norm == 0 < shift.before


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_in_single_precision(seed):
    model = networks.vgg(11, "batch", width=2, channels=1, size=8, hidden=(8,), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 10
    shift = gradient_shift(model, cross_entropy, x, y, 0.1)
    assert len(shift.layers) == 10
    assert shift.norm[0] == 0
    double = gradient_shift(copy.deepcopy(model).double(), cross_entropy, x.double(), y, 0.1)
    # Sums over sixteen images of up to 64 places.
    rtol = 16 * 64 * np.finfo(np.float32).eps
    np.testing.assert_allclose(shift.before, double.before, rtol=rtol)
