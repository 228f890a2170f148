"""The checker accepts right answers, and answers wrong ones with a small counterexample."""

import hypothesis
import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from bncore.page import exercises
from bncore.page.exercises import arguments, check, exercise, numbers


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = {}
    monkeypatch.setattr(exercises, "REGISTRY", registry)
    return registry


def pose(reference, inputs, name="the-exercise", wrong=(abs,), **options):
    reference.__doc__ = reference.__doc__ or "Do as the reference does.\n\nIn more words."
    return exercise(name, inputs=inputs, wrong=wrong, **options)(reference)


@pytest.fixture
def mean():
    def mean(x, shift):
        return x.mean(axis=0) + shift

    return pose(mean, arguments("batch features", numbers(), batch=(1, 4), features=(1, 3)))


def test_the_reference_passes(mean):
    result = check("the-exercise", mean)
    assert result.passed
    assert result
    assert repr(result).startswith("Correct: the-exercise.")


def test_a_wrong_answer_meets_the_smallest_input_that_shows_it(mean):
    result = check("the-exercise", lambda x, shift: x.mean(axis=0) - shift)
    assert not result
    assert repr(result).splitlines() == [
        "Not yet (the-exercise): the answer is off by 1 at index [0].",
        "The smallest input found that shows it:",
        "    x = array([[0.]])",
        "    shift = 0.5",
        "Returned:",
        "    array([-0.5])",
        "Expected:",
        "    array([0.5])",
    ]


def test_a_wrong_size_shrinks_to_the_smallest_batch_that_shows_it(mean):
    text = repr(check("the-exercise", lambda x, shift: x.sum(axis=0) / 2 + shift))
    assert "    x = array([[0.5]])\n    shift = 0" in text
    several = repr(check("the-exercise", lambda x, shift: x[0] + shift))
    assert "    x = array([[0. ],\n               [0.5]])" in several


def test_the_same_answer_gets_the_same_text_every_time(mean):
    texts = {repr(check("the-exercise", lambda x, shift: x.max(axis=0) + shift)) for _ in range(3)}
    assert len(texts) == 1


def unfinished(x, shift): ...


def unfinished_with_words(x, shift):
    """Return the mean."""


def unfinished_with_pass(x, shift):
    pass


def unfinished_ellipsis(x, shift):
    return ...


def unfinished_error(x, shift):
    raise NotImplementedError


@pytest.mark.parametrize(
    "answer",
    [
        unfinished,
        unfinished_with_words,
        unfinished_with_pass,
        unfinished_ellipsis,
        unfinished_error,
    ],
)
def test_a_starter_is_not_a_mistake(mean, answer):
    result = check("the-exercise", answer)
    assert not result
    assert repr(result) == "Not attempted yet: the-exercise.\nDo as the reference does."


def test_a_starter_is_tried_once(mean):
    calls = []

    def starter(x, shift):
        calls.append(x)
        raise NotImplementedError

    assert repr(check("the-exercise", starter)).startswith("Not attempted yet")
    assert len(calls) == 1


def changes_list(x, shift):
    x[...] = 1
    return x.mean(axis=0)


def forgets_return(x, shift):
    x.mean(axis=0) + shift


def divides_by_zero(x, shift):
    return 1 / 0


def asserts_silently(x, shift):
    raise AssertionError


def leaves(x, shift):
    raise SystemExit("bye")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (forgets_return, "the answer is None: is a `return` missing?"),
        (divides_by_zero, "the function raises ZeroDivisionError: division by zero."),
        (asserts_silently, "the function raises AssertionError."),
        (leaves, "the function raises SystemExit: bye."),
        (changes_list, "the function changes its argument x to array([[1.]]): work on a copy."),
        (lambda x, shift: list(x[0]), "the answer is a list, expected a NumPy array."),
        (lambda x, shift: x + shift, "the answer has shape (1, 1), expected (1,)."),
        (
            lambda x, shift: (x.mean(axis=0) + shift).astype("float32"),
            "the answer has dtype float32, expected float64.",
        ),
        (
            lambda x, shift: x.mean(axis=0) * np.nan,
            "the answer is nan at index [0], expected 0.",
        ),
        (lambda x, shift: x.mean(axis=0) - np.inf, "the answer is -inf at index [0], expected 0."),
    ],
)
def test_each_mistake_is_named_with_an_input_and_no_stack_trace(mean, answer, problem):
    text = repr(check("the-exercise", answer))
    assert text.startswith(f"Not yet (the-exercise): {problem}\nThe smallest input found")
    assert "x = array([[0.]])" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("answer", [lambda x: x, lambda x, shift, eps: x, lambda: 0])
