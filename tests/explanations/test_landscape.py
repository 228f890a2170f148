"""Walks along a gradient against torch, step by step."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations import landscape
from bncore.lab import networks

EPS = np.finfo(np.float64).eps
ROUNDING = 16 * 24 * EPS  # of a loss and its gradient, means over a batch of 24


def batch(classes=4, inputs=6, count=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("units", landscape.UNITS)
def test_a_walk_is_gradient_descent_of_the_weights(normalization, units):
    x, y = batch()
    model = networks.mlp((6, 5, 4), "tanh", normalization, seed=3).double()
    found = landscape.along_gradient(model, x, y, [0.03, 0.3], units)
    chosen = landscape.weights(model)
    scales = {
        name: w.detach().norm(dim=1, keepdim=True) if units == "relative" else 1.0
        for name, w in chosen.items()
    }

    def slope_of(model):
        loss = cross_entropy(model(x), y)
        weights = landscape.weights(model)
        parts = torch.autograd.grad(loss, list(weights.values()))
        return loss.item(), torch.cat(
            [(scales[n] * p).reshape(-1) for n, p in zip(weights, parts, strict=True)]
        )

    before, slope = slope_of(model)
    length = slope.norm().item()
    assert found.loss == pytest.approx(before, rel=ROUNDING, abs=0)
    assert found.slope == pytest.approx(length, rel=ROUNDING, abs=0)
    for k, step in enumerate((0.03, 0.3)):
        moved = copy.deepcopy(model)
        if units == "relative":
            step = step * 9**0.5 / length
        parts = dict(zip(chosen, slope.split([w.numel() for w in chosen.values()]), strict=True))
        with torch.no_grad():
            for name, w in landscape.weights(moved).items():
                w -= step * scales[name] * parts[name].reshape(w.shape)
        loss, after = slope_of(moved)
        assert found.losses[k] == pytest.approx(loss, rel=ROUNDING, abs=0)
        assert found.distances[k] == pytest.approx(step * length, rel=ROUNDING, abs=0)
        change = (after - slope).norm().item()
        assert found.changes[k] == pytest.approx(change, abs=ROUNDING * (length + change))
    expected = (found.changes / found.distances).max()
    assert found.smoothness == pytest.approx(expected, rel=2 * EPS, abs=0)


def test_a_relative_step_is_the_stated_share_of_the_weights():
    x, y = batch()
    model = networks.mlp((6, 5, 4), "tanh", None, seed=3).double()
    found = landscape.along_gradient(model, x, y, [0.02], "relative")
    assert found.distances[0] == pytest.approx(0.02 * (5 + 4) ** 0.5, rel=8 * EPS, abs=0)


def test_a_walk_leaves_the_model_as_it_was():
    x, y = batch()
    model = networks.mlp((6, 5, 4), "relu", "batch", seed=1).double().eval()
    before = copy.deepcopy(model.state_dict())
    landscape.along_gradient(model, x, y, [0.1])
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("factor", [0.25, 16.0])
def test_relative_units_do_not_see_a_rescaling_that_the_loss_does_not_see(factor):
    x, y = batch()
    model = networks.mlp((6, 5, 4), "relu", None, gain=1.0, seed=1).double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.linear1.weight.mul_(factor)
        other.output.weight.div_(factor)
    relative, absolute = (
        [landscape.along_gradient(m, x, y, [0.05], units) for m in (model, other)]
        for units in ("relative", "absolute")
    )
    rounded = ROUNDING * relative[0].slope / relative[0].distances[0]
    assert relative[1].smoothness == pytest.approx(relative[0].smoothness, abs=rounded)
    np.testing.assert_allclose(relative[1].losses, relative[0].losses, rtol=ROUNDING)
    assert abs(absolute[1].smoothness / absolute[0].smoothness - 1) > 0.5


def test_filters_are_measured_by_their_own_length():
    weight = torch.arange(1.0, 37.0).reshape(2, 2, 3, 3)
    lengths = landscape.unit_lengths(weight)
    assert lengths.shape == (2, 1, 1, 1)
    expected = [weight[0].norm().item(), weight[1].norm().item()]
    rtol = 4 * np.finfo(np.float32).eps
    np.testing.assert_allclose(lengths.flatten(), expected, rtol=rtol)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: landscape.weights(nn.Linear), TypeError, "model is the class Linear, expected"),
        (
            lambda: landscape.unit_lengths("a"),
            TypeError,
            "weight is a str, expected a numpy.ndarray or a list",
        ),
        (
            lambda: landscape.unit_lengths(torch.ones(2, 2) > 0),
            TypeError,
            "weight has dtype bool, expected real numbers",
        ),
        (
            lambda: landscape.unit_lengths(torch.ones(3)),
            ValueError,
            r"weight has shape \(3,\), expected \(units, \*inputs\)",
        ),
    ],
)
def test_errors_of_the_identities_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("model", "steps", "units", "error", "message"),
    [
        (nn.Linear(6, 4), [], "absolute", ValueError, "steps is empty, expected at least one"),
        (nn.Linear(6, 4), [0.1, -1], "absolute", ValueError, r"steps\[1\] is -1, expected"),
        (nn.Linear(6, 4), ["a"], "absolute", TypeError, r"steps\[0\] is a str"),
        (nn.Linear(6, 4), 0.1, "absolute", TypeError, "steps is a float, expected a sequence"),
        (nn.Linear(5, 4), [0.1], "absolute", ValueError, "model cannot be applied to x of shape"),
        (
            nn.Linear(6, 4).requires_grad_(False),
            [0.1],
            "absolute",
            ValueError,
            "model has no weight matrix, expected a parameter with two axes or more, not frozen",
        ),
        (nn.Linear(6, 4), [0.1], "metres", ValueError, "units is 'metres', expected 'absolute'"),
        (nn.BatchNorm1d(6), [0.1], "absolute", ValueError, "model has no weight matrix"),
    ],
)
def test_errors_of_a_walk_teach(model, steps, units, error, message):
    x, y = batch()
    with pytest.raises(error, match=message):
        landscape.along_gradient(model.double(), x, y, steps, units)


def test_a_unit_without_weights_has_no_length():
    x, y = batch()
    model = nn.Linear(6, 4).double()
    with torch.no_grad():
        model.weight[2] = 0
    with pytest.raises(ValueError, match=r"weight\[2\] is all zero, expected weights that have"):
        landscape.along_gradient(model, x, y, [0.1], "relative")


def test_a_critical_point_has_no_direction_to_walk_in():
    x, y = batch()
    model = nn.Linear(6, 4).double()
    with pytest.raises(ValueError, match="the gradient is zero, expected a point with a slope"):
        landscape.along_gradient(model, x, y, [0.1], loss=lambda outputs, y: 0 * outputs.sum())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": None}, TypeError, "model is a None, expected an nn.Module"),
        ({"x": "abc"}, TypeError, "x is a str, expected a numpy.ndarray or a list of numbers"),
        ({"x": torch.zeros(0, 6)}, ValueError, r"x has shape \(0, 6\), expected at least one"),
        ({"x": torch.full((9, 6), torch.inf)}, ValueError, r"x\[0, 0\] is inf, expected finite"),
        ({"loss": None}, TypeError, "loss is a None, expected a function of outputs and y"),
        ({"loss": lambda z, y: z}, ValueError, "loss returns a tensor of shape"),
        ({"loss": lambda z, y: 1.0}, ValueError, "loss returns a float, expected a tensor"),
    ],
)
def test_what_cannot_be_walked_on_is_refused(changed, error, message):
    x, y = batch()
    call = {"model": nn.Linear(6, 4).double(), "x": x, "y": y, "steps": [0.1], **changed}
    with pytest.raises(error, match=message):
        landscape.along_gradient(**call)


class Dropping(nn.Module):
    """A network that draws random numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 4)
        self.double()

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.first(x))))


