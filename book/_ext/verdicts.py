"""The roles `claim` and `claims`: what the ledger says, in a chapter's own words.

    - Momentum is a window of nineteen batches. {claim}`inference-window`

    {claims}`mechanics/inference`

The first gives the verdict, from the registry, and leads to the row; the second leads to all rows of a chapter and
counts them. `of_claim` and `of_chapter` are what every edition of the book shows.
"""

import difflib

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole
from sphinx.util.osutil import relative_uri

LEDGER = "book/claims.html"

_log = logging.getLogger(__name__)


class NotThere(LookupError):
    """Which name is in no ledger, and which it may have been."""


def of_claim(name):
    """The verdict on a claim, its sign, and where on the site its row stands.

    Raises
    ------
    NotThere
        If there is no claim of this id, nor has been.
    """
    from bncore.page.ledger import SYMBOLS

    registry = _registry()
    found = [one for one in registry.values() if name in (one.id, *one.aliases)]
    if not found:
        near = difflib.get_close_matches(name, registry, n=3)
        raise NotThere(f"there is no claim {name!r} in the ledger{_hint(near)}")
    verdict = found[0].verdict
    return verdict, SYMBOLS[verdict], f"{LEDGER}#claim-{found[0].id}"


def of_chapter(name):
    """How many claims a chapter has, and where on the site its rows stand.

    Raises
    ------
    NotThere
        If there is no such chapter, or it has no claims.
    """
    from bncore.page.ledger import anchor

    chapters = [claim.chapter for claim in _registry().values()]
    if name not in chapters:
        near = difflib.get_close_matches(name, set(chapters), n=3)
        raise NotThere(f"there is no chapter {name!r} in the ledger{_hint(near)}")
    return chapters.count(name), f"{LEDGER}#{anchor(name)}"


def _registry():
    from bncore.chapters import discover
    from bncore.page.claims import REGISTRY

    discover("claims")
    return REGISTRY


def _hint(near):
    return f", expected such as {', '.join(near)}" if near else ""


class _Link(nodes.reference):
    """A link to the ledger; the way there depends on the page and is found when it is written."""


class _Sign(nodes.inline):
    """The sign of a verdict, whose name a screen reader need not say."""


class Verdict(SphinxRole):
    """The verdict on a claim."""

    def run(self):
        try:
            verdict, sign, target = of_claim(self.text)
        except NotThere as error:
            _log.warning("claim: %s", error, location=self.get_location(), type="claim")
            return [], []
        words = [_Sign("", sign), nodes.Text(f" {verdict}")]
        classes = ["bn-verdict", f"bn-{verdict}"]
        return [_Link("", "", *words, target=target, classes=classes)], []


class Rows(SphinxRole):
    """The rows of a chapter."""

    def run(self):
        try:
            count, target = of_chapter(self.text)
        except NotThere as error:
            _log.warning("claims: %s", error, location=self.get_location(), type="claim")
            return [], []
        words = (
            f"All {count} claims of this chapter, with their evidence"
            if count > 1
            else "The claim of this chapter, with its evidence"
        )
        return [_Link(words, words, target=target)], []


def _find_the_way(app, doctree, docname):
    for link in list(doctree.findall(_Link)):
        page, _, place = link["target"].partition("#")
        way = f"{relative_uri(app.builder.get_target_uri(docname), page)}#{place}"
        found = nodes.reference("", "", *link.children, refuri=way, internal=True)
        found["classes"] = link["classes"]
        link.replace_self(found)


def _open_sign(self, node):
    self.body.append('<span aria-hidden="true">')


def _close_sign(self, node):
    self.body.append("</span>")


def setup(app):
    app.add_node(_Sign, html=(_open_sign, _close_sign))
    app.add_role("claim", Verdict())
    app.add_role("claims", Rows())
    app.connect("doctree-resolved", _find_the_way)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
