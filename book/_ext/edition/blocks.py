"""A Markdown cell of a page, block by block: what plain Markdown does not know is written as what it does.

Lines that hold nothing of the kind stay as they are.
"""

import re

from edition import inline
from edition.directives import HANDLERS, Directive
from edition.resolved import CannotDerive
from edition.written import linked, written

_DIRECTIVE = re.compile(r"\{(?P<name>[^\s{}]+)\}\s*(?P<argument>.*)")
_CONTAINER = re.compile(r"(?:[>\s]|[-+*]\s|\d+[.)]\s)*")
_MARKER = re.compile(r"[^>\s]")
_COMMENT = re.compile(r"(?<!\\)%.*")
_CITING = {"cite", "cite:p", "cite:t"}
_YEAR = re.compile(r" \(([^()]*)\)$")


class Converter:
    """Writes the Markdown cells of one page, in order.

    Parameters
    ----------
    page : edition.resolved.Page
    picture : callable
        From the path of a picture, as the page names it, to the address at which an edition shows it.

    Attributes
    ----------
    level : int
        Of the heading that was met last.
    exercises : dict of str to (str, int)
        The exercises met so far, by label: caption and level of the heading.
    """

    def __init__(self, page, picture):
        self.page = page
        self.picture = picture
        self.level = 1
        self.exercises = {}
        self._place = ""
        self._quoted = False

    def cell(self, text, place):
        """The pieces of a cell: lines of Markdown, and what `edition.folding` knows, `Heading` and `END`.

        Raises
        ------
        CannotDerive
            If something in it has no edition; the message begins with `place` and the line.
        """
        self._place = place
        return self._blocks(text, 1)

    def markdown(self, text, line, quoted=False):
        """A body in Markdown, written whole; nothing in it may fold cells.

        Parameters
        ----------
        text : str
        line : int
            Of the cell, at which it begins.
        quoted : bool
            Whether it will stand in a quotation, where JupyterLab shows the ">" of a formula's second line.
        """
        before, self._quoted = self._quoted, self._quoted or quoted
        pieces = self._blocks(text, line)
        self._quoted = before
        if not all(isinstance(piece, str) for piece in pieces):
            raise self._cannot(
                line, "a solution stands inside another directive, and could not fold"
            )
        return "\n".join(pieces).strip("\n")

    def inline(self, text, line):
        """Words in Markdown, of one paragraph."""
        try:
            return inline.scan(text, self._inline)
        except CannotDerive as error:
            raise self._cannot(line, error) from error

    def _cannot(self, line, why):
        if isinstance(why, Placed):
            return why
        return Placed(f"{self._place}, line {line}: {why}")

    def _blocks(self, text, line):
        lines, out, at = text.split("\n"), [], 0
        for token in self.page.markdown.parse(text, {}):
            if token.type == "heading_open":
                self.level = int(token.tag[1])
            write = _WRITERS.get(token.type)
            if write is None or token.map is None or token.map[0] < at:
                continue
            start, end = token.map
            if token.type == "amsmath":  # its map leaves out the last line
                end = start + token.content.count("\n") + 1
            out += lines[at:start]
            try:
                pieces = write(self, token, lines[start:end], line + start)
            except CannotDerive as error:
                raise self._cannot(line + start, error) from error
            at = end
            if pieces[:1] == [""] and out[-1:] in ([], [""]):
                pieces = pieces[1:]
            if pieces[-1:] == [""] and lines[at : at + 1] in ([], [""]):
                pieces = pieces[:-1]
            out += pieces
        return out + lines[at:]

    def _inline(self, seen, source):
        if seen.kind in ("math", "display"):
            return _on_one_line(source) if self._quoted else source
        if seen.kind == "role" and seen.name in _CITING:
            return self._cited(seen.content, aside=seen.name != "cite:t")
        if seen.kind == "role":
            return written(self.page, self.page.nodes(source))
        if seen.kind == "substitution":
            return written(self.page, self.page.nodes(source))
        if seen.kind == "footnote":
            raise CannotDerive(f"footnote {source}: plain Markdown has none, say it in the text")
        if seen.kind == "image":
            return f"![{seen.name}]({self.picture(seen.content)})"
        if seen.kind == "link":
            return self._link(seen)
        return source

    def _cited(self, keys, aside):
        """Citations: "author (year)" as part of a sentence, "(author, year)" aside."""
        if not re.fullmatch(r"[\w:.+/-]+(\s*,\s*[\w:.+/-]+)*", keys):
            raise CannotDerive(f"citation {keys!r}: only keys, with commas between them, are known")
        each = [self.page.citation(key.strip()) for key in keys.split(",")]
        if not aside:
            return ", ".join(linked(*pair) for pair in each)
        shown = ((_YEAR.sub(r", \1", words), target) for words, target in each)
        return f"({'; '.join(linked(*pair) for pair in shown)})"

    def _link(self, seen):
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", seen.content):
            return f"[{seen.name}]({seen.content})"
        if not seen.name:
            return written(self.page, self.page.nodes(f"[]({seen.content})"))
        found = [
            reference
            for node in self.page.nodes(f"[x](<{seen.content}>)")
            for reference in node.findall(lambda node: node.tagname == "reference")
        ]
        if not found:
            raise CannotDerive(f"link to {seen.content!r} leads nowhere")
        return linked(seen.name, self.page.target(found[0]))

    def _paragraph(self, token, lines, line):
        return self.inline("\n".join(lines), line).split("\n")

    def _table(self, token, lines, line):
        return [self.inline(row, line + index) for index, row in enumerate(lines)]

    def _fence(self, token, lines, line):
        match = _DIRECTIVE.fullmatch(token.info.strip())
        if match is None:
            return lines
        name = match["name"]
        handler = HANDLERS.get(name)
        directive = Directive.read(
            self.page, name, match["argument"], token.content, "\n".join(lines), line
        )
        if handler is None:
            raise CannotDerive(f"directive {{{name}}} has no edition: see edition.directives")
        return _behind(_CONTAINER.match(lines[0])[0], handler(directive, self))

    def _formula(self, token, lines, line):
        behind = _CONTAINER.match(lines[0])[0]
        if token.type == "math_block_label":
            return [behind + self.labelled(token.content, token.info)]
        if not self._quoted and ">" not in behind:
            return lines
        dollars = "" if token.type == "amsmath" else "$$"
        return [f"{behind}{dollars}{_on_one_line(token.content)}{dollars}"]

    def labelled(self, formula, label):
        """A formula on a line of its own, with the number that the site gives it."""
        number = self.page.text(f"{{eq}}`{label}`").strip("()")
        return f"$${_on_one_line(formula)} \\tag{{{number}}}$$"

    def _nothing(self, token, lines, line):
        return []

    def _unknown(self, token, lines, line):
        raise CannotDerive(f"plain Markdown knows no {_UNKNOWN[token.type]}")


