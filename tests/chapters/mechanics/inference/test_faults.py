"""Four faults: each is seen, and its repair repairs."""

import numpy as np
import pytest
import torch

from bncore.chapters.mechanics.inference import faults
from bncore.lab import data
from bncore.lab.inference import accuracy


@pytest.fixture(scope="module")
def split():
    return data.digits()


@pytest.fixture(scope="module")
def family(split):
    return [faults.trained(split, seed) for seed in faults.SEEDS]


def test_batches_sorted_by_class_ruin_a_network_in_training_mode(split, family):
    found = faults.forgotten(family, split, [4, 16, 128])
    assert min(found["evaluated"]) > 0.95
    assert max(found["shuffled"][0]) < 0.9
    assert min(found["shuffled"][2]) > 0.95
    assert max(found["by class"][1]) < 0.5
    order = split.y_test.argsort(stable=True)
    x, y = split.x_test[order], split.y_test[order]
    assert found["by class"][2] == [accuracy(net, x, y, "batch", 128) for net in family]


@pytest.mark.parametrize("gradients", [True, False])
def test_a_pass_in_training_mode_moves_the_statistics(split, family, gradients):
    net = faults.trained(split, 0, steps=1)
    before = net.norm1.running_mean.clone()
    with torch.set_grad_enabled(gradients):
        net.eval()(split.x_test)
        assert net.norm1.running_mean.equal(before)
        net.train()(split.x_test)
    assert not net.norm1.running_mean.equal(before)


def test_momentum_leaves_the_weights_alone_and_decides_the_accuracy(split):
    slow, fast = (faults.trained(split, 0, 20, momentum=one) for one in (0.0003, 0.1))
    for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
        assert one.equal(other)
    found = faults.momenta(split)
    assert list(found) == [*faults.MOMENTA, None]
    assert max(found[0.0003]) < 0.9
    assert min(found[0.1]) > 0.95
    assert np.mean(found[None]) < 0.95


def test_update_bn_repairs_a_momentum_that_is_too_small(split):
    net = faults.trained(split, 0, 200, momentum=0.0003)
    torch.optim.swa_utils.update_bn([split.x_train], net)
    assert accuracy(net, split.x_test, split.y_test) > 0.95


def test_in_batches_of_two_folding_repairs_what_exact_statistics_do_not(split):
    found = {way: np.array(rows) for way, rows in faults.tiny(split, [2, 32]).items()}
    assert all(rows.shape == (2, len(faults.SEEDS)) for rows in found.values())
    two = {way: rows[0].mean() for way, rows in found.items()}
    assert two["running statistics"] < 0.8
    assert two["fitted again"] < 0.8
    gain = two["folded, 200 more steps"] - two["fitted again"]
    assert gain > 0.1
    assert two["200 more steps"] - two["fitted again"] < gain
    at_32 = np.concatenate([found["running statistics"][1], found["training mode"][1]])
    assert np.ptp(at_32) < 0.06


def test_statistics_of_a_fair_sample_repair_a_loss_of_contrast(split, family):
    found = faults.contrasts(family, split, [0.3, 1.0])
    low, high = zip(*((rows[0], rows[1]) for rows in found.values()), strict=True)
    assert max(low[0]) < 0.7
    assert min(low[1]) > 0.95
    assert max(low[2]) < 0.7
    assert min(high[0]) > 0.95


@pytest.mark.parametrize("contrast", [0.1, 0.5, 1.0])
def test_washed_out_images_keep_grey_and_shrink_around_it(contrast):
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.double)
    found = faults.washed_out(x, contrast)
    torch.testing.assert_close(found - 0.5, contrast * (x - 0.5))