def test_a_wrong_signature_is_named(mean, answer):
    text = repr(check("the-exercise", answer))
    assert "expected it to take 2 in this order: (x, shift)." in text


def test_parameters_may_have_other_names_and_defaults(mean):
    assert check("the-exercise", lambda a, b, c=0: mean(a, b))


def test_a_function_without_a_signature_is_tried():
    pose(lambda x: x, inputs=st.tuples(st.integers(0, 3)))
    assert check("the-exercise", int)


@pytest.mark.parametrize("answer", [3, None, "mean", np.zeros(2)])
def test_an_answer_is_a_function(mean, answer):
    text = repr(check("the-exercise", answer))
    assert text.startswith("Not yet (the-exercise): the answer is ")
    assert text.endswith("expected a function.")


def test_an_unknown_name_meets_the_close_ones(mean):
    result = check("the-exercice", mean)
    assert not result
    assert repr(result) == "There is no exercise 'the-exercice'. Did you mean 'the-exercise'?"
    assert repr(check("zzz", mean)).endswith("The exercises are: the-exercise.")


def test_an_unknown_name_where_there_is_no_exercise():
    assert repr(check("zzz", abs)).endswith("The exercises are: none.")


def test_the_same_inputs_are_tried_every_time(mean):
    tried = []
    for _ in range(2):
        seen = []

        def right(x, shift, seen=seen):
            seen.append((x.tobytes(), shift))
            return mean(x, shift)

        assert check("the-exercise", right)
        tried.append(seen)
    assert tried[0] == tried[1]


@pytest.mark.parametrize("examples", [7, 60])
def test_as_many_inputs_are_tried_as_the_exercise_says(examples):
    seen = []

    def same(x):
        seen.append(x)
        return x

    pose(lambda x: x, st.tuples(st.integers(0, 10**9)), examples=examples)
    assert check("the-exercise", same)
    assert len(seen) == examples + 1, "one more looks whether there is an answer at all"


def test_nothing_is_left_in_the_readers_folder(mean, tmp_path, monkeypatch):
    """Hypothesis keeps what it finds in a database, unless it is given a generator."""
    chosen = hypothesis.settings.default
    kept = DirectoryBasedExampleDatabase(tmp_path / "kept")
    hypothesis.settings.register_profile("reader", derandomize=False, database=kept)
    hypothesis.settings.load_profile("reader")
    try:
        assert not check("the-exercise", lambda x, shift: x.max(axis=0) + shift)
    finally:
        hypothesis.settings.register_profile("book", chosen)
        hypothesis.settings.load_profile("book")
    assert not (tmp_path / "kept").exists()


def test_a_function_that_changes_its_mind_is_found_out(mean):
    calls = []

    def fickle(x, shift):
        calls.append(0)
        return mean(x, shift) + (len(calls) % 5 == 3)

    text = repr(check("the-exercise", fickle))
    assert "the function returns different values for the same input: fix its seed." in text


def test_an_interrupt_passes_through(mean):
    def interrupted(x, shift):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("the-exercise", interrupted)


def test_prints_show_for_the_shown_input_alone(mean, capsys):
    def chatty(x, shift):
        print("called with", shift)
        return x.mean(axis=0)

    check("the-exercise", chatty)
    assert capsys.readouterr().out == "called with 0.5\n"


def test_a_broken_reference_is_not_the_learners_fault():
    def broken(x):
        raise ValueError("no")

    pose(broken, st.tuples(st.just(1.0)))
    text = repr(check("the-exercise", lambda x: x))
    assert "the exercise is broken: its reference raises ValueError: no." in text


def test_inputs_by_name_reach_the_parameters():
    def ratio(above, below):
        return above / below

    pose(ratio, st.fixed_dictionaries({"below": numbers(0.5, 2), "above": numbers()}))
    assert check("the-exercise", ratio)
    text = repr(check("the-exercise", lambda above, below: below / 2))
    assert "    above = 0\n    below = 0.5\nReturned:\n    0.25" in text


