"""Each patient has its mistake, and its twin has none."""

import numpy as np
import pytest
import torch

from bncore.chapters.practice.diagnosis import sick
from bncore.chapters.practice.diagnosis.experiments import ALARMS
from bncore.lab import networks
from bncore.lab.modes import is_batch_norm
from bncore.practice.diagnosis import examine


@pytest.fixture(scope="module", params=sick.MISTAKES | sick.BESIDES)
def patient(request):
    return sick.patient(request.param, seed=3)


def norms(course):
    return [module for module in course.model.modules() if is_batch_norm(module)]


def inputs(course):
    """What reaches each batch norm in training mode, over all batches at hand."""
    found = {norm: [] for norm in norms(course)}
    hooks = [
        norm.register_forward_hook(lambda norm, given, out: found[norm].append(given[0]))
        for norm in found
    ]
    kept = {name: value.clone() for name, value in course.model.state_dict().items()}
    with torch.no_grad():
        for x, _ in course.batches:
            course.model(x)
    course.model.load_state_dict(kept)
    for hook in hooks:
        hook.remove()
    return list(found.values())


MARKS = {
    "momentum": lambda one: all(norm.momentum * sick.STEPS < 1 for norm in norms(one)),
    "reused": lambda one: len(inputs(one)[0]) == 2 * len(one.batches),
    "infinity": lambda one: any(not norm.running_var.isfinite().all() for norm in norms(one)),
    "raw pixels": lambda one: one.batches[0][0].max() > 1,
    "dropout": lambda one: isinstance(one.model.get_submodule("dropout1"), torch.nn.Dropout),
    "pairs": lambda one: len(one.batches[0][0]) == 2,
    "frozen": lambda one: all(
        norm.training and not norm.weight.requires_grad for norm in norms(one)
    ),
    "divided twice": lambda one: norms(one)[0].running_var.median() < norms(one)[0].eps,
    "penalty": lambda one: (norms(one)[0].weight == 0).double().mean() > 0.1,
    "half": lambda one: norms(one)[0].running_var.dtype == torch.bfloat16,
    "axis": lambda one: not one.model.transposed,
    "pruned": lambda one: (
        (inputs(one)[0][0].var(0) / norms(one)[0].running_var).log().abs().mean() > 0.5
    ),
}


def test_a_patient_bears_its_mark_and_its_twin_does_not(patient):
    assert MARKS[patient.name](patient.sick)
    assert not MARKS[patient.name](patient.twin)


def test_the_tool_finds_the_mistake_and_nothing_on_the_twin(patient):
    assert patient.code in examine(patient.sick.model, patient.sick.batches).codes
    assert not examine(patient.twin.model, patient.twin.batches).codes & set(ALARMS)


def test_a_twin_has_learned(patient):
    assert patient.twin.curves.accuracy[-1] > 0.8


def test_curves_are_those_of_a_course(patient):
    for course in (patient.sick, patient.twin):
        curves = course.curves
        assert len(curves.loss) == sick.STEPS
        assert np.isfinite(curves.loss).sum() >= sick.STEPS - 1
        assert curves.steps.tolist() == list(range(0, sick.STEPS + 1, sick.EVERY))
        assert len(curves.accuracy) == len(curves.steps)
        assert len(course.batches) == sick.EXAMINED


@pytest.mark.parametrize("name", ["infinity", "frozen"])
def test_the_same_seed_makes_the_same_patient(name):
    first, again = (sick.patient(name, seed=3) for _ in range(2))
    for one, other in ((first.sick, again.sick), (first.twin, again.twin)):
        np.testing.assert_array_equal(one.curves.loss, other.curves.loss)


def test_one_left_out_step_leaves_the_weights_alone():
    """Without the infinity the weights are others: the batch would have moved them."""
    one = sick.patient("infinity", seed=1)
    weights = list(one.sick.model.parameters())
    assert all(p.isfinite().all() for p in weights)
    assert np.isnan(one.sick.curves.loss).sum() == 1
    assert np.isnan(one.sick.curves.loss).argmax() == sick.STEPS // 2


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_pruning_keeps_the_largest_weights_of_hidden_layers(share):
    model = networks.mlp((64, 32, 32, 10), "relu", "batch")
    cut = sick.pruned(model, share)
    pairs = list(zip(model.parameters(), cut.parameters(), strict=True))
    for old, new in pairs[:-2]:
        if old.ndim == 2:
            gone = new == 0
            assert gone.double().mean() == pytest.approx(share, abs=2 / old.numel())
            assert torch.equal(new[~gone], old[~gone])
            if share:
                assert old[gone].abs().max() < old[~gone].abs().min()
    for old, new in pairs[-2:]:
        assert torch.equal(old, new)


def test_an_unknown_patient_is_refused():
    with pytest.raises(ValueError, match=r"name is 'flu', expected one of 'momentum', 'reused'"):
        sick.patient("flu")
