"""How chapters are found: by their names, and no more of them than is asked for."""

import subprocess
import sys

import pytest
from hypothesis import strategies as st

from bncore.chapters import check, discover, modules, names
from bncore.chapters.contents import TITLES
from bncore.page import exercises


def loaded_after(code):
    """The modules of chapters that this code imports, as `wing.chapter.kind`."""
    end = "import sys; print(*(n for n in sys.modules if n.startswith('bncore.chapters.')))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{end}"], capture_output=True, encoding="utf-8", check=True
    )
    loaded = done.stdout.splitlines()[-1].split() if done.stdout.strip() else []
    return {name.removeprefix("bncore.chapters.") for name in loaded}


def test_an_exercise_is_found_by_its_name_and_no_other_chapter_is_imported():
    code = "from bncore.chapters import check\nassert not check('scale-invariance-factor', 1)"
    assert loaded_after(code) == {
        "explanations",
        "explanations.scale_invariance",
        "explanations.scale_invariance.exercises",
    }


def test_the_claims_of_a_chapter_are_found_without_the_others():
    code = "from bncore.chapters import discover\ndiscover('claims', 'convergence/decoupling')"
    chapters = {name.split(".")[1] for name in loaded_after(code) if "." in name}
    assert chapters == {"decoupling"}


def test_a_name_that_no_chapter_begins_is_answered_with_those_that_there_are():
    assert "Did you mean 'forward-undo'" in check("foward-undo", abs).message
    assert "There is no exercise ''" in check("", abs).message


@pytest.mark.parametrize("name", ["forward-undoo", "forward"])
def test_a_misspelt_exercise_is_put_right(name):
    assert "There is no exercise" in check(name, abs).message


def test_an_exercise_that_is_not_named_after_its_chapter_is_refused(monkeypatch):
    def reference(x):
        """Return x."""
        return x

    reference.__module__ = "bncore.chapters.mechanics.forward.exercises"
    monkeypatch.setattr(exercises, "REGISTRY", dict(exercises.REGISTRY))
    exercises.exercise("undo", inputs=st.tuples(st.integers()), wrong=[abs])(reference)
    with pytest.raises(ValueError, match=r"mechanics/forward is called 'undo', .* 'forward-'"):
        discover("exercises", "mechanics/forward")
    discover("exercises", "mechanics/backward")


def test_names_are_in_the_order_of_the_titles():
    assert names() == list(TITLES)


def test_modules_are_those_declared_or_the_one_of_the_chapters_name():
    assert modules("mechanics/scaling") == ("mechanics/scaling",)
    assert "mechanics/projection" in modules("mechanics/backward")
    assert "mechanics/backward" not in modules("mechanics/backward")


@pytest.mark.parametrize("chapter", ["forward", "mechanics", "mechanics/", "somewhere/forward", ""])
@pytest.mark.parametrize("function", [modules, lambda chapter: discover("claims", chapter)])
def test_a_chapter_that_is_not_there_is_named(function, chapter):
    with pytest.raises(ValueError, match=r"expected one of front/start, "):
        function(chapter)
