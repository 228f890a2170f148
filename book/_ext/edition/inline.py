"""Inline Markdown, scanned once: escapes, code spans, formulas, roles and links.

A backtick inside a formula opens no code span, a bracket inside a code span opens no link, and so on: whoever begins
first, wins. Separate passes pair them wrongly.
"""

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<escape>\\[^\w\s])
  | \{(?P<name>[a-zA-Z0-9_:+-]+)\}(?P<fence>`++)(?P<role>.+?)(?P=fence)
  | (?P<ticks>`++)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)
  | `+
  | \$\$(?P<display>(?:\\.|[^$\\])+)\$\$(?!\$)
  | (?P<math>\$(?:\\.|[^$\\])+\$)
  | (?P<auto><[a-zA-Z][a-zA-Z0-9+.-]*:[^\s<>]*>)
  | (?P<footnote>\[\^[^\]\s]+\])
  | (?P<substitution>\{\{.+?\}\})
  | (?P<open>!?\[)
  | (?P<close>\])
    """,
    re.VERBOSE | re.DOTALL,
)
_DESTINATION = re.compile(
    r"""\(\s*(?:<(?P<pointed>[^<>\n]*)>|(?P<bare>(?:[^\s()\\]|\\.|\([^\s()]*\))*))"""
    r"""(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)"""
)


class Seen(NamedTuple):
    """Something that is no plain text: its kind, what it holds, and for a role its name."""

    kind: str
    content: str
    name: str = ""


def scan(text, write):
    """`text` with everything that is no plain text replaced by what `write` makes of it.

    Parameters
    ----------
    text : str
        The Markdown of one paragraph, heading or row of a table.
    write : callable
        Takes a `Seen` and the Markdown that stands there, and returns the Markdown to stand there. The kinds are
        "role", "code", "math" (with its dollars), "display", "footnote", "substitution", "link" and "image"; a link
        holds its destination, and its text, already written, is the name.
    """
    out, brackets, at = [], [], 0
    while match := _TOKEN.search(text, at):
        out.append(text[at : match.start()])
        at = match.end()
        kind = match.lastgroup
        if kind == "role":
            out.append(write(Seen(kind, match["role"], match["name"]), match[0]))
        elif kind in ("code", "math", "display", "footnote", "substitution"):
            out.append(write(Seen(kind, match[kind]), match[0]))
        elif kind == "open":
            brackets.append(len(out))
            out.append(match[0])
        elif kind == "close" and brackets:
            start = brackets.pop()
            link = _DESTINATION.match(text, at)
            if link is None:
                out.append(match[0])
                continue
            at = link.end()
            bang, words = out[start].startswith("!"), "".join(out[start + 1 :])
            destination = link["bare"] if link["pointed"] is None else link["pointed"]
            seen = Seen("image" if bang else "link", destination, words)
            out[start:] = [write(seen, f"{out[start]}{words}]{link[0]}")]
            if not bang:  # a link holds no other
                brackets = [place for place in brackets if out[place].startswith("!")]
        else:
            out.append(match[0])
    return "".join([*out, text[at:]])
