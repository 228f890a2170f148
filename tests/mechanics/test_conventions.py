"""Converted states equal what each framework's documented update rule gives on the same batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.mechanics.conventions import (
    CONVENTIONS,
    Convention,
    convert_settings,
    convert_state,
    rename_state,
)
from bncore.mechanics.inference import RunningStatistics, normalize, population_statistics

FEATURES = 3
FRAMEWORKS = (
    "torch", "keras", "keras-fused", "flax", "onnx", "caffe", "chainer", "haiku", "equinox", "mlx",
)  # fmt: skip
EPS = float(np.finfo(np.float64).eps)
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


def run_sums(batches, momentum):
    """Caffe: sums of which the old part is multiplied by the setting, and their weight alike."""
    mean, var, weight = np.zeros(FEATURES), np.zeros(FEATURES), np.zeros(1)
    for x in batches:
        weight = momentum * weight + 1
        mean = momentum * mean + x.mean(0)
        var = momentum * var + len(x) / (len(x) - 1) * x.var(0)
    state = {"Scale.blobs[0]": np.ones(FEATURES), "Scale.blobs[1]": np.zeros(FEATURES)}
    return state | {"blobs[0]": mean, "blobs[1]": var, "blobs[2]": weight}


def run_haiku(batches, momentum):
    """Averages from 0, and beside them the same divided by what the batches weigh in them."""
    state = {"scale": np.ones(FEATURES), "offset": np.zeros(FEATURES)}
    hidden = {"mean_ema": np.zeros(FEATURES), "var_ema": np.zeros(FEATURES)}
    average = dict(hidden)
    for count, x in enumerate(batches, start=1):
        for name, batch in (("mean_ema", x.mean(0)), ("var_ema", x.var(0))):
            hidden[name] = hidden[name] * momentum + batch * (1 - momentum)
            average[name] = hidden[name] / (1 - momentum**count)
    state |= {f"{name}/hidden": value for name, value in hidden.items()}
    state |= {f"{name}/average": value for name, value in average.items()}
    return state | {"counter": np.array(len(batches))}


def renamed(run, names, **settings):
    """A rule under other names."""
    return lambda batches, momentum: {
        names[key]: value for key, value in run(batches, momentum, **settings).items()
    }


def renaming(old, new):
    old, new = CONVENTIONS[old].names, CONVENTIONS[new].names
    return {old[key]: new[key] for key in ("gamma", "beta", "mean", "var")}


def run_equinox(batches, momentum):
    state = renamed(run_keras, renaming("keras", "equinox"))(batches, momentum)
    return state | {"batch_counter": np.array(len(batches))}


def run_mlx(batches, momentum):
    state = run_torch(batches, momentum)
    del state["num_batches_tracked"]
    return state


RUN = {
    "torch": run_torch,
    "keras": run_keras,
    "keras-fused": lambda batches, momentum: run_keras(batches, momentum, ddof=1),
    "flax": run_flax,
    "onnx": renamed(run_keras, renaming("keras", "onnx")),
    "caffe": run_sums,
    "chainer": renamed(run_keras, renaming("keras", "chainer"), ddof=1),
    "haiku": run_haiku,
    "equinox": run_equinox,
    "mlx": run_mlx,
}

STARTED = {
    key: replace(CONVENTIONS[key], initial=(0.0, 1.0)) if key == "onnx" else key
    for key in FRAMEWORKS
}
"""ONNX leaves the initial values to the user: here they are torch's."""


def used(state, key, momentum):
    """Mean and variance that the framework divides by at inference."""
    names = CONVENTIONS[key].names
    mean, var = state[names["mean"]], state[names["var"]]
    if key == "caffe":
        return (mean / state["blobs[2]"], var / state["blobs[2]"]) if state["blobs[2]"] else (0, 0)
    if key == "equinox" and state["batch_counter"]:
        batches = 1 - momentum ** state["batch_counter"]
        return mean / batches, var / batches
    return mean, var


def rounding(batches):
    """eps for each term of the sums, on squares of this size."""
    return 4 * (sum(batches.shape[:2]) + 8) * EPS * np.square(batches).max(initial=1)


