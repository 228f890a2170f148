"""Inline nodes of docutils, written as Markdown."""

import re

from docutils import nodes
from sphinx import addnodes

from edition.resolved import CannotDerive

_SPECIAL = re.compile(r"([\\`*_\[\]$<|])")
_AROUND = {
    nodes.emphasis: ("*", "*"),
    nodes.title_reference: ("*", "*"),
    nodes.strong: ("**", "**"),
    nodes.subscript: ("<sub>", "</sub>"),
    nodes.superscript: ("<sup>", "</sup>"),
    nodes.inline: ("", ""),
    nodes.abbreviation: ("", ""),
    nodes.generated: ("", ""),
    addnodes.literal_emphasis: ("*", "*"),
}


def escaped(words):
    """Plain words, so that Markdown takes them as they are."""
    return _SPECIAL.sub(r"\\\1", words)


def linked(words, target):
    """Words with a link where there is a target."""
    return f"[{words}]({target})" if target else words


def written(page, parts):
    """Markdown for resolved inline nodes.

    Raises
    ------
    CannotDerive
        If one has no form in Markdown.
    """
    return "".join(_one(page, node) for node in parts)


def _one(page, node):
    if isinstance(node, nodes.Text):
        return escaped(node.astext())
    if isinstance(node, nodes.reference):
        return linked(written(page, node.children), page.target(node))
    if isinstance(node, nodes.math):
        return f"${node.astext()}$"
    if isinstance(node, nodes.literal):
        return code(node.astext())
    for kind in type(node).mro():
        if kind in _AROUND:
            before, after = _AROUND[kind]
            return f"{before}{written(page, node.children)}{after}"
    raise CannotDerive(f"no Markdown is known for {node.tagname}: {node.astext()!r}")


def code(words):
    """A code span, with as many backticks as it takes."""
    ticks = "`"
    while ticks in words:
        ticks += "`"
    space = " " if words[:1] == "`" or words[-1:] == "`" else ""
    return f"{ticks}{space}{words}{space}{ticks}"
