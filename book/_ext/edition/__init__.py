"""The notebook edition: what readers open on Colab, on Binder and in Jupyter.

The notebooks under `book/` are written in MyST, which the site's build understands and nothing else does. When the book has
been read, each becomes an edition that stands alone: theorems, proofs and exercises in plain Markdown with the site's numbers,
citations and links resolved, included code in place, solutions and hidden inputs folded. Code cells stay as they are.

`inline` and `blocks` go through the text, `directives` is the table of what directives become, `resolved` asks Sphinx,
`written` puts its answers into Markdown, `folding` and `launch` add what Jupyter, Colab and Binder want, `derive` makes one
edition of all this, and `reader` keeps the copy that `make lab` opens.

The site's build writes the editions to `_build/edition`, whence `publish` puts them on the branch that the launch buttons open.
Where the repository's address is unknown, they have no cell that installs anything, and link to each other instead of the site.
"""

import shutil
from pathlib import Path

import nbformat
from address import commit, repository_address, site_address
from sphinx.errors import ExtensionError

from edition import launch, links
from edition.builder import EditionBuilder
from edition.derive import edition
from edition.resolved import CannotDerive, Page


def editions(app, address=None, revision=None):
    """The editions of the book that `app` has read: for each notebook page its edition.

    Parameters
    ----------
    app : sphinx.application.Sphinx
    address, revision : str, optional
        Of the repository: links then lead to its site, and a first cell installs bncore from there where it is missing.

    Raises
    ------
    sphinx.errors.ExtensionError
        If something has no edition; the message lists all that has none, with its places.
    """
    derived, missing = {}, []
    follow = links.to_site(site_address(address)) if address else links.to_neighbours(app)
    for docname in _chosen(app):
        notebook = nbformat.read(app.env.doc2path(docname), as_version=4)
        if address:
            picture = links.at_commit(app, docname, address, revision)
        else:
            picture = links.inside(app, docname)
        try:
            made = edition(notebook, Page(app, docname, follow), picture)
        except CannotDerive as error:
            missing.append(str(error))
            continue
        derived[docname] = launch.with_setup_cell(made, address, revision) if address else made
    if missing:
        raise ExtensionError("no edition:\n" + "\n".join(missing))
    return derived


def _chosen(app):
    """The notebook pages to derive: all, as numbers belong to the whole book, or the one that is being checked."""
    pages, only = links.notebook_pages(app), app.config.execution_only
    return [only] if only in pages else pages


def _write(app, exception):
    if exception or app.builder.name not in ("html", EditionBuilder.name):
        return
    if app.builder.name == EditionBuilder.name:
        _write_all(editions(app), Path(app.outdir))
        return
    address, revision = repository_address(root=app.srcdir), commit(root=app.srcdir)
    folder = Path(app.outdir, "..", "edition").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    derived = editions(app, address, revision)
    _write_all(derived, folder)
    _write_all(derived, Path(app.outdir, "_sources"))  # what the page offers for download
    if address:
        launch.binder(folder / ".binder", Path(app.srcdir), address, revision)


def _write_all(derived, folder):
    for docname, notebook in derived.items():
        path = folder / f"{docname}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)


def setup(app):
    app.add_builder(EditionBuilder)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
