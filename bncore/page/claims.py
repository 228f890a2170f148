r"""Checkable statements of the literature, each registered beside the code that judges it.

Such as this one::

    @claim("ioffe2015, Section 3.3", "depends")
    def scale_invariance():
        r'''For a scalar $a$, $\mathrm{BN}(Wu) = \mathrm{BN}((aW)u)$.'''
        yield under("$a > 0$")
        yield at_most(1e-9, changes(positive), "largest change of the output, 100 random batches")
        yield otherwise("$a < 0$")
        yield at_most(1e-9, changes(negative), "the same")

The docstring is the statement, in our words. The function yields measurements with thresholds, and the
verdict follows from them: what an author records is only compared with it.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bncore.page.evidence import (
    Evidence,
    Heading,
    Measurement,
    at_least,
    at_most,
    corrected,
    otherwise,
    under,
    untestable,
)

__all__ = [
    "REGISTRY",
    "VERDICTS",
    "Claim",
    "at_least",
    "at_most",
    "claim",
    "corrected",
    "otherwise",
    "under",
    "untestable",
]

VERDICTS = {
    "holds": "every measurement of the printed statement is within its threshold",
    "fails": "a measurement of the printed statement is outside its threshold",
    "misprinted": "the printed formula fails and a corrected one holds",
    "depends": "it holds under a condition that the source leaves out, and fails otherwise",
    "undecided": "the measurements do not separate holding from failing",
    "untestable": "no computation can decide it",
}

REGISTRY: dict[str, "Claim"] = {}

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CHAPTER = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
_SOURCE = re.compile(r"(?P<key>[A-Za-z][\w:-]*), *(?P<locator>\S.*)")


Judge = Callable[[], Iterable[Measurement | Heading]]


@dataclass(frozen=True)
class Claim:
    """A statement, where it is made, the recorded verdict, and the function that judges it.

    ``lost`` says that a formula of the source was lost in conversion and derived anew; ``aliases``
    are ids of rows that have become part of this one.
    """

    id: str
    source: str
    statement: str
    chapter: str
    verdict: str
    judge: Judge
    lost: bool = False
    aliases: tuple[str, ...] = ()

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
            If it yields nothing, or something else than evidence.
        """
        parts = self.judge()
        if not isinstance(parts, Iterable):
            raise TypeError(
                f"the function that judges claim {self.id!r} returned a {type(parts).__name__}, "
                "expected that it yields measurements"
            )
        return Evidence.of(parts)


def claim(
    source: str,
    verdict: str,
    *,
    id: str | None = None,
    chapter: str | None = None,
    lost: bool = False,
    aliases: Sequence[str] = (),
) -> Callable[[Judge], Judge]:
    """Register the decorated function of no arguments as the judge of a claim.

    Its docstring is the statement: what the source asserts, in our words, Markdown with ``$...$``
    for mathematics. It yields ``at_most`` and ``at_least``, under ``under`` and ``otherwise`` or with
    ``corrected`` where the verdict asks for it, or ``untestable``.

    Parameters
    ----------
    source : str
        Key in the bibliography, a comma, and where in the source: ``"ioffe2015, Algorithm 1"``.
    verdict : str
        One of `VERDICTS`.
    id : str, optional
        Lower-case words joined by hyphens, unique in the book; by default the chapter's name and the
        function's.
    chapter : str, optional
        ``"wing/chapter"``, the place of the claim in the book; by default that of the module.
    lost : bool
        Whether the source at hand lost the formula in conversion, and it was derived anew.
    aliases : sequence of str
        Ids of rows that have become part of this one, to which readers may have linked.

    Raises
    ------
    ValueError
        If an argument is not of this form, the id is taken, there is no docstring, or the function
        takes arguments.
    """

    def register(judge: Judge) -> Judge:
        entry = _claim(judge, source, verdict, id, chapter, lost, tuple(aliases))
        for name in (entry.id, *entry.aliases):
            taken = _owner(name)
            if taken and _place(taken.judge) != _place(judge):
                raise ValueError(
                    f"id {name!r} is already the claim of {_place(taken.judge)}, expected an id that "
                    "is not taken"
                )
        REGISTRY[entry.id] = entry
        return judge

    return register


def _claim(judge, source, verdict, id, chapter, lost, aliases):
    parts = judge.__module__.split(".")
    chapter = "/".join(parts[-3:-1]) if chapter is None else chapter
    if not _CHAPTER.fullmatch(chapter):
        raise ValueError(
            f"chapter of the claim {judge.__name__} is {chapter!r}, expected 'wing/chapter', such as "
            "'mechanics/forward'"
        )
    if id is None:
        id = f"{chapter.split('/')[1]}-{judge.__name__}".replace("_", "-")
    for name in (id, *aliases):
        if not _ID.fullmatch(name):
            raise ValueError(f"id is {name!r}, expected lower-case words joined by hyphens")
    if not _SOURCE.fullmatch(source):
        raise ValueError(
            f"source of claim {id!r} is {source!r}, expected a bibliography key, a comma and a "
            "place in the source, such as 'ioffe2015, Algorithm 1'"
        )
    statement = " ".join((judge.__doc__ or "").split())
    if not statement:
        raise ValueError(f"claim {id!r} has no docstring, expected what the source asserts")
    if verdict not in VERDICTS:
        raise ValueError(
            f"verdict of claim {id!r} is {verdict!r}, expected one of {', '.join(VERDICTS)}"
        )
    if inspect.signature(judge).parameters:
        raise ValueError(
            f"the function that judges claim {id!r} takes {inspect.signature(judge)}, expected no "
            "arguments"
        )
    return Claim(id, source, statement, chapter, verdict, judge, lost, aliases)


def _owner(id):
    """The claim that has this id, or had it once."""
    return next((c for c in REGISTRY.values() if id == c.id or id in c.aliases), None)


def _place(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"
