"""Attention maps drawn over the image that they belong to."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from callbacks.figures.draw import new_figure


def map_figure(image: np.ndarray, title: str, gates: Mapping[str, np.ndarray], cam: np.ndarray, target: str) -> Figure:
    """Draws the image, the spatial gate of each stage over it, and Grad-CAM over it.

    The colours of a gate span its smallest to its largest factor, which its title states, as they may differ little.

    Args:
        image: uint8 ``(height, width, 3)``.
        title: Title of the image.
        gates: Factors of the spatial gate by stage, of any height and width.
        cam: Grad-CAM, of any height and width.
        target: Title of Grad-CAM: the class that it explains.
    """
    panels = {
        f"{stage}\n× {factors.min():.3f} to {factors.max():.3f}": (factors, "viridis")
        for stage, factors in gates.items()
    }
    panels[f"Grad-CAM\n{target}"] = (cam, "inferno")
    figure = new_figure(2.2 * (len(panels) + 1), 2.8)
    first, *others = np.ravel(figure.subplots(1, len(panels) + 1))
    first.imshow(image)
    first.set_title(title, fontsize=8)
    height, width = image.shape[:2]
    for axes, (name, (values, colours)) in zip(others, panels.items(), strict=True):
        axes.imshow(image.mean(2), cmap="gray")
        axes.imshow(values, cmap=colours, alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        axes.set_title(name, fontsize=8)
    for axes in figure.axes:
        axes.axis("off")
    return figure
