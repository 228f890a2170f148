"""What Sphinx makes of a piece of Markdown on a page: numbers, addresses, code, and complaints.

Nothing is computed twice: a role or a directive is read and resolved by Sphinx itself, as if it stood on the page, after
the book has been read whole. So its number and its target are those of the site.
"""

import copy
import logging
import posixpath
import re
from contextlib import contextmanager

from docutils import nodes
from docutils.parsers.rst import directives, languages
from docutils.utils import DependencyList, new_document
from markdown_it.renderer import RendererHTML
from myst_parser.mdit_to_docutils.sphinx_ import SphinxRenderer
from myst_parser.parsers.mdit import create_md_parser
from sphinx import addnodes
from sphinx.util.docutils import LoggingReporter, sphinx_domains

_YEAR = re.compile(r"\s*\[(?P<year>[^\[\]]*)\]$")


class CannotDerive(ValueError):
    """Something in a page that has no edition."""


class Page:
    """One page of a book that Sphinx has read.

    Parameters
    ----------
    app : sphinx.application.Sphinx
    docname : str
    links : callable
        From the page's docname and the file of the site and the anchor in it (may be empty) to the address to link to,
        or None: then words stand without a link.
    """

    def __init__(self, app, docname, links):
        self.app = app
        self.docname = docname
        self.links = links
        self.markdown = create_md_parser(app.env.myst_config, RendererHTML)
        self._known = {}

    @property
    def name(self):
        """The page's file, for messages."""
        return posixpath.relpath(self.app.env.doc2path(self.docname), str(self.app.srcdir))

    def directive(self, name):
        """The class behind a directive.

        Raises
        ------
        CannotDerive
            If there is none of this name.
        """
        document = new_document(self.docname)
        with sphinx_domains(self.app.env), self._reading():
            found, _ = directives.directive(name, languages.get_language("en"), document)
        if found is None:
            raise CannotDerive(f"unknown directive {{{name}}}")
        return found

    def nodes(self, markdown):
        """The docutils nodes of a piece of Markdown, resolved.

        Raises
        ------
        CannotDerive
            If Sphinx has something to complain of, or a reference leads nowhere.
        """
        if markdown not in self._known:
            self._known[markdown] = self._read(markdown)
        return self._known[markdown]

    def text(self, markdown):
        """The words of a piece of Markdown, resolved."""
        return " ".join(node.astext() for node in self.nodes(markdown))

    def target(self, reference):
        """The address to link to for a reference of Sphinx's, or None for words without a link."""
        if "refuri" not in reference:
            return self.links(self.docname, self._file(self.docname), reference["refid"])
        if not reference.get("internal"):
            return reference["refuri"]
        path, _, anchor = reference["refuri"].partition("#")
        here = self._file(self.docname)
        there = posixpath.normpath(posixpath.join(posixpath.dirname(here), path)) if path else here
        return self.links(self.docname, there, anchor)

    def citation(self, key):
        """A reference as "author (year)", and the address to link to, or None."""
        node = self.nodes(f"{{cite:t}}`{key}`")
        words = " ".join(part.astext() for part in node)
        reference = next(part for top in node for part in top.findall(nodes.reference))
        target = self.target({**reference.attributes, "internal": True})
        return _YEAR.sub(r" (\g<year>)", words), target or self._elsewhere(key)

    def _elsewhere(self, key):
        fields = self.app.env.get_domain("cite").bibdata.data.entries[key].fields
        if "doi" in fields:
            return f"https://doi.org/{fields['doi']}"
        if fields.get("archiveprefix", "").lower() == "arxiv":
            return f"https://arxiv.org/abs/{fields['eprint']}"
        return fields.get("url")

    def _file(self, docname):
        return self.app.builder.get_target_uri(docname)

    def _read(self, markdown):
        env = self.app.env
        env.prepare_settings(self.docname)
        try:
            with sphinx_domains(env), self._reading():
                document = self._document()
                parser = create_md_parser(env.myst_config, SphinxRenderer)
                parser.options["document"] = document
                parser.render(markdown)
                # Others add scripts to a page; what is ours stands apart.
                ours = nodes.container("", *document.children)
                document.children[:] = []
                document += ours
                asked = list(document.findall(addnodes.pending_xref))
                env.resolve_references(document, self.docname, self.app.builder)
        finally:
            env.temp_data.clear()
        for words in [node.astext() for node in document.findall(nodes.system_message)]:
            raise CannotDerive(words)
        if asked and not list(document.findall(nodes.reference)):
            raise CannotDerive(f"{asked[0]['reftarget']!r} leads nowhere")
        alone = len(ours) == 1 and isinstance(ours[0], nodes.paragraph)
        return ours[0].children if alone else ours.children

    def _document(self):
        """An empty page in this one's place."""
        env, registry = self.app.env, self.app.registry
        settings = copy.copy(registry.get_publisher(self.app, "myst-nb").settings)
        settings.env = env
        settings.record_dependencies = DependencyList()
        document = new_document(env.doc2path(self.docname), settings)
        document.reporter = LoggingReporter.from_reporter(document.reporter)
        return document

    @contextmanager
    def _reading(self):
        """Turn what Sphinx complains of into an error."""
        heard = _Complaints()
        logger = logging.getLogger("sphinx")
        others = logger.handlers[:]
        logger.handlers[:] = [heard]
        try:
            yield
        finally:
            logger.handlers[:] = others
        if heard.words:
            raise CannotDerive("; ".join(heard.words))


class _Complaints(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.words = []

    def emit(self, record):
        self.words.append(record.getMessage())
