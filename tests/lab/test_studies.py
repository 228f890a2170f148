"""Studies of functions whose best rates, horizons and differences are known."""

import functools
import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.lab.studies import (
    at_best_rates,
    best,
    confirmed,
    rounded,
    study,
    tuned,
    until_done,
)

EPS = np.finfo(float).eps
BEST = {"left": -4.0, "middle": -1.0, "right": 2.0}
RATES = [0.01, 0.1, 1.0]


def valley(arm, learning_rate, seed):
    """A loss whose best rate is 10 to the power BEST[arm] for every seed."""
    return {"loss": (np.log10(learning_rate) - BEST[arm]) ** 2 + 0.01 * seed}


def test_a_study_keeps_what_each_case_returned_for_each_seed():
    def run(kind, depth, seed):
        return {
            "loss": 100 * depth + 10 * len(kind) + seed,
            "path": np.array([depth, seed, 0.5]),
        }

    found = study(run, {"kind": ["a", "bc"], "depth": [3, 1]}, [4, 5], axes={"path": ["step"]})
    assert found.loss.dims == ("kind", "depth", "seed")
    assert found.path.dims == ("kind", "depth", "seed", "step")
    for kind, depth, seed in itertools.product(["a", "bc"], [1, 3], [4, 5]):
        one, expected = found.sel(kind=kind, depth=depth, seed=seed), run(kind, depth, seed)
        assert one.loss == expected["loss"]
        np.testing.assert_array_equal(one.path, expected["path"])


def test_runs_that_differ_in_what_they_return_are_refused():
    with pytest.raises(
        ValueError, match=r"path has shape \(2,\) .* expected \(2,\) with the axes \(\)"
    ):
        study(lambda arm, seed: {"path": np.zeros(2)}, {"arm": ["a"]}, [0])
    with pytest.raises(ValueError, match=r"path has shape \(2,\) in the run with .*'seed': 2"):
        study(
            lambda arm, seed: {"path": np.zeros(seed)}, {"arm": ["a"]}, [1, 2],
            axes={"path": ["step"]},
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"returns loss, other, expected loss"):
        study(
            lambda arm, seed: {"loss": 0.0, **({"other": 1} if seed else {})},
            {"arm": ["a"]},
            [0, 1],
        )


def test_every_arm_is_run_until_its_best_rate_lies_inside():
    found = tuned(valley, {"arm": list(BEST)}, RATES, [0, 1], "loss", smaller=True)
    chosen = best(found, "loss", smaller=True)
    np.testing.assert_allclose(
        np.log10(chosen.learning_rate.sel(arm=list(BEST))), list(BEST.values()), atol=2e-3
    )  # rates have three digits
    assert not chosen.at_an_end.any()
    ran = {arm: found.learning_rate.values[found.ran.sel(arm=arm, seed=0)] for arm in BEST}
    np.testing.assert_allclose(ran["left"], [1e-5, 1e-4, 1e-3, *RATES])
    np.testing.assert_allclose(ran["middle"], RATES)
    np.testing.assert_allclose(ran["right"], [*RATES, 10, 100, 1000])
    assert found.loss.isnull().sum() == (~found.ran).sum()


@settings(max_examples=50)
@given(st.integers(-9, 7), st.sampled_from([np.nan, np.inf]), st.booleans())
def test_an_arm_without_a_number_is_looked_for_at_both_ends(place, lost, smaller):
    """One power of ten alone has a score: the grid, of -2 to 0, grows by one at each end until there."""
    sign = 1 if smaller else -1

    def run(arm, learning_rate, seed):
        return {"score": 1.0 if round(np.log10(learning_rate)) == place else sign * lost}

    found = tuned(run, {"arm": ["a"]}, RATES, [0, 1], "score", smaller=smaller, extensions=4)
    steps = min(4, max(-2 - place, place, 0))
    left = -2 - steps, steps
    if left[0] <= place <= left[1] and steps < 4:
        left = min(left[0], place - 1), max(left[1], place + 1)
    tried = np.log10(found.learning_rate.values)
    np.testing.assert_allclose(tried, np.arange(left[0], left[1] + 1), atol=16 * EPS)
    chosen = best(found, "score", smaller=smaller).sel(arm="a")
    assert chosen.at_an_end == (not -6 < place < 4)
    assert np.isfinite(chosen.score).all() == (-6 <= place <= 4)