def assert_same(got, expected, atol):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=atol)


pairs = pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in FRAMEWORKS for b in FRAMEWORKS]
)


def gathered(batches, key, weight):
    """Rounding in what the convention stores: sums and debiased averages are divided by weights."""
    return rounding(batches) / (1 if CONVENTIONS[key].keeps == "average" else weight)


@pairs
@settings(max_examples=20)
@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(0, 12), momentum=momenta)
def test_converted_states_are_what_the_target_computes(source, target, seed, m, updates, momentum):
    batches = batches_of(seed, m, updates)
    old, new = STARTED[source], STARTED[target]
    setting, wanted = (CONVENTIONS[key].names["momentum"] for key in (source, target))
    settings = {setting: momentum}
    state = RUN[source](batches, momentum)
    target_momentum = convert_settings(settings, old, new)[wanted]
    got = convert_state(state, old, new, batch_size=m, updates=updates, settings=settings)
    weight = CONVENTIONS[source].newest_weight(momentum)
    expected = RUN[target](batches, target_momentum)
    atol = max(gathered(batches, key, weight) for key in (source, target))
    assert_same(got, expected, atol)


@pairs
@settings(max_examples=10)
@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(1, 12), momentum=momenta)
def test_there_and_back_gives_the_same_state(source, target, seed, m, updates, momentum):
    batches = batches_of(seed, m, updates)
    old, new = STARTED[source], STARTED[target]
    settings = {CONVENTIONS[source].names["momentum"]: momentum}
    state = RUN[source](batches, momentum)
    told = {"batch_size": m, "updates": updates}
    there = convert_state(state, old, new, settings=settings, **told)
    back = convert_state(there, new, old, settings=convert_settings(settings, old, new), **told)
    weight = CONVENTIONS[source].newest_weight(momentum)
    atol = max(gathered(batches, key, weight) for key in (source, target))
    assert_same(back, state, 2 * atol)


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(0, 12))
def test_torchs_own_counter_and_momentum_are_the_defaults(seed, m, updates):
    batches = batches_of(seed, m, updates)
    got = convert_state(run_torch(batches, 0.1), "torch", "keras", batch_size=m)
    assert_same(got, run_keras(batches, 0.9), rounding(batches))


def test_a_cumulative_average_of_nothing_is_still_the_initial_value():
    state = run_torch(batches_of(0, 4, 0), None)
    got = convert_state(state, "torch", "keras", batch_size=2, settings={"momentum": None})
    assert_same(got, run_keras(batches_of(0, 4, 0), 0.9), 0)


@given(seed=seeds, m=st.integers(2, 9))
def test_without_a_counter_the_initial_value_counts_no_more(seed, m):
    batches = batches_of(seed, m, 60)
    got = convert_state(run_keras(batches, 0.5), "keras", "torch", batch_size=m)
    expected = run_torch(batches, 0.5)
    assert "num_batches_tracked" not in got
    # 60 updates at 0.5 leave 2^-60 of the initial value.
    np.testing.assert_allclose(
        got["running_var"], expected["running_var"], rtol=0, atol=rounding(batches)
    )


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(1, 12))
def test_the_cumulative_average_is_the_papers(seed, m, updates):
    batches = batches_of(seed, m, updates)
    mean, var = population_statistics(batches)
    state = run_torch(batches, None)
    paper = convert_state(state, "torch", "paper", settings={"momentum": None})
    expected = {"gamma": np.ones(FEATURES), "beta": np.zeros(FEATURES), "E[x]": mean, "Var[x]": var}
    assert_same(paper, expected, rounding(batches))
    biased = {"E[x]": mean, "Var[x]": batches.var(axis=1).mean(axis=0)}
    keras = convert_state({"E[x]": mean, "Var[x]": var}, "paper", "keras", batch_size=m)
    expected = {"moving_mean": biased["E[x]"], "moving_variance": biased["Var[x]"]}
    assert_same(keras, expected, rounding(batches))
    back = convert_state(keras, "keras", "paper", batch_size=m)
    assert_same(back, {"E[x]": mean, "Var[x]": var}, rounding(batches))


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(1, 12), momentum=momenta)
def test_the_paper_gets_the_average_without_its_initial_value(seed, m, updates, momentum):
    batches = batches_of(seed, m, updates)
    weights = momentum * (1 - momentum) ** np.arange(updates)[::-1]
    weights /= weights.sum()
    state = run_torch(batches, momentum)
    paper = convert_state(state, "torch", "paper", settings={"momentum": momentum})
    # The initial value is taken out and the rest divided by what is left.
    atol = rounding(batches) / (1 - (1 - momentum) ** updates)
    np.testing.assert_allclose(paper["E[x]"], weights @ batches.mean(axis=1), rtol=0, atol=atol)
    unbiased = batches.var(axis=1, ddof=1)
    np.testing.assert_allclose(paper["Var[x]"], weights @ unbiased, rtol=0, atol=atol)


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
    # Each update rounds once, and below the normal floats it rounds to multiples of the smallest.
    single = np.finfo(np.float32)
    gathered = 4 * (updates + 1) * float(single.eps)
    np.testing.assert_allclose(got["var"], running.var, rtol=gathered, atol=single.tiny)
    paper = convert_state(state, "torch", "paper", updates=updates, settings={"momentum": momentum})
    assert (paper["Var[x]"] >= 0).all()
    atol = gathered / (1 - (1 - momentum) ** updates)
    np.testing.assert_allclose(paper["Var[x]"], 0, atol=atol)