def test_several_right_answers_are_judged():
    def root():
        return 2.0

    def judge(answer):
        return None if answer**2 == 4 else f"its square is {answer**2}, expected 4."

    pose(root, arguments(), judge=judge)
    assert check("the-exercise", lambda: -2.0)
    text = "Not yet (the-exercise): its square is 9, expected 4.\nReturned:\n    3"
    assert repr(check("the-exercise", lambda: 3)) == text
    assert "the answer cannot be judged (TypeError: " in repr(check("the-exercise", lambda: "3"))
    assert "is a `return` missing?" in repr(check("the-exercise", lambda: print(end="")))


def test_tolerances_are_those_of_the_exercise():
    pose(lambda x: x, st.tuples(numbers(1, 4)), rtol=0.1, atol=0)
    assert check("the-exercise", lambda x: 1.09 * x)
    assert not check("the-exercise", lambda x: 1.11 * x)


def test_without_tolerances_a_millionth_and_a_billionth_are_let_pass():
    pose(lambda x: x, st.tuples(numbers(1, 4)))
    assert check("the-exercise", lambda x: x * (1 + 0.9e-6))
    assert not check("the-exercise", lambda x: x * (1 + 1.2e-6))
    pose(lambda x: 0 * x, st.tuples(numbers(1, 4)), name="nothing")
    assert check("nothing", lambda x: 0.9e-9)
    assert not check("nothing", lambda x: 1.1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "The exercise"}, "name is 'The exercise', expected lower-case words"),
        ({"wrong": []}, "wrong of exercise 'the-exercise' is empty"),
    ],
)
def test_a_malformed_exercise_is_refused(registry, options, message):
    with pytest.raises(ValueError, match=message):
        pose(lambda x: x, arguments(), **options)
    assert not registry


def test_a_reference_states_the_exercise():
    with pytest.raises(ValueError, match="reference of exercise 'a' has no docstring"):
        exercise("a", inputs=arguments(), wrong=[abs])(lambda: 0)


def test_two_exercises_do_not_share_a_name(mean):
    def other(x):
        return x

    with pytest.raises(ValueError, match=r"name 'the-exercise' is already the exercise of .*mean"):
        pose(other, arguments())
    pose(mean, arguments())


@given(st.integers(-20, 20), st.integers(0, 20), st.sampled_from([0.25, 0.5, 1]), st.data())
def test_numbers_lie_on_the_grid_and_shrink_towards_zero(first, count, step, data):
    low, high = first * step, (first + count) * step
    value = data.draw(numbers(low, high, step))
    assert low <= value <= high
    assert value % step == 0


def test_numbers_shrink_to_the_one_nearest_zero():
    assert find(numbers(-2, 3), lambda value: True) == 0
    assert find(numbers(0.5, 3), lambda value: True) == 0.5
    assert find(numbers(-3, -1), lambda value: True) == -1


@pytest.mark.parametrize(
    ("range_", "message"),
    [
        ((0, 1, 0), "step is 0, expected a positive number"),
        ((0, 1, -1), "step is -1, expected a positive number"),
        ((0.1, 0.4, 0.5), "low is 0.1 and high is 0.4, expected a multiple of 0.5 between"),
    ],
)
def test_numbers_need_a_grid(range_, message):
    with pytest.raises(ValueError, match=message):
        numbers(*range_)


@given(st.data())
def test_axes_of_one_name_have_one_size(data):
    kinds = ("batch features length", ("features", numbers(1, 2)), "", st.just("kept"))
    strategy = arguments(*kinds, dtype="float32", batch=(2, 4), features=3, length=(1, 2))
    x, gamma, scalar, kept = data.draw(strategy)
    assert x.ndim == 3
    assert 2 <= x.shape[0] <= 4
    assert x.shape[1:2] == gamma.shape == (3,)
    assert x.dtype == gamma.dtype == np.float32
    assert scalar.shape == ()
    assert ((gamma >= 1) & (gamma <= 2)).all()
    assert kept == "kept"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch": 2}, "axes without a size: features; sizes without an axis: none"),
        (
            {"batch": 2, "features": 1, "time": 3},
            "axes without a size: none; sizes without an axis: time",
        ),
    ],
)
def test_each_axis_has_a_size(sizes, message):
    with pytest.raises(ValueError, match=message):
        arguments("batch features", **sizes)
