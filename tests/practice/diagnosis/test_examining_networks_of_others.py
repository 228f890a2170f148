"""Networks of a hub's library, built from their configuration without a download: an optional test."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from bncore.lab.modes import is_batch_norm
from bncore.practice.diagnosis import examine
from bncore.practice.freezing import freeze, frozen, unfreeze
from bncore.practice.recalibration import recalibrated

transformers = pytest.importorskip("transformers")

NETWORKS = {
    "residual": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=5
        )
    ),
    "mobile": lambda: transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.25, num_labels=5)
    ),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[request.param]()


@pytest.fixture
def batches():
    return list(torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(1)).split(16))


def norms(model):
    return {name: one for name, one in model.named_modules() if is_batch_norm(one)}


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
        cross_entropy(model(x).logits, torch.arange(len(x)) % 5).backward()
        optimizer.step()
    of_norms = tuple(norms(model))
    for name, value in model.state_dict().items():
        still = torch.equal(value, before[name])
        assert still == name.startswith(of_norms), name
    unfreeze(model)
    assert {(one.statistics, one.affine) for one in frozen(model)} == {("moving", "learning")}
