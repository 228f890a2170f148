"""A builder that reads the book and writes no page: as much of Sphinx as the editions need."""

from sphinx.builders import Builder


class EditionBuilder(Builder):
    """Reads what has changed; the editions are derived when it is done."""

    name = "edition"
    epilog = ""
    allow_parallel = True

    def get_outdated_docs(self):
        return []

    def get_target_uri(self, docname, typ=None):
        return f"{docname}.html"

    def prepare_writing(self, docnames):
        pass

    def write(self, build_docnames, updated_docnames, method="update"):
        pass

    def write_doc(self, docname, doctree):
        pass
