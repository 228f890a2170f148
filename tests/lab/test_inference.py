"""A trained network at inference: predictions in company, and statistics fitted again."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab.inference import (
    accuracy,
    predictions,
    refitted,
    scores_in_company,
)
from bncore.mechanics.inference import population_statistics

EPS, SINGLE = (torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32))


def random_norm(norm, generator):
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.1)
    return norm


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 7, bias=False),
        random_norm(nn.BatchNorm1d(7), generator),
        nn.ReLU(),
        nn.Linear(7, 6),
        random_norm(nn.BatchNorm1d(6), generator),
        nn.Tanh(),
        nn.Linear(6, 3),
    )


def state(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


def unchanged(model, before):
    return all(torch.equal(a, b) for a, b in zip(state(model), before, strict=True))


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_with_running_statistics_the_batches_do_not_matter(size):
    model, x = network().double(), torch.randn(20, 5).double()
    with torch.no_grad():
        scores = copy.deepcopy(model).eval()(x)
    first, second = scores.topk(2).values.T
    # Three layers, of at most eight terms a sum, and the first two multiply rounding tenfold.
    clear = 100 * 24 * EPS * scores.abs().max()
    assert (first - second).min() > clear, "rounding decides which class is first"
    expected = scores.argmax(1)
    assert torch.equal(predictions(model, x, batch_size=size), expected)
    assert accuracy(model, x, expected, batch_size=size) == 1
    assert accuracy(model, x, (expected + 1) % 3) == 0


@pytest.mark.parametrize(("size", "sizes"), [(4, [4] * 5), (7, [10, 10]), (50, [20])])
def test_with_batch_statistics_each_piece_is_a_batch(size, sizes):
    model, x = network(), torch.randn(20, 5)
    before = state(model)
    with torch.no_grad():
        expected = torch.cat([copy.deepcopy(model)(piece).argmax(1) for piece in x.split(sizes)])
    assert torch.equal(predictions(model, x, "batch", size), expected)
    assert unchanged(model, before)
    assert model.training


def test_scores_in_company_are_those_of_the_first_of_each_batch():
    model, x = network(), torch.randn(12, 5)
    before = state(model)
    scores = scores_in_company(model, x[0], x[1:], batch_size=12, draws=3)
    with torch.no_grad():
        expected = copy.deepcopy(model)(x)[0]
    # Batches in another order: three layers of at most eight terms and means of twelve.
    atol = 100 * SINGLE * expected.abs().max().item()
    torch.testing.assert_close(scores, expected.expand(3, 3), rtol=0, atol=atol)
    assert unchanged(model, before)


def test_company_is_drawn_anew_for_each_batch_and_alike_for_each_seed():
    model, x = network(), torch.randn(12, 5)
    scores = [scores_in_company(model, x[0], x[1:], 4, 5, seed) for seed in (0, 0, 1)]
    assert len(scores[0].unique(dim=0)) > 1
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


@pytest.mark.parametrize("size", [None, 5, 10])
def test_refitted_first_layer_has_the_population_statistics(size):
    model, x = network(), 2 + 3 * torch.randn(20, 5)
    before = state(model)
    fitted = refitted(model, x, size)
    with torch.no_grad():
        inputs = model[0](x).numpy()
    mean, var = population_statistics(np.split(inputs, 20 // (size or 20)))
    rounding, largest = len(x) * SINGLE, np.abs(inputs).max()
    np.testing.assert_allclose(fitted[1].running_mean, mean, rtol=0, atol=rounding * largest)
    np.testing.assert_allclose(fitted[1].running_var, var, rtol=0, atol=rounding * largest**2)
    assert unchanged(model, before)
    assert fitted[1].momentum == model[1].momentum


def test_refitted_to_one_batch_evaluates_nearly_as_it_trains():
    model, x = network(), torch.randn(2000, 5)
    fitted = refitted(model, x).eval()
    with torch.no_grad():
        torch.testing.assert_close(fitted(x), model.train()(x), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("kind", [torch.Tensor.tolist, torch.Tensor.numpy, np.asarray, np.float64])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_lists_and_arrays_are_judged_as_tensors_are(kind, statistics):
    model, x = network(), torch.randn(12, 5)
    expected = predictions(model, x, statistics)
    assert torch.equal(predictions(model, kind(x), statistics), expected)
    for labels in (expected.tolist(), expected.numpy(), expected.int()):
        assert accuracy(model, kind(x), labels, statistics) == 1
    drawn = (4, 3)
    assert torch.equal(
        scores_in_company(model, kind(x[0]), kind(x[1:]), *drawn),
        scores_in_company(model, x[0], x[1:], *drawn),
    )
    for value, other in zip(
        refitted(model, kind(x)).buffers(), refitted(model, x).buffers(), strict=True
    ):
        assert torch.equal(value, other)


def test_a_model_in_double_precision_takes_single():
    model, x = network(), torch.randn(12, 5)
    double = copy.deepcopy(model).double()
    assert torch.equal(predictions(double, x), predictions(double, x.double()))


def test_what_cannot_be_judged_is_named(unchecked):
    model, x = network(), torch.randn(6, 5)
    with pytest.raises(
        ValueError, match=r"y has shape \(5,\), expected \(6,\): one label for each"
    ):
        accuracy(model, x, [0] * 5)
    with pytest.raises(TypeError, match="y holds floats, expected integers"):
        accuracy(model, x, torch.zeros(6))
    with pytest.raises(ValueError, match=r"x\[0, 0\] is nan, expected finite values only"):
        predictions(model, torch.full((2, 5), torch.nan))
    with pytest.raises(ValueError, match=r"x has shape \(0, 5\), expected at least one example"):
        refitted(model, x[:0])
    with pytest.raises(TypeError, match="pool is a sparse tensor"):
        scores_in_company(model, x[0], x.to_sparse(), 2, 1)
    with pytest.raises(
        ValueError, match=r"example has shape \(1, 5\), expected \(5,\), that of ea"
    ):
        scores_in_company(model, x[:1], x, 2, 1)
    with pytest.raises(ValueError, match=r"example\[0\] is inf, expected finite values only"):
        scores_in_company(model, torch.full((5,), torch.inf), x, 2, 1)
    with pytest.raises(ValueError, match="seed is -1, expected at least 0"):
        scores_in_company(model, x[0], x, 2, 1, seed=-1)
    with pytest.raises(
        ValueError, match=r"model returns scores of shape \(2, 5, 1\) for 2 examples"
    ):
        predictions(nn.Unflatten(1, (5, 1)), torch.ones(2, 5))


def test_bad_sizes_are_named(unchecked):
    model, x = network(), torch.randn(6, 5)
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        predictions(model, x, batch_size=0)
    with pytest.raises(TypeError, match="batch_size is a float, expected an integer"):
        refitted(model, x, batch_size=2.0)
    with pytest.raises(ValueError, match="batch_size is 1, expected from 2 to 6"):
        scores_in_company(model, x[0], x[1:], batch_size=1, draws=1)
    with pytest.raises(ValueError, match="batch_size is 7, expected from 2 to 6"):
        scores_in_company(model, x[0], x[1:], batch_size=7, draws=1)
    with pytest.raises(ValueError, match="draws is 0, expected at least 1"):
        scores_in_company(model, x[0], x[1:], batch_size=2, draws=0)
