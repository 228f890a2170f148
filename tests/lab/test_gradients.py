import copy

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import data, gradients, networks
from bncore.mechanics import transform

EPS = torch.finfo(torch.float64).eps
HIDDEN = [(), ("mean",), ("variance",), ("mean", "variance")]


def inputs(seed, m=9, features=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, features, generator=generator, dtype=torch.float64) * 3 + 1
    return x.requires_grad_(), torch.randn(m, features, generator=generator, dtype=torch.float64)


def assert_rounded(found, expected, terms, name=None):
    """In float64: sums of so many terms of the size of the largest result."""
    atol = terms * EPS * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("seed", range(3))
def test_hiding_statistics_leaves_the_output_alone(hidden, seed):
    x, _ = inputs(seed)
    norm = gradients.HiddenStatistics(4, hidden).double()
    assert_rounded(norm(x), nn.BatchNorm1d(4).double()(x), len(x))


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_with_hidden_statistics_lacks_the_terms_that_they_cause(seed):
    x, dy = inputs(seed)
    _, cache = transform.forward(x.detach().numpy())
    g, x_hat, scale = dy.numpy(), cache.x_hat, cache.inv_std
    tilt = x_hat * (g * x_hat).mean(axis=0)
    level = g.mean(axis=0)
    # Means of len(g) terms, the largest g * x_hat, which x_hat multiplies again.
    rounding = len(g) * EPS * scale.max() * np.abs(g).max() * (1 + np.abs(x_hat).max() ** 2)
    expected = {
        (): g - level - tilt,
        ("mean",): g - tilt,
        ("variance",): g - level,
        ("mean", "variance"): g,
    }
    for hidden, kept in expected.items():
        norm = gradients.HiddenStatistics(4, hidden).double()
        (dx,) = torch.autograd.grad(norm(x), x, dy)
        np.testing.assert_allclose(dx.numpy(), scale * kept, rtol=0, atol=rounding)


