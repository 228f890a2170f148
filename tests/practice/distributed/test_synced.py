"""Synchronised batch norm on two and four processes against torch's, which has the whole batch."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bncore.practice.distributed import SyncedBatchNorm, merge_statistics, synced

HALVES = (torch.half, torch.bfloat16)


class Whole(_BatchNorm):
    """torch's batch norm, for any number of axes."""

    def _check_input_dim(self, input):
        pass


def axes(x):
    return [0, *range(2, x.ndim)]


def columns(vector, x):
    return vector.view(-1, *[1] * (x.ndim - 2))


def in_one(case):
    """What torch's layer gives for each whole batch, in double precision."""
    features = case["batches"][0][0].shape[1]
    layer = Whole(features, **case["options"]).double()
    layer.load_state_dict(case["state"])
    layer.train(case["training"])
    for x, dy in case["batches"]:
        x = x.double().requires_grad_()
        layer.zero_grad()
        y = layer(x)
        y.backward(dy.double())
        gradients = {name: p.grad for name, p in layer.named_parameters()}
        yield {"y": y.detach(), "dx": x.grad, **gradients}, copy.deepcopy(layer.state_dict())


def rounding(case, x, dy):
    """Of y and of dx: where a large mean is subtracted, and where a small deviation divides."""
    kind = torch.double if case["dtype"] == torch.double else torch.float
    x, dy, eps = x.detach().double(), dy.double(), case["options"]["eps"]
    variances = [x.var(axes(x), correction=0)]
    if "running_var" in case["state"]:
        variances.append(case["state"]["running_var"])
    deviation = (torch.cat(variances).min() + eps).sqrt()
    spread = 1 + (x - columns(x.mean(axes(x)), x)).abs().max() / deviation
    last = 16 * torch.finfo(kind).eps * (1 + x.abs().max() / deviation) * spread
    sizes = [case["state"].get(name, torch.ones(1)).abs().max() for name in ("weight", "bias")]
    of_y = last * (1 + sum(sizes))
    return {"y": float(of_y), "dx": float(of_y * (1 + dy.abs().max()) / deviation)}


def parts_of(together, number):
    """What each process of a case found, in the order of its parts."""
    case = together.layers[number]
    ranks = range(4) if case["processes"] == 4 else [[0, 1], [2, 3]][number % 2]
    return case, [together.found[rank]["layers"][number] for rank in ranks]


def each_batch(together):
    """For each case and batch: the case, the batch, what the processes found, and torch's results."""
    for number in range(len(together.layers)):
        case, parts = parts_of(together, number)
        for step, (expected, state) in enumerate(in_one(case)):
            yield case, case["batches"][step], [part[step] for part in parts], expected, state


def test_the_cases_are_of_every_kind(together):
    sizes = [size for case in together.layers for size in case["sizes"]]
    assert any(0 in size for size in sizes)
    assert any(1 in size for size in sizes)
    assert any(min(size) != max(size) and 0 not in size for size in sizes)
    assert {case["processes"] for case in together.layers} == {2, 4}
    assert {case["batches"][0][0].ndim for case in together.layers} == {2, 3, 4, 5, 6}


def test_outputs_and_their_gradients_are_those_of_the_whole_batch(together):
    for case, (x, dy), parts, expected, _ in each_batch(together):
        atol = rounding(case, x, dy)
        for name in ("y", "dx"):
            if name == "dx" and not case["to_x"]:
                assert all(part["dx"] is None for part in parts)
                continue
            found = torch.cat([part[name] for part in parts])
            assert found.dtype == x.dtype
            last = torch.finfo(x.dtype).eps if x.dtype in HALVES else 0
            far = (found.double() - expected[name]).abs()
            assert (far <= atol[name] + last * expected[name].abs()).all()


def test_gradients_of_scale_and_shift_add_up_to_those_of_the_whole_batch(together):
    for case, (x, dy), parts, expected, _ in each_batch(together):
        for name in ("weight", "bias") if case["options"]["affine"] else ():
            found = sum(part["gradients"][name].double() for part in parts)
            m = x.numel() // x.shape[1]
            assert ((found - expected[name]).abs() <= m * rounding(case, x, dy)["dx"]).all()


