"""Find the browser that the site tests drive; run as a script, say how to install one if there is none."""

import os
import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"

MISSING = (
    "No Chromium or Chrome was found, and the site tests need one: install it with "
    "`sudo apt-get install chromium` (Debian) or `brew install --cask google-chrome` (macOS), or set "
    "CHROME to a browser's path."
)


def find():
    """The path of an installed Chromium or Chrome, or None."""
    candidates = [os.environ.get("CHROME"), *map(shutil.which, NAMES), MAC]
    return next((path for path in candidates if path and os.path.exists(path)), None)


if __name__ == "__main__":
    if find() is None:
        sys.exit(MISSING)
