"""Functions are timed in turns, and the first round does not count."""

import time

import pytest

from bncore.lab.timing import median_seconds


def test_functions_take_turns_and_one_round_more():
    calls = []
    seconds = median_seconds([lambda: calls.append("a"), lambda: calls.append("b")], repeats=3)
    assert calls == ["a", "b"] * 4
    assert (seconds >= 0).all()


def test_times_are_medians_of_what_the_clock_says_without_the_first_round(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    waits = {"a": iter([90.0, 4, 1, 2, 8, 3]), "b": iter([80.0, 5, 70, 50, 60, 40])}

    def wait(name):
        now[0] += next(waits[name])

    found = median_seconds([lambda: wait("a"), lambda: wait("b")], repeats=5)
    assert found.tolist() == [3, 50]


def test_bad_input_is_named(unchecked):
    with pytest.raises(ValueError, match="functions is empty, expected at least one"):
        median_seconds([])
    with pytest.raises(ValueError, match="repeats is 0, expected at least 1"):
        median_seconds([print], repeats=0)
    with pytest.raises(TypeError, match="repeats is a float, expected an integer"):
        median_seconds([print], repeats=2.0)
