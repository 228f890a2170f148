"""The claims ledger as a reader sees it: a line of text a claim, or a table in HTML.

The environment variable BNCORE_PAGE_ROOT is the way from the page to the root of the built site;
without it nothing is linked. BNCORE_FACE is `text` where only text is recorded.
"""

import ast
import inspect
import os
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from bncore.page.claims import VERDICTS, Claim
from bncore.page.evidence import Evidence, Measurement

SYMBOLS = {
    "holds": "✓",
    "fails": "✗",
    "depends": "◐",
    "misprinted": "✎",
    "undecided": "!",
    "untestable": "–",
}
LOST = "the source at hand lost this formula in conversion; it is derived anew"
RETOLD_MARK = (
    '<span class="bn-retold" title="the text of this source was not at hand; the statement is as '
    'others retell it">, retold</span>'
)

_INLINE = re.compile(
    r"\$(?P<math>[^$]+)\$(?P<closing>[.,;:!?)\]]*)|`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\*(?P<em>[^*]+)\*"
)


@dataclass(frozen=True)
class Ledger:
    """Claims with their evidence, displayed as text or as tables.

    Parameters
    ----------
    entries : sequence of (Claim, Evidence)
        What was claimed and what was measured.
    whole_book : bool
        Whether this is the ledger of the book, which has a summary, filters and chapters to unfold.
    titles : mapping of str to str
        What a chapter is called; by default what its name says.
    seen : collection of str, optional
        Sources whose text was at hand. The rows of others say that they are retold.
    """

    entries: Sequence[tuple[Claim, Evidence]]
    whole_book: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)
    seen: Collection[str] | None = None

    def __repr__(self) -> str:
        width = max((len(claim.id) for claim, _ in self.entries), default=0)
        lines = [f"{claim.id:{width}}  {_judged(claim, ev)}" for claim, ev in self.entries]
        return "\n".join([*lines, _count(evidence.verdict for _, evidence in self.entries)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        if os.environ.get("BNCORE_FACE") == "text":
            return {"text/plain": repr(self)}
        return {"text/html": self.html(), "text/plain": repr(self)}

    def html(self) -> str:
        """Return a table, or for the whole book a summary with one folded table a chapter.

        The filters stay hidden until `ledger.js` brings them to life.
        """
        if not self.whole_book:
            count = _count(evidence.verdict for _, evidence in self.entries)
            return f'<div class="bn-ledger">{_table(self.entries, count, self.seen)}</div>'
        wings: dict[str, dict[str, list]] = {}
        for claim, evidence in self.entries:
            chapters = wings.setdefault(claim.chapter.split("/")[0], {})
            chapters.setdefault(claim.chapter, []).append((claim, evidence))
        sections = "".join(
            f'<section class="bn-wing" id="claims-of-{wing}"><h3>{_named(wing)}</h3>'
            f"{''.join(self._chapter(*chapter) for chapter in chapters.items())}</section>"
            for wing, chapters in wings.items()
        )
        return f'<div class="bn-ledger">{self._summary(wings)}{self._filters()}{sections}</div>'

    def _summary(self, wings) -> str:
        """How many claims of each chapter have each verdict."""
        verdicts = self._verdicts()
        head = "".join(
            f'<th scope="col"><span aria-hidden="true">{SYMBOLS[verdict]}</span> '
            f'<span class="bn-word">{verdict}</span></th>'
            for verdict in verdicts
        )

        def line(name, entries):
            counts = Counter(evidence.verdict for _, evidence in entries)
            numbers = [counts[verdict] for verdict in verdicts] + [counts.total()]
            return f"<tr>{name}{''.join(f'<td>{number}</td>' for number in numbers)}</tr>"

        bodies = ""
        for wing, chapters in wings.items():
            bodies += f'<tbody><tr><th scope="rowgroup" colspan="{len(verdicts) + 2}">{_named(wing)}</th></tr>'
            for chapter, entries in chapters.items():
                link = _link(self._title(chapter), f"claims.html#{anchor(chapter)}")
                bodies += line(f'<th scope="row">{link}</th>', entries)
            bodies += "</tbody>"
        total = line('<th scope="row">The book</th>', self.entries)
        return (
            f'<table class="bn-summary"><caption>{_count(e.verdict for _, e in self.entries)}</caption>'
            f'<thead><tr><th scope="col">Chapter</th>{head}<th scope="col">all</th></tr></thead>'
            f"{bodies}<tfoot>{total}</tfoot></table>"
        )

    def _chapter(self, chapter: str, entries: Sequence[tuple[Claim, Evidence]]) -> str:
        title = escape(self._title(chapter))
        count = _count(evidence.verdict for _, evidence in entries)
        link = _link(chapter, f"{chapter.removeprefix('front/')}.html")
        return (
            f'<details class="bn-chapter"><summary><h4>{title}</h4> '
            f'<span class="bn-count">{count}</span></summary>'
            f'<p class="bn-from" id="{anchor(chapter)}">Chapter {link}</p>'
            f"{_table(entries, f'Claims of {title}', self.seen)}</details>"
        )

    def _title(self, chapter: str) -> str:
        return self.titles.get(chapter) or _named(chapter)

    def _verdicts(self) -> list[str]:
        return [v for v in SYMBOLS if any(e.verdict == v for _, e in self.entries)]

    def _filters(self) -> str:
        choices = {
            "verdict": self._verdicts(),
            "chapter": list(dict.fromkeys(claim.chapter for claim, _ in self.entries)),
            "source": sorted({claim.key for claim, _ in self.entries}),
        }
        selects = "".join(
            f'<label>{name.capitalize()} <select name="{name}"><option value="">all</option>'
            f"{''.join(f'<option>{escape(value)}</option>' for value in values)}</select></label>"
            for name, values in choices.items()
        )
        return (
            '<form class="bn-ledger-filters" aria-label="Filter the claims" hidden>'
            f'{selects}<label>Text <input type="search" name="text"></label>'
            '<button type="button">Open all chapters</button></form>'
            '<p class="bn-ledger-count" role="status" aria-live="polite" hidden></p>'
        )


def _named(place: str) -> str:
    return place.split("/")[-1].replace("_", " ").capitalize()


def anchor(chapter: str) -> str:
    """Return the id at which the rows of a chapter begin in the ledger of the book."""
    return f"claims-of-{escape(chapter.replace('/', '-'))}"


def _table(
    entries: Sequence[tuple[Claim, Evidence]], caption: str, seen: Collection[str] | None
) -> str:
    # Roles are spelled out: on a phone the rows are cards, and no table to a browser.
    head = "".join(
        f'<th scope="col" role="columnheader">{name}</th>'
        for name in ("Verdict", "Claim", "Source")
    )
    rows = "".join(
        _row(claim, evidence, seen is not None and claim.key not in seen)
        for claim, evidence in entries
    )
    return (
        f'<table class="bn-claims" role="table"><caption>{caption}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
    )


def _row(claim: Claim, evidence: Evidence, retold: bool) -> str:
    verdict = evidence.verdict
    source = _link(claim.key, f"bibliography.html#cite-{claim.key}")
    return (
        f'<tr role="row" id="claim-{claim.id}" data-verdict="{verdict}" '
        f'data-chapter="{claim.chapter}" data-source="{claim.key}">'
        f'<td role="cell" data-label="Verdict">{_badge(claim, verdict)}</td>'
        '<th scope="row" role="rowheader" data-label="Claim">'
        f'<div class="bn-statement">{_anchors(claim)}{inline(claim.statement)}</div>'
        f"{_condition(evidence)}{_lost(claim)}"
        f"{_details(claim, evidence)}</th>"
        f'<td role="cell" data-label="Source">{source}, {inline(claim.locator)}'
        f"{RETOLD_MARK if retold else ''}</td></tr>"
    )


def inline(markdown: str) -> str:
    r"""Return HTML for a line of Markdown: ``$...$``, ``code``, emphasis and plain text.

    Mathematics is delimited by ``\(`` and ``\)`` and marked as Sphinx marks it, so that MathJax
    finds it inside an output. Punctuation stays on the line of the formula before it.
    """
    parts, end = [], 0
    for match in _INLINE.finditer(markdown):
        parts.append(escape(markdown[end : match.start()], quote=False))
        if match["math"]:
            body = escape(match["math"], quote=False)
            formula = f'<span class="math notranslate nohighlight">\\({body}\\)</span>'
            mark = match["closing"]
            parts.append(f'<span class="bn-keep">{formula}{mark}</span>' if mark else formula)
        else:
            body = escape(match[match.lastgroup], quote=False)
            parts.append(f"<{match.lastgroup}>{body}</{match.lastgroup}>")
        end = match.end()
    return "".join([*parts, escape(markdown[end:], quote=False)])


def _judged(claim: Claim, evidence: Evidence) -> str:
    if evidence.verdict == claim.verdict:
        return claim.verdict
    return f"{evidence.verdict} (recorded: {claim.verdict})"


def _count(verdicts: Iterable[str]) -> str:
    counts = Counter(verdicts)
    named = ", ".join(f"{counts[verdict]} {verdict}" for verdict in SYMBOLS if counts[verdict])
    claims = "1 claim" if counts.total() == 1 else f"{counts.total()} claims"
    return f"{claims}: {named}" if named else claims


def _link(text: str, page: str) -> str:
    root = os.environ.get("BNCORE_PAGE_ROOT")
    shown = escape(text).replace("/", "/<wbr>")
    if root is None:
        return shown
    prefix = f"{root.rstrip('/')}/" if root else ""
    return f'<a href="{escape(prefix)}book/{escape(page)}">{shown}</a>'


def _anchors(claim: Claim) -> str:
    """Where links to rows that have become part of this one lead."""
    return "".join(f'<span id="claim-{alias}"></span>' for alias in claim.aliases)


def _condition(evidence: Evidence) -> str:
    if evidence.verdict != "depends":
        return ""
    return f'<p class="bn-condition">Condition: {inline(evidence.condition)}</p>'


def _lost(claim: Claim) -> str:
    return f'<p class="bn-lost" title="{LOST}">Lost in conversion</p>' if claim.lost else ""


def _badge(claim: Claim, verdict: str) -> str:
    meaning = VERDICTS[verdict]
    recorded = "" if verdict == claim.verdict else f" <span>(recorded: {claim.verdict})</span>"
    return (
        f'<span class="bn-verdict bn-{verdict}" title="{meaning}">'
        f'<span aria-hidden="true">{SYMBOLS[verdict]}</span> {verdict}</span>{recorded}'
    )


def _details(claim: Claim, evidence: Evidence) -> str:
    parts = []
    for group in evidence.groups:
        items = "".join(_measurement(measurement) for measurement in group.measurements)
        listed = f"<ul>{items}</ul>" if items else ""
        parts.append(f'<p class="bn-heading">{inline(group.heading)}</p>{listed}')
    place = f"{claim.judge.__module__}.{claim.judge.__qualname__}"
    name = _link(claim.id, f"claims.html#claim-{claim.id}")
    return (
        f"<details><summary>Evidence</summary>{''.join(parts)}"
        f'<p class="bn-heading">Judged by <code>{escape(place)}</code></p>{_source_code(claim)}'
        f'<p class="bn-id">{name}</p></details>'
    )


def _measurement(measurement: Measurement) -> str:
    sign = "✓ holds" if measurement.holds else "✗ fails" if measurement.fails else "! undecided"
    wide = measurement.low < measurement.high
    interval = f" ({measurement.low:.2g} to {measurement.high:.2g})" if wide else ""
    return (
        f"<li>{inline(measurement.what)}: <strong>{measurement.value:.2g}</strong>{interval}, threshold "
        f"{measurement.relation} {measurement.threshold:.3g} "
        f'<span class="bn-sign">{sign}</span></li>'
    )


def _without_docstring(code: str) -> str:
    """The code of a function less its docstring, which stands above as the statement."""
    first, *rest = ast.parse(code).body[0].body
    if not rest or not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return code
    lines = code.splitlines(keepends=True)
    return "".join(lines[: first.lineno - 1] + lines[first.end_lineno :])


def _source_code(claim: Claim) -> str:
    try:
        code = textwrap.dedent(inspect.getsource(claim.judge))
    except (OSError, TypeError):
        return ""
    if function := re.search(r"^def ", code, re.MULTILINE):
        code = _without_docstring(code[function.start() :])
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
    except ImportError:
        body = escape(code)
    else:
        body = highlight(code, PythonLexer(), HtmlFormatter(nowrap=True))
    label = f"Code that judges {claim.id}"
    return (
        '<div class="highlight-python notranslate"><div class="highlight">'
        f'<pre tabindex="0" role="region" aria-label="{label}">{body}</pre></div></div>'
    )
