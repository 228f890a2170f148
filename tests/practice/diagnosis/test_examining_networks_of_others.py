"""Networks of a hub's library, built from their configuration without a download: an optional test."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.lab.modes import is_batch_norm
from bncore.practice.diagnosis import examine
from bncore.practice.freezing import freeze, frozen, unfreeze
from bncore.practice.recalibration import recalibrated

transformers = pytest.importorskip("transformers")

SMALL = {"num_labels": 4, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
MOBILE = {
    "num_labels": 4,
    "image_size": 32,
    "depth_multiplier": 0.5,
    "classifier_dropout_prob": 0.0,
}
NETWORKS = {
    "ResNet": {**SMALL, "layer_type": "basic"},
    "RegNet": {**SMALL, "groups_width": 8, "layer_type": "x"},
    "MobileNetV1": MOBILE,
    "MobileNetV2": MOBILE,
}


def built(name):
    make = getattr(transformers, f"{name}ForImageClassification")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(getattr(transformers, f"{name}Config")(**NETWORKS[name]))


def images(count=960):
    """Noise, and one bright quarter of each image, which is its class."""
    classes = torch.arange(count) % 4
    x = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for quarter in range(4):
        row, column = 16 * (quarter // 2), 16 * (quarter % 2)
        x[classes == quarter, :, row : row + 16, column : column + 16] += 2
    pairs = zip(x.split(32), classes.split(32), strict=True)
    return [{"pixel_values": x, "labels": y} for x, y in pairs]


def descent(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


@cache
def trained(name):
    """With torch's momentum and epsilon, He's weights, which the mobile ones do not have by themselves,
    and a rate that falls to 0.
    """
    model = built(name).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in model.modules():
            if is_batch_norm(module):
                module.momentum, module.eps = 0.1, 1e-5
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    optimizer, given = descent(model), 3 * images()
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(given))
    for batch in given:
        optimizer.zero_grad()
        cross_entropy(model(batch["pixel_values"]).logits, batch["labels"]).backward()
        optimizer.step()
        fall.step()
    return model


@pytest.fixture(params=NETWORKS)
def model(request):
    return built(request.param)


@pytest.fixture
def batches():
    return list(torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(1)).split(16))


def norms(model):
    return {name: one for name, one in model.named_modules() if is_batch_norm(one)}


def sound(model):
    return model


def stale(model):
    """As after loading weights without buffers."""
    for norm in norms(model).values():
        norm.reset_running_stats()
    return model


def half_frozen(model):
    """Scale and shift rest, statistics move."""
    for norm in norms(model).values():
        norm.requires_grad_(False)
    return model


def ruled(model):
    """An epsilon that is meant for another scale."""
    for norm in norms(model).values():
        norm.eps = 1e3
    return model


def poisoned(model):
    next(iter(norms(model).values())).running_mean[0] = torch.inf
    return model


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (sound, None),
        (stale, "stale-statistics"),
        (half_frozen, "half-frozen"),
        (ruled, "epsilon-rules"),
        (poisoned, "not-finite"),
    ],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_in_a_trained_network_a_fault_is_found_and_without_it_nothing_but_notes(name, fault, code):
    model = fault(copy.deepcopy(trained(name)))
    report = examine(model, images(), descent(model))
    assert set(report.layers) == set(norms(model))
    found = {one.code for one in report.findings if one.severity != "note"}
    assert code in found if code else not found


@pytest.mark.parametrize("name", NETWORKS)
def test_recalibration_mends_stale_statistics_from_the_same_batches(name):
    model = recalibrated(stale(copy.deepcopy(trained(name))), images())
    assert not {one.code for one in examine(model, images()).findings if one.severity != "note"}


@pytest.mark.parametrize("name", ["MobileNetV1", "MobileNetV2"])
def test_the_weights_of_an_untrained_mobile_network_are_small_beside_its_epsilon(name):
    """Drawn with deviation 0.02, beside an epsilon of 0.001."""
    assert "epsilon-rules" in examine(built(name), images()).codes


def test_an_untrained_network_has_stale_statistics_until_it_is_recalibrated(model, batches):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = examine(model, [{"pixel_values": x} for x in batches])
    assert set(report.layers) == set(norms(model))
    assert "stale-statistics" in report.codes
    fitted = recalibrated(model, batches)
    mended = examine(fitted, batches)
    assert not {"stale-statistics", "shifted-input", "not-finite"} & mended.codes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_layer_by_layer_evaluation_agrees_with_training_on_one_batch(model, batches):
    fitted = recalibrated(model, batches[:1], layer_by_layer=True)
    for name, norm in norms(fitted).items():
        assert norm.num_batches_tracked == 1, name
    with torch.no_grad():
        running = fitted.eval()(batches[0]).logits
        for norm in norms(fitted).values():
            norm.train()
        batch = fitted(batches[0]).logits
    # The layers differ by the divisors n and n - 1 only; the deepest have 16 values or more.
    scale = batch.abs().max()
    assert (running - batch).abs().max() < 0.2 * scale


def test_what_is_frozen_stays_while_the_rest_learns(model, batches):
    """Recalibrated first: with mean 0 and variance 1 the signal of fresh weights dies out on its way."""
    model = recalibrated(model, batches)
    freeze(model)
    assert {(one.statistics, one.affine) for one in frozen(model)} == {("frozen", "frozen")}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for x in batches:
        optimizer.zero_grad()
        cross_entropy(model(x).logits, torch.arange(len(x)) % 4).backward()
        optimizer.step()
    of_norms = tuple(norms(model))
    for name, value in model.state_dict().items():
        still = torch.equal(value, before[name])
        assert still == name.startswith(of_norms), name
    unfreeze(model)
    assert {(one.statistics, one.affine) for one in frozen(model)} == {("moving", "learning")}
