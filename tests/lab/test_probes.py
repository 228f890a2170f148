import functools

import numpy as np
import pytest
import torch

from bncore.lab import data, inference, networks, probes

EPS, SINGLE = (torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32))
TERMS = 64  # A score sums at most that many products, one for each pixel.


@pytest.fixture(scope="module")
def split():
    return data.digits()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}, model.training


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_evaluation_leaves_the_model_as_it_was(split, statistics, mode):
    model = networks.mlp((64, 8, 10), normalization="batch").train(mode)
    model.activation1.eval()
    before, modes = state(model)[0], [module.training for module in model.modules()]
    with probes.evaluation(model, statistics):
        assert model.norm1.training == (statistics == "batch")
        assert not model(split.x_train).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def test_evaluation_restores_the_mode_after_an_error(split):
    model = networks.mlp((64, 8, 10), normalization="batch")
    with pytest.raises(RuntimeError), probes.evaluation(model):
        model(split.x_train[:, :3])
    assert model.norm1.training


def test_accuracy_counts_right_answers(split):
    model = networks.mlp((64, 8, 10), normalization="batch", seed=3)
    model(split.x_train)
    model.eval()
    guesses = model(split.x_test).detach().numpy().argmax(1)
    model.train()
    expected = np.mean(guesses == split.y_test.numpy())
    assert probes.test_accuracy(model, split) == pytest.approx(expected, rel=EPS, abs=0)


@pytest.mark.parametrize("normalization", networks.NORMALIZATIONS)
@pytest.mark.parametrize(("layer", "unit"), [("activation1", 0), ("activation2", 4), ("output", 2)])
def test_percentiles_are_those_of_what_the_layers_compute(split, normalization, layer, unit):
    model = networks.mlp((64, 8, 6, 10), normalization=normalization, seed=2)
    for statistics in ("running", "batch"):
        value = split.x_train
        model.train(statistics == "batch")
        before = model.state_dict()
        for name, module in model.named_children():
            if name == layer:
                break
            value = module(value)
        model.load_state_dict(before)
        expected = np.percentile(value.detach().numpy()[:, unit], (15, 50, 85))
        measured = probes.percentiles(layer, unit, statistics=statistics)(model, split)
        rounding = TERMS * SINGLE * value.abs().max().item()
        np.testing.assert_allclose(measured, expected, rtol=0, atol=rounding)
        assert measured[0] < measured[1] < measured[2]


def test_a_normalised_unit_has_mean_zero_and_nearly_variance_one_on_its_batch(split):
    model = networks.mlp((64, 8, 6, 10), normalization="batch").double()
    x = split.x_train.double()
    seen = probes.inputs_of(model, ["norm1", "activation1", "norm2", "activation2"], x, "batch")
    rounding = len(x) * EPS
    for i in (1, 2):
        var, values = seen[f"norm{i}"].var(0), seen[f"activation{i}"]
        np.testing.assert_allclose(values.mean(0), 0, atol=rounding)
        np.testing.assert_allclose(values.var(0), var / (var + model.norm1.eps), rtol=rounding)