def test_running_statistics_are_those_of_the_whole_batch_on_every_process(together):
    for case, (x, dy), parts, _, state in each_batch(together):
        for part in parts:
            assert part["state"].keys() == state.keys()
            for name, expected in state.items():
                assert part["state"][name].dtype in (case["dtype"], torch.long)
                size = 1 + expected.double().abs().max()
                far = (part["state"][name] - expected).abs().max()
                assert far <= size * rounding(case, x, dy)["y"]


def test_it_sends_one_message_forward_and_one_backward(together):
    for case, (x, _), parts, *_ in each_batch(together):
        features, size = x.shape[1], 8 if case["dtype"] == torch.double else 4
        numbers = {"allgather": 2 * features + 1, "allreduce": 2 * features}
        if not case["to_x"]:
            del numbers["allreduce"]
        if not case["training"] and case["options"]["track_running_stats"]:
            numbers = {}
        for part in parts:
            assert part["sent"] == [(kind, n, n * size) for kind, n in numbers.items()]


def network_in_one(case, weights):
    """Gradients of the sum of losses of examples, each times its weight, of the whole batch."""
    model = copy.deepcopy(case["model"])
    losses = nn.functional.cross_entropy(model(case["x"]), case["labels"], reduction="none")
    (losses * weights).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}, model.state_dict()


def distance(found, expected):
    """The largest difference, as a share of the largest gradient."""
    largest = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[name] - expected[name]).abs().max()) for name in expected) / largest


ROUNDING = 1e3 * torch.finfo(torch.double).eps


def test_summed_gradients_of_a_network_are_those_of_the_whole_batch(together):
    for number, case in enumerate(together.networks):
        parts = [found["networks"][number] for found in together.found]
        expected, state = network_in_one(case, torch.ones(len(case["x"])))
        found = {name: sum(part["summed"][name] for part in parts) for name in expected}
        assert distance(found, expected) < ROUNDING
        for part in parts:
            assert distance(part["state"], state) < ROUNDING


def test_averaged_gradients_count_the_examples_of_small_parts_more(together):
    """An example of process k counts n / (P n_k) times as much as in the mean over the batch."""
    for number, case in enumerate(together.networks):
        sizes, n = torch.tensor(case["sizes"]), len(case["x"])
        if not sizes.all():
            continue
        mean, _ = network_in_one(case, torch.ones(n, dtype=torch.double) / n)
        factors = torch.repeat_interleave(n / (len(sizes) * sizes.double()), sizes)
        uneven, _ = network_in_one(case, factors / n)
        for found in (one["networks"][number] for one in together.found):
            assert distance(found["mean"], uneven) < ROUNDING
            assert distance(found["weighted"], mean) < ROUNDING
            if len(set(case["sizes"])) > 1:
                assert distance(found["mean"], mean) > 0.1
            else:
                assert distance(found["mean"], mean) < ROUNDING


def test_in_a_network_each_layer_sends_its_own_and_the_reducer_all_gradients(together):
    model = together.networks[0]["model"]
    features = [one.num_features for one in model if isinstance(one, _BatchNorm)]
    every = sum(parameter.numel() for parameter in model.parameters())
    for found in together.found:
        sent = found["networks"][0]["sent"]
        gathered = [n for kind, n, _ in sent if kind == "allgather"]
        assert gathered == [2 * C + 1 for C in features]
        reduced = [n for kind, n, _ in sent if kind == "allreduce"]
        assert sorted(reduced) == sorted([*(2 * C for C in features), every])


def test_a_process_that_dies_or_stays_away_is_an_error_in_words_and_in_time(together):
    """The time-out is five seconds; the rest is for a machine that does other things."""
    for found, when in zip(together.lost, ("forward", "backward"), strict=True):
        assert re.match(
            f"process 0 of 2 waited in the {when} pass of a .* of 3 features", found["words"]
        )
        assert "it has died, has raised an error of its own, was away" in found["words"]
        assert found["seconds"] < 5 + 15


def test_all_processes_refuse_a_batch_of_one_value_and_keep_their_statistics(together):
    for rank, found in enumerate(together.found):
        shape = re.escape(str((int(rank == 2), 3)))
        expected = rf"x has shape {shape}; all 4 parts together have 1 value of each .* at least 2"
        assert re.match(expected, found["refusals"]["few"])
        assert not found["refusals"]["moved"]


