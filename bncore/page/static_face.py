"""The face of an interactive figure on the published page: every frame as a file, and native controls.

`book/_static/explore.js` moves between the frames.
"""

import itertools
import json
from html import escape

from bncore.page import frames
from bncore.page.labels import is_choice, label, unbroken, value_text


def html(explorer, folder, url):
    """Render every frame of `explorer` into `folder` and return the figure as HTML.

    The first figure of a page also gives the picture of its card, `card.png`.

    Parameters
    ----------
    explorer : Explorer
    folder : pathlib.Path
        Where the frames go, in a folder named after the figure.
    url : str
        How the page reaches `folder`.

    Returns
    -------
    str
        A `<figure>` that shows the first frame and its caption without any script.

    Raises
    ------
    ValueError
        If the page already has a figure of this name, whose frames would be lost.
    """
    name = explorer.name
    here = folder / name
    if here.exists():
        raise ValueError(f"two figures of this page are named {name!r}: rename one")
    if not any(path.is_dir() for path in folder.glob("*")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "card.png").write_bytes(
            frames.to_card(explorer.figure(**explorer.at(explorer.initial.values())))
        )
    here.mkdir()
    alts = {}
    for indices in positions(explorer):
        values = explorer.at(indices)
        file = file_name(indices)
        (here / file).write_text(frames.to_svg(explorer.figure(**values), name), encoding="utf-8")
        alts[file] = explorer.describe(**values)
    first = file_name(explorer.initial.values())
    controls = "".join(_control(explorer, key) for key in explorer.grids)
    kind = "bn-explore" if explorer.grids else "bn-show"
    ratio = _aspect_ratio(here / first)
    return (
        f'<figure class="bn-figure {kind}" id="figure-{name}" data-frames="{url}/{name}">'
        f'<div class="bn-frame" role="img" aria-label="{escape(alts[first])}" '
        f'style="aspect-ratio: {ratio}">'
        f'<img src="{url}/{name}/{first}" alt="" loading="lazy"></div>'
        f'<div class="bn-controls" hidden>{controls}</div>'
        f"<figcaption>{escape(unbroken(explorer.caption))}</figcaption>"
        f'<script type="application/json" class="bn-alts">{_json(alts)}</script>'
        "</figure>"
    )


def positions(explorer):
    """Every tuple of indices into the grids of `explorer`."""
    return itertools.product(*(range(len(grid)) for grid in explorer.grids.values()))


def file_name(indices):
    """The file of the frame at `indices`: `3-7.svg`; `still.svg` for a figure that does not move."""
    return ("-".join(map(str, indices)) or "still") + ".svg"


def _control(explorer, key):
    grid = explorer.grids[key]
    make = _buttons if is_choice(grid) else _slider
    texts = [value_text(value) for value in grid]
    return make(f"{explorer.name}-{key}", label(key), texts, explorer.initial[key])


def _buttons(identifier, name, texts, start):
    buttons = "".join(
        f'<label><input type="radio" name="{identifier}" value="{index}" autocomplete="off"'
        f"{' checked' if index == start else ''} disabled><span>{escape(text)}</span></label>"
        for index, text in enumerate(texts)
    )
    return (
        f'<div class="bn-control bn-choice" role="radiogroup" aria-labelledby="{identifier}">'
        f'<span id="{identifier}">{escape(name)}</span>'
        f'<div class="bn-buttons">{buttons}</div></div>'
    )


def _slider(identifier, name, texts, start):
    widest = max(map(len, texts)) + 1
    return (
        f'<div class="bn-control"><label for="{identifier}">{escape(name)}</label>'
        f'<input type="range" id="{identifier}" min="0" max="{len(texts) - 1}" step="1" '
        f'value="{start}" aria-valuetext="{escape(texts[start])}" autocomplete="off" '
        f"data-values='{escape(json.dumps(texts, ensure_ascii=False))}' disabled>"
        f'<output for="{identifier}" style="min-width: {widest}ch">{escape(texts[start])}</output></div>'
    )


def _aspect_ratio(file):
    view_box = file.read_text(encoding="utf-8").split('viewBox="', 1)[1].split('"', 1)[0]
    _, _, width, height = view_box.split()
    return f"{width} / {height}"


def _json(value):
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