@pytest.mark.parametrize("shape", [(9, 4), (5, 4, 3), (5, 4, 3, 2), (2, 4, 2, 2, 2)])
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_outputs_and_running_statistics_are_torchs_for_any_axes(shape, momentum, hidden):
    torch.manual_seed(0)
    theirs = nn.SyncBatchNorm(4, momentum=momentum, eps=1e-3).double()
    norm = gradients.HiddenStatistics(4, hidden, 1e-3, momentum).double()
    with torch.no_grad():
        for parameter, other in zip(norm.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(other.copy_(torch.randn(4)))
    for mode in (True, True, False):
        x = 2 + torch.randn(shape, dtype=torch.float64)
        expected = nn.functional.batch_norm(
            x,
            None if mode else norm.running_mean,
            None if mode else norm.running_var,
            norm.weight,
            norm.bias,
            mode,
            eps=1e-3,
        )
        assert_rounded(norm.train(mode)(x), expected, x[:, 0].numel())
        if mode:
            theirs.num_batches_tracked += 1
            share = 1 / theirs.num_batches_tracked if momentum is None else momentum
            axes = [0, *range(2, x.ndim)]
            theirs.running_mean.lerp_(x.mean(axes), float(share))
            theirs.running_var.lerp_(x.var(axes), float(share))
    for (name, value), other in zip(norm.named_buffers(), theirs.buffers(), strict=True):
        assert_rounded(value, other, 3 * x[:, 0].numel(), name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalised_in_single(dtype):
    x = (300 + torch.randn(50, 4)).to(dtype)
    norm, theirs = gradients.HiddenStatistics(4, ("mean",)), nn.BatchNorm1d(4)
    found, expected = norm(x), theirs(x)
    assert found.dtype == expected.dtype == dtype
    # Both round once to the dtype; values reach 4.
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


def learned(model, seed=0):
    """Scales, shifts and running statistics as if the network had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                if tensor is not None:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (networks.mlp([64, 5, 6, 10], "relu", "batch", dropout=0.5), (64,)),
        (networks.residual(2, 3, stages=2), (1, 8, 8)),
        (nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.ReLU()), (3,)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(5)), (5, 3)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False)), (3,)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, 1e-2, 0.3)), (3,)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None)), (3,)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)), (3,)),
    ],
)
def test_a_network_with_hidden_statistics_computes_the_same_with_what_it_has_learned(
    model, shape, mode, hidden
):
    model = learned(copy.deepcopy(model)).double().train(mode)
    x = torch.randn(9, *shape, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = gradients.hide_statistics(model, hidden, example=x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert changed.state_dict().keys() == before.keys()
    for name, module in model.named_modules():
        other = changed.get_submodule(name)
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        assert type(other) is (gradients.HiddenStatistics if norm else type(module))
        assert other.training == mode
    outputs = []
    for each in (model, changed):
        torch.manual_seed(0)
        outputs.append(each(x))
    # A mean takes at most 9 * 64 terms, and layers amplify its rounding at most tenfold.
    assert_rounded(*outputs, 10 * 9 * 64)
    for name, value in changed.state_dict().items():
        assert_rounded(value, model.state_dict()[name], 10 * 9 * 64, name)


def test_gradients_through_a_whole_network_lack_what_is_hidden():
    torch.manual_seed(0)
    model = learned(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))).double()
    x, dy = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    found = gradients.hide_statistics(model, ("mean", "variance"))
    found(x).backward(dy)
    inner = model[0](x)
    scale = model[1].weight / (inner.var(0, correction=0) + 1e-5).sqrt()
    assert_rounded(found[0].weight.grad, (dy * scale).T @ x, 4 * len(x))


def test_frozen_parameters_and_modes_survive():
    model = learned(networks.mlp([4, 5, 6, 3], "relu", "batch"))
    model.norm1.eval().requires_grad_(False)
    changed = gradients.hide_statistics(model, ("mean",), torch.ones(3, 4))
    assert not changed.norm1.training
    assert changed.norm2.training
    assert not changed.norm1.weight.requires_grad
    assert changed.norm2.weight.requires_grad
    changed.norm2.weight.data.zero_()
    assert model.norm2.weight.all()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(2 * self.norm(x) + x)


def test_a_norm_that_is_used_twice_hides_twice():
    model, x = learned(Twice()).double(), torch.randn(8, 3, dtype=torch.float64)
    changed = gradients.hide_statistics(model, ("variance",), x)
    assert_rounded(changed(x), model(x), 4 * len(x))
    assert_rounded(changed.norm.running_var, model.norm.running_var, 4 * len(x))


class Constant(Twice):
    def forward(self, x):
        return self.norm(x + torch.tensor(1.0))


def test_tracing_leaves_nothing_behind_in_the_model():
    model = Constant()
    before = set(vars(model))
    changed = gradients.hide_statistics(model, ("mean",), torch.ones(4, 3))
    assert set(vars(model)) == before
    assert set(vars(changed)) == before


class Own(nn.BatchNorm1d):
    pass


class Functional(nn.Module):
    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, training=True)


class Depending(Twice):
    def forward(self, x):
        return self.norm(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(Own(3)), "0 is a Own, expected one of torch's own batch norms"),
        (Functional(), "the model calls batch_norm as a function"),
        (Depending(), "model cannot be traced"),
        (nn.BatchNorm1d(3), "model is itself a BatchNorm1d"),
        (nn.Sequential(nn.LazyBatchNorm1d()), "has no shape yet"),
    ],
)
def test_norms_that_cannot_be_replaced_are_told_by_their_names(model, message):
    with pytest.raises(ValueError, match=message):
        gradients.hide_statistics(model, ("mean",))


@pytest.mark.parametrize("seed", range(3))
def test_crossings_are_the_inputs_and_gradients_of_each_norm(seed):
    split = data.digits()
    model = networks.mlp([64, 8, 8, 10], "tanh", "batch", seed=seed).double()
    x, y = split.x_train[:16].double(), split.y_train[:16]
    crossings = gradients.crossings(model, x, y)
    assert len(crossings) == 2

    inner = model.linear1(x)
    for crossing, weight in zip(crossings, (model.linear1, model.linear2), strict=True):
        # Scores sum 64 products, gradients 16 examples.
        rounding = 64 * EPS * inner.abs().max().item()
        np.testing.assert_allclose(crossing.x, inner.detach().numpy(), rtol=0, atol=rounding)
        loss = nn.functional.cross_entropy(model(x), y)
        (expected,) = torch.autograd.grad(loss, weight.weight)
        before = x if weight is model.linear1 else hidden
        dx = transform.backward(crossing.dy, transform.forward(crossing.x)[1]).dx
        rounding = 64 * EPS * (np.abs(dx).T @ before.detach().abs().numpy()).max()
        found = dx.T @ before.detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)
        hidden = model.activation1(model.norm1(model.linear1(x)))
        inner = model.linear2(hidden)


@pytest.mark.parametrize("inplace", [True, False])
def test_gradients_are_those_at_the_norm_whatever_changes_its_output(inplace):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace),
        nn.Flatten(),
        nn.Linear(108, 10),
    ).double()
    x, y = torch.randn(6, 1, 8, 8), torch.randint(10, (6,))
    (found,) = gradients.crossings(model, x.numpy(), y.tolist())
    inner = model[0](x.double())
    normal = model[1](inner)
    loss = nn.functional.cross_entropy(model[4](normal.relu().flatten(1)), y)
    (expected,) = torch.autograd.grad(loss, normal)
    # Sums of at most 216 products: convolution, mean and linear layer.
    for value, other in ((found.x, inner.detach()), (found.dy, expected)):
        atol = 216 * EPS * abs(other).max().item()
        np.testing.assert_allclose(value, other, rtol=0, atol=atol)


def test_crossings_of_a_norm_that_is_used_twice_come_in_the_order_of_its_calls():
    torch.manual_seed(0)
    model, x = Twice().double(), torch.randn(8, 3, dtype=torch.float64)
    first, second = gradients.crossings(model, x, [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(first.x, x)
    expected = (2 * model.norm(x) + x).detach()
    np.testing.assert_allclose(second.x, expected, rtol=0, atol=100 * EPS)


def test_half_precision_crosses_in_float64():
    split = data.digits()
    model = networks.mlp([64, 8, 10], "relu", "batch").bfloat16()
    x = split.x_train[:16].bfloat16()
    (found,) = gradients.crossings(model, x, split.y_train[:16])
    expected = model.linear1(x).detach().double()
    np.testing.assert_allclose(found.x, expected, rtol=0, atol=2 * torch.finfo(torch.bfloat16).eps)
    assert found.dy.dtype == np.float64


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
    rounding = len(flat) ** 0.5 * torch.finfo(torch.float32).eps  # of squares, by pairs
    found = gradients.hidden_weight_length(model, data.digits())
    assert found == pytest.approx(expected, rel=rounding, abs=0)


@pytest.mark.parametrize("make", [gradients.HiddenStatistics, gradients.hide_statistics])
def test_an_unknown_statistic_is_refused(make):
    first = 4 if make is gradients.HiddenStatistics else networks.mlp([4, 3, 2], "relu", "batch")
    with pytest.raises(ValueError, match="hidden holds 'median', expected only 'mean', 'variance'"):
        make(first, ("mean", "median"))
