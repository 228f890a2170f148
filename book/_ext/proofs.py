"""An id for each proof: sphinx-proof calls every one `proof`, and the body of every statement `proof-content`.

A proof is named after the statement before it, `proof-thm-forward`, and counted from the second on. The bodies of
statements, exercises and solutions have no id: no link needs one.
"""

from collections import Counter

from docutils import nodes
from sphinx_proof.nodes import proof_node

_CONTENTS = ("proof-content", "exercise-content", "solution-content")


def _name_proofs(app, doctree):
    label, seen = "", Counter()
    for node in doctree.findall(nodes.Element):
        if isinstance(node, proof_node):
            seen[label] += 1
            count = str(seen[label]) if seen[label] > 1 else ""
            node[0]["ids"] = ["-".join(filter(None, ("proof", label, count)))]
            node[0]["classes"].append("bn-proof")
        elif "realtype" in node:
            label = node["label"]


def _leave_bodies_without_id(app, doctree, docname):
    for section in doctree.findall(nodes.section):
        section["ids"] = [name for name in section["ids"] if name not in _CONTENTS]


def setup(app):
    app.connect("doctree-read", _name_proofs)
    app.connect("doctree-resolved", _leave_bodies_without_id)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
