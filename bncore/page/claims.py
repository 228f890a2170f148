"""Checkable statements of the literature, each registered beside the code that judges it.

A judging function returns evidence, evidence is made of measurements with thresholds, and the
verdict follows from them: what an author records is only compared with it.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

VERDICTS = {
    "holds": "every measurement of the printed statement is within its threshold",
    "fails": "a measurement of the printed statement is outside its threshold",
    "misprinted": "the printed formula fails and a corrected one holds",
    "depends": "it holds under a stated condition and fails otherwise",
    "untestable": "no computation can decide it",
}
UNDECIDED = "undecided"

REGISTRY: dict[str, "Claim"] = {}

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CHAPTER = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
_SOURCE = re.compile(r"(?P<key>[A-Za-z][\w:-]*), *(?P<locator>\S.*)")


@dataclass(frozen=True)
class Measurement:
    """One number that was computed, and the threshold that it has to keep.

    Parameters
    ----------
    what : str
        What was measured, in words, with the number of cases where there were several.
    value : float
        The measured number. NaN neither holds nor fails: it decides nothing.
    at_most, at_least : float, optional
        The threshold, finite. Give exactly one.

    Raises
    ------
    TypeError
        If the value or the threshold is not a real number.
    ValueError
        If `what` is empty, or there is not exactly one finite threshold.
    """

    what: str
    value: Real
    at_most: Real | None = None
    at_least: Real | None = None

    def __post_init__(self):
        if not self.what.strip():
            raise ValueError("what is empty, expected words that say what was measured")
        given = [name for name in ("at_most", "at_least") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"measurement {self.what!r} has {' and '.join(given) or 'no threshold'}, "
                "expected exactly one of at_most and at_least"
            )
        for name in ("value", *given):
            number = getattr(self, name)
            if not isinstance(number, Real):
                raise TypeError(
                    f"{name} of measurement {self.what!r} is a {type(number).__name__}, "
                    "expected a real number"
                )
            object.__setattr__(self, name, float(number))
        if not math.isfinite(self.threshold):
            raise ValueError(
                f"{given[0]} of measurement {self.what!r} is {self.threshold}, expected a finite "
                "number: any other threshold decides nothing"
            )

    @property
    def threshold(self) -> float:
        """The number that the value is compared with."""
        return self.at_least if self.at_most is None else self.at_most

    @property
    def relation(self) -> str:
        """The sign between a value that holds and the threshold."""
        return "≥" if self.at_most is None else "≤"

    @property
    def holds(self) -> bool:
        """Whether the value keeps the threshold. False for NaN."""
        if self.at_most is None:
            return self.value >= self.threshold
        return self.value <= self.threshold

    @property
    def fails(self) -> bool:
        """Whether the value is beyond the threshold. False for NaN."""
        return not self.holds and not math.isnan(self.value)


Measurements = Sequence[Measurement]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured about a claim, in one of five forms, and the verdict that follows.

    ==============================================  =========================================
    form                                            verdict
    ==============================================  =========================================
    ``printed``                                     `holds` if all hold, `fails` if one fails
    ``printed``, ``corrected`` and ``correction``   `misprinted` if one printed measurement
                                                    fails and all corrected ones hold
    ``under`` and ``otherwise``                     `depends` if all hold under the condition
                                                    and one fails otherwise
    ``reason``                                      `untestable`
    anything else                                   `undecided`
    ==============================================  =========================================

    Parameters
    ----------
    printed, corrected : sequence of Measurement
        Measurements of the statement as the source has it, and of the corrected one.
    correction : str
        The corrected statement, in Markdown.
    under, otherwise : tuple of (str, sequence of Measurement), optional
        A condition in words with what was measured under it; the same for its opposite.
    reason : str
        Why no computation can decide the claim.

    Raises
    ------
    ValueError
        If the arguments do not make exactly one of these forms.
    """

    printed: Measurements = ()
    corrected: Measurements = ()
    correction: str = ""
    under: tuple[str, Measurements] | None = None
    otherwise: tuple[str, Measurements] | None = None
    reason: str = ""

    def __post_init__(self):
        given = {name for name in self.__dataclass_fields__ if getattr(self, name)}
        forms = (
            {"printed"},
            {"printed", "corrected", "correction"},
            {"under", "otherwise"},
            {"reason"},
        )
        if given not in forms:
            raise ValueError(
                f"evidence has {', '.join(sorted(given)) or 'nothing'}, expected one of: printed; "
                "printed with corrected and correction; under with otherwise; reason"
            )
        for name in ("under", "otherwise"):
            if name in given:
                condition, measurements = getattr(self, name)
                if not condition.strip() or not measurements:
                    raise ValueError(
                        f"{name} is ({condition!r}, {len(measurements)} measurements), expected "
                        "a condition in words and at least one measurement"
                    )

    @property
    def verdict(self) -> str:
        """The verdict that the measurements bear out, or `undecided`."""
        if self.reason:
            return "untestable"
        if self.under:
            depends = _all_hold(self.under[1]) and _one_fails(self.otherwise[1])
            return "depends" if depends else UNDECIDED
        if _all_hold(self.printed):
            return "holds"
        if not _one_fails(self.printed):
            return UNDECIDED
        if self.corrected:
            return "misprinted" if _all_hold(self.corrected) else UNDECIDED
        return "fails"

    def groups(self) -> list[tuple[str, Measurements]]:
        """Return each set of measurements with its heading, in reading order."""
        named = [("As printed", self.printed), ("Corrected", self.corrected)]
        if self.under:
            named += [(f"Under {self.under[0]}", self.under[1])]
            named += [(f"Otherwise: {self.otherwise[0]}", self.otherwise[1])]
        return [(heading, measurements) for heading, measurements in named if measurements]


