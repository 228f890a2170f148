import numpy as np
import pytest
import torch

from bncore.lab import data, networks, probes


@pytest.fixture(scope="module")
def split():
    return data.digits()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}, model.training


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_evaluation_leaves_the_model_as_it_was(split, statistics, mode):
    model = networks.mlp((64, 8, 10), normalization="batch").train(mode)
    model.activation1.eval()
    before, modes = state(model)[0], [module.training for module in model.modules()]
    with probes.evaluation(model, statistics):
        assert model.norm1.training == (statistics == "batch")
        assert not model(split.x_train).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def test_evaluation_restores_the_mode_after_an_error(split):
    model = networks.mlp((64, 8, 10), normalization="batch")
    with pytest.raises(RuntimeError), probes.evaluation(model):
        model(split.x_train[:, :3])
    assert model.norm1.training


def test_accuracy_counts_right_answers(split):
    model = networks.mlp((64, 8, 10), normalization="batch", seed=3)
    model(split.x_train)
    model.eval()
    guesses = model(split.x_test).detach().numpy().argmax(1)
    model.train()
    expected = np.mean(guesses == split.y_test.numpy())
    assert probes.test_accuracy(model, split) == pytest.approx(expected)


@pytest.mark.parametrize("normalization", networks.NORMALIZATIONS)
@pytest.mark.parametrize(("layer", "unit"), [("activation1", 0), ("activation2", 4), ("output", 2)])
def test_percentiles_are_those_of_what_the_layers_compute(split, normalization, layer, unit):
    model = networks.mlp((64, 8, 6, 10), normalization=normalization, seed=2)
    for statistics in ("running", "batch"):
        value = split.x_train
        model.train(statistics == "batch")
        before = model.state_dict()
        for name, module in model.named_children():
            if name == layer:
                break
            value = module(value)
        model.load_state_dict(before)
        expected = np.percentile(value.detach().numpy()[:, unit], (15, 50, 85))
        measured = probes.percentiles(layer, unit, statistics=statistics)(model, split)
        np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-6)
        assert measured[0] < measured[1] < measured[2]


def test_a_normalised_unit_has_mean_zero_and_variance_one_on_its_batch(split):
    model = networks.mlp((64, 8, 6, 10), normalization="batch")
    seen = probes.inputs_of(model, ["activation1", "activation2"], split.x_train, "batch")
    for values in seen.values():
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.var(0), 1, atol=1e-2)


def test_probing_leaves_no_hook_behind(split):
    model = networks.mlp((64, 8, 10))
    probes.inputs_of(model, ["activation1"], split.x_test)
    assert not model.activation1._forward_pre_hooks


def test_an_unknown_layer_is_named(split):
    with pytest.raises(ValueError, match="layer 'relu7' is not in the model, expected one of lin"):
        probes.inputs_of(networks.mlp((64, 8, 10)), ["relu7"], split.x_test)


@pytest.mark.usefixtures("unchecked")
def test_unknown_statistics_are_named():
    message = "statistics is 'moving', expected 'running' or 'batch'"
    with (
        pytest.raises(ValueError, match=message),
        probes.evaluation(networks.mlp((2, 2)), "moving"),
    ):
        pass
