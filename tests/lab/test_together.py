"""Networks trained together go where each goes alone."""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from bncore.lab import data, networks, probes, studies, together, training
from bncore.lab.layers import seeded

EPS = torch.finfo(torch.float32).eps
STEPS = 6
WIDTHS = [5, 4, 4, 3]


@functools.cache
def split(seed, count=24):
    with seeded(seed):
        x, y = torch.randn(2 * count, 5), torch.randint(3, (2 * count,))
    return data.Split(x[:count], y[:count], x[count:], y[count:])


def made(seeds, normalization="batch"):
    return [networks.mlp(WIDTHS, "relu", normalization, seed=seed) for seed in seeds]


def alone(models, splits, rates, seeds, batch_size, **options):
    """The oracle: copies of the models, each trained by ``training.train``."""
    models = copy.deepcopy(models)
    histories = [
        training.train(model, part, STEPS, batch_size, rate, seed, **options)
        for model, part, rate, seed in zip(models, splits, rates, seeds, strict=True)
    ]
    return models, histories


def assert_alike(models, others):
    """Equal up to rounding that so few steps at such rates multiply a hundredfold."""
    for model, other in zip(models, others, strict=True):
        for (name, one), theirs in zip(
            model.state_dict().items(), other.state_dict().values(), strict=True
        ):
            size = max(1.0, float(theirs.abs().max()))
            assert float((one - theirs).abs().max()) <= 1e3 * EPS * size, name


@settings(max_examples=10)
@given(
    seeds=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    rate=st.floats(0.001, 0.1),
    batch_size=st.integers(4, 24),
    normalization=st.sampled_from([None, "batch"]),
)
def test_each_goes_where_it_goes_alone(seeds, rate, batch_size, normalization):
    models, splits = made(seeds, normalization), [split(seed) for seed in seeds]
    rates = [rate * (i + 1) / len(seeds) for i in range(len(seeds))]
    expected, _ = alone(models, splits, rates, seeds, batch_size)
    together.train(models, splits, STEPS, batch_size, learning_rate=rates, seeds=seeds)
    assert_alike(models, expected)
    assert all(model.training for model in models)


def test_probes_see_what_they_see_alone_at_each_moment():
    seeds, moments = [3, 4], (0, 2, 6)
    models, splits = made(seeds), [split(seed) for seed in seeds]
    record = {"loss": probes.loss("test"), "lengths": probes.gradient_norms(["linear1", "output"])}
    rates = [0.1, 0.03]
    _, histories = alone(models, splits, rates, seeds, 8, record=record, every=2)
    found = together.train(
        models, splits, STEPS, 8, learning_rate=rates, seeds=seeds, record=record, moments=moments
    )
    for name in record:
        expected = np.array([one.records[name][[0, 1, 3]] for one in histories])
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, rtol=1e3 * EPS)


@pytest.mark.parametrize("chosen", [lambda name: True, lambda name: name.startswith("norm")])
def test_what_decays_decays_as_torchs_descent_has_it(chosen):
    seeds, decays, rates = [1, 2, 3], [0.0, 0.1, 0.5], [0.1, 0.1, 0.05]
    models, splits = made(seeds), [split(seed) for seed in seeds]
    expected = copy.deepcopy(models)
    for model, part, rate, seed, decay in zip(expected, splits, rates, seeds, decays, strict=True):
        named = list(model.named_parameters())

        def descent(parameters, lr, named=named, decay=decay):
            groups = [
                {
                    "params": [one for name, one in named if chosen(name) == yes],
                    "weight_decay": decay * yes,
                }
                for yes in (True, False)
            ]
            return torch.optim.SGD(groups, lr=lr)

        training.train(model, part, STEPS, 8, rate, seed, optimizer=descent)
    options = {"weight_decay": decays, "decayed": chosen}
    together.train(models, splits, STEPS, 8, learning_rate=rates, seeds=seeds, **options)
    assert_alike(models, expected)


