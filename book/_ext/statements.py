"""The directive `statements`: what the sources say, sentence by sentence, and what became of it.

    ```{statements}
    ```

counts the statements of all sources by their answers and verdicts;

    ```{statements} sharad
    ```

lists those of one source, a fold for each of its sections, in its order. `overview` and `sections` give the Markdown.
"""

import difflib
import itertools
from collections import Counter

from docutils import nodes
from folds import fold
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from verdicts import of_claim

SEVERAL = "several"
PLURAL = {
    "holds": "✓ hold", "depends": "◐ depend", "fails": "✗ fail", "misprinted": "✎ are misprinted",
    "undecided": "! are undecided", "untestable": "– are untestable",
    SEVERAL: "make several claims, with different verdicts",
}  # fmt: skip

_log = logging.getLogger(__name__)


class NotThere(LookupError):
    """Which source was asked for, and which there are."""


def overview(statements, chapters):
    """How many statements are answered in which way, as a table in Markdown.

    Parameters
    ----------
    statements : list of Statement
    chapters : collection of str
        The chapters that the book has; a statement of another waits for it.
    """
    answers = Counter(answer(one, chapters) for one in statements)
    rows = [
        ("have a verdict in the [ledger](claims.ipynb); of these", answers["claims"]),
        *((f"… {words}", number) for words, number in _by_verdict(statements)),
        ("are derived or defined in a chapter", answers["chapter"]),
        ("wait for a chapter that is not written yet", answers["waits"]),
        ("cannot be checked, for the reason that stands beside them", answers["why"]),
        ("have no answer yet", answers["open"]),
    ]
    table = "\n".join(f"| {words} | {number} |" for words, number in rows if number)
    head = f"| Of {len(statements)} statements | |\n|---|--:|"
    return f"{head}\n{table}"


def answer(statement, chapters):
    """The way in which a statement is answered: "claims", "chapter", "waits", "why" or "open"."""
    if statement.claims:
        return "claims"
    if statement.chapter:
        return "chapter" if statement.chapter in chapters else "waits"
    return "why" if statement.why else "open"


def verdict(statement):
    """The verdict on the claims of a statement, SEVERAL where they have different ones."""
    found = {of_claim(name)[0] for name in statement.claims}
    return found.pop() if len(found) == 1 else SEVERAL


def _by_verdict(statements):
    found = Counter(verdict(one) for one in statements if one.claims)
    return [(words, found[name]) for name, words in PLURAL.items()]


def sections(source, statements, chapters):
    """The sections of a source: each with its title, its number of statements, and these in Markdown.

    Raises
    ------
    NotThere
        If no statement is of this source.
    """
    own = [one for one in statements if one.source == source]
    if not own:
        known = sorted({one.source for one in statements})
        near = difflib.get_close_matches(source, known, n=1) or known
        raise NotThere(f"there is no source {source!r}, expected {', '.join(near)}")
    found = []
    for title, group in itertools.groupby(own, key=lambda one: one.section):
        lines = [f"- {item(one, chapters)}" for one in group]
        found.append((title, len(lines), "\n".join(lines)))
    return found


def item(statement, chapters):
    """A statement with its answer, in Markdown."""
    lost = " (The formula was lost in conversion.)" if statement.lost else ""
    answers = {
        "claims": " ".join(f"{{claim}}`{name}`" for name in statement.claims),
        "chapter": f"→ [](/book/{statement.chapter}.ipynb)",
        "waits": "*Its chapter is not written yet.*",
        "why": f"*Not checked.* {statement.why}",
        "open": f"*Not judged yet.* {statement.proposal}",
    }
    return f"{statement.text}{lost} {answers[answer(statement, chapters)]}"


class Statements(SphinxDirective):
    """The statements of a source, or how many there are of all."""

    optional_arguments = 1

    def run(self):
        from bncore.chapters import names
        from bncore.chapters.statements import files, read

        for path in files():
            self.env.note_dependency(str(path))
        if not self.arguments:
            return self.parse_text_to_nodes(overview(read(), names()))
        try:
            found = sections(self.arguments[0], read(), names())
        except NotThere as error:
            _log.warning("statements: %s", error, location=self.get_location(), type="statements")
            return []
        return [
            self._fold(number, title, count, text)
            for number, (title, count, text) in enumerate(found, start=1)
        ]

    def _fold(self, number, title, count, text):
        body = nodes.container(classes=["bn-said"])
        body += self.parse_text_to_nodes(text)
        return fold(
            "", body, summary=f"{title} ({count})", ids=[f"said-{self.arguments[0]}-{number}"]
        )


def setup(app):
    app.add_directive("statements", Statements)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
