"""What single chapters need besides the mathematics: claims, exercises and longer figures.

`ledger` runs a chapter's claims, or all of them; `check` judges a learner's answer to an exercise.
Both find the modules `<wing>/<chapter>/claims.py` and `exercises.py` by their names.
"""

import importlib
import importlib.util
import os
import pkgutil

from tqdm.auto import tqdm

from bncore.page import claims, exercises
from bncore.page.ledger import Ledger

__all__ = ["check", "discover", "ledger", "names"]

# As in the table of contents, which an installed package does not see.
READING_ORDER = (
    "mechanics/scaling",
    "mechanics/forward",
    "mechanics/backward",
    "mechanics/inference",
    "explanations/covariate_shift",
    "explanations/scale_invariance",
    "explanations/smoothness",
    "explanations/depth",
    "explanations/noise",
    "convergence/decoupling",
    "convergence/least_squares",
    "convergence/halfspaces",
    "convergence/neural_networks",
)


def names() -> list[str]:
    """Return the chapters that have a package, as ``"wing/chapter"``, in the order of the book."""
    wings = [wing.name for wing in pkgutil.iter_modules(__path__) if wing.ispkg]
    found = [
        f"{wing}/{chapter.name}"
        for wing in wings
        for chapter in pkgutil.iter_modules([f"{path}/{wing}" for path in __path__])
        if chapter.ispkg
    ]
    return sorted(found, key=_place)


def _place(chapter: str) -> tuple[bool, int, str]:
    listed = chapter in READING_ORDER
    return not listed, READING_ORDER.index(chapter) if listed else 0, chapter


def discover(kind: str, chapter: str | None = None) -> None:
    """Import the module called `kind` of one chapter, or of every chapter that has one.

    Raises
    ------
    ValueError
        If there is no such chapter.
    """
    if chapter is not None and chapter not in names():
        raise ValueError(f"chapter is {chapter!r}, expected one of {', '.join(names())}")
    for name in names() if chapter is None else [chapter]:
        module = f"{__name__}.{name.replace('/', '.')}.{kind}"
        if importlib.util.find_spec(module):
            importlib.import_module(module)


def ledger(chapter: str | None = None) -> Ledger:
    """Judge the claims of a chapter, or of the whole book, and return them for display.

    Parameters
    ----------
    chapter : str, optional
        ``"wing/chapter"``; without it every claim of the book is judged.

    Raises
    ------
    ValueError
        If there is no such chapter.
    """
    discover("claims", chapter)
    chosen = [entry for entry in claims.REGISTRY.values() if chapter in (None, entry.chapter)]
    chosen.sort(key=lambda entry: _place(entry.chapter))
    watched = os.environ.get("BNCORE_FACE", "live") == "live"
    bar = tqdm(chosen, desc="Judging claims", delay=2, leave=False) if watched else chosen
    judged = [(entry, entry.evidence()) for entry in bar]
    return Ledger(judged, whole_book=chapter is None)


def check(name: str, answer: object) -> exercises.Result:
    """Compare an answer to the exercise `name` with the reference on generated inputs.

    Parameters
    ----------
    name : str
        The exercise, as the chapter calls it.
    answer : callable
        The learner's function.

    Returns
    -------
    Result
        Displays as text: the verdict, and a smallest input on which the answer is wrong.
    """
    discover("exercises")
    return exercises.check(name, answer)
