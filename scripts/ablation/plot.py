"""Figure of an ablation: every run, the mean of each arm, and the differences beside zero."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from callbacks.figures.draw import literal, new_figure, to_png
from scripts.ablation.estimate import Estimate


def ablation_png(
    measure: str, arms: Mapping[str, tuple[Sequence[float], Estimate]], differences: Mapping[str, Estimate]
) -> bytes:
    """Draws the arms (values of the runs and their mean) above their differences, if any, as a PNG file."""
    heights = [len(arms) + 1, *([len(differences) + 1] if differences else [])]
    figure = new_figure(9, 0.45 * sum(heights) + 1)
    above, *others = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    above.set_title("blue: the runs; black: mean and its 95 % interval", loc="right", fontsize="medium")
    for row, (values, mean) in enumerate(arms.values()):
        above.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.5)
        _bar(above, row, mean)
    above.set_xlabel(measure)
    for below in others:
        for row, difference in enumerate(differences.values()):
            _bar(below, row, difference)
        below.axvline(0, color="tab:red", linewidth=1)
        below.set_xlabel(f"difference, {measure}")
    for axes, names in zip((above, *others), (arms, differences), strict=False):
        axes.set_yticks(range(len(names)), [literal(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    return to_png(figure)


def _bar(axes: Any, row: int, value: Estimate) -> None:
    half = 0.0 if math.isnan(value.low) else value.high - value.mean
    axes.errorbar(value.mean, row, xerr=half, fmt="|", color="black", capsize=4, markersize=14)
