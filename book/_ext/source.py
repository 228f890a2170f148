"""The directive `source`: a function, class or constant as its file has it, without docstrings.

    ```{source} bncore.mechanics.transform.forward
    ```

With `:start-at: words` it begins at the first line that holds these words. The code is reflowed to 64 columns by the formatter, and a link leads to all of it. `shown` is what every
edition of the book shows; `lines` counts what a reader sees.
"""

import ast
import functools
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 64

_log = logging.getLogger(__name__)


class NotThere(LookupError):
    """Which name could not be shown, and why."""


def shown(name, start_at="", root=ROOT):
    """The code of an object without its docstrings, and where on the site its full source stands.

    Parameters
    ----------
    name : str
        ``"bncore.mechanics.transform.forward"``, from the module that defines it.
    start_at : str
        What comes before the first line that holds these words is left out.
    root : pathlib.Path
        The folder in which the package lies.

    Returns
    -------
    code : str
        At most 64 columns wide where the formatter can break a line.
    target : str
        ``"_modules/bncore/mechanics/transform.html#forward"``, from the root of the site.

    Raises
    ------
    NotThere
        If there is no such module, it defines no such object, or no line holds these words.
    """
    module, inside = located(name, root)
    text = file_of(module, root).read_text(encoding="utf-8")
    code = formatted(_without_docstrings(text, _definition(text, module, inside)))
    if start_at:
        code = _from(code, start_at, name)
    anchor = f"#{inside}" if inside in _tags(text, module) else ""
    return code, f"_modules/{module.replace('.', '/')}.html{anchor}"


def lines(code):
    """How many lines of code a reader sees: those that are not empty."""
    return sum(bool(line.strip()) for line in code.splitlines())


def columns(code):
    """How wide the widest line of code is."""
    return max(map(len, code.splitlines()), default=0)


def located(name, root=ROOT):
    """The module in which `name` is defined, and its name there.

    Raises
    ------
    NotThere
        If no part of the name is a module below `root`, or all of it is.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if file_of(module, root).is_file():
            if end == len(parts):
                raise NotThere(f"{name} is a module, expected a function, class or constant in it")
            return module, ".".join(parts[end:])
    raise NotThere(f"{name}: there is no module {name.rpartition('.')[0] or name}")


def file_of(module, root=ROOT):
    """The file of a module."""
    place = root.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@functools.cache
def formatted(code):
    """`code` in the book's style, broken at 64 columns.

    Raises
    ------
    ValueError
        If it is no Python.
    """
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--isolated",
        f"--line-length={COLUMNS}",
        "-",
    ]
    done = subprocess.run(command, input=code, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise ValueError(f"the formatter cannot read this code: {done.stderr.strip()}")
    return done.stdout


def _definition(text, module, inside):
    """The node that defines `inside`, the names of an object and of what holds it."""
    node = ast.parse(text)
    for name in inside.split("."):
        found = [child for child in node.body if name in _names(child)]
        if not found:
            there = ", ".join(n for child in node.body for n in _names(child))
            raise NotThere(f"{module} defines no {inside}, expected one of {there}")
        node = found[-1]
    return node


def _names(node):
    """What a statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _without_docstrings(text, definition):
    """The source of a definition, from its decorators on; `...` where nothing but words was."""
    kept = text.splitlines()
    for node in ast.walk(definition):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        first = node.body[0]
        if ast.get_docstring(node, clean=False) is not None:
            end = node.body[1].lineno - 1 if len(node.body) > 1 else first.end_lineno
            while end > first.end_lineno and (kept[end - 1] or "").strip():
                end -= 1  # comments and decorators of what follows
            emptied = len(node.body) == 1
            kept[first.lineno - 1 : end] = [None] * (end - first.lineno + 1)
            if emptied:
                kept[first.lineno - 1] = " " * first.col_offset + "..."
    decorators = getattr(definition, "decorator_list", [])
    start = min(node.lineno for node in [definition, *decorators])
    kept = [line for line in kept[start - 1 : definition.end_lineno] if line is not None]
    return textwrap.dedent("\n".join(kept)) + "\n"


