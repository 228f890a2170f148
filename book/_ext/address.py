"""Where the repository lives: launch buttons, edit links and Colab's set-up cell depend on it.

The address comes from GITHUB_REPOSITORY, or from the git remote `origin`; where neither is known the
pages have no such links.
"""

import copy
import os
import re
import subprocess

import nbformat

LAUNCH_BRANCH = "launch"
"""The branch on which `publish` keeps the notebooks with their set-up cell, for Colab to open."""

SETUP_CELL = """\
# Colab has no copy of the book's package: install it.
%pip install --quiet "bncore[lab,page] @ git+{address}"
"""

_REMOTE = re.compile(r"github\.com[:/](?P<repository>[\w.-]+/[\w.-]+?)(\.git)?/?$")


def repository_address(environ=os.environ, root="."):
    """The repository's public address, or None.

    Parameters
    ----------
    environ : mapping of str to str
        GITHUB_REPOSITORY (`owner/name`) decides if it is set; empty means no address.
    root : path
        The working tree whose remote `origin` is asked otherwise.
    """
    if "GITHUB_REPOSITORY" in environ:
        repository = environ["GITHUB_REPOSITORY"]
        return f"https://github.com/{repository}" if repository else None
    remote = subprocess.run(
        ["git", "-C", str(root), "remote", "get-url", "origin"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    ).stdout.strip()
    match = _REMOTE.search(remote)
    return f"https://github.com/{match['repository']}" if match else None


def with_setup_cell(notebook, address):
    """A copy of `notebook` (as read by nbformat) that installs bncore from `address` first."""
    prepared = copy.deepcopy(notebook)
    cell = nbformat.v4.new_code_cell(SETUP_CELL.format(address=address))
    prepared.cells.insert(1, cell)
    return prepared


def _configure(app, config):
    address = repository_address(root=app.srcdir)
    options = config.html_theme_options
    known = address is not None
    options["use_edit_page_button"] = known
    options["use_repository_button"] = known
    options["use_issues_button"] = known
    options["repository_url"] = address or ""
    options["repository_branch"] = "main"
    options["launch_buttons"] = (
        {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
            "thebe": True,
        }
        if known
        else {}
    )


def _point_colab_at_the_launch_branch(app, pagename, templatename, context, doctree):
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace("/blob/main/", f"/blob/{LAUNCH_BRANCH}/")


def _write_launch_notebooks(app, exception):
    address = repository_address(root=app.srcdir)
    if exception or address is None:
        return
    for docname in app.env.found_docs:
        path = app.env.doc2path(docname)
        if path.endswith(".ipynb"):
            prepared = with_setup_cell(nbformat.read(path, as_version=4), address)
            target = os.path.join(app.outdir, "..", "launch", f"{docname}.ipynb")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            nbformat.write(prepared, target)


def setup(app):
    app.connect("config-inited", _configure, priority=100)
    app.connect("html-page-context", _point_colab_at_the_launch_branch, priority=900)
    app.connect("build-finished", _write_launch_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