def test_every_step_sees_the_same_random_numbers():
    x, y = batch()
    torch.manual_seed(0)
    model = Dropping()
    state = torch.random.get_rng_state()
    found = landscape.along_gradient(model, x, y, [1e-7, 1e-3])
    assert torch.equal(torch.random.get_rng_state(), state)
    # To first order the change is proportional to the step; other numbers would change it by O(1).
    # The next order is a step of 1e-3 against the scale of the weights.
    assert found.changes[0] == pytest.approx(1e-4 * found.changes[1], rel=10 * 1e-3, abs=0)


def test_frozen_weights_are_held():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    model[0].weight.requires_grad_(False)
    assert list(landscape.weights(model)) == ["2.weight"]
    found = landscape.along_gradient(model, x, y, [0.1])
    slope = torch.autograd.grad(cross_entropy(model(x), y), model[2].weight)[0]
    assert found.slope == pytest.approx(slope.norm().item(), rel=ROUNDING, abs=0)
    with torch.no_grad():
        again = landscape.along_gradient(model, x, y, [0.1])
    np.testing.assert_allclose(again.losses, found.losses, rtol=ROUNDING)


def test_no_walk_where_torch_takes_no_derivatives():
    x, y = batch()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode is on"):
        landscape.along_gradient(nn.Linear(6, 4).double(), x, y, [0.1])


def test_a_weight_without_part_in_the_loss_has_no_slope():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    alone = landscape.along_gradient(model, x, y, [0.1])
    model.idle = nn.Linear(2, 2).double()
    beside = landscape.along_gradient(model, x, y, [0.1])
    assert beside.slope == pytest.approx(alone.slope, rel=ROUNDING, abs=0)


def test_only_batch_norms_take_the_statistics_of_the_batch():
    x, y = batch()
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)]
    model = nn.Sequential(*layers).double()
    model.train()
    with torch.no_grad():
        model[1].running_mean.add_(1.0)
    model.eval()
    quiet = nn.Sequential(layers[0], layers[1], layers[3])
    quiet.train()
    expected = landscape.along_gradient(quiet, x, y, [0.1, 0.3])
    model.eval()
    found = landscape.along_gradient(model, x, y, [0.1, 0.3])
    np.testing.assert_allclose(found.losses, expected.losses, rtol=ROUNDING)
    assert not any(module.training for module in model.modules())
    model.train()
    model[2].p = 0.0
    model[1].eval()
    frozen = landscape.along_gradient(model, x, y, [0.1, 0.3])
    with torch.no_grad():
        fixed = cross_entropy(model(x), y).item()
    assert frozen.loss == pytest.approx(fixed, rel=ROUNDING, abs=0)
    assert abs(frozen.loss - expected.loss) > 1e-3
    assert not model[1].training
    assert model[2].training


def test_lists_are_taken():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    expected = landscape.along_gradient(model, x, y, [0.1])
    found = landscape.along_gradient(model, x.tolist(), y.tolist(), [0.1])
    np.testing.assert_array_equal(found.losses, expected.losses)


def test_lengths_of_weights_of_any_size():
    for size in (1e-300, 1e-200, 1e200, 1e300):
        weight = size * torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
        np.testing.assert_allclose(
            landscape.unit_lengths(weight)[:, 0], [5 * size, 0], rtol=4 * EPS
        )
    half = landscape.unit_lengths(torch.full((1, 4), 300.0, dtype=torch.float16))
    assert half.item() == 600
    with pytest.raises(ValueError, match=r"weight\[0\] has no length within torch.float16"):
        landscape.unit_lengths(torch.full((1, 4), 6e4, dtype=torch.float16))
