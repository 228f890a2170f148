"""Below the heading of a chapter's exercises: where they can be run.

Where the repository's address is known, buttons open the chapter's edition in Colab and on Binder; elsewhere the command
of a clone is named.
"""

from address import LAUNCH_BRANCH, repository_address
from docutils import nodes


def places(address, docname):
    """Where a notebook page runs: for each place its name and its address; none where the repository is unknown."""
    if address is None:
        return {}
    repository = address.removeprefix("https://github.com/")
    return {
        "Colab": f"https://colab.research.google.com/github/{repository}/blob/{LAUNCH_BRANCH}/{docname}.ipynb",
        "Binder": f"https://mybinder.org/v2/gh/{repository}/{LAUNCH_BRANCH}?urlpath=lab/tree/{docname}.ipynb",
    }


def notice(address, docname):
    """The paragraph that says it."""
    said = nodes.paragraph(classes=["bn-run"])
    found = places(address, docname)
    if not found:
        said += nodes.Text("To solve them, run this chapter as a notebook: ")
        said += nodes.literal("", "make lab")
        said += nodes.Text(" in a clone of the book opens it, and a checker answers you there.")
        return said
    said += nodes.Text("Solve them in a notebook, where a checker answers you: ")
    for name, where in found.items():
        said += nodes.reference("", f"Open in {name}", refuri=where, classes=["bn-button"])
        said += nodes.Text(" ")
    return said


def _say_where(app, doctree, docname):
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    for section in doctree.findall(nodes.section):
        if "exercises" in section["ids"]:
            place = section.first_child_matching_class(nodes.title) + 1
            section.insert(place, notice(repository_address(root=app.srcdir), docname))


def setup(app):
    app.connect("doctree-resolved", _say_where)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