def test_where_the_grid_may_not_go_on_the_end_is_named():
    arms = {"arm": list(BEST)}
    for extensions, named in ((0, ["left", "right"]), (2, ["left", "right"]), (3, [])):
        found = tuned(valley, arms, RATES, [0], "loss", smaller=True, extensions=extensions)
        chosen = best(found, "loss", smaller=True)
        assert list(chosen.arm.values[chosen.at_an_end]) == named, extensions


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.booleans())
def test_the_best_rate_is_that_of_the_best_median_and_divergence_is_worst(seed, smaller):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(3, 6, 5))
    table[rng.random(table.shape) < 0.2] = np.nan
    found = xr.Dataset(
        {"score": (("arm", "learning_rate", "seed"), table)},
        coords={"arm": ["a", "b", "c"], "learning_rate": 2.0 ** np.arange(6), "seed": range(5)},
    )
    chosen = best(found, "score", smaller=smaller)
    for i, arm in enumerate("abc"):
        worst = np.inf if smaller else -np.inf
        medians = [sorted(np.nan_to_num(row, nan=worst))[2] for row in table[i]]
        at = medians.index(min(medians) if smaller else max(medians))
        one = chosen.sel(arm=arm)
        assert one.learning_rate == 2.0**at
        np.testing.assert_array_equal(one.score, table[i, at])
        assert one.at_an_end == (at in (0, 5))


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_which_rates_were_run_may_be_said_for_each_seed_or_once_for_all(seed):
    """Without it, NaN would count as a divergence, and the ends as those of the whole grid."""
    rng = np.random.default_rng(seed)
    first, last = np.sort(rng.choice(7, 2, replace=False))
    rates, seeds = np.arange(7.0), np.arange(3)
    ran = (rates >= first) & (rates <= last)
    table = np.where(ran[:, None], rng.normal(size=(7, 3)), np.nan)
    axes = {"learning_rate": rates, "seed": seeds}
    score = (("learning_rate", "seed"), table)
    each = (("learning_rate", "seed"), np.repeat(ran[:, None], 3, axis=1))
    by_seed, once = (
        best(xr.Dataset({"score": score, "ran": how}, axes), "score", smaller=True)
        for how in (each, (("learning_rate",), ran))
    )
    assert once.identical(by_seed)
    assert once.at_an_end == (once.learning_rate.item() in (first, last))


def test_the_ends_are_those_of_each_arm_with_larger_scores_better_too():
    def hill(arm, learning_rate, seed):
        return {"accuracy": -valley(arm, learning_rate, seed)["loss"]}

    found = tuned(hill, {"arm": list(BEST)}, RATES, [0], "accuracy", smaller=False)
    chosen = best(found, "accuracy", smaller=False)
    np.testing.assert_allclose(np.log10(chosen.learning_rate), list(BEST.values()), atol=2e-3)
    assert not chosen.at_an_end.any()


def test_steps_are_doubled_until_the_best_arm_is_done():
    """The best arm loses 1 / steps; the other one, which goes on for long, does not count."""
    asked = []

    def runs(steps):
        asked.append(steps)

        def run(arm, learning_rate, seed):
            loss = {"good": 1 / steps, "slow": 10 - np.log2(steps) / 10}[arm]
            return {"loss": loss + abs(np.log10(learning_rate))}

        return tuned(run, {"arm": ["good", "slow"]}, [0.1, 1.0, 10.0], [0, 1], "loss", smaller=True)

    found = until_done(runs, 10, "loss", smaller=True, gain=0.02)
    assert asked == [10, 20, 40, 80]
    assert found.steps.values.tolist() == asked
    assert found.ran.dtype == bool
    at_one = found.loss.sel(arm="good", learning_rate=1.0, seed=0)
    np.testing.assert_array_equal(at_one, 1 / np.array(asked))
    with pytest.raises(ValueError, match=r"still improves by 1e-05 or more after 40 steps"):
        until_done(runs, 10, "loss", smaller=True, gain=1e-5, doublings=2)


def test_arms_are_confirmed_at_their_own_rates_on_fresh_seeds():
    found = tuned(valley, {"arm": list(BEST)}, RATES, [0, 1], "loss", smaller=True)
    chosen = best(found, "loss", smaller=True)
    with pytest.raises(ValueError, match="seeds has 1, which chose the rates"):
        confirmed(valley, chosen, [1, 2])

    def run(arm, learning_rate, seed):
        loss = valley(arm, learning_rate, seed)["loss"]
        return {"path": loss * np.ones(4), "loss": loss}

    fresh = confirmed(run, chosen, [7, 8, 9], axes={"path": ["step"]})
    assert fresh.learning_rate.dims == ("arm",)
    assert fresh.path.dims == ("arm", "seed", "step")
    np.testing.assert_array_equal(fresh.path.isel(step=2), fresh.loss)
    assert fresh.seed.values.tolist() == [7, 8, 9]
    for arm in BEST:
        rate = chosen.learning_rate.sel(arm=arm).item()
        assert fresh.learning_rate.sel(arm=arm) == rate
        expected = [valley(arm, rate, seed)["loss"] for seed in (7, 8, 9)]
        np.testing.assert_array_equal(fresh.loss.sel(arm=arm), expected)


def test_arms_at_their_best_rates_are_tuned_and_confirmed():
    arms = {"arm": list(BEST)}
    found = at_best_rates(valley, arms, RATES, [0, 1], [2, 3], "loss", smaller=True)
    tuning = tuned(valley, arms, RATES, [0, 1], "loss", smaller=True)
    xr.testing.assert_identical(found["tuning"], tuning)
    chosen = best(tuning, "loss", smaller=True)
    xr.testing.assert_identical(found["fresh"], confirmed(valley, chosen, [2, 3]))
    short = at_best_rates(
        valley, arms, RATES, [0], [1], "loss", smaller=True, over="learning_rate", extensions=0
    )
    xr.testing.assert_identical(
        short["tuning"], tuned(valley, arms, RATES, [0], "loss", smaller=True, extensions=0)
    )