@pairs
@settings(max_examples=10)
@given(seed=seeds, updates=st.integers(1, 12), momentum=momenta)
def test_renaming_keeps_outputs_and_back_again_gives_the_same(
    source, target, seed, updates, momentum
):
    rng = np.random.default_rng(seed)
    batches = batches_of(seed, 5, updates)
    state = RUN[source](batches, momentum)
    given, wanted = CONVENTIONS[source].names, CONVENTIONS[target].names
    settings = {given["eps"]: 0.02, given["momentum"]: momentum}
    there = rename_state(state, source, target, settings=settings)
    moved = convert_settings(settings, source, target)
    assert moved[wanted["eps"]] == 0.02
    moments = used(state, source, momentum), used(there, target, moved[wanted["momentum"]])
    x = rng.normal(size=(6, FEATURES))
    outputs = [normalize(x, *pair, eps=0.02) for pair in moments]
    np.testing.assert_allclose(*moments, rtol=8 * EPS)
    np.testing.assert_allclose(*outputs, rtol=0, atol=64 * EPS * np.abs(outputs[0]).max())
    for key in ("gamma", "beta"):
        np.testing.assert_array_equal(there[wanted[key]], state[given[key]])
    back = rename_state(there, target, source, settings=moved)
    again = used(back, source, momentum)
    np.testing.assert_allclose(again, moments[0], rtol=16 * EPS)
    if CONVENTIONS[source].keeps == CONVENTIONS[target].keeps:
        assert all(np.array_equal(back[name], state[name]) for name in back)


def test_a_renamed_state_loads_into_torch():
    state = run_flax(batches_of(0, 5, 4), 0.9)
    layer = torch.nn.BatchNorm1d(FEATURES, dtype=torch.float64).eval()
    arrays = rename_state(state, "flax", "torch")
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    x = np.random.default_rng(1).normal(size=(4, FEATURES))
    root = np.sqrt(state["var"] + 1e-5)
    size = (np.abs(x).max() + np.abs(state["mean"]).max()) / root.min()
    y = layer(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y, (x - state["mean"]) / root, rtol=0, atol=8 * EPS * size)


