"""What was measured about a claim, with thresholds, and the verdict that follows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple


@dataclass(frozen=True)
class Measurement:
    """One number that was computed, and the threshold that it has to keep.

    Made by ``at_most`` and ``at_least``.

    Attributes
    ----------
    what : str
        What was measured, in words, with the number of cases where there were several.
    value, low, high : float
        The measured number and the ends of its interval; without one, three times the number.
    threshold : float
    upper : bool
        Whether the threshold must not be exceeded; otherwise it must be reached.
    """

    what: str
    value: float
    low: float
    high: float
    threshold: float
    upper: bool

    @property
    def relation(self) -> str:
        """The sign between a value that holds and the threshold."""
        return "≤" if self.upper else "≥"

    @property
    def holds(self) -> bool:
        """Whether the whole interval keeps the threshold. False for NaN."""
        return self.high <= self.threshold if self.upper else self.low >= self.threshold

    @property
    def fails(self) -> bool:
        """Whether the whole interval is beyond the threshold. False for NaN."""
        return self.low > self.threshold if self.upper else self.high < self.threshold


def at_most(threshold: Real, value: object, what: str) -> Measurement:
    """A measurement that must not exceed the threshold; see ``at_least``."""
    return _measurement("at_most", threshold, value, what, upper=True)


def at_least(threshold: Real, value: object, what: str) -> Measurement:
    """A measurement that must reach the threshold.

    Parameters
    ----------
    threshold : float
        Finite.
    value : float or (float, float, float)
        The measured number, or a mean and the ends of its interval, as ``lab.studies.difference``
        returns them. NaN neither holds nor fails, nor does an interval around the threshold: they
        decide nothing.
    what : str
        What was measured, in words.

    Raises
    ------
    TypeError
        If the value or the threshold is not a real number.
    ValueError
        If ``what`` is empty, the threshold not finite, or the mean outside its interval.
    """
    return _measurement("at_least", threshold, value, what, upper=False)


def _measurement(name, threshold, value, what, upper):
    if not what.strip():
        raise ValueError("what is empty, expected words that say what was measured")
    numbers = value if isinstance(value, tuple) else (value, value, value)
    if len(numbers) != 3:
        raise ValueError(
            f"value of {what!r} has {len(numbers)} numbers, expected one, or a mean and two ends"
        )
    for which, number in (
        ("value", numbers[0]),
        ("interval", numbers[1]),
        ("interval", numbers[2]),
        ("threshold", threshold),
    ):
        if not isinstance(number, Real):
            raise TypeError(
                f"{which} of {what!r} is a {type(number).__name__}, expected a real number"
            )
    mean, low, high = map(float, numbers)
    if mean < low or mean > high:
        raise ValueError(f"value of {what!r} is {mean}, expected it between {low} and {high}")
    if not math.isfinite(threshold):
        raise ValueError(
            f"{name} of {what!r} is {threshold}, expected a finite number: any other threshold "
            "decides nothing"
        )
    return Measurement(what, mean, low, high, float(threshold), upper)


@dataclass(frozen=True)
class Heading:
    """What the measurements that follow are about: made by ``under`` and its like."""

    part: str
    words: str

    def __post_init__(self):
        if not self.words.strip():
            raise ValueError(f"{self.part} is empty, expected words")


def under(condition: str) -> Heading:
    """What follows was measured under this condition, which the source leaves out."""
    return Heading("under", condition)


def otherwise(condition: str) -> Heading:
    """What follows was measured under this condition, the opposite of that of ``under``."""
    return Heading("otherwise", condition)


def corrected(statement: str) -> Heading:
    """What follows was measured of this statement, which stands in place of the printed one."""
    return Heading("corrected", statement)


def untestable(reason: str) -> Heading:
    """No computation can decide the claim, for this reason."""
    return Heading("untestable", reason)


Measurements = Sequence[Measurement]
FORMS = (("printed",), ("printed", "corrected"), ("under", "otherwise"), ("untestable",))


class Group(NamedTuple):
    """Measurements of one part of the evidence, with the words of its heading."""

    part: str
    words: str
    measurements: Measurements

    @property
    def heading(self) -> str:
        """The heading as a reader sees it, in Markdown."""
        return {
            "printed": "As stated",
            "corrected": f"Corrected: {self.words}",
            "under": f"Under {self.words}",
            "otherwise": f"Otherwise: {self.words}",
            "untestable": f"Why not: {self.words}",
        }[self.part]


@dataclass(frozen=True)
class Evidence:
    """What was measured about a claim, in one of four forms, and the verdict that follows.

    ===========================  ================================================================
    form                         verdict
    ===========================  ================================================================
    ``printed``                  `holds` if all hold, `fails` if one fails
    ``printed``, ``corrected``   `misprinted` if one as printed fails and all of the corrected hold
    ``under``, ``otherwise``     `depends` if all hold under the condition and one fails otherwise
    ``untestable``               `untestable`
    anything else                `undecided`
    ===========================  ================================================================
    """

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, parts: Iterable[Measurement | Heading]) -> "Evidence":
        """The evidence in what a judging function yields.

        Raises
        ------
        TypeError
            If a part is neither a measurement nor a heading.
        ValueError
            If they make none of the forms, or a part has no measurement.
        """
        groups = []
        for part in parts:
            if isinstance(part, Heading):
                groups.append(Group(part.part, part.words, []))
            elif isinstance(part, Measurement):
                if not groups:
                    groups.append(Group("printed", "", []))
                groups[-1].measurements.append(part)
            else:
                raise TypeError(
                    f"a judge yields a {type(part).__name__}, expected at_most, at_least, under, "
                    "otherwise, corrected or untestable"
                )
        form = tuple(group.part for group in groups)
        if form not in FORMS:
            raise ValueError(
                f"evidence has {', '.join(form) or 'nothing'}, expected one of: "
                f"{'; '.join(', '.join(known) for known in FORMS)}"
            )
        for group in groups:
            if bool(group.measurements) == (group.part == "untestable"):
                raise ValueError(
                    f"{group.part} has {len(group.measurements)} measurements, expected "
                    f"{'none' if group.measurements else 'at least one'}"
                )
        return cls(tuple(groups))

    @property
    def verdict(self) -> str:
        """The verdict that the measurements bear out."""
        form = tuple(group.part for group in self.groups)
        if form == ("untestable",):
            return "untestable"
        first, last = self.groups[0].measurements, self.groups[-1].measurements
        if form == ("under", "otherwise"):
            return "depends" if _all_hold(first) and _one_fails(last) else "undecided"
        if form == ("printed",) or not _one_fails(first):
            return "holds" if _all_hold(first) else "fails" if _one_fails(first) else "undecided"
        return "misprinted" if _all_hold(last) else "undecided"

    @property
    def condition(self) -> str:
        """The condition on which a claim depends; empty for other forms."""
        return self.groups[0].words if self.groups[0].part == "under" else ""


def _all_hold(measurements: Measurements) -> bool:
    return all(measurement.holds for measurement in measurements)


def _one_fails(measurements: Measurements) -> bool:
    return any(measurement.fails for measurement in measurements)
