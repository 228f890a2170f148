"""Healthy networks are drawn as they are said to be."""

import copy
import math

import numpy as np
import pytest
import torch

from bncore.chapters.practice.diagnosis import healthy
from bncore.lab import data, inference, networks, training
from bncore.lab.modes import is_batch_norm


@pytest.fixture(scope="module", params=["perceptron", "residual perceptron", "sequence"])
def drawn(request):
    return request.param, [healthy.drawn(request.param, seed) for seed in (40, 41)]


def test_they_have_batch_norms_that_have_seen_every_step(drawn):
    for one in drawn[1]:
        norms = [module for module in one.model.modules() if is_batch_norm(module)]
        assert norms
        assert {int(norm.num_batches_tracked) for norm in norms} == {one.steps}


def test_batches_have_one_size(drawn):
    for one in drawn[1]:
        assert {len(x) for x, _ in one.batches} == {len(y) for _, y in one.batches}
        assert {len(x) for x, _ in one.batches} == {one.batch_size}


def test_the_same_seed_draws_the_same(drawn):
    kind, (first, second) = drawn
    again = healthy.drawn(kind, 40)
    assert again.loss == first.loss
    assert again.loss != second.loss


def test_the_cost_is_that_of_the_statistics_alone():
    split = data.digits(0)
    net = networks.mlp([64, 16, 10], "relu", "batch")
    training.train(net, split, 60, 64, 0.1, 0)
    ill = copy.deepcopy(net)
    ill.norm1.running_mean += 2
    assert abs(healthy._cost(net, split)) < 0.03
    fresh = inference.refitted(net, split.x_train)
    right, wrong = (inference.accuracy(one, split.x_test, split.y_test) for one in (fresh, ill))
    assert healthy._cost(ill, split) == pytest.approx(right - wrong, abs=1e-9)
    real = data.gaussian_regression(200, 3, 2, seed=0)
    net = networks.mlp([3, 16, 2], "relu", "batch")
    net.norm1.running_mean += 2
    with torch.no_grad():
        kept = ((net.eval()(real.x_test) - real.y_test) ** 2).mean()
        again = inference.refitted(net.train(), real.x_train).eval()
        fresh = ((again(real.x_test) - real.y_test) ** 2).mean()
    expected = float(kept - fresh) / healthy._constant(real)
    assert healthy._cost(net, real) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_constant_answer_is_the_shares_of_the_classes(seed):
    split = data.digits(seed)
    shares = np.bincount(split.y_train) / len(split.y_train)
    expected = math.fsum(-p * math.log(p) for p in shares)
    assert healthy._constant(split) == pytest.approx(expected, rel=1e-5)
    real = data.gaussian_regression(200, 3, 2, seed=seed)
    y = real.y_train.double().numpy()
    best = ((y - y.mean(0)) ** 2).mean()
    assert healthy._constant(real) == pytest.approx(best, rel=1e-5)


def test_unseen_batches_hold_no_example_of_the_training_set():
    split = data.digits(0)
    batches = healthy._unseen(split, 64)
    assert [len(x) for x, _ in batches] == [64] * 7
    assert torch.equal(torch.cat([x for x, _ in batches]), split.x_test[: 7 * 64])


@pytest.mark.parametrize("kind", ["convolutional", "residual"])
def test_images_go_through_convolutions(kind):
    rng = np.random.default_rng(0)
    model = healthy.MAKERS[kind]((1, 8, 8), 10, rng, 0)
    assert model(torch.rand(4, 1, 8, 8)).shape == (4, 10)
    healthy._add_biases(model)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(one.bias is not None for one in convolutions)
