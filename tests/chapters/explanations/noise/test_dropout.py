"""Dropout stands where it should, and statistics are fitted again without it."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.chapters.explanations.noise import dropout, experiments
from bncore.lab import inference, networks, probes

SINGLE = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("make", "inside", "last"),
    [
        (experiments.DEEPER_DIGITS.network, ["activation1", "activation2"], "activation3"),
        (
            lambda norm, seed: networks.vgg(11, norm, width=2, hidden=[4], seed=seed),
            [f"activation{i}" for i in range(1, 9)],
            "activation9",
        ),
        (
            lambda norm, seed: networks.residual(1, 4, norm, stages=2, seed=seed),
            ["activation1", "block1.body.activation1", "block2.body.activation1"],
            "flatten",
        ),
    ],
)
@pytest.mark.parametrize("where", ["before batch norms", "after the last one"])
def test_dropout_stands_where_it_should(make, inside, last, where):
    model, plain = make("batch", 3), make("batch", 3)
    dropout.add_dropout(model, 0.4, where)
    names = [name for name, m in model.named_modules() if not isinstance(m, nn.Dropout)]
    assert names == [name for name, _ in plain.named_modules()]
    # The module before each dropout, in the same chain.
    before = [
        f"{path}.{name}".lstrip(".")
        for path, part in model.named_modules()
        if isinstance(part, nn.Sequential)
        for (name, _), after in zip([*part.named_children()], [*part][1:], strict=False)
        if isinstance(after, nn.Dropout)
    ]
    assert before == (inside if where == "before batch norms" else [last])
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.4}
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_fitting_again_is_without_dropout_and_keeps_the_network():
    model, split = dropout.with_dropout(0.5, "before batch norms", steps=5, seed=0, batch=32)
    before = model.norm2.running_var.clone()
    fitted = dropout.refit(model, split.x_train)
    quiet = nn.Sequential(*(m for m in model if not isinstance(m, nn.Dropout)))
    x = split.x_train
    for layer in list(quiet.train())[:4]:
        x = layer(x)
    rounding = 64 * SINGLE * x.square().max().item()
    torch.testing.assert_close(fitted.norm2.running_var, x.var(0), rtol=0, atol=rounding)
    assert model.dropout1.p == 0.5
    assert torch.equal(model.norm2.running_var, before)


def test_fitting_again_to_many_examples_is_in_batches(monkeypatch):
    model, x = networks.residual(1, 4, seed=1), torch.randn(50, 1, 8, 8)
    monkeypatch.setattr(probes, "PIECE", 20)
    found, expected = dropout.refit(model, x), inference.refitted(model, x, 20)
    whole = inference.refitted(model, x)
    for layer in ("norm1", "block1.body.norm2"):
        ours, theirs, other = (m.get_submodule(layer) for m in (found, expected, whole))
        assert torch.equal(ours.running_var, theirs.running_var)
        assert not torch.equal(ours.running_var, other.running_var)
        torch.testing.assert_close(ours.running_var, other.running_var, rtol=0.1, atol=0)


def test_an_outcome_is_that_of_a_network_with_as_much_dropout():
    found = dropout.outcome(
        "after the last one", 0.7, 2, steps=5, batch=32, pixel_noise=0.3, learning_rate=0.2
    )
    model, split = dropout.with_dropout(
        0.3, "after the last one", steps=5, seed=2, batch=32, pixel_noise=0.3, learning_rate=0.2
    )
    assert (model.dropout.p, found["accuracy"]) == (0.3, probes.test_accuracy(model, split))
    fitted = dropout.refit(model, split.x_train)
    assert found["fitted loss"] == probes.loss("test")(fitted, split)
    assert found["fitted loss"] != found["loss"]
