"""What the five sources say, sentence by sentence and in our words, and where each is answered.

One file a source, in the source's order. A statement is answered by exactly one of: ``claims``, ids of
the ledger's rows that judge it; ``chapter``, where it is derived or defined; ``why``, the reason that it
cannot be checked; ``proposal``, how it could be judged, where no claim does yet (``open``).
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Statement:
    """One statement of a source; ``lost`` says that its formula was lost in conversion."""

    source: str
    section: str
    text: str
    claims: tuple[str, ...] = ()
    chapter: str = ""
    why: str = ""
    open: bool = False
    proposal: str = ""
    lost: bool = False


def files() -> list[Path]:
    """The files in which the statements stand, one a source."""
    return sorted(Path(__path__[0]).glob("*.toml"))


def read() -> list[Statement]:
    """The statements of all sources, in order."""
    found = []
    for path in files():
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in content["statement"]:
            entry = {**entry, "claims": tuple(entry.get("claims", ()))}
            found.append(Statement(source=content["source"], **entry))
    return found
