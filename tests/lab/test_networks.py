import pytest
import torch
from torch import nn

from bncore.lab import networks

FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, torch.expm1(x)),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "softplus": lambda x: torch.log1p(torch.exp(x)),
    "erf": torch.erf,
}


def names(model):
    return [name for name, _ in model.named_children()]


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("widths", [(3, 2), (4, 5, 2), (4, 6, 5, 3)])
def test_a_network_is_linear_then_activation_layer_by_layer(widths, activation):
    model = networks.mlp(widths, activation, seed=1)
    x = torch.randn(7, widths[0])
    expected = x
    for i in range(1, len(widths) - 1):
        layer = getattr(model, f"linear{i}")
        expected = FUNCTIONS[activation](expected @ layer.weight.T + layer.bias)
    expected = expected @ model.output.weight.T + model.output.bias
    # At most three layers with sums of at most seven terms.
    atol = 3 * 7 * torch.finfo(torch.float32).eps * max(1, expected.abs().max().item())
    torch.testing.assert_close(model(x), expected, rtol=0, atol=atol)


def test_a_normalisation_stands_before_each_activation_and_takes_the_bias_away():
    model = networks.mlp((4, 6, 5, 3), "relu", "batch", momentum=0.3, eps=1e-3)
    assert names(model) == [
        *("linear1", "norm1", "activation1", "linear2", "norm2", "activation2"),
        "output",
    ]
    for layer, norm, units in ((model.linear1, model.norm1, 6), (model.linear2, model.norm2, 5)):
        assert layer.bias is None
        assert isinstance(norm, nn.BatchNorm1d)
        assert (norm.num_features, norm.momentum, norm.eps) == (units, 0.3, 1e-3)
    assert model.output.bias is not None


def test_a_normalisation_can_be_made_by_a_function_of_the_number_of_units():
    made = []

    def rescaled(units):
        made.append(units)
        return nn.Sequential(nn.BatchNorm1d(units), nn.Dropout(0.5))

    model = networks.mlp((4, 6, 5, 3), nn.Hardtanh, rescaled, dropout=0.25)
    assert made == [6, 5]
    assert names(model)[:4] == ["linear1", "norm1", "activation1", "dropout1"]
    assert isinstance(model.activation2, nn.Hardtanh)
    assert model.linear2.bias is None
    assert model.dropout2.p == 0.25


def test_a_deep_linear_network_is_a_product_of_matrices():
    model = networks.deep_linear(5, 3, depth=25, width=8, seed=4).double()
    assert sum(isinstance(layer, nn.Linear) for layer in model) == len(model) == 25
    product = torch.eye(5, dtype=torch.float64)
    for layer in model:
        product = layer.weight @ product
        assert not layer.bias.any()
    x = torch.randn(20, 5, dtype=torch.float64)
    # 25 layers with sums of at most 8 terms, which amplify rounding at most tenfold.
    expected = x @ product.T
    atol = 10 * 25 * 8 * torch.finfo(torch.float64).eps * expected.abs().max().item()
    torch.testing.assert_close(model(x), expected, rtol=0, atol=atol)


def test_a_deep_linear_network_of_one_layer_is_its_output():
    assert names(networks.deep_linear(5, 3, depth=1)) == ["output"]


def test_a_normalised_deep_linear_network_has_a_norm_after_each_hidden_layer():
    model = networks.deep_linear(5, 3, depth=25, width=8, normalization="batch")
    assert names(model)[:3] == ["linear1", "norm1", "linear2"]
    assert names(model)[-3:] == ["linear24", "norm24", "output"]
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in model) == 24
    assert all(getattr(model, f"linear{i}").bias is None for i in range(1, 25))


def test_a_deep_linear_network_keeps_squared_length_on_average():
    x = torch.randn(10, 64)
    ratios = [
        (networks.deep_linear(64, 64, depth=5, width=64, seed=seed)(x) ** 2).sum() / (x**2).sum()
        for seed in range(200)
    ]
    assert torch.stack(ratios).mean().item() == pytest.approx(1, abs=0.15)


def test_momentum_none_averages_all_batches_equally():
    norm = networks.mlp((4, 6, 3), normalization="batch", momentum=None).norm1
    x = torch.randn(5, 8, 6)
    for batch in x:
        norm(batch)
    # A mean of 40 numbers, the largest near 3.
    atol = 40 * torch.finfo(torch.float32).eps * x.abs().max().item()
    torch.testing.assert_close(norm.running_mean, x.mean((0, 1)), rtol=0, atol=atol)


@pytest.mark.parametrize("normalization", networks.NORMALIZATIONS)
def test_gain_is_the_standard_deviation_of_the_weights_times_root_fan_in(normalization):
    model = networks.mlp((600, 300, 400, 200), "tanh", normalization, gain=2.5)
    for layer in (model.linear1, model.linear2, model.output):
        spread = layer.weight.std().item() * layer.in_features**0.5
        assert spread == pytest.approx(2.5, rel=0.02)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(
    "make",
    [
        lambda *given, **rest: networks.mlp((4, 6, 5, 3), "relu", *given, **rest),
        lambda *given, **rest: networks.deep_linear(4, 3, 3, 5, *given, **rest),
        lambda *given, **rest: networks.vgg(11, *given, width=2, size=8, **rest),
        lambda *given, **rest: networks.residual(1, 2, *given, stages=2, **rest),
        lambda *given, **rest: networks.residual_mlp(4, 3, 2, 5, "relu", *given, **rest),
    ],
)
def test_batch_norms_have_the_momentum_and_eps_asked_for(make):
    for asked in ({"momentum": 0.3, "eps": 1e-3}, {"momentum": None}):
        norms = [m for m in make("batch", **asked).modules() if hasattr(m, "running_mean")]
        assert len(norms) >= 2
        for norm in norms:
            assert (norm.momentum, norm.eps) == (asked["momentum"], asked.get("eps", 1e-5))


