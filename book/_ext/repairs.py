"""Small repairs to what Jupyter Book 1.0 and Sphinx 7 do to their pages."""

import re
from collections import namedtuple

from docutils import nodes
from markupsafe import Markup

_VARIADIC = re.compile(r"(?<!\*)\*(?=(?:spatial|kernel|features|inputs|_)\b)")
_FIELD = type(namedtuple("_", "field").field)
_CLOSING = re.compile(r"[.,;:!?)\]’”…]+(?:s\b)?")
_UNNAMED_FOLD = re.compile(r">([^<>]+)</a>(<details[^>]*>)<summary>")
_ICON_SCRIPT = re.compile(r"<script[^>]*/fontawesome\.js[^>]*></script>")


def _declare_each_script_once(app, pagename, templatename, context, doctree):
    """Jupyter Book loads sphinx-thebe twice, whose inline `const` then fails on every page."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        seen.add(body)
    context["script_files"] = kept


def _leave_entries_their_role(app, pagename, templatename, context, doctree):
    """Sphinx calls the bibliography a list although its entries, by their own role, are no list items."""
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


def _load_icons_once(app, pagename, templatename, context, doctree):
    """The theme loads its icons twice: as a font, and as half a megabyte of script; the font will do."""
    context["without_icon_script"] = lambda head: Markup(_ICON_SCRIPT.sub("", head))


def _name_the_folds_of_the_sidebar(app, pagename, templatename, context, doctree):
    """The theme's fold beside a page with pages below it has a picture and no name."""
    if draw := context.get("generate_toctree_html"):
        named = r'>\1</a>\2<summary aria-label="Pages below \1">'
        context["generate_toctree_html"] = lambda *arguments, **options: Markup(
            _UNNAMED_FOLD.sub(named, str(draw(*arguments, **options)))
        )


def _keep_punctuation_with_its_formula(app, doctree, docname):
    """A browser may break a line after any formula, and so begin the next one with a full stop."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        place = parent.index(formula) + 1
        after = parent[place] if place < len(parent) else None
        if isinstance(after, nodes.Text) and (mark := _CLOSING.match(after)):
            rest = nodes.Text(after[mark.end() :])
            kept = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]))
            kept["classes"].append("bn-keep")
            parent[place - 1 : place + 1] = [kept, rest]


def _escape_variadic_axes(app, what, name, obj, options, lines):
    """`*spatial` in an array's shape is not the start of an emphasis."""
    lines[:] = [_VARIADIC.sub(r"\\*", line) for line in lines]


def _leave_fields_to_their_class(app, what, name, obj, skip, options):
    """A named tuple's docstring says what its fields are; autodoc would add that they are fields."""
    return True if isinstance(obj, _FIELD) else None


def setup(app):
    app.connect("autodoc-skip-member", _leave_fields_to_their_class)
    app.connect("autodoc-process-docstring", _escape_variadic_axes, priority=400)
    app.connect("doctree-resolved", _keep_punctuation_with_its_formula)
    app.connect("html-page-context", _load_icons_once)
    app.connect("html-page-context", _name_the_folds_of_the_sidebar, priority=900)
    app.connect("html-page-context", _leave_entries_their_role, priority=900)
    app.connect("html-page-context", _declare_each_script_once, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
