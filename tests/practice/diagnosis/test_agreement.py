"""Running statistics that do not describe what reaches their layer: why, and where most."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.lab import data, inference, networks, training
from bncore.practice.diagnosis import examine, examine_state
from bncore.practice.diagnosis.agreement import TOLERANCE, gap, matters, unlike
from bncore.practice.diagnosis.parts import Parts, parts
from bncore.practice.diagnosis.statistics import Statistics
from bncore.practice.diagnosis.watching import Watched, watch

SPLIT = data.digits(0)


def batches(size=64, x=SPLIT.x_train, most=448):
    return list(x[:most].split(size))


def trained(steps=60, seed=0, **options):
    net = networks.mlp([64, 32, 32, 10], "relu", "batch", seed=seed, **options)
    training.train(net, SPLIT, steps, 64, 0.1, seed)
    return net


@pytest.fixture(scope="module", params=[0, 1, 2])
def net(request):
    return trained(seed=request.param)


PREPARED = {
    "pixels to 255": lambda x: 255 * x,
    "half the contrast": lambda x: x / 2,
    "inverted": lambda x: 1 - x,
    "brighter": lambda x: x + 0.5,
    "standardised": lambda x: (x - 0.3) / 0.37,
    "noisy": lambda x: x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", PREPARED)
@pytest.mark.parametrize("train", [True, False])
def test_data_prepared_otherwise_are_the_one_cause(net, name, train):
    report = examine(net.train(train), batches(x=PREPARED[name](SPLIT.x_test)))
    (one,) = report.findings
    assert (one.code, one.layer) == ("shifted-input", "norm1")
    assert one.values["gap"] > one.values["allowed"]
    assert "decisions" in one.measured


def test_a_frozen_first_layer_is_shifted_too(net):
    from bncore.practice.freezing import freeze

    frozen = copy.deepcopy(net)
    freeze(frozen)
    assert examine(frozen, batches(x=255 * SPLIT.x_test)).codes == {"shifted-input"}


@given(
    layer=st.sampled_from(["norm1", "norm2", "norm3"]),
    shift=st.floats(1, 5),
    sign=st.sampled_from([-1, 1]),
)
@settings(max_examples=15)
def test_the_layer_whose_statistics_are_wrong_is_named_and_no_other(layer, shift, sign):
    net = networks.mlp([64, 32, 32, 32, 10], "tanh", "batch")
    training.train(net, SPLIT, 30, 64, 0.1, 0)
    norm = net.get_submodule(layer)
    norm.running_mean += sign * shift * norm.running_var.sqrt()
    report = examine(net, batches())
    (one,) = report.findings
    assert one.layer == layer
    assert one.code == ("shifted-input" if layer == "norm1" else "train-eval-gap")
    assert one.values["shift"] > 0.5 * shift


@pytest.mark.parametrize("factor", [0.05, 20])
def test_a_wrong_variance_is_told(net, factor):
    ill = copy.deepcopy(net)
    ill.norm2.running_var /= factor
    (one,) = examine(ill, batches()).findings
    assert (one.code, one.layer) == ("train-eval-gap", "norm2")
    assert one.values["ratio"] == pytest.approx(factor, rel=0.25)


def test_weights_that_changed_since_make_gaps_everywhere(net):
    ill, other = copy.deepcopy(net), trained(seed=77)
    for mine, theirs in zip(ill.parameters(), other.parameters(), strict=True):
        mine.data = (mine.data + theirs.data) / 2
    report = examine(ill, batches())
    assert report.codes == {"train-eval-gap"}
    assert [one.layer for one in report.findings] == ["norm1", "norm2"]
    again = inference.refitted(ill, SPLIT.x_train, 64)
    assert examine(again, batches()).codes == set()


@pytest.mark.parametrize(("momentum", "steps"), [(0.001, 50), (0.01, 30), (0.1, 3)])
def test_few_updates_are_the_cause_of_the_gap(momentum, steps):
    net = trained(steps, momentum=momentum)
    report = examine(net, batches())
    assert report.codes == {"stale-statistics"}
    for one in report.findings:
        assert one.values["initial_weight"] == pytest.approx((1 - momentum) ** steps)
        assert f"{steps} updates" in one.measured
    alone = examine_state(net.state_dict(), momentum=momentum)
    assert alone.codes == {"stale-statistics"}


def test_statistics_that_were_never_updated_are_stale():
    net = networks.mlp([64, 32, 10], "relu", "batch")
    for report in (examine(net, batches()), examine_state(net.state_dict())):
        (one,) = report.findings
        assert (one.code, one.layer) == ("stale-statistics", "norm1")
        assert one.measured.startswith("0 updates")


def test_a_count_that_the_statistics_contradict_is_not_believed(net):
    again = inference.refitted(net, SPLIT.x_train, 512)
    assert again.norm1.num_batches_tracked == 2
    assert examine(again, batches()).codes == set()
    assert examine_state(again.state_dict()).codes == set()
    old = copy.deepcopy(net)
    for norm in (old.norm1, old.norm2):
        norm.num_batches_tracked.zero_()
    assert examine(old, batches()).codes == set()
    assert examine_state(old.state_dict()).codes == set()


def test_without_running_statistics_nothing_can_be_stale():
    net = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=False))
    assert examine(net, batches()).codes == {"redundant-bias"}


def test_sampling_alone_makes_no_gap():
    """Momentum 1 keeps the last batch's statistics, which scatter as those of a batch do."""
    net = networks.mlp([64, 32, 10], "relu", "batch", momentum=1.0)
    with torch.no_grad():
        for x in batches(8):
            net(x)
    assert examine(net, batches(8, most=256)).codes == set()


