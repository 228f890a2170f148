"""Tabs of the browser: opened, watched for what goes wrong, and put back as they opened."""

from built import PHONE

# Formulas are typeset, letters are drawn in their fonts: nothing moves any more. What MathJax is set
# to stands on the page before MathJax itself is there.
_READY = """async () => {
    if (window.MathJax && !window.MathJax.startup) return false;
    await window.MathJax?.startup.promise;
    await document.fonts.ready;
    return true;
}"""

# Every control of a figure to where the page sets it, and the event that the browser would send.
_PUT_BACK = """() => {
    for (const input of document.querySelectorAll('figure.bn-explore input')) {
        input.value = input.defaultValue;
        input.checked = input.defaultChecked;
    }
    for (const input of document.querySelectorAll('.bn-control :is([type=range], :checked)'))
        input.dispatchEvent(new Event('input', { bubbles: true }));
    document.activeElement.blur();
    scrollTo(0, 0);
}"""

# What is drawn is what the page draws without script; what was never in sight is not drawn.
_AS_IT_OPENED = """() => [...document.querySelectorAll('figure.bn-explore[data-shown]')].every(
    figure => figure.querySelector('img').getAttribute('src').endsWith(`/${figure.dataset.shown}`))"""


def open_tab(chromium, url, viewport, theme, javascript=True):
    """A tab in a context of its own, once the page is there.

    Its `complaints` and its `answers` are lists that fill.
    """
    context = chromium.new_context(
        viewport=viewport,
        color_scheme=theme,
        java_script_enabled=javascript,
        has_touch=viewport is PHONE,
    )
    tab = context.new_page()
    tab.complaints, tab.answers = _complaints(tab, url.split("/", 3)[2]), []
    tab.on("response", lambda answer: tab.answers.append(answer))
    tab.goto(url)
    if javascript:
        tab.wait_for_function(_READY)
    return tab


def put_back(tab):
    """Figures, focus, pointer and scroll of a tab as they were when it opened."""
    tab.mouse.move(0, 0)
    tab.evaluate(_PUT_BACK)
    tab.wait_for_function(_AS_IT_OPENED)


def _complaints(tab, host):
    """What goes wrong in `tab` from now on: a list that fills."""
    found = []

    def console(message):
        if message.type in ("error", "warning"):
            found.append(f"console {message.type}: {message.text}")

    def request(request):
        if not request.url.startswith((f"http://{host}/", "data:", "blob:")):
            found.append(f"request to another host: {request.url}")

    def response(response):
        if response.status >= 400:
            found.append(f"{response.status}: {response.url}")

    tab.on("console", console)
    tab.on("pageerror", lambda error: found.append(f"uncaught: {error}"))
    tab.on("request", request)
    tab.on("response", response)

    def failed(request):
        """Only a page that is left gives up its icon, which a browser asks for last."""
        given_up = request.failure == "net::ERR_ABORTED" and request.url.endswith("/favicon.svg")
        if not given_up:
            found.append(f"failed: {request.url}")

    tab.on("requestfailed", failed)
    return found
