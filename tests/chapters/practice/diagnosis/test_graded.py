"""Faults by degrees are what they are called, and cost what a cure wins back."""

import pytest
import torch

from bncore.chapters.practice.diagnosis import graded, sick
from bncore.lab import data
from bncore.lab.inference import accuracy, refitted
from bncore.practice.diagnosis import examine

SEED = 6


@pytest.mark.parametrize("fault", graded.FAULTS)
def test_the_mildest_costs_little_and_the_worst_is_found(fault):
    mild, worst = (graded.case(fault, level, SEED) for level in (0, graded.LEVELS - 1))
    assert mild.cost < 0.05
    assert worst.cost > mild.cost
    assert not examine(mild.model, mild.batches).codes
    if worst.cost > 0.1:
        assert examine(worst.model, worst.batches).codes


@pytest.mark.parametrize("fault", ["averaged", "pruned", "noisy", "momentum"])
def test_the_cost_is_what_statistics_estimated_again_win(fault):
    one, split = graded.case(fault, 3, SEED), data.digits(SEED)
    again = refitted(one.model, split.x_train)
    kept, fresh = (accuracy(net, split.x_test, split.y_test) for net in (one.model, again))
    assert one.cost == fresh - kept


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_a_batch_is_of_one_class(share):
    split, seen = data.digits(0), []
    batches = graded.one_class(split, share, 40, 0)
    for _ in range(10):
        x, y = next(batches)
        assert len(x) == len(y) == 40
        label, count = y.mode().values, int((y == y.mode().values).sum())
        assert count >= share * 40
        seen.append(int(label))
    if share == 1.0:
        assert sorted(seen) == list(range(10))
        assert all(torch.isin(x, split.x_train).all() for x, _ in [next(batches)])


def test_a_level_is_a_degree():
    assert all(len(one.degrees) == graded.LEVELS for one in graded.FAULTS.values())
    paler = [graded.case("contrast", level, SEED).batches[0][0].max() for level in range(5)]
    assert paler == sorted(paler, reverse=True)
    assert len(graded.case("pruned", 0, SEED).batches) == sick.EXAMINED


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="fault is 'flu', expected one of 'averaged', 'pruned'"):
        graded.case("flu", 0, 0)
