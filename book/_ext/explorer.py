"""The directive `explorer`: a figure of the package that moves, on a page without code.

```{explorer} bncore.chapters.front.start.figures.eight_numbers
```
"""

import importlib
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Moving(SphinxDirective):
    """An interactive figure, given by the module and the name of its ``Explorer``."""

    required_arguments = 1

    def run(self):
        from bncore.page import static_face

        module, _, name = self.arguments[0].rpartition(".")
        try:
            explorer = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise self.error(f"explorer: there is no {self.arguments[0]} ({error})") from error
        docname = self.env.docname
        folder = Path(self.env.app.outdir, "_frames", docname)
        shutil.rmtree(folder / explorer.name, ignore_errors=True)
        url = f"{'../' * docname.count('/')}_frames/{docname}"
        self.env.note_dependency(sys.modules[module].__file__)
        return [nodes.raw("", static_face.html(explorer, folder, url), format="html")]


def setup(app):
    app.add_directive("explorer", Moving)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
