"""The directives that a page may use, and what they become in its edition.

To teach the edition a directive, add a function to the table::

    @becomes("my-directive")
    def _mine(directive, to):
        return [...]

It is given the `Directive`, with argument, options and body as its class reads them, and the `Converter`, and returns lines of
Markdown. ``to.markdown(directive.body, directive.body_line)`` writes a body, ``to.inline(words, line)`` a title,
``to.page.text("{ref}`label`")`` asks Sphinx. A directive that shows code needs a row in the list of `_code` only: Sphinx runs it,
and the code that it shows is what stands in the edition. A heading that folds cells is a `Heading`, its fold ends at an `END`.
"""

from typing import NamedTuple

from docutils import nodes
from docutils.parsers.rst.states import MarkupError as _MarkupError
from myst_parser.parsers.directives import MarkupError, parse_directive_text

from edition.folding import END, Heading
from edition.resolved import CannotDerive
from edition.written import linked, written

HANDLERS = {}
"""For each directive the function that writes it."""


def becomes(*names):
    """Enter a function into the table under these names."""

    def enter(handler):
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


class Directive(NamedTuple):
    """A directive as its class reads it; lines are counted in its cell."""

    name: str
    argument: str
    options: dict
    body: str
    source: str
    line: int
    body_line: int

    @classmethod
    def read(cls, page, name, argument, content, source, line):
        """Read a directive.

        Raises
        ------
        CannotDerive
            If there is no such directive, or it has other arguments or options.
        """
        try:
            parsed = parse_directive_text(page.directive(name), argument, content)
        except (MarkupError, _MarkupError) as error:
            raise CannotDerive(f"directive {{{name}}}: {error}") from error
        if parsed.warnings:
            raise CannotDerive(f"directive {{{name}}}: {parsed.warnings[0].msg}")
        words, body = " ".join(parsed.arguments), "\n".join(parsed.body)
        first = line + 1 + parsed.body_offset
        return cls(name, words, parsed.options, body, source, line, first)

    @property
    def label(self):
        return self.options.get("label") or self.options.get("name")

    @property
    def folds(self):
        """Whether the site folds it."""
        return "dropdown" in self.options.get("class", [])


def quoted(title, directive, to):
    """A quotation that begins with a title, and goes on with the body."""
    body = to.markdown(directive.body, directive.body_line, quoted=True)
    lines = [f"**{title}**", *(["", *body.split("\n")] if body else [])]
    return ["", *(f"> {line}".rstrip() for line in lines), ""]


def folded(title, lines):
    """Lines, of which the last is empty, that a reader may fold away; where nothing folds, they stand open."""
    return ["", "<details>", f"<summary>{title}</summary>", "", *lines, "</details>", ""]


def _body(directive, to):
    body = to.markdown(directive.body, directive.body_line)
    return [*body.split("\n"), ""] if body else []


_STATEMENTS = [
    "axiom",
    "theorem",
    "lemma",
    "algorithm",
    "definition",
    "remark",
    "conjecture",
    "corollary",
    "criterion",
    "example",
    "property",
    "observation",
    "proposition",
    "assumption",
    "notation",
]


@becomes(*(f"prf:{kind}" for kind in _STATEMENTS))
def _statement(directive, to):
    """A quotation that begins with kind, number and title."""
    caption = directive.name.removeprefix("prf:").title()
    if "nonumber" not in directive.options:
        if not directive.label:
            raise CannotDerive(f"{caption} {directive.argument!r} has no label to number it by")
        caption = to.page.text(f"{{prf:ref}}`{directive.label}`")
    if directive.argument:
        caption += f" ({to.inline(directive.argument, directive.line)})"
    return quoted(f"{caption}.", directive, to)


@becomes("prf:proof")
def _proof(directive, to):
    """Its words, between paragraphs of their own: a list behind the first, or a formula before the last, would break."""
    body = [*_body(directive, to), "∎", ""]
    return folded("Proof", body) if directive.folds else ["", "*Proof.*", "", *body]


