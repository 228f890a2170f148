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
from bncore.page.labels import value_text

SYMBOLS = {
    "holds": "✓",
    "fails": "✗",
    "depends": "◐",
    "misprinted": "✎",
    "undecided": "!",
    "untestable": "–",
}
EXAMPLES = ("fails", "depends")
"""Verdicts of which the ledger of the book shows a row with its evidence on top."""

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
    sources : mapping of str to str
        What a source is called; by default its key.
    """

    entries: Sequence[tuple[Claim, Evidence]]
    whole_book: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)
    seen: Collection[str] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

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
            return f'<div class="bn-ledger">{self._table(self.entries, count)}</div>'
        wings: dict[str, dict[str, list]] = {}
        for claim, evidence in self.entries:
            chapters = wings.setdefault(claim.chapter.split("/")[0], {})
            chapters.setdefault(claim.chapter, []).append((claim, evidence))
        sections = "".join(
            f'<section class="bn-wing" id="claims-of-{wing}"><h3>{_named(wing)}</h3>'
            f"{''.join(self._chapter(*chapter) for chapter in chapters.items())}</section>"
            for wing, chapters in wings.items()
        )
        return (
            f'<div class="bn-ledger">{self._summary(wings)}{self._examples()}{self._filters()}'
            f"{sections}</div>"
        )

    def _summary(self, wings) -> str:
        """How many claims of each chapter have each verdict."""
        verdicts = self._verdicts()
        head = "".join(
            f'<th scope="col"><span aria-hidden="true">{SYMBOLS[verdict]}</span>&nbsp;'
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

    def _examples(self) -> str:
        """The first row of each of two verdicts that surprise, with its evidence open."""
        firsts = {evidence.verdict: (claim, evidence) for claim, evidence in self.entries[::-1]}
        rows = [firsts[verdict] for verdict in EXAMPLES if verdict in firsts]
        caption = "How to read a row: examples, with their evidence"
        return self._table(rows, caption, again=True) if rows else ""

    def _chapter(self, chapter: str, entries: Sequence[tuple[Claim, Evidence]]) -> str:
        title = escape(self._title(chapter))
        count = _count(evidence.verdict for _, evidence in entries)
        link = _link(chapter, f"{chapter.removeprefix('front/')}.html")
        return (
            f'<details class="bn-chapter"><summary><h4>{title}</h4> '
            f'<span class="bn-count">{count}</span></summary>'
            f'<p class="bn-from" id="{anchor(chapter)}">Chapter {link}</p>'
            f"{self._table(entries, f'Claims of {title}')}</details>"
        )

    def _title(self, chapter: str) -> str:
        return self.titles.get(chapter) or _named(chapter)

    def _sources(self) -> dict[str, str]:
        return {claim.key: self._source(claim.key) for claim, _ in self.entries}

    def _source(self, key: str) -> str:
        return self.sources.get(key, key)

    def _verdicts(self) -> list[str]:
        return [v for v in SYMBOLS if any(e.verdict == v for _, e in self.entries)]

    def _filters(self) -> str:
        choices = {
            "verdict": {verdict: verdict for verdict in self._verdicts()},
            "chapter": {claim.chapter: self._title(claim.chapter) for claim, _ in self.entries},
            "source": dict(sorted(self._sources().items(), key=lambda named: named[1].lower())),
        }
        selects = "".join(
            f'<label>{name.capitalize()} <select name="{name}"><option value="">all</option>'
            f"{''.join(_option(*choice) for choice in values.items())}</select></label>"
            for name, values in choices.items()
        )
        return (
            '<form class="bn-ledger-filters" aria-label="Filter the claims" hidden>'
            f'{selects}<label>Text <input type="search" name="text"></label>'
            '<button type="button">Open all chapters</button></form>'
            '<p class="bn-ledger-count" role="status" aria-live="polite" hidden></p>'
        )

    def _table(
        self, entries: Sequence[tuple[Claim, Evidence]], caption: str, again: bool = False
    ) -> str:
        # Roles are spelled out: on a phone the rows are cards, and no table to a browser.
        head = "".join(
            f'<th scope="col" role="columnheader">{name}</th>'
            for name in ("Verdict", "Claim", "Source")
        )
        rows = "".join(self._row(claim, evidence, again) for claim, evidence in entries)
        kind = "bn-claims bn-examples" if again else "bn-claims"
        return (
            f'<table class="{kind}" role="table"><caption>{caption}</caption>'
            f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
            f'<tbody role="rowgroup">{rows}</tbody></table>'
        )

    def _row(self, claim: Claim, evidence: Evidence, again: bool) -> str:
        """A row, which has ids unless it is shown again, with its evidence open."""
        verdict = evidence.verdict
        source = _link(self._source(claim.key), f"bibliography.html#cite-{claim.key}")
        retold = self.seen is not None and claim.key not in self.seen
        own = "" if again else f' id="claim-{claim.id}"'
        return (
            f'<tr role="row"{own} data-verdict="{verdict}" '
            f'data-chapter="{claim.chapter}" data-source="{claim.key}">'
            f'<td role="cell" data-label="Verdict">{_badge(claim, verdict)}</td>'
            '<th scope="row" role="rowheader" data-label="Claim">'
            f'<div class="bn-statement">{"" if again else _anchors(claim)}{inline(claim.statement)}</div>'
            f"{_condition(evidence)}{_lost(claim)}"
            f"{_details(claim, evidence, again)}</th>"
            f'<td role="cell" data-label="Source">{source}, {inline(claim.locator)}'
            f"{RETOLD_MARK if retold else ''}</td></tr>"
        )


def _option(value: str, words: str) -> str:
    return f'<option value="{escape(value)}">{escape(words)}</option>'


def _named(place: str) -> str:
    return place.split("/")[-1].replace("_", " ").capitalize()


def anchor(chapter: str) -> str:
    """Return the id at which the rows of a chapter begin in the ledger of the book."""
    return f"claims-of-{escape(chapter.replace('/', '-'))}"


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


def _details(claim: Claim, evidence: Evidence, is_open: bool) -> str:
    parts = []
    for group in evidence.groups:
        items = "".join(_measurement(measurement) for measurement in group.measurements)
        listed = f"<ul>{items}</ul>" if items else ""
        parts.append(f'<p class="bn-heading">{inline(group.heading)}</p>{listed}')
    place = f"{claim.judge.__module__}.{claim.judge.__qualname__}"
    name = _link(claim.id, f"claims.html#claim-{claim.id}")
    return (
        f"<details{' open' if is_open else ''}><summary>Evidence</summary>{''.join(parts)}"
        f'<p class="bn-heading">Judged by <code>{escape(place)}</code></p>{_source_code(claim)}'
        f'<p class="bn-id">{name}</p></details>'
    )


def _measurement(measurement: Measurement) -> str:
    sign = "✓ holds" if measurement.holds else "✗ fails" if measurement.fails else "! undecided"
    wide = measurement.low < measurement.high
    value, low, high = map(_two_digits, (measurement.value, measurement.low, measurement.high))
    interval = f" ({low} to {high})" if wide else ""
    return (
        f"<li>{inline(measurement.what)}: <strong>{value}</strong>{interval}, threshold "
        f"{measurement.relation} {value_text(float(f'{measurement.threshold:.3g}'))} "
        f'<span class="bn-sign">{sign}</span></li>'
    )


def _two_digits(number: float) -> str:
    return value_text(float(f"{number:.2g}"))


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
