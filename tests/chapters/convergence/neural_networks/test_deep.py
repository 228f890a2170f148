"""The measurements on deep networks of the chapter on neural networks."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bncore.chapters.convergence.neural_networks import deep
from bncore.lab import data, networks


def test_measuring_leaves_the_network_as_it_is():
    split, model = data.digits(), networks.mlp(deep.WIDTHS, "tanh", "batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changes, blocks, reach, loss = deep.measure(model, split.x_train[:64], split.y_train[:64])
    assert changes.shape == (2, 5, 2)
    assert blocks.shape == (2, 5)
    assert reach > 0
    assert loss > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert (np.diff(changes[:, :3, 0], axis=1) > 0).all()


def test_the_norm_of_mixed_second_derivatives():
    split = data.digits()
    widths = [64, *[16] * 6, 10]  # narrower, for 256 rows of second derivatives
    model = networks.mlp(widths, "tanh", gain=1.0).double()
    x, y = split.x_train[:20].double(), split.y_train[:20]
    blocks = deep.measure(model, x, y, probes=60)[1]
    (upper,) = torch.autograd.grad(
        cross_entropy(model(x), y), model.linear4.weight, create_graph=True
    )
    rows = torch.eye(upper.numel()).double().reshape(-1, *upper.shape)
    (mixed,) = torch.autograd.grad(
        upper, model.linear3.weight, rows, retain_graph=True, is_grads_batched=True
    )
    exact = mixed.norm().item()
    assert blocks[0, deep.OTHERS.index(3)] == pytest.approx(exact, rel=0.15)