def test_it_says_what_it_cannot_do(together):
    for found in together.found:
        assert "differentiate twice" in found["refusals"]["twice"]
        assert "does not have this process in it" in found["refusals"]["outside"]
        assert "process_group is a list, expected" in found["refusals"]["no group"]


def test_copies_share_the_group_and_conversions_keep_it_or_take_the_new_one(together):
    for found in together.found:
        assert found["copies"] == {
            "shared": True,
            "apart": True,
            "kept": [True, False],
            "given": [True, True],
        }


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e8, 1e200]),
)
def test_parts_are_merged_as_in_numpy(sizes, seed, far):
    rng = np.random.default_rng(seed)
    counts = np.array(sizes)
    means, variances = rng.standard_normal((2, len(sizes), 3)) ** 2
    means[counts > 0] += far
    means[counts == 0] = variances[counts == 0] = 0
    given = (torch.tensor(v) for v in (counts[:, None].astype(float), means, variances))
    total, *found = synced._merged(*given)
    assert total == sum(sizes)
    for ours, theirs in zip(found, merge_statistics(counts, means, variances), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


SHAPES = st.lists(st.integers(1, 4), min_size=2, max_size=6)


@settings(max_examples=30)
@given(
    SHAPES,
    st.integers(0, 10**6),
    st.sampled_from([0.1, 0.0, 1.0, None]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_in_one_process_it_is_torchs(shape, seed, momentum, affine, tracked, training):
    rng = torch.Generator().manual_seed(seed)
    x, dy = torch.randn(2, *shape, generator=rng, dtype=torch.double)
    options = {"momentum": momentum, "affine": affine, "track_running_stats": tracked}
    ours, theirs = (kind(shape[1], **options).double() for kind in (SyncedBatchNorm, Whole))
    for layer in (ours, theirs):
        layer.train(training)
    if math.prod(shape) // shape[1] < 2 and (training or not tracked):
        with pytest.raises(ValueError, match="1 value of each feature, expected at least 2"):
            ours(x)
        return
    found, expected = [], []
    for layer, results in ((ours, found), (theirs, expected)):
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(dy)
        results += [y, given.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_state_is_exchanged_with_torchs():
    theirs = nn.BatchNorm2d(3)
    theirs(torch.randn(4, 3, 2, 2))
    ours = SyncedBatchNorm(3)
    ours.load_state_dict(theirs.state_dict())
    nn.BatchNorm2d(3).load_state_dict(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


def test_it_is_copied_and_pickled():
    layer = SyncedBatchNorm(3)
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert made.weight is not layer.weight
        assert made.state_dict().keys() == layer.state_dict().keys()
        assert type(made) is SyncedBatchNorm


def test_in_evaluation_an_empty_part_is_none():
    layer = SyncedBatchNorm(3).eval()
    x = torch.empty(0, 3, 2, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_features": 0}, ValueError, "num_features is 0, expected at least 1"),
        ({"num_features": 2.0}, TypeError, "num_features is a float, expected an integer"),
        ({"eps": 0}, ValueError, "eps is 0, expected a finite number above 0"),
        ({"eps": "small"}, TypeError, "eps is a str, expected a real number"),
        ({"momentum": 2}, ValueError, r"momentum is 2, expected a number in \[0, 1\]"),
        ({"process_group": 3.5}, TypeError, "process_group is a float, expected what"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_it_refuses_what_is_no_layer(options, error, match):
    with pytest.raises(error, match=match):
        SyncedBatchNorm(**{"num_features": 3, **options})


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        ([[1.0, 2.0, 3.0]], TypeError, "x is a list, expected a tensor"),
        (torch.ones(3), ValueError, r"x has shape \(3,\), expected \(batch, features"),
        (torch.ones(4, 2), ValueError, "x has 2 features on axis 1, expected 3"),
        (torch.ones(4, 3).double(), TypeError, "x has dtype torch.float64, expected torch.float32"),
        (torch.ones(1, 3), ValueError, r"x has shape \(1, 3\), 1 value of each feature, expected"),
        (torch.ones(0, 3), ValueError, r"x has shape \(0, 3\), 0 values of each feature, expected"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_it_refuses_what_is_no_batch(x, error, match):
    with pytest.raises(error, match=match):
        SyncedBatchNorm(3)(x)
