"""Tables of sentences: on a phone each row stands as a card, and each of its cells under the name of its column.

    ```{table}
    :class: bn-cards

    | what is said | what is true |
    |---|---|
    | ... | ... |
    ```

The style sheet shows the names on a narrow screen only; the first cell is the title of its card and needs none.
"""

from docutils import nodes


def _name_cells(app, doctree, docname):
    if app.builder.format != "html":
        return
    for table in doctree.findall(nodes.table):
        if "bn-cards" in table["classes"]:
            head, body = (next(table.findall(kind)) for kind in (nodes.thead, nodes.tbody))
            names = [entry.astext() for entry in head.findall(nodes.entry)]
            for row in body.findall(nodes.row):
                for name, entry in zip(names[1:], row.children[1:], strict=True):
                    entry.insert(0, nodes.paragraph("", name, classes=["bn-column"]))


def setup(app):
    app.connect("doctree-resolved", _name_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
