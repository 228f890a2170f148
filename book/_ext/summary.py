"""The directive `api-summary`: what a page of the reference describes, each function and class with its first sentence.

It stands in `eval-rst`, above the `automodule`s of the page, and reads there which they are.
"""

import importlib
import inspect
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

_MODULE = re.compile(r"^\.\. automodule:: (?P<name>\S+)\n +:members:(?P<members>.*)$", re.M)


def described(text):
    """The modules that a page describes, as (name, members): those that the page names, or all that autodoc takes."""
    return [
        (found["name"], [m.strip() for m in found["members"].split(",") if m.strip()])
        for found in _MODULE.finditer(text)
    ]


def members(module, chosen=()):
    """The functions and classes of a module that autodoc describes, by name."""
    named = chosen or getattr(module, "__all__", None)
    objects = {name: getattr(module, name) for name in named} if named else vars(module)
    return {
        name: each
        for name, each in objects.items()
        if not name.startswith("_")
        and (inspect.isclass(each) or inspect.isroutine(each))
        and (named or each.__module__ == module.__name__)
        and each.__doc__
    }


def first_sentence(docstring):
    """The first sentence, on one line."""
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    return re.split(r"(?<=[.;]) (?=[A-Z])", paragraph)[0]


class Summary(SphinxDirective):
    """A table of names, linked, and of first sentences."""

    def run(self):
        text = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        self.env.note_dependency(__file__)
        rows = []
        for name, chosen in described(text):
            module = importlib.import_module(name)
            self.env.note_dependency(module.__file__)
            rows.append(self._row("mod", name, name.split(".")[-1], module.__doc__))
            rows[-1]["classes"].append("bn-module")
            for member, each in members(module, chosen).items():
                rows.append(self._row("obj", f"{name}.{member}", member, each.__doc__))
        return [_table(rows)]

    def _row(self, kind, target, words, docstring):
        link = addnodes.pending_xref(
            "",
            nodes.literal("", words),
            refdomain="py",
            reftype=kind,
            reftarget=target,
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        said, _ = self.state.inline_text(first_sentence(docstring), self.lineno)
        cells = nodes.paragraph("", "", link), nodes.paragraph("", "", *said)
        return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def _table(rows):
    columns = [nodes.colspec(colwidth=width) for width in (30, 70)]
    heads = (nodes.entry("", nodes.paragraph(text=words)) for words in ("name", "what it is"))
    head = nodes.thead("", nodes.row("", *heads))
    group = nodes.tgroup("", *columns, head, nodes.tbody("", *rows), cols=2)
    return nodes.table("", group, classes=["bn-summary-of-api"])


def setup(app):
    app.add_directive("api-summary", Summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