def _from(code, words, name):
    kept = code.splitlines()
    start = next((number for number, line in enumerate(kept) if words in line), None)
    if start is None:
        raise NotThere(f"{name} has no line with {words!r}")
    return textwrap.dedent("\n".join(kept[start:])) + "\n"


def _tags(text, module):
    analyzer = ModuleAnalyzer.for_string(text, module)
    analyzer.find_tags()
    return analyzer.tags


class _Link(nodes.reference):
    """A link to the full source; the way there depends on the page and is found when it is written."""


class Source(SphinxDirective):
    """Show an object; one that is not there is a warning that names it."""

    required_arguments = 1
    option_spec: ClassVar = {"start-at": directives.unchanged_required}

    def run(self):
        name = self.arguments[0]
        try:
            code, target = shown(name, self.options.get("start-at", ""))
        except NotThere as error:
            _log.warning("source: %s", error, location=self.get_location(), type="source")
            return []
        module, inside = located(name)
        self.env.note_dependency(str(file_of(module)))
        _shown_on(self.env).setdefault(self.env.docname, set()).add((module, inside))
        code = code.rstrip("\n")
        block = nodes.literal_block(code, code, language="python")
        words = f"Full source of {module.rpartition('.')[2]}.{inside}"
        link = _Link(words, words, internal=True, target=target)
        whole = nodes.paragraph(words, "", link, classes=["bn-source-whole"])
        box = nodes.container("", block, whole, classes=["bn-source"])
        if name not in self.state.document.ids:
            box["bn_shows"] = module, inside
            box["ids"].append(name)
            self.state.document.ids[name] = box
        self.set_source_info(box)
        return [box]


def _shown_on(env):
    """For each page, what it shows: pairs of a module and a name in it."""
    if not hasattr(env, "bn_shown"):
        env.bn_shown = {}
    return env.bn_shown


def _forget(app, env, docname):
    _shown_on(env).pop(docname, None)


def _find_the_way(app, doctree, docname):
    modules = getattr(app.env, "_viewcode_modules", {})
    for box in doctree.findall(
        lambda node: isinstance(node, nodes.container) and "bn_shows" in node
    ):
        module, inside = box[
            "bn_shows"
        ]  # viewcode links back by the name under which it is documented
        documented = modules[module][3] if modules.get(module) else module
        if documented != module:
            box["ids"].append(f"{documented}.{inside}")
    for link in list(doctree.findall(_Link)):
        page, mark, anchor = link["target"].partition("#")
        way = relative_uri(app.builder.get_target_uri(docname), page) + mark + anchor
        link.replace_self(nodes.reference("", link.astext(), internal=True, refuri=way))


def _have_pages_of_source(app):
    """Let `viewcode` write a page for each module that is shown, with an anchor at each object.

    By itself it knows what the reference documents, and no private function nor a chapter's.
    """
    modules = app.env.__dict__.setdefault("_viewcode_modules", {})
    for docname, objects in sorted(_shown_on(app.env).items()):
        for module, inside in sorted(objects):
            analyzer = ModuleAnalyzer.for_file(str(file_of(module)), module)
            analyzer.find_tags()
            known = modules.get(module)
            if not known or known[0] != analyzer.code:
                used, documented = known[2:] if known else ({}, module)
                modules[module] = known = (analyzer.code, analyzer.tags, used, documented)
            if inside in analyzer.tags:
                known[2].setdefault(inside, docname)
                _write_anew(Path(app.outdir, "_modules", *module.split(".")), inside)
    return []


def _write_anew(page, inside):
    """Take away a page of source that has no anchor for an object: `viewcode` would keep it."""
    page = page.with_name(f"{page.name}.html")
    if page.exists() and f'id="{inside}"' not in page.read_text(encoding="utf-8"):
        page.unlink()


def setup(app):
    app.add_directive("source", Source)
    app.connect("env-purge-doc", _forget)
    app.connect("doctree-resolved", _find_the_way)
    app.connect("html-collect-pages", _have_pages_of_source, priority=400)
    return {"env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}