@pytest.mark.parametrize("convert", [rename_state, convert_state])
def test_a_state_dict_of_torch_is_taken_once_its_tensors_are_arrays(unchecked, convert):
    layer = torch.nn.BatchNorm1d(FEATURES)
    layer(torch.randn(8, FEATURES, generator=torch.Generator().manual_seed(0)))
    state = layer.state_dict()
    hint = r"hand in \{name: value\.numpy\(force=True\) for name, value in state\.items\(\)\}"
    with pytest.raises(
        TypeError, match="state holds the torch (Tensor|Parameter) 'weight'.*" + hint
    ):
        convert(state, "torch", "torch")
    arrays = {name: value.numpy(force=True) for name, value in state.items()}
    got = convert(arrays, "torch", "torch")
    assert got.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(got[name], value)
    assert got["num_batches_tracked"] == 1
    arrays["num_batches_tracked"] = state["num_batches_tracked"]
    with pytest.raises(TypeError, match=r"state holds the torch Tensor 'num_batches_tracked'"):
        convert(arrays, "torch", "torch")


@pytest.mark.parametrize("convert", [rename_state, convert_state])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_lists_and_integers_take_the_dtype_of_the_mean(convert, dtype):
    mean, var = np.array([3, -1], dtype), np.array([4, 9], dtype)
    state = {"running_mean": mean, "running_var": var, "bias": np.array([1, 2], dtype)}
    expected = convert(state, "torch", "keras-fused")
    for as_before in (np.ndarray.tolist, lambda v: v.astype(int)):
        listed = {name: as_before(value) for name, value in state.items()}
        got = convert(listed | {"running_mean": mean}, "torch", "keras-fused")
        for name, value in expected.items():
            assert got[name].dtype == value.dtype == dtype
            np.testing.assert_array_equal(got[name], value)
        assert convert(listed, "torch", "keras-fused")["beta"].dtype == np.float64


MOVED = {"running_mean": [3.0, -1.0], "running_var": [4.0, 9.0]}


def test_a_counter_of_zero_is_not_believed_when_the_state_has_moved():
    """Loading a checkpoint without a counter sets it to 0; right is what the batches gave."""
    state = MOVED | {"num_batches_tracked": np.array(0)}
    for target in ("keras", "flax", "paper"):
        with pytest.raises(
            ValueError, match=r"weighs 1 after 0 updates, but running_mean\[0\] is 3"
        ):
            convert_state(state, "torch", target, batch_size=2)
        with pytest.raises(ValueError, match=r"hand in updates=.* or leave the counter out"):
            convert_state(state, "torch", target, batch_size=2)
    keras = convert_state(MOVED, "torch", "keras", batch_size=2)
    np.testing.assert_array_equal(keras["moving_variance"], [2, 4.5])
    keras = convert_state(state, "torch", "keras", batch_size=2, updates=1)
    expected = 0.9 + (np.array([4, 9]) - 0.9) / 2
    np.testing.assert_allclose(keras["moving_variance"], expected, rtol=8 * EPS)
    # Where the result does not hang on the number, there is nothing to refuse.
    fused = convert_state(state, "torch", "keras-fused")
    np.testing.assert_array_equal(fused["moving_variance"], [4, 9])


@pytest.mark.parametrize(
    ("wrong", "given"),
    [
        ({"running_mean": [0.0, 0.5]}, {"updates": 0}),
        ({"running_var": [1.0, 1 + 2.0**-52]}, {"updates": 0}),
        ({"running_mean": [0.0, 0.5]}, {"updates": 7, "settings": {"momentum": 0}}),
        ({"running_mean": [0.0, 0.5]}, {"updates": 0, "settings": {"momentum": None}}),
    ],
)
def test_any_sign_of_an_update_contradicts_there_having_been_none(wrong, given):
    state = {"running_mean": [0.0, 0.0], "running_var": [1.0, 1.0]}
    same = convert_state(state, "torch", "keras", batch_size=2, **given)
    np.testing.assert_array_equal(same["moving_variance"], [1, 1])
    with pytest.raises(ValueError, match=r"running_mean\[1\] is .* expected 0 and 1: there were"):
        convert_state(state | wrong, "torch", "keras", batch_size=2, **given)


def test_an_initial_state_without_a_counter_asks_whether_there_were_updates():
    state = {"moving_mean": np.zeros(2), "moving_variance": np.ones(2)}
    with pytest.raises(ValueError, match="moving_mean and moving_variance are 0 and 1, as before"):
        convert_state(state, "keras", "torch", batch_size=2)
    untrained = convert_state(state, "keras", "torch", batch_size=2, updates=0)
    np.testing.assert_array_equal(untrained["running_var"], [1, 1])
    trained = convert_state(state, "keras", "torch", batch_size=2, updates=10**6)
    np.testing.assert_allclose(trained["running_var"], [2, 2], rtol=8 * EPS)


