import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import data, gradients, networks
from bncore.mechanics import transform

HIDDEN = [(), ("mean",), ("variance",), ("mean", "variance")]


def inputs(seed, m=9, features=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, features, generator=generator, dtype=torch.float64) * 3 + 1
    return x.requires_grad_(), torch.randn(m, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("seed", range(3))
def test_hiding_statistics_leaves_the_output_alone(hidden, seed):
    x, _ = inputs(seed)
    norm = gradients.HiddenStatistics(4, hidden).double()
    torch.testing.assert_close(norm(x), nn.BatchNorm1d(4).double()(x))


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_with_hidden_statistics_lacks_the_terms_that_they_cause(seed):
    x, dy = inputs(seed)
    _, cache = transform.forward(x.detach().numpy())
    g, x_hat, scale = dy.numpy(), cache.x_hat, cache.inv_std
    tilt = x_hat * (g * x_hat).mean(axis=0)
    level = g.mean(axis=0)
    expected = {
        (): g - level - tilt,
        ("mean",): g - tilt,
        ("variance",): g - level,
        ("mean", "variance"): g,
    }
    for hidden, kept in expected.items():
        norm = gradients.HiddenStatistics(4, hidden).double()
        (dx,) = torch.autograd.grad(norm(x), x, dy)
        np.testing.assert_allclose(dx.numpy(), scale * kept, atol=1e-12)


def test_every_batch_norm_is_replaced_and_nothing_else():
    model = networks.mlp([64, 5, 6, 10], "relu", "batch")
    changed = gradients.hide_statistics(model, ("mean",))
    assert [name for name, _ in changed.named_children()] == [
        name for name, _ in model.named_children()
    ]
    for name, layer in model.named_children():
        if isinstance(layer, nn.BatchNorm1d):
            assert isinstance(getattr(changed, name), gradients.HiddenStatistics)
            assert getattr(changed, name).weight.shape == layer.weight.shape
        else:
            assert getattr(changed, name) is layer
    x = data.digits().x_train[:32]
    torch.testing.assert_close(changed(x), model(x))


@pytest.mark.parametrize("seed", range(3))
def test_crossings_are_the_inputs_and_gradients_of_each_norm(seed):
    split = data.digits()
    model = networks.mlp([64, 8, 8, 10], "tanh", "batch", seed=seed).double()
    x, y = split.x_train[:16].double(), split.y_train[:16]
    found = gradients.crossings(model, x, y)
    assert len(found) == 2

    inner = model.linear1(x)
    for crossing, weight in zip(found, (model.linear1, model.linear2), strict=True):
        np.testing.assert_allclose(crossing.x, inner.detach().numpy(), atol=1e-12)
        loss = nn.functional.cross_entropy(model(x), y)
        (expected,) = torch.autograd.grad(loss, weight.weight)
        before = x if weight is model.linear1 else hidden
        dx = transform.backward(crossing.dy, transform.forward(crossing.x)[1]).dx
        np.testing.assert_allclose(dx.T @ before.detach().numpy(), expected, atol=1e-12)
        hidden = model.activation1(model.norm1(model.linear1(x)))
        inner = model.linear2(hidden)


def test_crossings_leave_no_hook_and_no_gradient_behind():
    split = data.digits()
    model = networks.mlp([64, 8, 10], "relu", "batch")
    gradients.crossings(model, split.x_train[:8], split.y_train[:8])
    assert not model.norm1._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_weight_length_counts_every_linear_layer_but_the_last():
    model = networks.mlp([64, 5, 6, 10], "relu", "batch", gain=1.0)
    flat = torch.cat([model.linear1.weight.flatten(), model.linear2.weight.flatten()])
    expected = torch.linalg.vector_norm(flat).item()
    assert gradients.hidden_weight_length(model, data.digits()) == pytest.approx(expected)


@pytest.mark.parametrize("make", [gradients.HiddenStatistics, gradients.hide_statistics])
def test_an_unknown_statistic_is_refused(make):
    first = 4 if make is gradients.HiddenStatistics else networks.mlp([4, 3, 2], "relu", "batch")
    with pytest.raises(ValueError, match="hidden holds 'median', expected only 'mean', 'variance'"):
        make(first, ("mean", "median"))
