"""The face of an interactive figure beside a live kernel: ipywidgets that recompute on every move."""

import ipywidgets

from bncore.page import frames
from bncore.page.labels import label, value_text


def widget(explorer):
    """A box with one slider for each parameter, the figure, and its caption.

    Parameters
    ----------
    explorer : Explorer

    Returns
    -------
    ipywidgets.VBox
        Its children are the sliders in the order of the parameters, the image, and the caption.
    """
    sliders = {
        key: ipywidgets.SelectionSlider(
            options=[(value_text(value), value) for value in grid],
            index=explorer.initial[key],
            description=label(key),
            continuous_update=True,
        )
        for key, grid in explorer.grids.items()
    }
    image = ipywidgets.Image(format="png", layout={"max_width": "560px"})

    def draw(_=None):
        values = {key: slider.value for key, slider in sliders.items()}
        image.alt = explorer.describe(**values)
        image.value = frames.to_png(explorer.figure(**values))

    for slider in sliders.values():
        slider.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([*sliders.values(), image, ipywidgets.Label(explorer.caption)])