def test_a_converted_variance_beyond_its_dtype_is_refused():
    state = {"mean": np.zeros(1, np.float16), "var": np.full(1, 6e4, np.float16)}
    with pytest.raises(
        ValueError, match=r"running_var\[0\] is 1\.2e\+05, beyond the largest float16"
    ):
        convert_state(state, "flax", "torch", batch_size=2)
    huge = {"mean": np.zeros(1), "var": np.full(1, 1.7e308)}
    with pytest.raises(ValueError, match=r"running_var\[0\] is inf, beyond the largest float64"):
        convert_state(huge, "flax", "torch", batch_size=2)


@pytest.mark.parametrize("convert", [rename_state, convert_state])
def test_counters_beyond_64_bits_are_refused_in_words(convert):
    for huge in (2**63, 10**400, 10**5000):
        with pytest.raises(
            ValueError, match="num_batches_tracked is above 9223372036854775807, exp"
        ):
            convert(MOVED | {"num_batches_tracked": huge}, "torch", "torch")
    most = convert(MOVED | {"num_batches_tracked": 2**63 - 1}, "torch", "torch")
    assert most["num_batches_tracked"].dtype == np.int64
    with pytest.raises(ValueError, match="updates is above 9223372036854775807"):
        convert_state(MOVED, "torch", "keras", batch_size=2, updates=2**63)
    keras = convert_state(MOVED, "torch", "keras", batch_size=10**5000)
    np.testing.assert_array_equal(keras["moving_variance"], [4, 9])


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
    assert_same(state, before, 0)


@pairs
@settings(max_examples=20)
@given(momentum=momenta)
def test_settings_come_back_the_same(source, target, momentum):
    names = CONVENTIONS[source].names
    settings = {names["momentum"]: momentum, names["eps"]: 3e-4}
    there = convert_settings(settings, source, target)
    assert convert_settings(there, target, source) == settings


def test_settings_left_out_have_the_defaults():
    assert convert_settings({}, "torch", "keras") == {"momentum": 0.9, "epsilon": 1e-5}
    assert convert_settings({}, "keras", "torch") == {"momentum": 0.01, "eps": 1e-3}
    assert convert_settings({}, "flax", "keras") == {"momentum": 0.99, "epsilon": 1e-5}
    assert convert_settings({"epsilon": 0.1}, "paper", "torch") == {"momentum": None, "eps": 0.1}
    assert convert_settings({"momentum": None}, "torch", "paper") == {"epsilon": 1e-5}
    assert convert_settings({"momentum": 1}, "torch", "flax")["momentum"] == 0


GOOD = {"running_mean": np.zeros(2), "running_var": np.ones(2)}


@pytest.mark.parametrize("convert", [rename_state, convert_state])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"running_std": np.ones(2)}, ValueError, "state has the name 'running_std', expected of"),
        ({"running_mean": ["0"]}, TypeError, "running_mean is a list of <U1, expected real"),
        (
            {"running_mean": np.zeros((1, 2))},
            ValueError,
            r"running_mean has shape \(1, 2\), expected 1 axis",
        ),
        ({"running_var": np.ones(1)}, ValueError, r"running_var has shape \(1,\), expected \(2,\)"),
        ({"running_var": np.array([1, -1.0])}, ValueError, r"running_var\[1\] is -1.0, expected"),
        ({"weight": np.ones(3)}, ValueError, r"weight has shape \(3,\), expected \(2,\): one"),
        ({"bias": np.array([0, np.nan])}, ValueError, r"bias\[1\] is nan, expected finite"),
        ({"bias": np.zeros(2, bool)}, TypeError, "bias has dtype bool, expected real numbers"),
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
        (
            {"batch_size": 2, "settings": {"eps": 0.0}},
            ValueError,
            "eps is 0.0, expected a finite number above 0",
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


SUMS = {"blobs[0]": np.array([6.0]), "blobs[1]": np.array([12.0]), "blobs[2]": np.array([3.0])}
PLAIN = {"moving_average_fraction": 1.0}


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(1, 12))
def test_sums_that_forget_nothing_are_the_plain_average(seed, m, updates):
    batches = batches_of(seed, m, updates)
    got = convert_state(run_sums(batches, 1.0), "caffe", "torch", settings=PLAIN)
    assert_same(got, run_torch(batches, None), rounding(batches))
    back = convert_state(got, "torch", "caffe", settings={"momentum": None})
    assert_same(back, run_sums(batches, 1.0), updates * rounding(batches))
    assert convert_settings({"momentum": None}, "torch", "caffe") == PLAIN | {"eps": 1e-5}
    assert convert_settings(PLAIN, "caffe", "torch")["momentum"] is None


