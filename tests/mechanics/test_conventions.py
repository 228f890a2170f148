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
    rename_state,
)
from bncore.mechanics.inference import RunningStatistics, normalize, population_statistics

FEATURES = 3
FRAMEWORKS = ("torch", "keras", "keras-fused", "flax")
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


RUN = {
    "torch": run_torch,
    "keras": run_keras,
    "keras-fused": lambda batches, momentum: run_keras(batches, momentum, ddof=1),
    "flax": run_flax,
}


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


@pairs
@settings(max_examples=20)
@given(seed=seeds, m=st.integers(2, 9), updates=st.integers(0, 12), momentum=momenta)
def test_converted_states_are_what_the_target_computes(source, target, seed, m, updates, momentum):
    batches = batches_of(seed, m, updates)
    settings = {"momentum": momentum}
    state = RUN[source](batches, momentum)
    target_momentum = convert_settings(settings, source, target)["momentum"]
    got = convert_state(state, source, target, batch_size=m, updates=updates, settings=settings)
    assert_same(got, RUN[target](batches, target_momentum), rounding(batches))


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
