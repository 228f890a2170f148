"""Folds: side roads and proofs that a reader opens, and that may hold code cells.

A section whose title begins with `Deeper:` or `Proof` is folded with all that it holds, cells and sections; its
heading and its id stay. So is a proof of the class `dropdown`, which needs no heading:

    ```{prf:proof}
    :class: dropdown
    ```

On the page a fold is a native `<details>`, which needs no script; `folds.js` opens it for a link that points
inside and for paper. Other builders see open sections.
"""

import re

from docutils import nodes
from sphinx_proof.nodes import proof_node

FOLDED = re.compile(r"(Deeper: |Proof\b)")
_PROOF = "Proof. "


class fold_heading(nodes.title):
    """The title of a folded section, the part of the fold that is always seen."""


class fold_end(nodes.Element):
    """Where a folded section ends."""


class fold(nodes.Element):
    """A folded proof, or whatever its attribute `summary` says."""


def _fold(app, doctree, docname):
    if app.builder.format != "html":
        return
    for section in list(doctree.findall(nodes.section)):
        title = section[0] if len(section) else None
        if isinstance(title, nodes.title) and FOLDED.match(title.astext()):
            section[0] = fold_heading(title.rawsource, "", *title.children, **title.attributes)
            section += fold_end()
    for proof in list(doctree.findall(proof_node)):
        if "dropdown" in proof[0]["classes"]:
            _without_name(proof[0])
            proof.replace_self(fold("", *proof[0].children, ids=proof[0]["ids"]))


def _without_name(proof):
    """Drop the word that the summary says."""
    first = next(iter(proof.findall(nodes.Text)), None)
    if first is not None and first.startswith(_PROOF):
        first.parent.replace(first, nodes.Text(first[len(_PROOF) :]))


def _open_heading(self, node):
    level = min(self.section_level + self.initial_header_level - 1, 6)
    self.body.append(f'<details class="bn-fold"><summary><h{level}>')
    self.context.append(f"</h{level}></summary>")


def _close_heading(self, node):
    self.body.append(self.context.pop())


def _close(self, node):
    self.body.append("</details>")


def _open_fold(self, node):
    summary = node.get("summary")
    opening = self.starttag(node, "details", "", CLASS="bn-fold" if summary else "bn-fold bn-proof")
    self.body.append(f"{opening}<summary>{self.encode(summary or 'Proof')}</summary>")


def _nothing(self, node):
    pass


def setup(app):
    app.add_node(fold_heading, html=(_open_heading, _close_heading))
    app.add_node(fold_end, html=(_nothing, _close))
    app.add_node(fold, html=(_open_fold, _close))
    app.connect("doctree-resolved", _fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
