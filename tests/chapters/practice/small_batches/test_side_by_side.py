"""Networks side by side are the networks that would be trained one by one."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.practice.small_batches import side_by_side
from bncore.chapters.practice.small_batches.side_by_side import Pool, SideBySide
from bncore.lab import data, networks
from bncore.lab.batches import Batches
from bncore.lab.inference import accuracy
from bncore.lab.inference import refitted as refitted_alone

WIDTHS, RUNS, STEPS, SIZE = (64, 12, 8, 10), [(0.1, 0), (0.5, 0), (0.2, 1)], 6, 16
KINDS = {
    "none": (None, None),
    "batch": (nn.BatchNorm1d, "batch"),
    "layer": (lambda features: nn.GroupNorm(len(RUNS), features), nn.LayerNorm),
}


def alone(kind, rate, seed):
    split = data.digits(seed)
    model = networks.mlp(WIDTHS, "relu", KINDS[kind][1], gain=2**0.5, seed=seed)
    order = Batches(len(split.x_train), SIZE, seed)
    descent = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(STEPS):
        batch = next(order)
        descent.zero_grad()
        cross_entropy(model(split.x_train[batch]), split.y_train[batch]).backward()
        descent.step()
    return split, model


def together(kind):
    seeds = [seed for _, seed in RUNS]
    splits = [data.digits(seed) for seed in (0, 1)]
    pool = Pool(splits, seeds, (0, 1), SIZE)
    model = SideBySide(WIDTHS, KINDS[kind][0], seeds)
    for _ in range(STEPS):
        side_by_side.step(model, *pool.batch(), torch.tensor([rate for rate, _ in RUNS]))
    return model, pool, [torch.stack([splits[s][part] for s in seeds]) for part in (2, 3)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_network_is_the_one_trained_alone(kind):
    model, _, (x, y) = together(kind)
    wrong = side_by_side.errors(model, x, y)
    scores = model(x.transpose(0, 1))
    for place, (rate, seed) in enumerate(RUNS):
        split, one = alone(kind, rate, seed)
        expected = one.eval()(split.x_test)
        atol = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(scores[:, place], expected, rtol=0, atol=atol)
        right = accuracy(one, split.x_test, split.y_test)
        assert abs(1 - right - wrong[place].item()) <= 1 / len(x[0])


def test_refitted_statistics_are_those_of_each_training_set():
    model, pool, (x, _) = together("batch")
    fitted = side_by_side.refitted(model, pool.x[pool.which]).eval()
    scores = fitted(x.transpose(0, 1))
    for place, (rate, seed) in enumerate(RUNS):
        split, one = alone("batch", rate, seed)
        expected = refitted_alone(one, split.x_train).eval()(split.x_test)
        atol = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(scores[:, place], expected, rtol=0, atol=atol)


def test_a_network_that_diverges_is_wrong_and_harms_no_other():
    model, _, (x, y) = together("batch")
    with torch.no_grad():
        model.weights[0][1] = torch.nan
    kept = model.weights[2].detach().clone()
    side_by_side.step(model.train(), x[:, :8].transpose(0, 1), y[:, :8].T, torch.full((3,), 0.1))
    assert model.weights[2][[0, 2]].isfinite().all()
    assert (model.weights[2][[0, 2]] != kept[[0, 2]]).any()
    wrong = side_by_side.errors(model, x, y)
    assert wrong[1] == 1
    assert wrong[[0, 2]].max() < 1
