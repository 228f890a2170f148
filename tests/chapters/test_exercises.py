"""Every exercise of the book accepts its reference and rejects the wrong answers it knows.

``-k mechanics/forward`` chooses the exercises of one chapter.
"""

import pytest

from bncore.chapters import check, discover
from bncore.page.exercises import REGISTRY

discover("exercises")
EXERCISES = list(REGISTRY.values())


def named(asked):
    """Return "wing/chapter-name"; the chapter is where the reference answer stands."""
    wing, chapter, _ = asked.reference.__module__.removeprefix("bncore.chapters.").split(".")
    return f"{wing}/{chapter}-{asked.name}"


WRONG = [
    pytest.param(asked, answer, id=f"{named(asked)}-{answer.__name__}")
    for asked in EXERCISES
    for answer in asked.wrong
]


@pytest.mark.parametrize("asked", EXERCISES, ids=named)
def test_the_reference_passes_its_own_check(asked):
    result = check(asked.name, asked.reference)
    assert result.passed, result.message


@pytest.mark.parametrize(("asked", "answer"), WRONG)
def test_a_wrong_answer_is_rejected_by_its_values(asked, answer):
    result = check(asked.name, answer)
    assert not result.passed
    assert not result.message.startswith("Not attempted")
    assert "raises" not in result.message.splitlines()[0], result.message


@pytest.mark.parametrize("asked", EXERCISES, ids=named)
def test_a_starter_is_not_attempted(asked):
    def starter(*arguments):
        raise NotImplementedError

    assert check(asked.name, starter).message.startswith(f"Not attempted yet: {asked.name}.")


def test_an_unknown_exercise_is_named():
    assert "There is no exercise 'no-such'" in check("no-such", abs).message
