"""The ids of a page that a reader may hold: of headings, statements, formulas, exercises, figures, claims, sources and the package.

`python tests/site/ids.py FOLDER` lists those of a built site, one `page#id` a line.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LIST = Path(__file__).with_suffix(".txt")

# What Sphinx numbers; `id3` is where a source is cited.
_OF_THE_BUILD = re.compile(r"id\d+|.*-solution-\d+|(pst|mjx|MJX)-.*")
_CONTROLS = ("button", "input", "label", "output", "select")


class _Article(HTMLParser):
    def __init__(self):
        super().__init__()
        self.inside, self.ids = 0, []

    def handle_starttag(self, tag, attributes):
        if tag == "article":
            self.inside += 1
        found = dict(attributes).get("id")
        own = found and tag not in _CONTROLS and not _OF_THE_BUILD.fullmatch(found)
        if self.inside and own:
            self.ids.append(found)

    def handle_endtag(self, tag):
        if tag == "article":
            self.inside -= 1


def held(html):
    """The ids that a reader may hold of a page, in their order, each once."""
    article = _Article()
    article.feed(html)
    return list(dict.fromkeys(article.ids))


def of_site(folder):
    """`page#id` for every page of a built book."""
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.glob("book/**/*.html"))
    return [f"{page}#{each}" for page in pages for each in held((folder / page).read_text("utf-8"))]


if __name__ == "__main__":
    print(*of_site(Path(sys.argv[1])), sep="\n")