class Reusing(torch.nn.Module):
    """One activation in two places and under two names, one layer that is not called."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.ReLU()
        self.layer, self.once = torch.nn.Linear(3, 3), torch.nn.Identity()
        self.again, self.never = self.a, torch.nn.Linear(3, 3)
        self.named = Named()

    def forward(self, x):
        return self.named(x=self.again(self.layer(self.a(self.once(x)))))


class Named(torch.nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("a", ValueError, "layer 'a' is called 2 times when the model sees x, expected once: give"),
        ("again", ValueError, "layer 'again' is called 2 times"),
        ("never", ValueError, "layer 'never' is called 0 times"),
        ("named", TypeError, "layer 'named' is called without a tensor, expected one as its input"),
        ("other", ValueError, "layer 'other' is not in the model, expected one of a, layer, once"),
    ],
)
def test_a_module_whose_input_is_not_clear_is_refused(layer, error, message):
    model = Reusing()
    with pytest.raises(error, match=message):
        probes.inputs_of(model, ["once", layer], torch.ones(2, 3))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_inputs_are_those_before_anything_changes_them_in_place():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    seen = probes.inputs_of(model, ["1", "0"], x)
    assert list(seen) == ["1", "0"]
    # Three products, of weights below 1, and a bias.
    atol = 4 * SINGLE * (1 + x.abs().max().item())
    np.testing.assert_allclose(seen["1"], model[0](x).detach(), rtol=0, atol=atol)
    np.testing.assert_array_equal(seen["0"], x)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, np.float16),
        (torch.bfloat16, np.float32),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
    ],
)
def test_inputs_keep_their_precision(dtype, expected):
    model, x = torch.nn.Sequential(torch.nn.Linear(2, 2, dtype=dtype)), [[1, 2], [3.0, 0.5]]
    seen = probes.inputs_of(model, ["0"], x)["0"]
    assert seen.dtype == expected
    assert seen.tolist() == x


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_measured_stays_finite_where_what_it_measures_is(dtype):
    """Squares and differences of half-precision numbers leave its range."""
    large = torch.finfo(dtype).max / 2
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False, dtype=dtype))
    model[0].weight.data.fill_(1)
    x = torch.tensor([[large], [-large]], dtype=dtype)
    split = data.Split(x, torch.ones(2, 1, dtype=dtype), x, torch.ones(2, 1, dtype=dtype))

    def mean(outputs, targets):
        return (outputs * targets)[0].sum()

    rounding = 4 * torch.finfo(dtype).eps
    found = probes.gradient_norms(function=mean)(model, split)
    assert found == pytest.approx(large, rel=rounding, abs=0)
    for probe in (probes.percentiles("0", 0, (50,)), probes.activation_percentiles("0", (50,))):
        assert probe(model, split) == 0
    two = torch.tensor([[large], [large]], dtype=dtype)
    norms = probes.gradient_norms(function=lambda o, t: (o[0] + o[1]).sum() / 2)
    found = norms(model, split._replace(x_train=two))
    assert found == pytest.approx(large, rel=rounding, abs=0)


def test_probing_leaves_no_hook_behind(split):
    model = networks.mlp((64, 8, 10))
    probes.inputs_of(model, ["activation1"], split.x_test)
    assert not model.activation1._forward_pre_hooks


def test_an_unknown_layer_is_named(split):
    with pytest.raises(ValueError, match="layer 'relu7' is not in the model, expected one of lin"):
        probes.inputs_of(networks.mlp((64, 8, 10)), ["relu7"], split.x_test)


@pytest.mark.usefixtures("unchecked")
def test_unknown_statistics_are_named():
    message = "statistics is 'moving', expected 'running' or 'batch'"
    with (
        pytest.raises(ValueError, match=message),
        probes.evaluation(networks.mlp((2, 2)), "moving"),
    ):
        pass


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_the_loss_is_that_of_the_whole_set(split, part, statistics):
    model = networks.mlp((64, 8, 10), normalization="batch", seed=3)
    x, y = (split.x_train, split.y_train) if part == "train" else (split.x_test, split.y_test)
    before = state(model)[0]
    measured = probes.loss(part, statistics)(model, split)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    scores = model.train(statistics == "batch")(x).detach().double()
    expected = -(scores.log_softmax(1)[torch.arange(len(y)), y]).mean().item()
    assert measured == pytest.approx(expected, rel=TERMS * SINGLE, abs=0)


def test_with_running_statistics_examples_go_through_in_pieces(split, monkeypatch):
    model = networks.mlp((64, 8, 10), normalization="batch", seed=3).double()
    split = data.Split(*(t.double() if t.is_floating_point() else t for t in split))
    model(split.x_train)
    with probes.evaluation(model):
        whole = model(split.x_test)
    first, second = whole.topk(2).values.T
    clear = TERMS**2 * EPS * whole.abs().max()
    assert (first - second).min() > clear, "rounding decides which class is first"
    monkeypatch.setattr(probes, "PIECE", 100)
    sizes = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    with probes.evaluation(model):
        pieces = probes.in_pieces(model, split.x_test)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=TERMS * EPS * whole.abs().max().item())
    assert sizes == [100, 100, 100, 100, 49]
    loss = torch.nn.functional.cross_entropy(whole, split.y_test).item()
    accuracy = (whole.argmax(1) == split.y_test).double().mean().item()
    sizes.clear()
    assert probes.loss("test")(model, split) == pytest.approx(loss, rel=len(whole) * EPS, abs=0)
    assert probes.test_accuracy(model, split) == accuracy
    assert torch.equal(inference.predictions(model, split.x_test), whole.argmax(1))
    assert set(sizes) == {100, 49}
    sizes.clear()
    probes.loss("test", "batch")(model, split)
    inference.predictions(model, split.x_test, "batch")
    assert sizes == [449, 449]


def test_another_loss_can_be_measured():
    split = data.gaussian_regression(80, 4, 3)
    model = networks.deep_linear(4, 3, 3, 5)
    expected = ((model(split.x_test) - split.y_test) ** 2).mean().item()
    measured = probes.loss("test", function=torch.nn.functional.mse_loss)(model, split)
    # A mean of 20 times 3 squares.
    assert measured == pytest.approx(expected, rel=60 * SINGLE, abs=0)


@pytest.mark.parametrize("examples", [None, 50])
def test_gradient_norms_agree_with_finite_differences(examples):
    split = data.Split(*(tensor[:60] for tensor in data.digits()))
    double = data.Split(*(t.double() if t.is_floating_point() else t for t in split))
    model = networks.mlp((64, 5, 4, 10), "tanh", "batch", seed=2).double()
    norms = probes.gradient_norms(examples=examples)(model, double)
    assert norms.shape == (3,)
    x, y = double.x_train[:examples], double.y_train[:examples]

    def loss():
        with probes.evaluation(model, "batch"):
            return torch.nn.functional.cross_entropy(model(x), y).item()

    # Where the rounding of the loss, EPS / step, is as large as what the difference leaves out:
    # step squared times a third derivative, which for weights of these sizes is below 100.
    step = EPS ** (1 / 3)
    for layer, norm in zip((model.linear1, model.linear2, model.output), norms, strict=True):
        weight, squares = layer.weight.data.reshape(-1), 0.0
        for i in range(len(weight)):
            weight[i] += step
            above = loss()
            weight[i] -= 2 * step
            squares += ((above - loss()) / (2 * step)) ** 2
            weight[i] += step
        assert norm == pytest.approx(squares**0.5, abs=100 * step**2 * len(weight) ** 0.5)


def test_measuring_gradients_leaves_the_model_and_its_gradients_as_they_were(split):
    model = networks.mlp((64, 8, 10), normalization="batch")
    model.output.weight.grad = torch.ones(10, 8)
    before = state(model)[0]
    probes.gradient_norms()(model, split)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.output.weight.grad, torch.ones(10, 8))
    assert model.linear1.weight.grad is None


def test_gradients_of_chosen_layers_come_in_their_order(split):
    images = data.digit_images()
    model = networks.vgg(11, "batch", width=2, channels=1, size=8, hidden=(4,))
    norms = probes.gradient_norms(examples=64)(model, images)
    assert norms.shape == (10,)
    chosen = probes.gradient_norms(["output", "conv1"], examples=64)(model, images)
    np.testing.assert_allclose(chosen, norms[[-1, 0]], rtol=64 * SINGLE)  # Sums over 64 images.


def test_percentiles_over_all_units_are_those_of_the_whole_array(split):
    model = networks.mlp((64, 8, 6, 10), normalization="batch", seed=2)
    seen = probes.inputs_of(model, ["activation2"], split.x_train[:100], "batch")["activation2"]
    measured = probes.activation_percentiles("activation2", (10, 90), examples=100)(model, split)
    rounding = 4 * SINGLE * np.abs(seen).max()
    np.testing.assert_allclose(measured, np.percentile(seen, (10, 90)), rtol=0, atol=rounding)
    default = probes.activation_percentiles("activation2", examples=100)(model, split)
    np.testing.assert_allclose(default, np.percentile(seen, (15, 50, 85)), rtol=0, atol=rounding)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("probe", "arguments", "error", "message"),
    [
        (probes.loss, {"part": "all"}, ValueError, "part is 'all', expected 'train' or 'test'"),
        (probes.loss, {"statistics": "own"}, ValueError, "statistics is 'own', expected 'running'"),
        (probes.gradient_norms, {"part": 1}, ValueError, "part is 1, expected 'train' or 'test'"),
        (probes.gradient_norms, {"examples": 0}, ValueError, "examples is 0, expected at least 1"),
        (
            functools.partial(probes.activation_percentiles, "output"),
            {"examples": 1.5},
            TypeError,
            "examples is a float, expected an integer",
        ),
        (
            functools.partial(probes.activation_percentiles, "output"),
            {"statistics": "own"},
            ValueError,
            "statistics is 'own', expected 'running'",
        ),
    ],
)
def test_bad_arguments_of_a_probe_are_named_when_it_is_made(probe, arguments, error, message):
    with pytest.raises(error, match=message):
        probe(**arguments)


def test_labels_that_would_be_spread_out_are_refused(split):
    model = networks.mlp((64, 8, 10))
    column = split._replace(y_test=split.y_test[:, None])
    with pytest.raises(
        ValueError, match=r"y_test has shape \(449, 1\), expected \(449,\): one lab"
    ):
        probes.test_accuracy(model, column)


@pytest.mark.parametrize("layer", ["relu7", "activation1"])
def test_a_layer_without_weight_is_named(split, layer):
    model = networks.mlp((64, 8, 10), normalization="batch")
    message = (
        f"layer '{layer}' is not in the model or has no weight, expected one of linear1, norm1"
    )
    with pytest.raises(ValueError, match=message):
        probes.gradient_norms([layer])(model, split)
