"""The network of "Batch norm in ten minutes", with and without batch norm, and misused."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bncore.chapters.front.start import experiments
from bncore.lab import data

NOTEBOOK = Path(__file__).resolve().parents[4] / "book/start.ipynb"
FUNCTIONS = ("block", "network", "train")


@pytest.fixture
def page():
    """The functions that the page defines."""
    names = {"nn": nn, "torch": torch, "F": nn.functional}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code" and re.match(rf"def ({'|'.join(FUNCTIONS)})\(", cell.source):
            exec(cell.source, names)
    return names


@pytest.fixture(scope="module")
def split():
    return data.digit_images()


@pytest.fixture(scope="module")
def trained(split):
    torch.manual_seed(0)
    model = experiments.network(True)
    experiments.train(model, experiments.batches(split), 0.3, 2)
    return model.eval()


@pytest.mark.parametrize("norm", [False, True])
def test_the_page_trains_the_network_that_was_recorded(page, split, norm):
    losses = []
    for of in (page, vars(experiments)):
        torch.manual_seed(0)
        model = of["network"](norm)
        losses.append(of["train"](model, experiments.batches(split), 0.1, 1))
    assert losses[0] == losses[1]
    assert len(losses[0]) == experiments.EPOCH == len(split.x_train) // 64


def test_a_layer_before_batch_norm_has_no_bias_and_the_others_have_one():
    for norm in (False, True):
        layers = list(experiments.network(norm))
        biased = [layer.bias is not None for layer in layers if isinstance(layer, nn.Conv2d)]
        assert biased == [not norm] * 5
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 5 * norm
        assert not isinstance(layers[-2], nn.BatchNorm2d)


@pytest.mark.parametrize(
    "optimiser",
    [
        torch.optim.SGD,
        lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
        torch.optim.Adam,
    ],
)
def test_any_optimiser_moves_scale_and_shift_and_no_running_average(split, optimiser):
    model = experiments.network(True)
    descent = optimiser(model.parameters(), lr=0.01)
    nn.functional.cross_entropy(model(split.x_train[:64]), split.y_train[:64]).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    descent.step()
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]
    assert all((layer.weight != 1).any() and (layer.bias != 0).any() for layer in norms)
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name


def with_losses(monkeypatch, losses):
    monkeypatch.setattr(experiments, "train", lambda *arguments: losses)
    monkeypatch.setattr(experiments, "accuracy", lambda *arguments: 0.5)
    return experiments.arrival("batch", 0.1, 0, epochs=1)


@given(st.lists(st.sampled_from([0.01, 0.05, 0.2, 1.0]), min_size=42, max_size=84))
def test_it_arrives_where_the_mean_of_an_epoch_is_first_small(losses):
    losses = losses[: len(losses) // 21 * 21]
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = with_losses(monkeypatch, losses)
    first = [n for n in range(21, len(losses) + 1) if sum(losses[n - 21 : n]) <= 2.1 - 1e-12]
    near = [n for n in range(21, len(losses) + 1) if abs(sum(losses[n - 21 : n]) - 2.1) < 1e-9]
    if not near:
        late = len(losses) * (1 + sum(losses[-21:]) / 21)
        assert found["steps"] == pytest.approx(first[0] if first else late, rel=1e-12)
    epochs = np.reshape(losses, (-1, 21)).mean(axis=1)
    np.testing.assert_allclose(found["loss"], epochs, rtol=1e-12)


def test_a_run_that_diverges_scores_worse_than_any(monkeypatch):
    assert with_losses(monkeypatch, [1.0] * 41 + [float("nan")])["steps"] == float("inf")


def test_without_eval_the_answers_depend_on_how_many_come_at_a_time(trained, split):
    x, y = split.x_test, split.y_test
    right = experiments.accuracy(trained, x, y)
    one, all_ = (experiments.in_training_mode(trained, x, y, size) for size in (1, len(x)))
    assert one < 0.3 < right
    again = experiments.network(True)
    again.load_state_dict(trained.state_dict())
    assert all_ == experiments.accuracy(again.train(), x, y)
    assert right == experiments.accuracy(trained, x, y)


def test_statistics_fitted_again_are_means_over_the_batches(trained, split):
    rows = TensorDataset(split.x_train[:640], split.y_train[:640])
    fitted = experiments.fitted_again(trained, DataLoader(rows, 64))
    first = trained[0](split.x_train[:640]).detach()
    means = first.reshape(10, 64, 16, 8, 8).mean(dim=(1, 3, 4))
    variances = first.reshape(10, 64, 16, 8, 8).transpose(1, 2).flatten(2).var(dim=2)
    torch.testing.assert_close(fitted[1].running_mean, means.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fitted[1].running_var, variances.mean(0), rtol=1e-4, atol=1e-5)
    assert not fitted.training


def test_every_batch_norm_gets_the_momentum():
    model = experiments.network(True)
    experiments.set_momentum(model, 0.01)
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.momentum for layer in norms] == [0.01] * 5


def test_the_mistakes_are_mistakes():
    found = experiments.mistakes(1.0, 3, epochs=4, slow_epochs=2)
    assert found["not eval"] < 0.3 < 0.8 < found["right"]
    assert found["not eval"] < found["not eval, 8"]
    assert found["slow"] < found["slow, mended"]
    assert found["slow"] < found["usual"]
    assert found["frozen"] < found["frozen, mended"] == found["right"]
