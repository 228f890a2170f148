"""Squared gradients of networks against finite differences; what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from bncore.explanations.gradient_norms import gradient_norms

EPS = {torch.float32: np.finfo(np.float32).eps, torch.float64: np.finfo(np.float64).eps}
STEP = 1e-5


def same(found, expected, dtype, examples=6):
    """Squared gradients, up to the rounding of sums over a batch."""
    np.testing.assert_allclose(found, expected, rtol=8 * examples * EPS[dtype])


def near(total, entries, size):
    """A sum of squared central differences: third derivatives, and the rounding of the loss."""
    slope = 10 * STEP**2 * total**0.5 + 8 * EPS[torch.float64] * size / STEP
    return pytest.approx(total, abs=2 * slope * (entries * total) ** 0.5)


def small_network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)
    ).double()


def test_gradient_norms_against_finite_differences():
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    norms = gradient_norms(model, x, seed=5)
    white = torch.randn(6, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss():
        with torch.no_grad():
            return (white * model(x)).sum().item()

    size = (white * model(x)).abs().sum().item()
    for layer, measured in zip((0, 3, 5), norms.weights, strict=True):
        weight, total = model[layer].weight.data, 0.0
        for i in range(weight.numel()):
            entry = weight.view(-1)
            kept = entry[i].item()
            entry[i] = kept + STEP
            up = loss()
            entry[i] = kept - STEP
            total += ((up - loss()) / (2 * STEP)) ** 2
            entry[i] = kept
        assert measured == near(total, weight.numel(), size)
    for layer, measured in zip((0, 3, 5), norms.signals, strict=True):
        total = 0.0
        for i in range(6):
            for j in range(model[layer].out_features):
                values = []
                for step in (STEP, -STEP):
                    nudge = torch.zeros(6, model[layer].out_features, dtype=torch.float64)
                    nudge[i, j] = step
                    hook = model[layer].register_forward_hook(lambda m, a, y, n=nudge: y + n)
                    values.append(loss())
                    hook.remove()
                total += ((values[0] - values[1]) / (2 * STEP)) ** 2
        assert measured == near(total, 6 * model[layer].out_features, size)


def test_gradient_norms_leave_the_model_as_it_was():
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient_norms(model, x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def in_place():
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.Linear(4, 2)
    return tuple(nn.Sequential(layers[0], nn.ReLU(change), layers[1]) for change in (True, False))


def test_what_works_in_place_gives_the_same_gradients():
    x = torch.randn(6, 3)
    changing, keeping = (gradient_norms(model, x) for model in in_place())
    same(changing, keeping, torch.float32)
    before = x.clone()
    gradient_norms(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), x)
    assert torch.equal(x, before)


def test_frozen_weights_are_measured_and_stay_frozen():
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    expected = gradient_norms(model, x)
    for frozen in ([model[0].weight], model.parameters()):
        for parameter in frozen:
            parameter.requires_grad_(False)
        same(gradient_norms(model, x), expected, torch.float64)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_norms_where_gradients_are_off(mode):
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    expected = gradient_norms(model, x)
    with mode():
        same(gradient_norms(model, x.clone()), expected, torch.float64)


def test_gradient_norms_leave_the_random_state():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    state = torch.random.get_rng_state()
    gradient_norms(model, torch.zeros(6, 3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_parametrised_weight_is_measured_like_another():
    torch.manual_seed(0)
    normed, plain = weight_norm(nn.Linear(3, 5)), nn.Linear(3, 5)
    plain.load_state_dict({"weight": normed.weight.detach(), "bias": normed.bias.detach()})
    x, last = torch.randn(6, 3), nn.Linear(5, 2)
    found, expected = (
        gradient_norms(nn.Sequential(layer, nn.Tanh(), last), x) for layer in (normed, plain)
    )
    same(found, expected, torch.float32)


def test_a_zero_that_is_meant_stays():
    """Dead units, zero weights, and a batch of two behind a batch norm with hardly any eps."""
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, -100)
    norms = gradient_norms(model, x)
    assert norms.signals[0] == 0 < norms.signals[1]
    np.testing.assert_array_equal(norms.weights, 0)
    nn.init.constant_(model[0].bias, 1)
    nn.init.zeros_(model[2].weight)
    norms = gradient_norms(model, x)
    assert norms.signals[0] == norms.weights[0] == 0 < norms.weights[1]
    two = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, eps=1e-12), nn.Linear(5, 2))
    norms = gradient_norms(two, x[:2])
    # Of each gradient through the norm only its rounding is left.
    least = two[0](x[:2]).std(dim=0, correction=0).min().item()
    through = two[2].weight.norm().item() / least
    assert norms.signals[0] < (4 * EPS[torch.float32] * through) ** 2 * norms.signals[1]


def plain_network(layers, size=1.0):
    """Without normalisation, squared gradients fall by half a layer where size is 1."""
    torch.manual_seed(0)
    linear = [nn.Linear(32, 32, bias=False) for _ in range(layers)]
    for layer in linear:
        nn.init.normal_(layer.weight, std=size * 32**-0.5)
    return nn.Sequential(*[module for layer in linear for module in (layer, nn.ReLU())])


def test_underflow_is_refused(unchecked):
    x = torch.randn(16, 32)
    message = (
        "gradient at the (output|weights) of layer [0-9]+ leaves the range of torch.float32: .*"
        "expected fewer layers or weights of another size, or model and x in float64"
    )
    for layers in (250, 300):
        with pytest.raises(ValueError, match=message):
            gradient_norms(plain_network(layers), x)
    norms = gradient_norms(plain_network(300).double(), x.double())
    assert -400 < np.log2(norms.signals[0] / norms.signals[-1]) < -250
    with pytest.raises(ValueError, match=r"leaves the range of torch.float64: .* another size$"):
        gradient_norms(plain_network(60, 1e-6).double(), x.double())


def test_overflow_is_refused():
    x = torch.randn(16, 32)
    with pytest.raises(ValueError, match=r"layer [0-9]+ returns values that are not finite, exp"):
        gradient_norms(plain_network(50, 20), x)
    steep = Through(lambda m, x: 1e30 * (1e20 * ((y := m.a(x)) - y.detach())))
    with pytest.raises(ValueError, match=r"output of layer a leaves .* torch.float32: its largest"):
        gradient_norms(steep, X)


def test_weight_gradients_are_those_of_signals_times_the_variance():
    """On a symmetric batch: width times the variance over the batch."""
    torch.manual_seed(0)
    model = nn.Linear(400, 300, bias=False)
    nn.init.normal_(model.weight, std=400**-0.5)
    x = torch.randn(8, 400) + torch.randn(400)
    norm = nn.Sequential(model, nn.BatchNorm1d(300, eps=1e-12))
    norms = gradient_norms(norm, x)
    variance = float(x.double().var(dim=0).sum())
    # Inner products of 400 random entries, beside their squares.
    expected = variance * norms.signals[0]
    assert norms.weights[0] == pytest.approx(expected, rel=2 / 400**0.5)


class Through(nn.Module):
    """Two layers, and what a function makes of them and the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.function(self, x)