def test_seeds_that_are_not_fresh_are_refused_before_anything_is_run():
    def run(arm, learning_rate, seed):
        pytest.fail("a run was made")

    with pytest.raises(ValueError, match="fresh_seeds has 1, one of seeds, expected fresh ones"):
        at_best_rates(run, {"arm": ["a"]}, RATES, [0, 1], [1, 2], "loss", smaller=True)


def test_rates_that_make_no_grid_are_refused():
    for rates in ([0.1, 1.0], [1.0, 0.1, 0.01], [0.0, 0.1, 1.0], [0.1, 0.1, 1.0]):
        with pytest.raises(ValueError, match="expected at least three, ascending from above 0"):
            tuned(valley, {"arm": ["left"]}, rates, [0], "loss", smaller=True)
    with pytest.raises(ValueError, match="found lacks 'accuracy', expected it among loss"):
        best(
            study(valley, {"arm": ["left"], "learning_rate": RATES}, [0]), "accuracy", smaller=True
        )


def test_a_study_that_was_interrupted_goes_on(tmp_path):
    made = tmp_path / "made"

    def run(arm, learning_rate, seed):
        with made.open("a", encoding="utf-8") as file:
            file.write(".")
        return valley(arm, learning_rate, seed)

    for _ in range(2):
        tuned(run, {"arm": ["left"]}, RATES, [0], "loss", smaller=True, store=tmp_path / "store")
    assert made.read_text(encoding="utf-8") == 6 * "."


def shifted(arm, learning_rate, seed, *, shift):
    return {"loss": valley(arm, learning_rate, seed)["loss"] + shift}


def test_studies_of_several_functions_share_a_store(tmp_path, monkeypatch):
    """Each has what it has without a store, also where a finished one is asked for again."""
    arms = {"arm": list(BEST)}
    functions = [valley, *(functools.partial(shifted, shift=shift) for shift in (1.0, 2.0))]

    def all_of(function, store):
        pair = at_best_rates(function, arms, RATES, [0, 1], [2], "loss", smaller=True, store=store)
        more = study(function, {**arms, "learning_rate": [0.5]}, [0], store=store)
        return *pair.values(), more

    for function in 2 * functions:
        for kept, expected in zip(all_of(function, tmp_path), all_of(function, None), strict=True):
            xr.testing.assert_identical(kept, expected)
    assert len(list(tmp_path.iterdir())) == len(functions)
    files = sorted(tmp_path.glob("*/*.pickle"))
    monkeypatch.setitem(globals(), "valley", lambda *case: pytest.fail("a run was made"))
    all_of(functions[1], tmp_path)
    assert sorted(tmp_path.glob("*/*.pickle")) == files


def test_what_stands_along_an_axis_is_in_what_comes_back():
    labels = {"when": ["start", "end"], "step": [1, 10, 100]}

    def run(arm, learning_rate, seed):
        loss = valley(arm, learning_rate, seed)["loss"]
        return {"loss": loss, "path": loss * np.arange(6).reshape(2, 3), "own": loss * np.ones(4)}

    axes = {"path": labels, "own": ["part"]}
    given = run, {"arm": list(BEST)}, RATES, [0, 1], [2], "loss"
    named = at_best_rates(*given, smaller=True, axes=axes)
    plain = at_best_rates(
        *given, smaller=True, axes={name: list(one) for name, one in axes.items()}
    )
    for name, found in named.items():
        xr.testing.assert_identical(found, plain[name].assign_coords(labels))
        assert "part" not in found.coords


def test_labels_that_do_not_fit_are_refused():
    def run(arm, seed):
        return {"path": np.zeros(2), "loss": np.zeros(2)}

    for axes, message in (
        ({"path": {"step": [1, 2, 3]}}, r"axes\['path'\]\['step'\] has 3 labels, expected 2"),
        ({"path": {"step": [1, 2]}, "loss": {"step": [1, 3]}},
         r"axes\['loss'\]\['step'\] is \[1, 3\], expected \[1, 2\]"),
        ({"path": {"step": [1, 2], "more": [1]}}, r"expected \(2,\) with the axes"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            study(run, {"arm": ["a"]}, [0], axes={"loss": ["step"], **axes})


def test_numbers_are_rounded_and_nothing_else():
    found = tuned(valley, {"arm": ["left"]}, [1.0, 2.5, 7.0], [0, 1], "loss", smaller=True)
    short = rounded(found, 3)
    assert short.ran.identical(found.ran)
    assert short.learning_rate.identical(found.learning_rate)
    for value, exact in zip(short.loss.values.flat, found.loss.values.flat, strict=True):
        assert value == float(f"{exact:.3g}") or (np.isnan(value) and np.isnan(exact))
    assert rounded(found, 15).loss.values == pytest.approx(
        found.loss.values, rel=1e-14, nan_ok=True
    )