@becomes("exercise", "exercise-start")
def _exercise(directive, to):
    """A heading one level below that of its section, and the body."""
    if not directive.label:
        raise CannotDerive(f"exercise {directive.argument!r} has no label to number it by")
    caption = "Exercise"
    if "nonumber" not in directive.options:
        caption = to.page.text(f"{{ref}}`{directive.label}`")
    title = to.inline(directive.argument, directive.line)
    to.exercises[directive.label] = (caption, to.level + 1)
    heading = f"{'#' * (to.level + 1)} {caption}{': ' if title else ''}{title}"
    return ["", heading, "", *_body(directive, to)]


@becomes("exercise-end")
def _end_of_exercise(directive, to):
    return [""]


@becomes("solution-start")
def _solution(directive, to):
    """A heading one level below that of its exercise, which folds what follows."""
    label = directive.argument
    if label not in to.exercises:
        raise CannotDerive(
            f"the solution to {label!r} stands before its exercise, or on another page"
        )
    caption, level = to.exercises[label]
    return ["", Heading(level + 1, f"Solution to {caption}"), ""]


@becomes("solution-end")
def _end_of_solution(directive, to):
    return ["", END, ""]


@becomes("solution")
def _whole_solution(directive, to):
    return [*_solution(directive, to), *_body(directive, to), *_end_of_solution(directive, to)]


_ADMONITIONS = [
    "attention",
    "caution",
    "danger",
    "error",
    "hint",
    "important",
    "note",
    "tip",
    "warning",
    "seealso",
]


@becomes("admonition", *_ADMONITIONS)
def _admonition(directive, to):
    """A quotation that begins with the title, or the kind."""
    title = directive.name.title() if directive.name != "seealso" else "See also"
    if directive.name == "admonition":
        title = to.inline(directive.argument, directive.line)
    if directive.folds:
        return folded(title, _body(directive, to))
    return quoted(title, directive, to)


@becomes("dropdown")
def _dropdown(directive, to):
    title = to.inline(directive.argument, directive.line)
    return folded(title, _body(directive, to))


@becomes("table")
def _table(directive, to):
    """The table, without what only the site does with it."""
    if directive.argument:
        raise CannotDerive(f"table {directive.argument!r} has a title, which stands nowhere")
    return ["", *_body(directive, to)]


@becomes("tab-set")
def _tabs(directive, to):
    return ["", *_body(directive, to)]


@becomes("tab-item")
def _tab(directive, to):
    """The label in bold, and what the tab shows: all tabs stand below each other."""
    label = to.inline(directive.argument, directive.line)
    return ["", f"**{label}**", "", *_body(directive, to)]


_LANGUAGES = {"default": "python", "none": "", "ipython3": "python"}


@becomes("source", "literalinclude", "code-block", "code", "sourcecode")
def _code(directive, to):
    """The code that Sphinx shows there, and what it writes beside it, but for links that lead nowhere from here."""
    lines, shown = [""], False
    for node in to.page.nodes(directive.source):
        for part in node.children if isinstance(node, nodes.container) else [node]:
            if isinstance(part, nodes.literal_block):
                language = _LANGUAGES.get(part["language"], part["language"])
                lines += [*fence(part.astext(), language), ""]
                shown = True
            elif all(to.page.target(link) for link in part.findall(nodes.reference)):
                lines += [written(to.page, part.children), ""]
    if not shown:
        raise CannotDerive(f"directive {{{directive.name}}} {directive.argument} shows no code")
    return lines


def fence(code, language):
    """A fence around code, longer than any in it."""
    ticks = "```"
    while ticks in code:
        ticks += "`"
    return [f"{ticks}{language}", *code.rstrip("\n").split("\n"), ticks]


@becomes("math")
def _math(directive, to):
    formula = "\n".join(part for part in (directive.argument, directive.body) if part)
    if directive.label:
        return ["", to.labelled(formula, directive.label), ""]
    return ["", *to.markdown(f"$$\n{formula}\n$$", directive.body_line).split("\n"), ""]


@becomes("image", "figure")
def _figure(directive, to):
    """The picture, with number and caption where there are some."""
    picture = f"![{directive.options.get('alt', '')}]({to.picture(directive.argument)})"
    body = to.markdown(directive.body, directive.body_line)
    number = to.page.text(f"{{numref}}`{directive.label}`") if directive.label and body else ""
    caption = f"**{number}** {body}" if number else body
    return ["", linked(picture, directive.options.get("target")), "", *caption.split("\n"), ""]
