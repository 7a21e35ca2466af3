"""Time a call takes, over how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl

from .table import Growth

mpl.use("agg")
from matplotlib import pyplot

LABELS = {"ours": "workspace.change_runtime", "floor": "only the writes"}


def draw(growth: Sequence[Growth], path: Path) -> None:
    """A panel for each thing that grows: each side's median of the rounds, and their span."""
    things = list(dict.fromkeys(point.of for point in growth))
    figure, panels = pyplot.subplots(1, len(things), figsize=(5 * len(things), 4), squeeze=False)
    for panel, of in zip(panels[0], things, strict=True):
        for side, label in LABELS.items():
            points = [point for point in growth if (point.of, point.side) == (of, side)]
            if not points:
                continue
            middles = [median(point.times) for point in points]
            spans = [
                [middle - min(point.times) for point, middle in zip(points, middles, strict=True)],
                [max(point.times) - middle for point, middle in zip(points, middles, strict=True)],
            ]
            panel.errorbar(
                [point.size for point in points],
                middles,
                yerr=spans,
                marker="o",
                capsize=3,
                label=label,
            )
        panel.set(xscale="log", xlabel=of, ylabel="microseconds a call", ylim=(0, None))
        middles = [median(point.times) for point in growth if point.of == of]
        if max(middles) > 10 * min(middles):
            panel.set(yscale="log", ylim=(10, None))
        panel.grid(alpha=0.3)
        panel.legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