@given(seed=seeds, updates=st.integers(1, 60))
def test_sums_need_no_counter_and_give_the_one_that_others_need(seed, updates):
    batches = batches_of(seed, 4, updates)
    settings = {"moving_average_fraction": 0.9}
    state = run_sums(batches, 0.9)
    haiku = convert_state(state, "caffe", "haiku", batch_size=4, settings=settings)
    assert_same(haiku, run_haiku(batches, 0.9), 10 * rounding(batches))
    torchs = convert_state(state, "caffe", "torch", settings=settings)
    assert "num_batches_tracked" not in torchs
    expected = run_torch(batches, 0.1)
    np.testing.assert_allclose(
        torchs["running_var"], expected["running_var"], rtol=0, atol=rounding(batches)
    )


def test_sums_of_nothing_are_0_and_mean_the_initial_value():
    nothing = {name: 0 * value for name, value in SUMS.items()}
    got = convert_state(nothing, "caffe", "keras-fused")
    np.testing.assert_array_equal(got["moving_mean"], 0)
    np.testing.assert_array_equal(got["moving_variance"], 1)
    torchs = {"running_mean": np.zeros(1), "running_var": np.ones(1)}
    assert_same(convert_state(torchs, "torch", "caffe", updates=0), nothing, 0)
    # At inference Caffe multiplies them by 0, and divides by sqrt(0 + eps).
    np.testing.assert_array_equal(rename_state(nothing, "caffe", "torch")["running_var"], 0)


def test_a_weight_may_be_a_number_or_an_array_of_any_shape():
    expected = rename_state(SUMS, "caffe", "torch")
    np.testing.assert_array_equal(expected["running_mean"], 2)
    for weight in (3, 3.0, np.float32(3), np.array(3.0), np.array([[3.0]]), [3]):
        got = rename_state(SUMS | {"blobs[2]": weight}, "caffe", "torch")
        assert_same(got, expected, 0)


@pytest.mark.parametrize(
    ("wrong", "given", "message"),
    [
        ({"blobs[2]": np.zeros(1)}, {}, r"blobs\[2\] is 0, expected above 0: there are sums"),
        ({"blobs[2]": -np.ones(1)}, {}, r"blobs\[2\]\[0\] is -1\.0, expected at least 0"),
        ({"blobs[2]": np.ones(2)}, {}, r"blobs\[2\] has shape \(2,\), expected \(1,\)"),
        (
            {"blobs[2]": np.full(1, 1001.0)},
            {},
            r"blobs\[2\] is 1001, expected at most 1000, to which it tends: check moving_av",
        ),
        (
            {},
            {"updates": 4},
            r"blobs\[2\] is 3, expected 3\.994 after 4 updates: check moving_",
        ),
        (
            {},
            {"updates": 4, "settings": {"moving_average_fraction": 1}},
            r"blobs\[2\] is 3, expected 4 after 4 updates",
        ),
    ],
)
def test_sums_that_contradict_themselves_are_refused(wrong, given, message):
    with pytest.raises(ValueError, match=message):
        convert_state(SUMS | wrong, "caffe", "torch", **given)


def test_sums_without_their_weight_are_refused():
    state = {name: value for name, value in SUMS.items() if name != "blobs[2]"}
    with pytest.raises(ValueError, match=r"state lacks 'blobs\[2\]'"):
        rename_state(state, "caffe", "torch")