@given(st.floats(0, 3), st.floats(0.05, 20), st.integers(0, 99))
def test_a_gap_is_the_distance_of_the_statistics(shift, ratio, seed):
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    met = Statistics()
    for piece in x.split(100):
        met.add(piece, 100)
    pooled = met.pooled()
    mean, var = pooled.mean - shift * pooled.var.sqrt(), pooled.var / ratio
    found = gap(pooled, Parts(mean, var, None, None, 10, 0.1, 1e-12))
    distance = (shift**2 + (torch.tensor(ratio).log().item() / 2) ** 2) ** 0.5
    assert found.size == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert found.stretch == pytest.approx(ratio, rel=1e-6)
    assert TOLERANCE <= found.allowed < 2 * TOLERANCE
    assert found.open == (found.size > found.allowed)


def one_class(share, size=32, count=24, seed=0):
    """Batches of which a share is of one class."""
    rng = torch.Generator().manual_seed(seed)
    same = round(share * size)
    for i in range(count):
        places = (SPLIT.y_train == i % 10).nonzero()[:, 0]
        within = places[torch.randint(len(places), (same,), generator=rng)]
        rest = torch.randint(len(SPLIT.y_train), (size - same,), generator=rng)
        yield SPLIT.x_train[torch.cat([within, rest])]


@pytest.mark.parametrize(("share", "found"), [(0.0, False), (0.2, False), (0.9, True), (1.0, True)])
@pytest.mark.parametrize("seed", range(3))
def test_batches_of_one_class_do_not_fit_each_other(share, found, seed):
    model = networks.mlp([64, 32, 32, 10], "relu", "batch", seed=seed)
    for x in [*one_class(share, count=200, seed=seed)]:
        model(x)
    report = examine(model, one_class(share, seed=seed + 10))
    assert report.codes == ({"train-eval-gap"} if found else set())
    for one in report:
        assert one.layer == "norm1"
        assert one.values["apart"] > TOLERANCE
        assert "Batches do not fit each other" in one.measured
    few = examine(model, one_class(share, count=7, seed=seed + 10))
    assert not any("each other" in one.measured for one in few)


@pytest.mark.parametrize("size", [4, 16, 64])
def test_batches_drawn_at_random_fit_each_other(size):
    """However few, and whatever has a heavy tail."""
    rng = torch.Generator().manual_seed(size)
    x = torch.randn(32 * size, 40, generator=rng) ** 3
    norm = nn.BatchNorm1d(40)
    for piece in x.repeat(4, 1).split(size):
        norm(piece)
    assert "train-eval-gap" not in examine(nn.Sequential(norm), x.split(size)).codes


@pytest.mark.parametrize(
    ("batches", "between", "found"),
    [(8, 0.6, False), (8, 0.7, True), (24, 0.45, False), (24, 0.55, True), (7, 0.9, False)],
)
def test_three_sampling_errors_are_luck(batches, between, found):
    """Drawn at random, means of four values scatter by a quarter of the variance."""
    spread = torch.tensor([1.0, -1.0, 1.0, -1.0])
    signs = torch.arange(batches) % 2 * 2.0 - 1
    means = signs * (between * 4 / 3 / signs.var()).sqrt()
    call = Statistics()
    for mean in means:
        call.add((mean + spread)[:, None], 4)
    layer = Watched("norm", nn.BatchNorm1d(1, eps=1e-12), False, [call])
    assert call.pooled().mean_scatter.item() == pytest.approx(call.pooled().var.item() / 4)
    reports = list(unlike(layer))
    assert len(reports) == found
    for one in reports:
        assert one.values["apart"] == pytest.approx((between - 0.25) ** 0.5, rel=1e-4)


def test_a_frozen_layer_may_meet_batches_of_all_kinds(net):
    from bncore.practice.freezing import freeze

    frozen = copy.deepcopy(net)
    freeze(frozen)
    assert examine(frozen, one_class(1.0)).codes == set()


def test_the_beginning_is_blamed_for_what_it_does_to_the_outputs():
    """Less than half a deviation at the layers, and more at the outputs."""
    harmed = [_blamed(seed) for seed in range(3)]
    assert any(harmed)


def _blamed(seed):
    net = networks.mlp([64, 32, 32, 32, 32, 10], "relu", "batch", seed=seed)
    training.train(net, SPLIT, 100, 64, 0.1, seed)
    given = batches(32, most=1024)
    met = {layer.name: layer.met for layer in watch(net, given, 32).layers}
    for k in torch.arange(0.5, 0.02, -0.02, dtype=torch.float64):
        for name, one in met.items():
            norm = net.get_submodule(name)
            norm.running_mean.copy_((1 - k) * one.mean)
            norm.running_var.copy_(k + (1 - k) * one.var)
            norm.momentum = 1 - float(k) ** (1 / 100)
            norm.num_batches_tracked.fill_(100)
        sizes = [gap(one, parts(net.get_submodule(name))).size for name, one in met.items()]
        if max(sizes) < TOLERANCE:
            break
    report = examine(net, given)
    harmed = matters(watch(net, given, 32))
    assert report.codes == ({"stale-statistics"} if harmed else set())
    assert all(one.values["gap"] < TOLERANCE for one in report)
    return harmed


def test_the_parts_of_a_layer_are_taken_as_they_are(net):
    assert parts(net.norm1).mean is net.norm1.running_mean