def test_what_is_frozen_stays_so():
    seeds = [0, 1]
    models, splits = made(seeds), [split(seed) for seed in seeds]
    for model in models:
        model.norm1.eval().requires_grad_(False)
        model.output.requires_grad_(False)
    expected, _ = alone(models, splits, [0.1, 0.2], seeds, 8)
    before = copy.deepcopy(models)
    together.train(models, splits, STEPS, 8, learning_rate=[0.1, 0.2], seeds=seeds)
    assert_alike(models, expected)
    for model, old in zip(models, before, strict=True):
        assert not model.norm1.training
        assert torch.equal(model.norm1.running_mean, old.norm1.running_mean)
        assert torch.equal(model.output.weight, old.output.weight)
        assert not torch.equal(model.linear1.weight, old.linear1.weight)


@pytest.mark.parametrize("chosen", [None, "frozen", "dropped"])
@pytest.mark.parametrize("decay", [None, [0.1, 0.2]])
def test_a_step_that_is_traced_is_the_same(monkeypatch, chosen, decay):
    seeds, found = [3, 4], []
    for traced in (STEPS + 1, STEPS):
        monkeypatch.setattr(together, "TRACED", traced)
        models = made(seeds)
        for model in models:
            if chosen == "frozen":
                model.linear1.weight.requires_grad_(False)
            if chosen == "dropped":
                model.append(nn.Dropout(0.5))
        together.train(
            models, [split(seed) for seed in seeds], STEPS, 8,
            learning_rate=[0.1, 0.2], seeds=seeds, weight_decay=decay,
        )  # fmt: skip
        found.append([model.state_dict() for model in models])
    for one, other in zip(*found, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e3 * EPS, atol=1e3 * EPS)


def test_one_that_diverges_leaves_the_others_alone():
    seeds, rates = [5, 6], [1e30, 0.05]
    models, splits = made(seeds, None), [split(seed) for seed in seeds]
    expected, _ = alone(models[1:], splits[1:], rates[1:], seeds[1:], 8)
    together.train(models, splits, STEPS, 8, learning_rate=rates, seeds=seeds)
    assert_alike(models[1:], expected)
    assert not torch.isfinite(models[0].output.weight).all()


def test_another_loss_is_used():
    parts = [data.gaussian_regression(40, 5, 3, seed=seed) for seed in (0, 1)]
    models = made([0, 1])
    expected, _ = alone(models, parts, [0.01, 0.02], [0, 1], 8, loss=mse_loss)
    together.train(models, parts, STEPS, 8, learning_rate=[0.01, 0.02], seeds=[0, 1], loss=mse_loss)
    assert_alike(models, expected)


def test_dropout_repeats_differs_between_networks_and_disturbs_no_one():
    def run():
        models = [networks.mlp(WIDTHS, "relu", dropout=0.5, seed=0) for _ in range(2)]
        together.train(models, [split(0)] * 2, STEPS, 8, learning_rate=[0.1] * 2, seeds=[0, 0])
        return models

    state = torch.random.get_rng_state()
    (one, other), (again, _) = run(), run()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.linear1.weight, again.linear1.weight)
    assert not torch.equal(one.linear1.weight, other.linear1.weight)


BEST = {"left": -4.0, "middle": -1.0, "right": 2.0}


def valley(arm, learning_rate, seed):
    loss = (np.log10(learning_rate) - BEST[arm]) ** 2 + 0.01 * seed
    return {"loss": loss, "path": np.array([loss, learning_rate])}


def valleys(arm, rates, seeds):
    found = [valley(arm, rate, seed) for rate, seed in zip(rates, seeds, strict=True)]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def arguments(**changes):
    usual = {
        "arms": {"arm": list(BEST)},
        "rates": [0.01, 0.1, 1.0],
        "seeds": [0, 1],
        "fresh_seeds": [2, 3, 4],
        "score": "loss",
        "smaller": False,
        "axes": {"path": {"of": ["loss", "rate"]}},
    }
    return usual | {"smaller": True} | changes


