"""The networks of the chapter on smoothness, against formulas and other libraries."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.chapters.explanations.smoothness import experiments
from bncore.explanations import landscape
from bncore.mechanics import projection

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


@pytest.mark.parametrize("shape", [(12, 3), (6, 3, 2, 2)])
def test_the_whole_is_torchs_batch_norm_and_nothing_is_a_bias(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    theirs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3)
    expected = theirs(x)
    rounding = 24 * SINGLE * expected.abs().max().item()  # means of at most 24 values
    assert torch.allclose(experiments.Partial(3, True, True)(x), expected, rtol=0, atol=rounding)
    nothing = experiments.Partial(3, False, False)
    assert torch.equal(nothing(x), x)
    assert [name for name, _ in nothing.named_parameters()] == ["bias"]


def test_the_halves_do_half_each():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    centred = experiments.Partial(3, True, False)(x)
    rounding = 50 * SINGLE * x.abs().max().item()
    assert torch.allclose(centred, x - x.mean(0), rtol=0, atol=rounding)
    scaled = experiments.Partial(3, False, True)(x)
    var = x.var(0, unbiased=False)
    found, expected = scaled.var(0, unbiased=False), var / (var + 1e-5)
    assert torch.allclose(found, expected, rtol=50 * SINGLE)
    assert (scaled.mean(0).abs() > 0.1).any()


def test_all_kinds_start_from_the_same_weights():
    states = [experiments.network(kind, 2, 5).state_dict() for kind in experiments.KINDS]
    states_vgg = [experiments.small_vgg(kind, 11, 5).state_dict() for kind in experiments.KINDS[:2]]
    for group in (states, states_vgg):
        for name in (n for n in group[0] if n.endswith("weight") and "norm" not in n):
            for state in group:
                assert torch.equal(state[name], group[0][name]), name


def test_removed_shares_are_those_of_the_projection():
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 0).double()
    seen = {}
    hook = model.norm2.register_forward_hook(
        lambda layer, inputs, out: seen.update(x=inputs[0], out=out)
    )
    loss = nn.functional.cross_entropy(model(x.double()), y)
    hook.remove()
    g = torch.autograd.grad(loss, seen["out"])[0].numpy()
    batch = seen["x"].detach().numpy()
    found = experiments.removed_share(model, x.double(), y)[1]
    alive = (g**2).sum(axis=0) > 0
    surviving = projection.surviving_share(g, batch)[alive]
    rounding = len(g) * EPS
    np.testing.assert_allclose(found[0], 1 - surviving, rtol=0, atol=rounding)
    spread = np.abs(batch).max(axis=0)[alive] / batch.std(axis=0)[alive]
    inverse = 1 / batch.var(axis=0)[alive]
    np.testing.assert_allclose(found[2], inverse, rtol=rounding * spread.max())
    products = (g * (batch - batch.mean(axis=0)))[:, alive]
    tilt = products.sum(axis=0)
    clear = np.abs(tilt) > rounding * np.abs(products).sum(axis=0)
    assert clear.mean() > 0.9
    assert (np.sign(found[1]) == np.sign(tilt))[clear].all()


def test_a_walk_from_where_nothing_slopes_is_not_a_number():
    _, x, y = experiments.digits()
    model = experiments.network("no batch norm", 2, 0)
    with torch.no_grad():
        model.norm2.bias.fill_(-1e6)
    found = experiments.walk(model, x, y)
    assert found.shape == (2, 5, 5)
    assert np.isnan(found).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_level_is_small_without_batch_norm_in_two_layers(seed):
    _, x, y = experiments.digits()
    model = experiments.network("no batch norm", 2, seed)
    assert max(experiments.level_share(model, x, y)) < 0.1


@pytest.mark.parametrize("kind", ["batch norm", "no batch norm"])
def test_levels_are_those_of_the_identity(kind):
    _, x, y = experiments.digits()
    model = experiments.network(kind, 2, 3).double()
    levels = experiments.level_share(model, x.double(), y)
    slopes = []
    hooks = [
        layer.register_full_backward_hook(lambda layer, into, out: slopes.append(out[0].numpy()))
        for layer in model.modules()
        if isinstance(layer, experiments.Partial)
    ]
    nn.functional.cross_entropy(model(x.double()), y).backward()
    for hook in hooks:
        hook.remove()
    for share, g in zip(levels, slopes[::-1], strict=True):
        flat = np.broadcast_to(g.mean(axis=0), g.shape)
        expected = (flat**2).sum() / (g**2).sum()
        assert share == pytest.approx(expected, abs=len(g) * EPS)
        # The level is a projection: what is left is orthogonal to it.
        assert share < 0.05 or kind == "batch norm"


@pytest.mark.parametrize("steps", [0, 100])
@pytest.mark.parametrize("seed", range(3))
def test_level_and_tilt_are_small_and_most_factors_are_above_one_in_two_layers(steps, seed):
    _, x, y = experiments.digits()
    model = experiments.trained(3)[seed] if steps else experiments.network("batch norm", 2, seed)
    layers = experiments.removed_share(model, x, y)
    share, _, factor = np.concatenate(layers, axis=1)
    assert np.median(share) < 0.05
    assert (factor > 1).mean() > 0.8
    positive = [(cosine > 0).mean() for _, cosine, _ in layers]
    assert 0.3 < positive[0] < 0.7
    assert positive[1] < 0.2 or not steps


@pytest.mark.parametrize("depth", [2, 6, 10])
@pytest.mark.parametrize("seed", range(3))
def test_the_stiffest_direction_is_that_of_the_mean_until_the_mean_is_subtracted(depth, seed):
    plain, whole, half, _ = (experiments.stiffest(k, depth, seed) for k in experiments.KINDS)
    assert plain[1] > 0.9
    assert max(whole[1], half[1]) < 0.25
    assert half[0] < plain[0] / 10


def test_the_share_along_the_mean_is_all_of_a_move_along_it():
    _, x, _ = experiments.digits()
    model = experiments.network("no batch norm", 2, 0)
    mean, size = x.mean(0), SINGLE * len(x)
    flat = [torch.zeros_like(w) for w in landscape.weights(model).values()]
    flat[0] = torch.outer(torch.randn(len(flat[0])), mean)
    assert experiments.mean_share(model, x, flat) == pytest.approx(1, abs=size)
    aside = torch.randn(64)
    aside -= mean * (aside @ mean) / (mean @ mean)
    flat[0] = torch.outer(torch.randn(len(flat[0])), aside)
    assert experiments.mean_share(model, x, flat) == pytest.approx(0, abs=size)


def test_rows_of_the_walks_are_what_a_walk_finds(kept):
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 1)
    found = landscape.along_gradient(model, x, y, experiments.MOVES, "relative")
    walks = kept["batch norm"]
    # Losses in float32, of which all others are differences.
    rounding = 1000 * SINGLE
    np.testing.assert_allclose(walks.row("relative", "loss")[1, 0], found.losses, rtol=rounding)
    smoothness = walks.smoothness("relative")[1, 0]
    np.testing.assert_allclose(smoothness, found.smoothness, rtol=10 * rounding)
    change = found.changes / found.slope
    np.testing.assert_allclose(walks.relative_change("relative")[1, 0], change, rtol=10 * rounding)
    absolute = landscape.along_gradient(model, x, y, experiments.RATES)
    losses = np.append(absolute.losses, absolute.loss)
    np.testing.assert_allclose(walks.loss_range()[1, 0], np.ptp(losses), rtol=10 * rounding)
    assert list(walks.steps) == [0, 10, 20]


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_taken_without_dropout_and_leave_modes_as_they_are(training):
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 0)
    expected = experiments.gradient_of(model, x, y), experiments.removed_share(model, x, y)
    dropping = nn.Sequential(model, nn.Dropout(0.5)).train(training)
    found = experiments.gradient_of(dropping, x, y), experiments.removed_share(dropping, x, y)
    for ours, theirs in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        rounding = 64 * SINGLE * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding)
    assert {module.training for module in dropping.modules()} == {training}
