"""Exercises that answer a wrong solution with the smallest input that shows it wrong.

An exercise is a reference function with a strategy that generates its arguments. Hypothesis looks
for arguments on which a learner's function and the reference disagree, and shrinks what it finds.
"""

import contextlib
import copy
import difflib
import inspect
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from random import Random

import hypothesis
import numpy as np
from hypothesis import Phase
from hypothesis import strategies as st

from bncore.page.answers import difference, identical, shown

REGISTRY: dict[str, "Exercise"] = {}

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Result:
    """Whether an answer passed, and what to tell the learner. True when it passed."""

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Exercise:
    """A reference function, the inputs it is compared on, and answers that must be rejected."""

    name: str
    reference: Callable
    inputs: st.SearchStrategy
    wrong: Sequence[Callable]
    rtol: Real = 1e-6
    atol: Real = 1e-9
    judge: Callable | None = None
    examples: int = 100
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "parameters", tuple(inspect.signature(self.reference).parameters))

    @property
    def statement(self) -> str:
        """The first line of the reference's docstring."""
        return inspect.getdoc(self.reference).splitlines()[0]

    def arguments(self, generated: tuple | Mapping) -> tuple:
        """Return generated arguments in the order of the reference's parameters."""
        if isinstance(generated, Mapping):
            return tuple(generated[name] for name in self.parameters)
        return generated


def exercise(
    name: str,
    *,
    inputs: st.SearchStrategy,
    wrong: Sequence[Callable],
    rtol: Real = 1e-6,
    atol: Real = 1e-9,
    judge: Callable | None = None,
    examples: int = 100,
) -> Callable[[Callable], Callable]:
    """Register the decorated function as the reference answer of an exercise.

    The first line of its docstring is the exercise in one sentence.

    Parameters
    ----------
    name : str
        Lower-case words joined by hyphens, unique in the book.
    inputs : SearchStrategy
        Generates the arguments: a tuple, or a dictionary by the reference's parameter names.
    wrong : sequence of callable
        Answers that a learner might give and that the check has to reject; at least one.
    rtol, atol : float
        Tolerances, relative to the largest magnitude in an expected array and absolute.
    judge : callable, optional
        For exercises with more than one right answer: ``judge(answer, *arguments)`` returns None,
        or what is wrong, in words. It takes the place of the comparison with the reference.
    examples : int
        The largest number of inputs to try.

    Raises
    ------
    ValueError
        If the name is malformed or taken, there is no docstring, or no wrong answer.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}, expected lower-case words joined by hyphens")
    if not wrong:
        raise ValueError(
            f"wrong of exercise {name!r} is empty, expected at least one wrong answer: a check "
            "that rejects nothing proves nothing"
        )

    def register(reference: Callable) -> Callable:
        if not inspect.getdoc(reference):
            raise ValueError(
                f"the reference of exercise {name!r} has no docstring, expected the exercise in "
                "one sentence"
            )
        taken = REGISTRY.get(name)
        if taken and _place(taken.reference) != _place(reference):
            raise ValueError(
                f"name {name!r} is already the exercise of {_place(taken.reference)}, expected a "
                "name that is not taken"
            )
        REGISTRY[name] = Exercise(name, reference, inputs, wrong, rtol, atol, judge, examples)
        return reference

    return register


def _place(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def check(name: str, answer: object) -> Result:
    """Compare an answer to the exercise `name` with the reference on generated inputs.

    Parameters
    ----------
    name : str
        The exercise.
    answer : callable
        The learner's function.

    Returns
    -------
    Result
        Displays as text: the verdict, and a smallest input on which the answer is wrong.
    """
    if name not in REGISTRY:
        close = difflib.get_close_matches(str(name), REGISTRY, n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else _known()
        return Result(False, f"There is no exercise {name!r}. {hint}")
    asked = REGISTRY[name]
    if not callable(answer):
        return _not_yet(asked, f"the answer is {shown(answer)}, expected a function.")
    if problem := _signature_problem(asked, answer):
        return _not_yet(asked, problem)
    found = _smallest_failure(asked, answer)
    if found is None:
        return Result(True, f"Correct: {name}. No generated input tells it from the reference.")
    if found.unattempted:
        return Result(False, f"Not attempted yet: {name}.\n{asked.statement}")
    return _not_yet(asked, found.report(asked))


def _not_yet(asked: Exercise, problem: str) -> Result:
    return Result(False, f"Not yet ({asked.name}): {problem}")


def _known() -> str:
    return f"The exercises are: {', '.join(sorted(REGISTRY)) or 'none'}."


def _signature_problem(asked: Exercise, answer: Callable) -> str | None:
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*asked.parameters)
    except TypeError:
        wanted = ", ".join(asked.parameters)
        return (
            f"the function has the parameters {signature}, expected it to take "
            f"{len(asked.parameters)} in this order: ({wanted})."
        )
    return None


@dataclass(frozen=True)
class _Trial:
    """One call of a learner's function: the arguments, and what went wrong, if anything."""

    arguments: tuple
    problem: str | None
    unattempted: bool = False
    outcome: tuple[tuple[str, object], ...] = ()

    def report(self, asked: Exercise) -> str:
        lines = [self.problem if self.problem.endswith((".", "?")) else f"{self.problem}."]
        if self.arguments:
            lines.append("The smallest input found that shows it:")
            named = zip(asked.parameters, self.arguments, strict=True)
            lines += [_labelled(name, shown(value)) for name, value in named]
        for heading, value in self.outcome:
            lines += [f"{heading}:", _labelled("", shown(value))]
        return "\n".join(lines)


def _labelled(name: str, text: str) -> str:
    start = f"    {name} = " if name else "    "
    return start + text.replace("\n", "\n" + " " * len(start))