def test_sums_of_a_plain_average_need_the_number_of_batches():
    state = {"E[x]": np.ones(1), "Var[x]": np.ones(1)}
    with pytest.raises(ValueError, match="updates is None, expected the number of batches: caffe"):
        convert_state(state, "paper", "caffe")
    got = convert_state(state, "paper", "caffe", updates=5)
    assert [float(got[f"blobs[{i}]"][0]) for i in range(3)] == [5, 5, 5]


def test_a_weight_of_0_for_the_newest_batch_is_not_what_1_means():
    with pytest.raises(
        ValueError, match=r"momentum is 0, expected a weight .* take a plain average"
    ):
        convert_settings({"momentum": 0}, "torch", "caffe")
    with pytest.raises(ValueError, match="momentum is 0, expected a weight of the newest batch"):
        convert_state(
            {"mean": [0.0], "var": [1.0]},
            replace(CONVENTIONS["flax"], momentum_weighs="new"),
            "caffe",
            batch_size=2,
            updates=2,
            settings={"momentum": 0},
        )
    with pytest.raises(
        ValueError, match=r"fraction is 1\.0, expected a number below it: flax has no"
    ):
        convert_settings(PLAIN, "caffe", "flax")


HAIKU = {
    "mean_ema/average": np.array([2.0]),
    "var_ema/average": np.array([4.0]),
    "mean_ema/hidden": np.array([0.38]),
    "var_ema/hidden": np.array([0.76]),
    "counter": 2,
}


def test_hidden_averages_may_be_left_out():
    settings = {"decay_rate": 0.9}
    short = {name: value for name, value in HAIKU.items() if "hidden" not in name}
    for target in ("flax", "equinox"):
        whole = convert_state(HAIKU, "haiku", target, settings=settings)
        assert_same(convert_state(short, "haiku", target, settings=settings), whole, 0)


@pytest.mark.parametrize(
    ("wrong", "settings"),
    [
        ({"counter": 3}, {"decay_rate": 0.9}),
        ({}, {"decay_rate": 0.99}),
        ({"var_ema/hidden": np.array([0.77])}, {"decay_rate": 0.9}),
    ],
)
def test_hidden_averages_that_do_not_belong_are_refused(wrong, settings):
    with pytest.raises(ValueError, match=r"_ema/hidden\[0\] is .*: check decay_rate and counter"):
        convert_state(HAIKU | wrong, "haiku", "flax", settings=settings)


def test_the_decay_that_haiku_has_no_default_for_is_asked_for_where_it_matters():
    with pytest.raises(ValueError, match="settings lacks 'decay_rate', for which haiku has no def"):
        convert_state(HAIKU, "haiku", "flax")
    with pytest.raises(ValueError, match="settings lacks 'decay_rate', for which haiku has no def"):
        convert_settings({}, "haiku", "flax")
    np.testing.assert_array_equal(rename_state(HAIKU, "haiku", "flax")["var"], [4])
    assert_same(convert_state(HAIKU, "haiku", "haiku"), HAIKU, 0)
    short = {name: HAIKU[name] for name in ("mean_ema/average", "var_ema/average")}
    np.testing.assert_array_equal(convert_state(short, "haiku", "flax")["var"], [4])


@pytest.mark.parametrize("target", ["haiku", "equinox"])
def test_without_a_counter_the_count_is_one_after_which_nothing_is_left(target):
    state = {"mean": np.array([2.0]), "var": np.array([4.0])}
    for convert in (rename_state, convert_state):
        got = convert(state, "flax", target)
        names = CONVENTIONS[target].names
        assert got[names["updates"]] == 2**30
        assert 0.9999999 ** got[names["updates"]] < EPS
        for value in got.values():
            assert value in (2, 4, 2**30)


def test_renamed_sums_have_the_weight_that_theirs_tends_to():
    got = rename_state({"mean": [2.0], "var": [4.0]}, "flax", "caffe")
    np.testing.assert_allclose([got[f"blobs[{i}]"][0] for i in range(3)], [2000, 4000, 1000])