@pytest.mark.parametrize(
    "make",
    [
        lambda **rest: networks.vgg(11, width=32, size=8, **rest).conv3,
        lambda **rest: networks.residual(1, 64, None, **rest).block1.body.conv1,
    ],
)
def test_convolutions_start_with_gain_root_two(make):
    weight = make().weight
    assert weight.std().item() * weight[0].numel() ** 0.5 == pytest.approx(2**0.5, rel=0.02)


def test_without_gain_weights_have_variance_one_third_over_fan_in():
    weight = networks.mlp((400, 400, 10)).linear1.weight
    assert weight.var().item() * 400 == pytest.approx(1 / 3, rel=0.02)


def test_the_seed_decides_the_weights_and_touches_no_other_randomness():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (networks.mlp((4, 5, 2), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.linear1.weight, again.linear1.weight)
    assert not torch.equal(first.linear1.weight, other.linear1.weight)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": (3,)}, ValueError, r"widths is \(3,\), expected at least two"),
        ({"widths": (3, 0, 2)}, ValueError, r"widths\[1\] is 0, expected at least 1"),
        ({"widths": (3, 2.5)}, TypeError, r"widths\[1\] is a float, expected an integer"),
        ({"activation": "swish"}, ValueError, "activation is 'swish', expected one of 'sigmoid'"),
        (
            {"activation": lambda: torch.relu},
            TypeError,
            r"activation\(\) returned a builtin_function_or_method, expected a torch.nn.Module",
        ),
        (
            {"normalization": lambda features: None},
            TypeError,
            r"normalization\(4\) returned a None, expected a torch.nn.Module",
        ),
        ({"dropout": 1.5}, ValueError, r"dropout is 1.5, expected a number in \[0, 1\]"),
        (
            {"normalization": "layer"},
            ValueError,
            "normalization is 'layer', expected one of None, 'batch'",
        ),
        ({"momentum": 1.5}, ValueError, r"momentum is 1.5, expected a number in \[0, 1\]"),
        ({"eps": 0}, ValueError, "eps is 0, expected a finite number above 0"),
        ({"gain": -1}, ValueError, "gain is -1, expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        networks.mlp(**{"widths": (3, 4, 2), **arguments})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": 0}, ValueError, "inputs is 0, expected at least 1"),
        ({"outputs": 1.5}, TypeError, "outputs is a float, expected an integer"),
        ({"depth": 0}, ValueError, "depth is 0, expected at least 1"),
        ({"width": 0}, ValueError, "width is 0, expected at least 1"),
        ({"normalization": "layer"}, ValueError, "normalization is 'layer', expected one of None"),
        ({"gain": 0}, ValueError, "gain is 0, expected a finite number above 0"),
        ({"momentum": 2}, ValueError, r"momentum is 2, expected a number in \[0, 1\]"),
        ({"eps": 0}, ValueError, "eps is 0, expected a finite number above 0"),
        ({"seed": -1}, ValueError, "seed is -1, expected at least 0"),
    ],
)
def test_bad_arguments_of_a_deep_linear_network_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        networks.deep_linear(**{"inputs": 3, "outputs": 2, **arguments})


def without_norms(module):
    """The same modules with each batch norm replaced by nothing."""
    for name, child in module.named_children():
        if hasattr(child, "running_mean"):
            setattr(module, name, nn.Identity())
        else:
            without_norms(child)
    return module


PLACED = {
    "mlp": (lambda *given, **rest: networks.mlp((4, 6, 5, 3), "relu", *given, **rest), (9, 4)),
    "vgg": (
        lambda *given, **rest: networks.vgg(11, *given, width=2, channels=1, size=8, **rest),
        (3, 1, 8, 8),
    ),
    "residual": (lambda *given, **rest: networks.residual(1, 2, *given, stages=2, **rest), (3, 1, 8, 8)),
    "residual_mlp": (
        lambda *given, **rest: networks.residual_mlp(4, 3, 2, 5, "relu", *given, **rest), (9, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACED)
@pytest.mark.parametrize("seed", [0, 7])
def test_a_norm_after_the_activation_is_added_to_the_network_without_one(kind, seed):
    make, shape = PLACED[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    plain, after = (make(kind, seed=seed, placement="after") for kind in (None, "batch"))
    assert {name for name, _ in plain.named_parameters()} <= {
        name for name, _ in after.named_parameters()
    }
    expected = make(None, seed=seed)(x)
    assert torch.equal(plain(x), expected)
    assert not torch.equal(after(x), expected)
    assert torch.equal(without_norms(after)(x), expected)


@pytest.mark.parametrize("kind", PLACED)
def test_a_norm_after_the_activation_is_given_what_the_activation_returns(kind):
    make, shape = PLACED[kind]
    for placement, least in (("before", -float("inf")), ("after", 0.0)):
        model, seen = make("batch", placement=placement), []
        norms = [m for m in model.modules() if hasattr(m, "running_mean")]
        for norm in norms:
            norm.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].min()))
        model(torch.randn(shape))
        assert len(seen) == len(norms) >= 2
        assert (min(seen) < 0) == (placement == "before")
        assert min(seen) >= least


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", PLACED)
def test_a_place_that_is_none_is_refused(kind):
    with pytest.raises(ValueError, match="placement is 'inside', expected 'before' or 'after'"):
        PLACED[kind][0]("batch", placement="inside")