def _try(asked: Exercise, answer: Callable, generated: tuple | Mapping) -> _Trial:
    arguments = asked.arguments(generated)
    given = copy.deepcopy(arguments)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            returned = answer(*given)
    except NotImplementedError:
        return _Trial(arguments, "the function is not implemented", unattempted=True)
    except (Exception, SystemExit) as error:
        text = str(error)
        said = f": {text}" if text else ""
        return _Trial(arguments, f"the function raises {type(error).__name__}{said}")
    if returned is Ellipsis:
        return _Trial(arguments, "the function returns ...", unattempted=True)
    if returned is None and _body_is_ellipsis(answer):
        return _Trial(arguments, "the function has no body", unattempted=True)
    for name, before, after in zip(asked.parameters, arguments, given, strict=True):
        if not identical(before, after):
            problem = f"the function changes its argument {name} to {shown(after)}: work on a copy"
            return _Trial(arguments, problem)
    try:
        expected = asked.reference(*copy.deepcopy(arguments))
    except Exception as error:
        problem = f"the exercise is broken: its reference raises {type(error).__name__}: {error}"
        return _Trial(arguments, problem)
    if asked.judge is None or returned is None:
        problem = difference(expected, returned, asked.rtol, asked.atol)
    else:
        try:
            problem = asked.judge(returned, *copy.deepcopy(arguments))
        except Exception as error:
            problem = f"the answer cannot be judged ({type(error).__name__}: {error})"
    outcome = [("Returned", returned), *([] if asked.judge else [("Expected", expected)])]
    return _Trial(arguments, problem, outcome=tuple(outcome))


def _body_is_ellipsis(answer: Callable) -> bool:
    """Whether a function does nothing, as the starter of an exercise does."""
    code = getattr(answer, "__code__", None)
    return code is not None and len(code.co_code) == len((lambda: None).__code__.co_code)


def _smallest_failure(asked: Exercise, answer: Callable) -> _Trial | None:
    def fails(generated):
        with contextlib.redirect_stdout(io.StringIO()):
            return _try(asked, answer, generated).problem is not None

    def find(condition, *phases):
        limits = hypothesis.settings(max_examples=asked.examples, deadline=None, phases=phases)
        return hypothesis.find(asked.inputs, condition, settings=limits, random=Random(0))

    with contextlib.redirect_stdout(io.StringIO()):
        first = _try(asked, answer, find(lambda generated: True, Phase.generate))
    if first.unattempted:
        return first
    try:
        # No Phase.explain: it traces every line of every run and tells us nothing.
        smallest = find(fails, Phase.generate, Phase.shrink)
    except hypothesis.errors.NoSuchExample:
        return None
    except hypothesis.errors.Flaky:
        smallest = None
    trial = smallest is not None and _try(asked, answer, smallest)
    if trial and trial.problem:
        return trial
    return _Trial((), "the function returns different values for the same input: fix its seed")


def numbers(low: Real = -4, high: Real = 4, step: Real = 0.5) -> st.SearchStrategy[float]:
    """Floats on a grid, which shrink towards the one nearest to zero.

    Parameters
    ----------
    low, high : float
        The range, ends included where the grid meets them.
    step : float
        Distance between neighbours; every value is a multiple of it.

    Raises
    ------
    ValueError
        If `step` is not positive, or no multiple of it lies in the range.
    """
    if not step > 0:
        raise ValueError(f"step is {step}, expected a positive number")
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    if first > last:
        raise ValueError(f"low is {low} and high is {high}, expected a multiple of {step} between")
    return st.integers(first, last).map(lambda multiple: multiple * float(step))


def arguments(
    *kinds: str | tuple[str, st.SearchStrategy] | st.SearchStrategy,
    dtype: str = "float64",
    **sizes: int | tuple[int, int],
) -> st.SearchStrategy[tuple]:
    """Tuples of arrays whose axes of one name have one size.

    Parameters
    ----------
    *kinds : str, tuple of (str, SearchStrategy), or SearchStrategy
        One for each argument: the names of an array's axes, the same with a strategy for its
        entries (`numbers()` without one), or a strategy to draw the argument from.
    dtype : str
        The arrays' dtype.
    **sizes : int or tuple of (int, int)
        The size of each named axis, or the smallest and the largest.

    Raises
    ------
    ValueError
        If an axis has no size, or a size belongs to no axis.
    """
    arrays = [
        kind if isinstance(kind, st.SearchStrategy) else _axes_and_entries(kind) for kind in kinds
    ]
    named = {axis for kind in arrays if isinstance(kind, tuple) for axis in kind[0]}
    if named != set(sizes):
        missing, unused = sorted(named - set(sizes)), sorted(set(sizes) - named)
        raise ValueError(
            f"axes without a size: {', '.join(missing) or 'none'}; sizes without an axis: "
            f"{', '.join(unused) or 'none'}; expected one size for each axis"
        )

    @st.composite
    def draw_arguments(draw):
        size = {
            axis: limits if isinstance(limits, int) else draw(st.integers(*limits))
            for axis, limits in sizes.items()
        }

        def draw_array(axes, entries):
            shape = tuple(size[axis] for axis in axes)
            count = math.prod(shape)
            drawn = draw(st.lists(entries, min_size=count, max_size=count))
            return np.array(drawn, dtype).reshape(shape)

        return tuple(
            draw(kind) if isinstance(kind, st.SearchStrategy) else draw_array(*kind)
            for kind in arrays
        )

    return draw_arguments()


def _axes_and_entries(kind):
    axes, entries = (kind, numbers()) if isinstance(kind, str) else kind
    return tuple(axes.split()), entries
