"""Lead links to what has moved on to where it is now: `forwards.toml` says where that is.

A page that something was moved from carries its part of the table, for `forwards.js` to follow.
"""

import json
import posixpath
import tomllib
from pathlib import Path

TABLE = Path(__file__).with_suffix(".toml")


def read(table=TABLE):
    """The table: for each address, `page.html#id`, the one that holds today."""
    return tomllib.loads(table.read_text(encoding="utf-8"))


def forwarded(address, table):
    """Where an address leads: a whole entry decides before one that ends in `*`, and of those the longest; or None."""
    if address in table:
        return table[address]
    begins = [old for old in table if old.endswith("*") and address.startswith(old[:-1])]
    if not begins:
        return None
    old = max(begins, key=len)
    return table[old].removesuffix("*") + address[len(old) - 1 :]


def of_page(page, table):
    """The part of the table that concerns a page: ids, and where they lead as seen from the page."""
    folder = posixpath.dirname(page)
    found = {}
    for old, new in table.items():
        if old.startswith(f"{page}#"):
            target, _, anchor = new.partition("#")
            found[old.partition("#")[2]] = f"{posixpath.relpath(target, folder)}#{anchor}"
    return found


def _add_the_table(app, pagename, templatename, context, doctree):
    if moved := of_page(app.builder.get_target_uri(pagename), read()):
        app.add_js_file(None, body=json.dumps(moved), type="application/json", id="bn-forwards")
        app.add_js_file("forwards.js", defer="defer")


def setup(app):
    app.connect("html-page-context", _add_the_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
