"""The command of the recorded runs finds a chapter's own configuration."""

import pytest

from bncore.chapters import full, names
from bncore.lab import recorded

FOUND = [
    "front/start",
    "mechanics/scaling",
    "mechanics/forward",
    "mechanics/backward",
    "mechanics/inference",
    "explanations/covariate_shift",
    "explanations/smoothness",
    "explanations/depth",
    "explanations/scale_invariance",
    "explanations/noise",
    "convergence/halfspaces",
    "convergence/neural_networks",
    "practice/placement",
    "practice/small_batches",
    "practice/fine_tuning",
    "practice/diagnosis",
]


@pytest.mark.parametrize("chapter", FOUND)
def test_a_recorded_run_is_of_the_configuration_that_stands_in_its_module(chapter):
    kept = recorded.load(full.path(chapter))
    assert kept["configuration"] == full.module(chapter).CONFIGURATION
    assert kept["full"].keys() >= kept["reduced"].keys()


def test_every_chapter_with_a_recorded_run_has_a_command():
    assert sorted(filter(_has, names())) == sorted(FOUND)


def _has(chapter):
    try:
        return full.path(chapter).exists()
    except ValueError:
        return False


def test_a_chapter_without_one_is_refused_with_those_that_have_one():
    with pytest.raises(
        ValueError, match=r"chapter is 'convergence/decoupling', expected one of front/start, mech"
    ):
        full.module("convergence/decoupling")


def test_the_command_runs_what_the_module_says(monkeypatch, tmp_path):
    of, asked = full.module("explanations/depth"), []
    monkeypatch.setattr(full, "path", lambda chapter: tmp_path / "recorded.json")
    monkeypatch.setattr(of, "run", lambda configuration: asked.append(configuration) or {"a": 1})
    full.main("explanations/depth", [])
    assert asked == [of.CONFIGURATION, of.REDUCED]
    assert recorded.load(tmp_path / "recorded.json")["full"] == {"a": 1}
