"""JupyterLab as a reader starts it, for notebooks to be looked at in the browser."""

import contextlib
import json
import os
import subprocess
import sys
import time

SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "apputils-extension/themes": {"adaptive-theme": True},
}
"""Every cell is in the document, nothing is asked of the network, the theme follows the browser's."""

ARGUMENTS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port=0",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.log_level=ERROR",
)

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
"""Without this JupyterLab asks which kernel is wanted."""

SECONDS_TO_START = 60

KERNEL_IS_IDLE = r"() => /\| Idle/.test(document.querySelector('#jp-main-statusbar')?.innerText)"

NOTHING_IS_WAITING = r"""() => [...document.querySelectorAll('.jp-InputPrompt')]
    .every(prompt => !prompt.innerText.includes('*'))"""

HAS_BEGUN = (
    r"() => /\[[*\d]/.test(document.querySelector('.jp-CodeCell .jp-InputPrompt').textContent)"
)


@contextlib.contextmanager
def serve(folder, home):
    """Start JupyterLab on `folder`, with its settings and papers in `home`; give its address."""
    for name, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "configuration"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    environment.pop("BNCORE_FACE", None)
    with (home / "log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "jupyterlab", *ARGUMENTS]
        command.append(f"--ServerApp.root_dir={folder}")
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _address(server, home)
    finally:
        server.terminate()
        server.wait(30)


def _address(server, home):
    """The address, once the server says where it listens and that it does."""
    paper = home / "runtime" / f"jpserver-{server.pid}.json"
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError, json.JSONDecodeError):
            return json.loads(paper.read_text(encoding="utf-8"))["url"].rstrip("/")
        time.sleep(0.1)
    words = (home / "log").read_text(encoding="utf-8")
    raise RuntimeError(f"JupyterLab did not start:\n{words}")


def open_notebook(context, address, path):
    """A tab of `context` with the notebook at `path`, below the folder that is served."""
    tab = context.new_page()
    tab.goto(f"{address}/doc/tree/{path}?reset")
    tab.wait_for_selector(".jp-Notebook .jp-Cell", timeout=240_000)
    tab.wait_for_function(KERNEL_IS_IDLE, timeout=240_000)
    return tab


def clear_all(tab):
    """Take the outputs of every cell away, so that they can be waited for once more."""
    tab.get_by_role("menuitem", name="Edit", exact=True).click()
    tab.get_by_role("menuitem", name="Clear Outputs of All Cells", exact=True).click()
    tab.wait_for_function("() => !document.querySelector('.jp-OutputArea-output')")


def run_all(tab, seconds=120):
    """Run every cell of the notebook in `tab`, and wait until all have, or one fails."""
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    tab.wait_for_function(HAS_BEGUN)
    tab.wait_for_function(NOTHING_IS_WAITING, timeout=1000 * seconds)
    tab.wait_for_function(KERNEL_IS_IDLE, timeout=1000 * seconds)
