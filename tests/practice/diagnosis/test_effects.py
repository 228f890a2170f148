"""What running statistics do to outputs is what a run with other statistics shows."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.lab import data, inference, networks, training
from bncore.practice.diagnosis import examine
from bncore.practice.diagnosis.agreement import LOST, TOLERANCE, matters
from bncore.practice.diagnosis.effects import Effect, Effects, fit
from bncore.practice.diagnosis.parts import parts
from bncore.practice.diagnosis.statistics import Statistics, share_of_scatter
from bncore.practice.diagnosis.watching import Seen, watch

SPLIT = data.digits(0)


@pytest.fixture(scope="module")
def net():
    net = networks.mlp([64, 32, 32, 10], "relu", "batch", seed=0)
    training.train(net, SPLIT, 100, 64, 0.1, 0)
    return net


def batches(size=32, most=512, x=SPLIT.x_train):
    pairs = zip(x[:most].split(size), SPLIT.y_train[:most].split(size), strict=True)
    return [(x, y) for x, y in pairs]


def shifted(net, by):
    ill = copy.deepcopy(net)
    ill.norm2.running_mean += by * ill.norm2.running_var.sqrt()
    return ill


def with_statistics(net, seen):
    other = copy.deepcopy(net).eval()
    for layer in seen.layers:
        norm = other.get_submodule(layer.name)
        norm.running_mean.copy_(layer.met.mean)
        norm.running_var.copy_(layer.met.var)
    return other


@given(by=st.floats(-2, 2))
@settings(max_examples=8, deadline=None)
def test_it_is_the_difference_between_two_networks(net, by):
    ill, given = shifted(net, by), batches()
    seen = watch(ill, given, 32)
    x, y = (torch.cat(one) for one in zip(*given, strict=True))
    with torch.no_grad():
        now, fresh = (one(x).double() for one in (ill.eval(), with_statistics(ill, seen)))
    # The spread is taken batch by batch.
    spread = sum(float((one - one.mean(0)).square().sum()) for one in fresh.split(32))
    assert seen.effect.moved == pytest.approx(
        float((now - fresh).square().sum()) / spread, rel=1e-3
    )
    changed = now.argmax(1) != fresh.argmax(1)
    assert seen.effect.changed == pytest.approx(float(changed.double().mean()), abs=3 / 512)
    right, kept = (float((one.argmax(1) == y).double().mean()) for one in (fresh, now))
    assert seen.effect.lost == pytest.approx(right - kept, abs=3 / 512)
    # Nothing is lost without a decision that changes.
    assert seen.effect.lost <= seen.effect.changed
    assert seen.effect.lost_error <= (seen.effect.changed / 512) ** 0.5 + 1e-9


def test_without_labels_nothing_is_counted_as_lost(net):
    seen = watch(shifted(net, 1.0), [x for x, _ in batches()], 32)
    assert seen.effect.lost != seen.effect.lost
    assert seen.effect.changed > 0
    marked = [{"x": x, "labels": y} for x, y in batches()]

    class Named(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, labels):
            return self.net(x)

    assert watch(Named(shifted(net, 1.0)), marked, 32).effect.lost > 0


def test_no_more_than_512_examples_go_through_it_again(net):
    calls = []
    handle = net.output.register_forward_hook(lambda *_: calls.append(net.training))
    watch(net, batches(32, most=1024), 32)
    handle.remove()
    assert len(calls) == 32 + 3 * 16


def test_lost_answers_are_found_and_only_where_there_are_labels(net):
    """Brighter pixels, by too little for the distance and by enough to lose answers."""
    levels = (batches(most=1024, x=SPLIT.x_train + by) for by in torch.arange(0.1, 0.5, 0.02))
    given = next(one for one in levels if _lost(net, one) > 1.5 * LOST)
    seen = watch(net, given, 32)
    assert seen.effect.moved < TOLERANCE**2
    assert matters(seen)
    (one,) = examine(net, given).findings
    assert (one.code, one.layer) == ("shifted-input", "norm1")
    assert "are lost." in one.measured
    assert one.values["gap"] < one.values["allowed"]
    assert not examine(net, [x for x, _ in given]).codes


def _lost(net, given):
    x, y = (torch.cat(one) for one in zip(*given, strict=True))
    again = inference.refitted(net, x, 32)
    return inference.accuracy(again, x, y) - inference.accuracy(net, x, y)


@pytest.mark.parametrize(
    ("batches", "errors"), [(2, 235.8), (3, 19.21), (4, 9.219), (8, 4.530), (24, 3.363), (10**6, 3)]
)
def test_of_few_batches_more_is_put_down_to_sampling(batches, errors):
    """Printed tables of Student's distribution, at the probability of three deviations."""
    for factor, found in ((0.99, False), (1.01, True)):
        moved, chance = 4.0, 4.0 / (factor * errors) ** 2
        seen = Seen(nn.Identity(), [], batches, effect=Effect(moved, chance, *3 * [float("nan")]))
        assert matters(seen) == found
    assert not matters(Seen(nn.Identity(), [], 1, effect=Effect(4.0, 0.0, *3 * [float("nan")])))


