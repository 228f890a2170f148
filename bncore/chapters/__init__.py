"""What single chapters need besides the mathematics: claims, exercises and longer figures.

`ledger` runs a chapter's claims, or all of them; `check` judges a learner's answer to an exercise.
Both find the modules `<wing>/<chapter>/claims.py` and `exercises.py` by their names, where there are
several `claims_of_this.py` as well, and a chapter that asks for its own imports no other.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from bncore.page import claims, exercises
from bncore.page.ledger import Ledger

__all__ = ["check", "discover", "ledger", "modules", "names"]

WINGS = ("front", "mechanics", "explanations", "convergence", "practice")


def names() -> list[str]:
    """Return the chapters that have a package, as ``"wing/chapter"``, in the order of the book."""
    from bncore.chapters.contents import TITLES

    found = [f"{wing}/{chapter}" for wing in WINGS for chapter in _packages(_folder(wing))]
    return sorted(found, key=_place(list(TITLES)))


def _place(order: list[str]) -> Callable[[str], int]:
    return lambda chapter: order.index(chapter) if chapter in order else len(order)


def _folder(name: str) -> Path:
    return Path(__path__[0], *name.split("/"))


def _packages(folder: Path) -> list[str]:
    return [found.name for found in pkgutil.iter_modules([str(folder)]) if found.ispkg]


def _exists(chapter: str) -> bool:
    wing, _, name = chapter.partition("/")
    return wing in WINGS and name.isidentifier() and (_folder(chapter) / "__init__.py").is_file()


def modules(chapter: str) -> tuple[str, ...]:
    """Return the modules behind a chapter, as ``"wing/module"``.

    They are those that its package declares as ``MODULES``, otherwise the one of its own name.

    Raises
    ------
    ValueError
        If there is no such chapter.
    """
    _require(chapter)
    package = importlib.import_module(f"{__name__}.{chapter.replace('/', '.')}")
    return tuple(getattr(package, "MODULES", (chapter,)))


def _require(chapter: str) -> None:
    if not _exists(chapter):
        raise ValueError(f"chapter is {chapter!r}, expected one of {', '.join(names())}")


def discover(kind: str, chapter: str | None = None) -> None:
    """Import the modules called `kind`, or `kind_` and more, of one chapter or of every one.

    Raises
    ------
    ValueError
        If there is no such chapter, or one of its exercises is not named after it.
    """
    if chapter is None:
        for name in names():
            discover(kind, name)
        return
    _require(chapter)
    package = f"{__name__}.{chapter.replace('/', '.')}"
    inside = sorted(found.name for found in pkgutil.iter_modules([str(_folder(chapter))]))
    parts = [f"{package}.{name}" for name in inside if f"{name}_".startswith(f"{kind}_")]
    for part in parts:
        importlib.import_module(part)
    for entry in exercises.REGISTRY.values() if kind == "exercises" else ():
        begin = f"{chapter.split('/')[1].replace('_', '-')}-"
        if entry.reference.__module__ in parts and not entry.name.startswith(begin):
            raise ValueError(
                f"an exercise of {chapter} is called {entry.name!r}, expected a name that begins "
                f"with {begin!r}: by that `check` finds it"
            )


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
    from bncore.chapters import statements
    from bncore.chapters.sources import NAMES

    titles, seen = {}, {one.source for one in statements.read()}
    if chapter is None:
        from bncore.chapters.contents import TITLES as titles

        place = _place(names())
        chosen.sort(key=lambda entry: place(entry.chapter))
    watched = os.environ.get("BNCORE_FACE", "live") == "live"
    bar = tqdm(chosen, desc="Judging claims", delay=2, leave=False) if watched else chosen
    judged = [(entry, entry.evidence()) for entry in bar]
    whole = chapter is None
    return Ledger(judged, whole_book=whole, titles=titles, seen=seen, sources=NAMES)


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
    for chapter in _chapters_of(name) or names():
        discover("exercises", chapter)
    return exercises.check(name, answer)


def _chapters_of(exercise: str) -> list[str]:
    """The chapters whose name an exercise's name begins with, found without a look at the others."""
    words = str(exercise).split("-")
    starts = ["_".join(words[:count]) for count in range(1, len(words))]
    return [f"{w}/{start}" for w in WINGS for start in starts if _exists(f"{w}/{start}")]