def test_what_equinox_uses_differs_from_its_average_by_the_initial_variance():
    """After one update at 0.99 the variance it divides by is 99 too large."""
    batches = batches_of(0, 6, 1)
    state = run_equinox(batches, 0.99)
    renamed = rename_state(state, "equinox", "flax")
    np.testing.assert_allclose(renamed["var"], batches[0].var(0) + 99, rtol=1e-12)
    converted = convert_state(state, "equinox", "haiku")
    np.testing.assert_allclose(converted["var_ema/average"], batches[0].var(0), rtol=1e-12)


def test_equinox_in_ema_mode_starts_at_the_first_batch():
    """Its first average is the batch's, which has no initial value: only the factor is converted."""
    state = {"mean": np.array([3.0]), "var": np.array([5.0])}
    got = convert_state(state, "equinox-ema", "mlx", batch_size=5)
    assert_same(got, {"running_mean": np.array([3.0]), "running_var": np.array([6.25])}, 8 * EPS)
    batches = batches_of(0, 4, 3)
    ema = convert_state(
        run_flax(batches, 0.9), "flax", "equinox-ema", updates=3, settings={"momentum": 0.9}
    )
    debiased = run_haiku(batches, 0.9)
    np.testing.assert_allclose(ema["var"], debiased["var_ema/average"], rtol=1e-12)


def test_what_the_user_gave_onnx_to_start_from_must_be_said_where_it_matters():
    state = {"input_mean": np.array([0.1]), "input_var": np.array([1.5])}
    np.testing.assert_allclose(
        convert_state(state, "onnx", "torch", batch_size=3)["running_var"], 2.25
    )
    with pytest.raises(
        ValueError, match=r"ONNX's initial value is the user's, and weighs 0\.81 after 2"
    ):
        convert_state(state, "onnx", "torch", batch_size=3, updates=2)
    said = replace(CONVENTIONS["onnx"], initial=(0.0, 1.0))
    got = convert_state(state, said, "torch", batch_size=3, updates=2)
    np.testing.assert_allclose(got["running_var"], 0.81 + 0.69 * 1.5)
    back = convert_state(got, "torch", "onnx", batch_size=3)
    assert_same(back, state, 8 * EPS)


OWN = Convention(
    title="ours",
    names={"mean": "m", "var": "v", "eps": "tiny", "momentum": "rate"},
    momentum=0.2,
    momentum_weighs="new",
    variance="unbiased",
    eps=0.5,
)


@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(0, 12))
def test_a_convention_of_ones_own_is_taken_wherever_a_key_is(seed, m, updates):
    batches = batches_of(seed, m, updates)
    torchs = run_torch(batches, 0.2)
    state = {"m": torchs["running_mean"], "v": torchs["running_var"]}
    assert convert_settings({}, OWN, "keras") == {"momentum": 0.8, "epsilon": 0.5}
    assert convert_settings({}, "keras", OWN) == {"rate": 0.01, "tiny": 1e-3}
    got = convert_state(state, OWN, "keras", batch_size=m, updates=updates)
    keras = run_keras(batches, 0.8)
    moments = {name: keras[name] for name in ("moving_mean", "moving_variance")}
    assert_same(got, moments, rounding(batches))
    back = convert_state(
        moments, "keras", OWN, batch_size=m, updates=updates, settings={"momentum": 0.8}
    )
    assert_same(back, state, rounding(batches))
    assert_same(rename_state(state, OWN, OWN), state, 0)


def test_a_convention_without_a_word_for_gamma_refuses_one(unchecked):
    state = {"mean": [0.0], "var": [1.0], "scale": [2.0]}
    with pytest.raises(ValueError, match="state has 'scale', for which ours has no word: fold it"):
        rename_state(state, "flax", OWN)
    with pytest.raises(ValueError, match="state has the name 'x', expected of ours only m, v"):
        rename_state({"x": 1}, OWN, "flax")
    with pytest.raises(
        TypeError, match="source is a dict, expected a key of CONVENTIONS or a Conv"
    ):
        convert_settings({}, {}, "torch")
