"""Where the links of an edition lead, and where its pictures lie."""

import base64
import mimetypes
import posixpath
from pathlib import Path


def to_site(site):
    """Links to the pages of the site at this address."""

    def link(docname, file, anchor):
        return f"{site}{file}{'#' if anchor else ''}{anchor}"

    return link


def to_neighbours(app):
    """Links from notebook to notebook, where the site's address is unknown.

    What lies in no other notebook is named in words: an anchor means something else to every program that shows one.
    """
    notebooks = {app.builder.get_target_uri(name): name for name in notebook_pages(app)}

    def link(docname, file, anchor):
        there = notebooks.get(file)
        if there in (None, docname):
            return None
        return posixpath.relpath(f"{there}.ipynb", posixpath.dirname(docname))

    return link


def notebook_pages(app):
    """The pages of the book that are notebooks, in the order of their names."""
    found = sorted(app.env.found_docs)
    return [name for name in found if app.env.doc2path(name).endswith(".ipynb")]


def at_commit(app, docname, address, commit):
    """Pictures as the repository at `address` has them."""
    raw = address.replace("https://github.com/", "https://raw.githubusercontent.com/")
    return lambda path: f"{raw}/{commit or 'main'}/{app.env.relfn2path(path, docname)[0]}"


def inside(app, docname):
    """Pictures written into the notebook."""

    def picture(path):
        file = Path(app.env.relfn2path(path, docname)[1])
        kind = mimetypes.guess_type(file)[0]
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"

    return picture