def normalised():
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


X = torch.linspace(-1, 1, 18).reshape(6, 3)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ("abc", TypeError, "x is a str, expected a numpy.ndarray or a list of numbers"),
        (X > 0, TypeError, "x has dtype bool, expected real numbers"),
        (X * 1j, TypeError, "x has dtype complex64, expected real numbers"),
        (X.double() / 3, ValueError, r"x\[0, 0\] is -0.333.*, which float32, the dtype of the model, cannot hold"),
        (X[:, :2], ValueError, r"x of shape \(6, 2\) and torch.float32: layer 0 receives \(6, 2\) of torch.float32, expected \(\*batch, 3\)"),
        (X[0], ValueError, r"x has shape \(3,\), expected \(batch, \*features\)"),
        (X[:1], ValueError, r"model cannot be applied to x of shape \(1, 3\) .* more than 1 value"),
        (X[:0], ValueError, r"x has shape \(0, 3\), expected at least one example"),
        (X / 0, ValueError, r"x\[0, 0\] is -inf, expected finite values only"),
        (X * np.nan, ValueError, r"x\[0, 0\] is nan, expected finite values only"),
    ],
)  # fmt: skip
def test_a_batch_is_refused(x, error, message, unchecked):
    with pytest.raises(error, match=message):
        gradient_norms(normalised(), x)


def test_arrays_lists_and_integers_are_taken():
    torch.manual_seed(0)
    model = normalised()
    whole = X.mul(3).round()
    expected = gradient_norms(model, whole)
    for x in (whole.numpy(), whole.tolist(), whole.int(), whole.int().tolist(), whole.double()):
        np.testing.assert_array_equal(gradient_norms(model, x), expected)


def test_one_example_will_do_without_batch_norm():
    assert (gradient_norms(nn.Linear(3, 2), X[:1]).signals > 0).all()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, TypeError, "model is a None, expected an nn.Module"),
        (torch.tanh, TypeError, "model is a builtin_function_or_method, expected an nn.Module"),
        (nn.Linear, TypeError, "model is the class Linear, expected an nn.Module"),
        (nn.Tanh(), ValueError, "model has no linear layer, expected at least one nn.Linear"),
        (Through(lambda m, x: x), ValueError, "model calls none of its linear layers"),
        (Through(lambda m, x: (m.a(x), x)), ValueError, "model returns a tuple, expected one tensor"),
        (Through(lambda m, x: m.a(x) > 0), ValueError, r"model returns \(6, 2\) of torch.bool, exp"),
        (Through(lambda m, x: m.a(x)[:0]), ValueError, r"model returns \(0, 2\) of torch.float32"),
        (Through(lambda m, x: m.b(x) * 0 + m.a(x).detach()), ValueError, "does not depend on layer a"),
        (Through(lambda m, x: m.a(x) + 0 * m.b(x)[0].detach()), ValueError, "does not depend on layer b, which"),
        (Through(lambda m, x: m.a(x).detach()), ValueError, "does not depend on layer a, which it calls"),
        (Through(lambda m, x: m.a(x) / 0), ValueError, "model returns values that are not finite"),
    ],
)  # fmt: skip
def test_a_model_is_refused(model, error, message, unchecked):
    with pytest.raises(error, match=message):
        gradient_norms(model, X)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (1.5, TypeError, "seed is a float, expected an integer"),
        ("a", TypeError, "seed is a str, expected an integer"),
        (None, TypeError, "seed is a None, expected an integer"),
        (True, TypeError, "seed is a bool, expected an integer"),
        (-1, ValueError, "seed is -1, expected at least 0"),
        (2**70, ValueError, r"seed is 1180591620717411303424, expected less than 2\^63"),
    ],
)
def test_a_seed_is_refused(seed, error, message, unchecked):
    with pytest.raises(error, match=message):
        gradient_norms(normalised(), X, seed)
