"""The claims ledger as a reader sees it: a line of text a claim, or a table in HTML.

The environment variable BNCORE_PAGE_ROOT is the way from the page to the root of the built site;
without it nothing is linked. BNCORE_FACE is `text` where only text is recorded.
"""

import inspect
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from bncore.page.claims import UNDECIDED, VERDICTS, Claim, Evidence, Measurement

SYMBOLS = {
    "holds": "✓",
    "fails": "✗",
    "depends": "◐",
    "misprinted": "✎",
    "untestable": "–",
    UNDECIDED: "!",
}

_INLINE = re.compile(
    r"\$(?P<math>[^$]+)\$(?P<closing>[.,;:!?)\]]*)|`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\*(?P<em>[^*]+)\*"
)


@dataclass(frozen=True)
class Ledger:
    """Claims with their evidence, displayed as text or as a table.

    Parameters
    ----------
    entries : sequence of (Claim, Evidence)
        What was claimed and what was measured.
    whole_book : bool
        Whether this is the ledger of the book, which has filters and names each claim's chapter.
    """

    entries: Sequence[tuple[Claim, Evidence]]
    whole_book: bool = False

    def __repr__(self) -> str:
        width = max((len(claim.id) for claim, _ in self.entries), default=0)
        lines = [f"{claim.id:{width}}  {_judged(claim, ev)}" for claim, ev in self.entries]
        return "\n".join([*lines, _count(evidence.verdict for _, evidence in self.entries)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        if os.environ.get("BNCORE_FACE") == "text":
            return {"text/plain": repr(self)}
        return {"text/html": self.html(), "text/plain": repr(self)}

    def html(self) -> str:
        """Return the table, with the filters where it is the ledger of the whole book.

        The filters stay hidden until `ledger.js` brings them to life.
        """
        columns = ["Verdict", "Claim", "Source", *(["Chapter"] if self.whole_book else [])]
        head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in columns)
        rows = "".join(self._row(claim, evidence) for claim, evidence in self.entries)
        count = _count(evidence.verdict for _, evidence in self.entries)
        return (
            '<div class="bn-ledger">'
            f"{self._filters() if self.whole_book else ''}"
            '<table role="table">'
            f"<caption>{count}</caption>"
            f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
            f'<tbody role="rowgroup">{rows}</tbody></table></div>'
        )

    def _row(self, claim: Claim, evidence: Evidence) -> str:
        verdict = evidence.verdict
        source = _link(claim.key, f"bibliography.html#cite-{claim.key}")
        cells = [
            f'<td role="cell" data-label="Verdict">{_badge(claim, verdict)}</td>',
            '<th scope="row" role="rowheader" data-label="Claim">'
            f'<div class="bn-statement">{inline(claim.statement)}</div>'
            f"{_details(claim, evidence)}</th>",
            f'<td role="cell" data-label="Source">{source}, {inline(claim.locator)}</td>',
        ]
        if self.whole_book:
            chapter = _link(claim.chapter, f"{claim.chapter}.html")
            cells.append(f'<td role="cell" data-label="Chapter">{chapter}</td>')
        return (
            f'<tr role="row" id="claim-{claim.id}" data-verdict="{verdict}" '
            f'data-chapter="{claim.chapter}" data-source="{claim.key}">'
            f"{''.join(cells)}</tr>"
        )

    def _filters(self) -> str:
        choices = {
            "verdict": [v for v in SYMBOLS if any(e.verdict == v for _, e in self.entries)],
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
            f'{selects}<label>Text <input type="search" name="text"></label></form>'
            '<p class="bn-ledger-count" role="status" aria-live="polite" hidden></p>'
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


def _badge(claim: Claim, verdict: str) -> str:
    meaning = VERDICTS.get(verdict, "the measurements decide nothing")
    recorded = "" if verdict == claim.verdict else f" <span>(recorded: {claim.verdict})</span>"
    return (
        f'<span class="bn-verdict bn-{verdict}" title="{meaning}">'
        f'<span aria-hidden="true">{SYMBOLS[verdict]}</span> {verdict}</span>{recorded}'
    )


def _details(claim: Claim, evidence: Evidence) -> str:
    parts = []
    for heading, measurements in evidence.groups():
        items = "".join(_measurement(measurement) for measurement in measurements)
        parts.append(f'<p class="bn-heading">{inline(heading)}</p><ul>{items}</ul>')
    if evidence.correction:
        parts.append(f'<p class="bn-heading">Correction</p><p>{inline(evidence.correction)}</p>')
    if evidence.reason:
        parts.append(f'<p class="bn-heading">Why not</p><p>{inline(evidence.reason)}</p>')
    place = f"{claim.judge.__module__}.{claim.judge.__qualname__}"
    name = _link(claim.id, f"claims.html#claim-{claim.id}")
    return (
        f"<details><summary>Evidence</summary>{''.join(parts)}"
        f'<p class="bn-heading">Judged by <code>{escape(place)}</code></p>{_source_code(claim)}'
        f'<p class="bn-id">{name}</p></details>'
    )


def _measurement(measurement: Measurement) -> str:
    sign = "✓ holds" if measurement.holds else "✗ fails" if measurement.fails else "! undecided"
    return (
        f"<li>{inline(measurement.what)}: <strong>{measurement.value:.2g}</strong>, threshold "
        f"{measurement.relation} {measurement.threshold:.3g} "
        f'<span class="bn-sign">{sign}</span></li>'
    )


def _source_code(claim: Claim) -> str:
    try:
        code = textwrap.dedent(inspect.getsource(claim.judge))
    except (OSError, TypeError):
        return ""
    if function := re.search(r"^def ", code, re.MULTILINE):
        code = code[function.start() :]
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
