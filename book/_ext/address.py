"""Where the repository lives: launch buttons, edit links and the notebooks' set-up cells depend on it.

The address comes from GITHUB_REPOSITORY, or from the git remote `origin`; where neither is known the
pages have no such links.
"""

import os
import re
import subprocess

LAUNCH_BRANCH = "launch"
"""The branch on which `publish` keeps the notebooks' editions, for Colab and Binder to open."""

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
    match = _REMOTE.search(_git(root, "remote", "get-url", "origin"))
    return f"https://github.com/{match['repository']}" if match else None


def site_address(address):
    """Where GitHub Pages shows the site of the repository at `address`, with a slash at the end."""
    owner, name = address.removeprefix("https://github.com/").split("/")
    home = f"{owner.lower()}.github.io"
    return f"https://{home}/" if name.lower() == home else f"https://{home}/{name}/"


def commit(environ=os.environ, root="."):
    """The commit that is built, from GITHUB_SHA or from git, or None."""
    if environ.get("GITHUB_SHA"):
        return environ["GITHUB_SHA"]
    return _git(root, "rev-parse", "--verify", "--quiet", "HEAD") or None


def _git(root, *arguments):
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip()


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


def _launch_the_editions(app, pagename, templatename, context, doctree):
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace("/blob/main/", f"/blob/{LAUNCH_BRANCH}/")
            if button.get("text") == "Binder":
                button["url"] = button["url"].replace("/main?", f"/{LAUNCH_BRANCH}?")


def setup(app):
    app.connect("config-inited", _configure, priority=100)
    app.connect("html-page-context", _launch_the_editions, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