def test_best_rates_are_those_of_studies_that_run_one_network_at_a_time(tmp_path):
    found = together.at_best_rates(valleys, **arguments(), store=tmp_path)
    expected = studies.at_best_rates(valley, **arguments())
    for name in ("tuning", "fresh"):
        assert found[name].broadcast_equals(expected[name]), name
    again = together.at_best_rates(valleys, **arguments(), store=tmp_path)
    assert again["fresh"].identical(found["fresh"])


def test_a_study_is_that_of_one_network_at_a_time():
    axes = arguments()["axes"]
    found = together.study(valleys, {"arm": list(BEST)}, [0.1, 1.0], [3, 1], axes=axes)
    grid = {"arm": list(BEST), "learning_rate": [0.1, 1.0]}
    assert found.identical(studies.study(valley, grid, [3, 1], axes=axes))


def test_fresh_seeds_are_fresh():
    with pytest.raises(ValueError, match="fresh_seeds has 1, one of seeds, expected fresh ones"):
        together.at_best_rates(valleys, **arguments(fresh_seeds=[1, 2]))


def test_a_run_returns_something_for_each_network():
    def run(rates, seeds):
        return {"loss": np.zeros(5)}

    with pytest.raises(ValueError, match=r"loss has shape \(5,\), expected \(4, \.\.\.\)"):
        together.study(run, {}, [0.1, 1.0], [0, 1])


def other(change):
    models = made([0, 1])
    change(models)
    return {"models": models}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "models is empty, expected at least one network"),
        ({"splits": [split(0)]}, "splits has 1 entries, expected 2: one for each network"),
        ({"learning_rate": [0.1]}, "learning_rate has 1 entries, expected 2"),
        ({"seeds": [0, 1, 2]}, "seeds has 3 entries, expected 2"),
        ({"weight_decay": [0.1]}, "weight_decay has 1 entries, expected 2"),
        (
            {"learning_rate": [0.1, -1.0]},
            r"learning_rate\[1\] is -1.0, expected a finite number above 0",
        ),
        (
            {"weight_decay": [0.1, -1.0]},
            r"weight_decay\[1\] is -1.0, expected a finite number of at least 0",
        ),
        (
            {"splits": [split(0), split(0, 20)]},
            r"splits\[1\].x_train has shape \(20, 5\), expected \(24, 5\)",
        ),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"batch_size": 1}, "batch_size is 1, expected from 2 .* to 24"),
        ({"batch_size": 25}, "batch_size is 25, expected from 2 .* to 24"),
        ({"moments": [4, 2]}, r"moments is \[4, 2\], expected numbers that ascend to at most 6"),
        ({"moments": [7]}, r"moments is \[7\], expected numbers that ascend to at most 6"),
        ({"moments": [-1]}, r"moments\[0\] is -1, expected at least 0"),
        (
            other(lambda models: models[1].add_module("more", nn.ReLU())),
            r"models\[1\] has other layers or shapes than models\[0\], expected one architecture",
        ),
        (
            other(lambda models: models[1].add_module("output", nn.Linear(4, 2))),
            r"models\[1\] has other layers or shapes than models\[0\], expected one architecture",
        ),
        (
            other(lambda models: models[1].norm1.eval()),
            "models have other modules in evaluation mode than the first, expected the same",
        ),
    ],
)
def test_bad_input_is_named(changes, message):
    usual = {
        "models": made([0, 1]),
        "splits": [split(0), split(1)],
        "steps": STEPS,
        "batch_size": 8,
        "learning_rate": [0.1, 0.1],
        "seeds": [0, 1],
    }
    with pytest.raises(ValueError, match=message):
        together.train(**(usual | changes))