class Placed(CannotDerive):
    """The same, with its place in the message."""


def _on_one_line(formula):
    """A formula without line breaks, and so without TeX's comments."""
    return " ".join(_COMMENT.sub("", line).strip() for line in formula.strip().split("\n"))


def _behind(start, pieces):
    """Pieces of a block inside a list or a quotation, of which the first stands behind the marker."""
    if not start:
        return pieces
    first, rest = start, _MARKER.sub(" ", start)
    if first != rest and pieces[:1] == [""]:
        pieces = pieces[1:]
    starts = [first, *[rest] * len(pieces)]
    return [
        f"{start}{piece}".rstrip() if isinstance(piece, str) else piece
        for start, piece in zip(starts, pieces, strict=False)
    ]


_UNKNOWN = {"dl_open": "list of definitions", "footnote_reference_open": "footnote"}
_WRITERS = {
    "inline": Converter._paragraph,
    "substitution_block": Converter._paragraph,
    "table_open": Converter._table,
    "fence": Converter._fence,
    "colon_fence": Converter._fence,
    "math_block": Converter._formula,
    "math_block_label": Converter._formula,
    "amsmath": Converter._formula,
    "myst_target": Converter._nothing,
    "myst_line_comment": Converter._nothing,
    "myst_block_break": Converter._nothing,
    **dict.fromkeys(_UNKNOWN, Converter._unknown),
}