def _all_hold(measurements: Measurements) -> bool:
    return all(measurement.holds for measurement in measurements)


def _one_fails(measurements: Measurements) -> bool:
    return any(measurement.fails for measurement in measurements)


@dataclass(frozen=True)
class Claim:
    """A statement, where it is made, the recorded verdict, and the function that judges it."""

    id: str
    source: str
    statement: str
    chapter: str
    verdict: str
    judge: Callable[[], Evidence]

    @property
    def key(self) -> str:
        """The source's key in the bibliography."""
        return _SOURCE.fullmatch(self.source)["key"]

    @property
    def locator(self) -> str:
        """Where in the source the statement stands."""
        return _SOURCE.fullmatch(self.source)["locator"]

    def evidence(self) -> Evidence:
        """Run the judging function.

        Raises
        ------
        TypeError
            If it returns anything but evidence.
        """
        evidence = self.judge()
        if not isinstance(evidence, Evidence):
            raise TypeError(
                f"the function that judges claim {self.id!r} returned a "
                f"{type(evidence).__name__}, expected Evidence"
            )
        return evidence


def claim(
    *, id: str, source: str, statement: str, chapter: str, verdict: str
) -> Callable[[Callable[[], Evidence]], Callable[[], Evidence]]:
    """Register the decorated function of no arguments as the judge of a claim.

    Parameters
    ----------
    id : str
        Lower-case words joined by hyphens, unique in the book.
    source : str
        Key in the bibliography, a comma, and where in the source: ``"ioffe2015, Algorithm 1"``.
    statement : str
        What the source asserts, in our words: Markdown with ``$...$`` for mathematics.
    chapter : str
        ``"wing/chapter"``, the place of the claim in the book.
    verdict : str
        One of `VERDICTS`.

    Raises
    ------
    ValueError
        If an argument is not of this form, the id is taken, or the function takes arguments.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"id is {id!r}, expected lower-case words joined by hyphens")
    if not _SOURCE.fullmatch(source):
        raise ValueError(
            f"source of claim {id!r} is {source!r}, expected a bibliography key, a comma and a "
            "place in the source, such as 'ioffe2015, Algorithm 1'"
        )
    if not statement.strip():
        raise ValueError(f"statement of claim {id!r} is empty, expected what the source asserts")
    if not _CHAPTER.fullmatch(chapter):
        raise ValueError(
            f"chapter of claim {id!r} is {chapter!r}, expected 'wing/chapter', such as "
            "'mechanics/forward'"
        )
    if verdict not in VERDICTS:
        raise ValueError(
            f"verdict of claim {id!r} is {verdict!r}, expected one of {', '.join(VERDICTS)}"
        )

    def register(judge: Callable[[], Evidence]) -> Callable[[], Evidence]:
        if inspect.signature(judge).parameters:
            raise ValueError(
                f"the function that judges claim {id!r} takes "
                f"{inspect.signature(judge)}, expected no arguments"
            )
        taken = REGISTRY.get(id)
        if taken and _place(taken.judge) != _place(judge):
            raise ValueError(
                f"id {id!r} is already the claim of {_place(taken.judge)}, expected an id that is "
                "not taken"
            )
        REGISTRY[id] = Claim(id, source, statement, chapter, verdict, judge)
        return judge

    return register


def _place(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"
