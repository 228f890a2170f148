"""Converted states equal what each framework's documented update rule gives on the same batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.mechanics.conventions import (
    CONVENTIONS,
    convert_settings,
    convert_state,
    markdown,
    rename_state,
    table,
)
from bncore.mechanics.inference import RunningStatistics, normalize, population_statistics

FEATURES = 3
FRAMEWORKS = ("torch", "keras", "keras-fused", "flax")
seeds = st.integers(0, 2**32 - 1)
momenta = st.integers(1, 99).map(lambda percent: percent / 100)


def batches_of(seed, m, count):
    return np.random.default_rng(seed).normal(1, 2, size=(count, m, FEATURES))


def run_torch(batches, momentum):
    layer = torch.nn.BatchNorm1d(FEATURES, momentum=momentum, dtype=torch.float64)
    for x in batches:
        layer(torch.from_numpy(x))
    return {name: value.detach().numpy() for name, value in layer.state_dict().items()}


def run_keras(batches, momentum, ddof=0):
    state = {
        "gamma": np.ones(FEATURES),
        "beta": np.zeros(FEATURES),
        "moving_mean": np.zeros(FEATURES),
        "moving_variance": np.ones(FEATURES),
    }
    for x in batches:
        for name, batch in (("moving_mean", x.mean(0)), ("moving_variance", x.var(0, ddof=ddof))):
            state[name] = state[name] * momentum + batch * (1 - momentum)
    return state


def run_flax(batches, momentum):
    state = {
        "scale": np.ones(FEATURES),
        "bias": np.zeros(FEATURES),
        "mean": np.zeros(FEATURES),
        "var": np.ones(FEATURES),
    }
    for x in batches:
        mean, mean_of_squares = x.mean(axis=0), np.square(x).mean(axis=0)
        var = np.maximum(mean_of_squares - np.square(mean), 0)
        state["mean"] = momentum * state["mean"] + (1 - momentum) * mean
        state["var"] = momentum * state["var"] + (1 - momentum) * var
    return state


RUN = {
    "torch": run_torch,
    "keras": run_keras,
    "keras-fused": lambda batches, momentum: run_keras(batches, momentum, ddof=1),
    "flax": run_flax,
}


def assert_same(got, expected, rtol=1e-9):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=1e-9)


pairs = pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in FRAMEWORKS for b in FRAMEWORKS]
)


@pairs
@settings(max_examples=20)
@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(0, 12), momentum=momenta)
def test_converted_states_are_what_the_target_computes(source, target, seed, m, updates, momentum):
    batches = batches_of(seed, m, updates)
    settings = {"momentum": momentum}
    state = RUN[source](batches, momentum)
    target_momentum = convert_settings(settings, source, target)["momentum"]
    got = convert_state(state, source, target, batch_size=m, updates=updates, settings=settings)
    assert_same(got, RUN[target](batches, target_momentum))


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(0, 12))
def test_torchs_own_counter_and_momentum_are_the_defaults(seed, m, updates):
    batches = batches_of(seed, m, updates)
    got = convert_state(run_torch(batches, 0.1), "torch", "keras", batch_size=m)
    assert_same(got, run_keras(batches, 0.9))


def test_a_cumulative_average_of_nothing_is_still_the_initial_value():
    state = run_torch(batches_of(0, 4, 0), None)
    got = convert_state(state, "torch", "keras", batch_size=2, settings={"momentum": None})
    assert_same(got, run_keras(batches_of(0, 4, 0), 0.9))


@given(seed=seeds, m=st.integers(2, 9))
def test_without_a_counter_the_initial_value_counts_no_more(seed, m):
    batches = batches_of(seed, m, 60)
    got = convert_state(run_keras(batches, 0.5), "keras", "torch", batch_size=m)
    expected = run_torch(batches, 0.5)
    assert "num_batches_tracked" not in got
    np.testing.assert_allclose(got["running_var"], expected["running_var"], rtol=1e-9)


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(1, 12))
def test_the_cumulative_average_is_the_papers(seed, m, updates):
    batches = batches_of(seed, m, updates)
    mean, var = population_statistics(batches)
    state = run_torch(batches, None)
    paper = convert_state(state, "torch", "paper", settings={"momentum": None})
    expected = {"gamma": np.ones(FEATURES), "beta": np.zeros(FEATURES), "E[x]": mean, "Var[x]": var}
    assert_same(paper, expected)
    biased = {"E[x]": mean, "Var[x]": batches.var(axis=1).mean(axis=0)}
    keras = convert_state({"E[x]": mean, "Var[x]": var}, "paper", "keras", batch_size=m)
    assert_same(keras, {"moving_mean": biased["E[x]"], "moving_variance": biased["Var[x]"]})
    back = convert_state(keras, "keras", "paper", batch_size=m)
    assert_same(back, {"E[x]": mean, "Var[x]": var})


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(1, 12), momentum=momenta)
def test_the_paper_gets_the_average_without_its_initial_value(seed, m, updates, momentum):
    batches = batches_of(seed, m, updates)
    weights = momentum * (1 - momentum) ** np.arange(updates)[::-1]
    weights /= weights.sum()
    state = run_torch(batches, momentum)
    paper = convert_state(state, "torch", "paper", settings={"momentum": momentum})
    np.testing.assert_allclose(paper["E[x]"], weights @ batches.mean(axis=1), atol=1e-9)
    unbiased = batches.var(axis=1, ddof=1)
    np.testing.assert_allclose(paper["Var[x]"], weights @ unbiased, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(seed=seeds, updates=st.integers(1, 300), momentum=momenta)
def test_features_that_never_vary_convert_in_single_precision_too(seed, updates, momentum):
    x = np.full((4, 2), np.random.default_rng(seed).normal(), np.float32)
    running = RunningStatistics(2, momentum, dtype=np.float32)
    for _ in range(updates):
        running.update(x)
    state = {"running_mean": running.mean, "running_var": running.var}
    got = convert_state(
        state, "torch", "flax", batch_size=4, updates=updates, settings={"momentum": momentum}
    )
    assert got["var"].dtype == np.float32
    np.testing.assert_allclose(got["var"], running.var, rtol=1e-4, atol=1e-30)
    paper = convert_state(state, "torch", "paper", updates=updates, settings={"momentum": momentum})
    assert (paper["Var[x]"] >= 0).all()
    np.testing.assert_allclose(paper["Var[x]"], 0, atol=1e-4)


@pairs
def test_renaming_keeps_outputs_and_back_again_gives_the_same(source, target):
    rng = np.random.default_rng(0)
    batches = batches_of(0, 5, 4)
    state = RUN[source](batches, 0.3)
    settings = {CONVENTIONS[source].names["eps"]: 0.02}
    renamed = rename_state(state, source, target)
    moved = convert_settings(settings, source, target)
    x = rng.normal(size=(6, FEATURES))
    outputs = []
    for key, arrays, eps in ((source, state, 0.02), (target, renamed, None)):
        names = CONVENTIONS[key].names
        vectors = [arrays[names[name]] for name in ("mean", "var", "gamma", "beta")]
        outputs.append(normalize(x, *vectors, eps or moved[names["eps"]]))
    np.testing.assert_array_equal(*outputs)
    back = rename_state(renamed, target, source)
    assert all(np.array_equal(back[name], state[name]) for name in back)


def test_a_renamed_state_loads_into_torch():
    state = run_flax(batches_of(0, 5, 4), 0.9)
    layer = torch.nn.BatchNorm1d(FEATURES, dtype=torch.float64).eval()
    arrays = rename_state(state, "flax", "torch")
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    x = np.random.default_rng(1).normal(size=(4, FEATURES))
    expected = (x - state["mean"]) / np.sqrt(state["var"] + 1e-5)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("convert", [rename_state, convert_state])
def test_a_missing_gamma_or_beta_is_filled_in_only_where_the_target_needs_both(convert):
    state = {"moving_mean": np.zeros(2), "moving_variance": np.ones(2), "beta": np.full(2, 5.0)}
    fused = convert(state, "keras-fused", "torch")
    np.testing.assert_array_equal(fused["weight"], [1, 1])
    np.testing.assert_array_equal(fused["bias"], [5, 5])
    assert convert(state, "keras", "flax").keys() == {"bias", "mean", "var"}
    state["gamma"] = state.pop("beta")
    np.testing.assert_array_equal(convert(state, "keras-fused", "torch")["bias"], [0, 0])
    del state["gamma"]
    assert convert(state, "keras-fused", "torch").keys() == {"running_mean", "running_var"}


@pytest.mark.parametrize("target", FRAMEWORKS)
def test_results_share_no_memory_with_the_state(target):
    state = run_torch(batches_of(0, 4, 3), 0.1)
    before = {name: value.copy() for name, value in state.items()}
    for result in (
        rename_state(state, "torch", target),
        convert_state(state, "torch", target, batch_size=4),
    ):
        for value in result.values():
            value[...] = 7
    assert_same(state, before, rtol=0)


@pairs
@settings(max_examples=20)
@given(momentum=momenta)
def test_settings_come_back_the_same(source, target, momentum):
    eps = CONVENTIONS[source].names["eps"]
    settings = {"momentum": momentum, eps: 3e-4}
    there = convert_settings(settings, source, target)
    assert convert_settings(there, target, source) == settings


def test_settings_left_out_have_the_defaults():
    assert convert_settings({}, "torch", "keras") == {"momentum": 0.9, "epsilon": 1e-5}
    assert convert_settings({}, "keras", "torch") == {"momentum": 0.01, "eps": 1e-3}
    assert convert_settings({}, "flax", "keras") == {"momentum": 0.99, "epsilon": 1e-5}
    assert convert_settings({"epsilon": 0.1}, "paper", "torch") == {"momentum": None, "eps": 0.1}
    assert convert_settings({"momentum": None}, "torch", "paper") == {"epsilon": 1e-5}
    assert convert_settings({"momentum": 1}, "torch", "flax")["momentum"] == 0


def test_torchs_defaults_and_names_are_those_of_torch():
    layer = torch.nn.BatchNorm1d(4)
    torch_convention = CONVENTIONS["torch"]
    assert (layer.momentum, layer.eps) == (torch_convention.momentum, torch_convention.eps)
    names = {torch_convention.names[key] for key in ("gamma", "beta", "mean", "var", "updates")}
    assert names == set(layer.state_dict())
    initial = torch_convention.initial
    assert (layer.running_mean == initial[0]).all()
    assert (layer.running_var == initial[1]).all()


def test_the_table_answers_each_question_for_each_framework():
    rows = table()
    titles = [convention.title for convention in CONVENTIONS.values()]
    assert all(list(row) == ["", *titles] for row in rows)
    assert all(isinstance(answer, str) and answer for row in rows for answer in row.values())
    answers = {row[""]: row for row in rows}
    assert answers["update"]["torch"] == "0.9 × old + 0.1 × batch"
    assert answers["update"]["Keras 3"] == "0.99 × old + 0.01 × batch"
    assert answers["batches looked back over"]["torch"] == "10"
    assert answers["batches looked back over"]["Flax"] == "100"
    assert answers["variance kept, divisor"]["torch"] == "m − 1"
    assert answers["variance kept, divisor"]["Keras 3"] == "m"
    assert answers["epsilon"]["the paper"] == "unspecified"
    assert answers["number of batches"]["torch"] == "`num_batches_tracked`"
    assert answers["number of batches"]["Flax"] == "—"


def test_the_markdown_table_gives_each_answer_of_the_table_to_those_who_give_it():
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in markdown().splitlines()]
    assert cells[:2] == [["question", "answers"], ["---", "---"]]
    titles = [convention.title for convention in CONVENTIONS.values()]
    for (question, answers), row in zip(cells[2:], table(), strict=True):
        assert question == row[""]
        if question == "source":
            assert answers.split("<br>") == [row[title] for title in titles]
            continue
        read = {}
        for group in answers.split("<br>"):
            answer, who = group.removesuffix(")").rsplit(" (", 1)
            for title in titles if who == "all" else who.split(", "):
                assert title not in read
                read[title] = "—" if answer == "none" and row[title] == "—" else answer
        assert read == {title: row[title] for title in titles}


GOOD = {"running_mean": np.zeros(2), "running_var": np.ones(2)}


@pytest.mark.parametrize("convert", [rename_state, convert_state])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"running_std": np.ones(2)}, ValueError, "state has the name 'running_std', expected of"),
        ({"running_mean": [0.0]}, TypeError, "running_mean is a list, expected a plain"),
        ({"running_mean": np.zeros((1, 2))}, ValueError, r"running_mean has shape \(1, 2\), exp"),
        ({"running_var": np.ones(1)}, ValueError, r"running_var has shape \(1,\), expected \(2,\)"),
        ({"running_var": np.array([1, -1.0])}, ValueError, r"running_var\[1\] is -1.0, expected"),
        ({"weight": np.ones(3)}, ValueError, r"weight has shape \(3,\), expected \(2,\): one"),
        ({"bias": np.array([0, np.nan])}, ValueError, r"bias\[1\] is nan, expected finite"),
        ({"bias": np.zeros(2, int)}, TypeError, "bias has dtype int64, expected float16"),
        ({"num_batches_tracked": -1}, ValueError, "num_batches_tracked is -1, expected at least 0"),
        ({"num_batches_tracked": np.ones(1)}, TypeError, "num_batches_tracked is a ndarray, exp"),
        ({"num_batches_tracked": np.array(1.5)}, TypeError, "num_batches_tracked is a float64"),
    ],
)
def test_bad_states_are_refused(unchecked, convert, bad, error, message):
    with pytest.raises(error, match=message):
        convert(GOOD | bad, "torch", "torch")


@pytest.mark.parametrize("missing", GOOD)
def test_a_state_without_mean_or_variance_is_refused(missing):
    state = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(ValueError, match=f"state lacks '{missing}'"):
        rename_state(state, "torch", "keras")


def test_unknown_conventions_are_refused():
    with pytest.raises(ValueError, match="source is 'jax', expected one of torch, keras, keras-f"):
        rename_state(GOOD, "jax", "torch")
    with pytest.raises(ValueError, match="target is 'Keras', expected one of torch, keras"):
        convert_state(GOOD, "torch", "Keras")
    with pytest.raises(ValueError, match="source is 'x', expected one of"):
        convert_settings({}, "x", "torch")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "batch_size is None, expected the number of values of each feature"),
        ({"batch_size": 1}, ValueError, "batch_size is 1, expected at least 2"),
        ({"batch_size": 2.0}, TypeError, "batch_size is a float, expected an integer"),
        ({"batch_size": 2, "updates": -1}, ValueError, "updates is -1, expected at least 0"),
        ({"batch_size": 2, "updates": 1.0}, TypeError, "updates is a float, expected an integer"),
        (
            {"batch_size": 2, "settings": {"momentum": 2.0}},
            ValueError,
            r"momentum is 2.0, expected a number in \[0, 1\]",
        ),
        (
            {"batch_size": 2, "settings": {"epsilon": 1.0}},
            ValueError,
            "settings has the name 'epsilon', expected of torch only momentum, eps",
        ),
    ],
)
def test_bad_conversions_are_refused(unchecked, arguments, error, message):
    with pytest.raises(error, match=message):
        convert_state(GOOD, "torch", "keras", **arguments)


def test_a_variance_below_the_initial_values_part_is_refused():
    with pytest.raises(ValueError, match=r"running_var is 0\.8, expected at least 0\.9, "):
        convert_state(
            GOOD | {"running_var": np.full(2, 0.8)}, "torch", "keras", batch_size=4, updates=1
        )


def test_the_initial_value_alone_cannot_become_the_papers():
    with pytest.raises(ValueError, match="the initial value weighs 1 after 0 updates, expected"):
        convert_state(GOOD, "torch", "paper", updates=0)
    with pytest.raises(ValueError, match="the initial value weighs 1 after 9 updates, expected"):
        convert_state(GOOD, "torch", "paper", updates=9, settings={"momentum": 0.0})


@pytest.mark.parametrize(
    ("settings", "source", "target", "error", "message"),
    [
        ({"momentum": 1.5}, "torch", "keras", ValueError, "momentum is 1.5, expected a number in"),
        ({"momentum": "1"}, "torch", "keras", TypeError, "momentum is a str, expected a real"),
        ({"momentum": None}, "torch", "keras", ValueError, "expected a number: keras has no plain"),
        ({"momentum": None}, "flax", "torch", ValueError, "expected a number: Flax has no plain"),
        ({"momentum": 0.1}, "torch", "paper", ValueError, "momentum is 0.1, expected None: paper"),
        ({}, "keras", "paper", ValueError, "momentum is 0.99, expected None: paper averages all"),
        ({"momentum": 0.1}, "paper", "torch", ValueError, "settings has the name 'momentum'"),
        ({}, "paper", "torch", ValueError, "settings lacks 'epsilon', for which paper has no"),
        ({"eps": 0.0}, "torch", "flax", ValueError, "eps is 0.0, expected a finite number above"),
        ({"epsilon": "x"}, "flax", "torch", TypeError, "epsilon is a str, expected a real number"),
    ],
)
def test_bad_settings_are_refused(unchecked, settings, source, target, error, message):
    with pytest.raises(error, match=message):
        convert_settings(settings, source, target)
