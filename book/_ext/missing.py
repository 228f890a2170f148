"""The page that a host shows in place of one that is not there, as `404.html` at the root of the site.

It is shown at any depth, so that its links begin at the root of the site, which its `base` names.
"""

from urllib.parse import urlsplit


def root(site):
    """The path of the site's root on its host; `/` where the site's address is unknown."""
    return urlsplit(site).path or "/"


def _page(app):
    yield "404", {"site_root": root(app.config.html_baseurl)}, "404.html"


def setup(app):
    app.connect("html-collect-pages", _page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