@pytest.mark.parametrize(
    ("moved", "lost", "error", "found"),
    [
        (0.26, float("nan"), float("nan"), True),
        (0.24, float("nan"), float("nan"), False),
        (0.1, 0.03, 0.009, True),
        (0.1, 0.03, 0.011, False),
        (0.1, 0.015, 0.001, False),
        (0.1, -0.03, 0.009, False),
    ],
)
def test_it_matters_from_half_a_deviation_or_two_answers_in_a_hundred(moved, lost, error, found):
    seen = Seen(nn.Identity(), [], 24, effect=Effect(moved, 1e-4, 0.1, lost, error))
    assert matters(seen) == found


@given(
    size=st.sampled_from([4, 16, 64]),
    count=st.integers(8, 40),
    seed=st.integers(0, 99),
    momentum=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_sampling_errors_have_the_size_that_theory_gives(size, count, seed, momentum):
    """Of normal values: 1 / m and 2 / m of a mean and a variance, times what the average keeps."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count * size, 400, generator=rng, dtype=torch.float64)
    call = Statistics()
    for piece in x.split(size):
        call.add(piece, size)
    norm = nn.BatchNorm1d(400, momentum=momentum).double()
    met, weights = call.pooled(), torch.randn(count, generator=rng, dtype=torch.float64)
    found = fit(parts(norm), met, [call], weights)
    share = share_of_scatter(count, momentum, None)
    # A draw has as its square length, over its mean, that of the weights.
    length = float((weights - weights.mean()).square().sum()) / (count - 1)
    of_mean = float((found.sampled[0] - found.fitted[0]).square().mean())
    of_var = float((found.sampled[1] - found.fitted[1]).square().mean())
    assert of_mean == pytest.approx(share * length / size, rel=0.5)
    assert of_var <= share * length * 2 / size * 2.5


def test_the_tensors_hold_their_own_values_afterwards(net):
    net = copy.deepcopy(net)
    seen = watch(net, batches(), 32)
    each, layer = parts(net.norm1), seen.layers[0]
    before = each.mean.clone(), each.var.clone()
    fits = [fit(each, layer.met, layer.training, torch.randn(16, dtype=torch.float64))]
    effects, x = Effects(), SPLIT.x_train[:8]
    with torch.no_grad():
        effects.add(fits, lambda: net.eval()(x), None)
    assert torch.equal(each.mean, before[0])
    assert torch.equal(each.var, before[1])
    assert effects.effect.moved > 0


@given(st.lists(st.tuples(*3 * [st.integers(0, 2)]), min_size=2, max_size=40))
def test_answers_are_counted_one_by_one(rows):
    """Each with its decision before and now, and its label."""
    before, now, labels = (torch.tensor(one) for one in zip(*rows, strict=True))
    scores = [nn.functional.one_hot(one, 3).float() for one in (before, before, now)]
    scores[0] += 0.1 * torch.arange(len(rows))[:, None]
    outputs, effects = iter(scores), Effects()
    effects.add([], lambda: next(outputs), labels)
    wrong = sum(b == y != n for b, n, y in rows)
    right = sum(n == y != b for b, n, y in rows)
    assert effects.effect.changed == sum(b != n for b, n, _ in rows) / len(rows)
    assert effects.effect.lost == (wrong - right) / len(rows)
    assert effects.effect.lost_error == pytest.approx((wrong + right) ** 0.5 / len(rows))


@pytest.mark.parametrize("output", [None, 3, torch.tensor(1.0), torch.ones(4, dtype=torch.int64)])
def test_outputs_without_numbers_have_no_effect(output):
    effects = Effects()
    effects.add([], lambda: output, None)
    assert effects.effect is None
