"""The command line of the recorded runs: ``python -m bncore.chapters.full explanations/depth``.

A chapter that rests on a long run has a module ``full_size`` with ``CONFIGURATION``, ``REDUCED``,
``run``, from a configuration to results, and ``PAPER`` where there is a paper whose size it can take;
``make full`` calls this command.
"""

import importlib
import sys
from pathlib import Path

from bncore.chapters import names
from bncore.lab import recorded


def module(chapter: str):
    """The module ``full_size`` of a chapter.

    Raises
    ------
    ValueError
        If the chapter has none.
    """
    found = [name for name in names() if importlib.util.find_spec(_dotted(name)) is not None]
    if chapter not in found:
        raise ValueError(f"chapter is {chapter!r}, expected one of {', '.join(found)}")
    return importlib.import_module(_dotted(chapter))


def path(chapter: str) -> Path:
    """Where the recorded run of a chapter is kept."""
    return Path(module(chapter).__file__).with_name("recorded.json")


def main(chapter: str, arguments: list[str]) -> None:
    """Make the recorded run of a chapter again, or what an option says; see ``recorded.command``."""
    of = module(chapter)
    recorded.command(
        path(chapter),
        of.run,
        configuration=of.CONFIGURATION,
        reduced=of.REDUCED,
        paper=getattr(of, "PAPER", None),
        run_paper=getattr(of, "run_paper", None),
        others=getattr(of, "OTHERS", None),
        arguments=arguments,
    )


def _dotted(chapter):
    return f"bncore.chapters.{chapter.replace('/', '.')}.full_size"


if __name__ == "__main__":
    try:
        main((sys.argv[1:] or [""])[0], sys.argv[2:])
    except ValueError as error:
        sys.exit(f"Which chapter? {error}")
