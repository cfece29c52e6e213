"""One look for every figure. Functions take a tidy table and return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart with every common colour blindness, and on white as on grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # the shape repeats what the colour says


def use_style() -> None:
    """Set the look of all figures: white ground, few lines, type that is legible on a phone."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE)
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6), "figure.dpi": 110, "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False, "axes.spines.right": False,
            "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e3e3e3", "axes.axisbelow": True,
            "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
            "axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10,
            "legend.frameon": False, "legend.fontsize": 10, "lines.linewidth": 1.8,
            "svg.hashsalt": "alignlab",
        }
    )  # fmt: skip


def _of(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise ValueError(f"the table has no metric {metric!r}: it has {', '.join(map(repr, table['metric'].unique()))}")
    return rows


def _check_colours(names: Sequence[str], what: str) -> None:
    """More than the eye can tell apart is refused by name, not by a lack of colours in the middle of drawing."""
    if len(names) > len(PALETTE):
        raise ValueError(
            f"there are {len(names)} {what} ({', '.join(map(str, names))}), but a figure shows {len(PALETTE)} at most: "
            "leave some out of the table, or draw two figures"
        )


def dots(
    table: pd.DataFrame,
    metric: str | Mapping[str, str],
    *,
    title: str,
    ylabel: str,
    order: Sequence[str] | None = None,
    reference: Mapping[str, float] | None = None,
    chance: float | None = None,
) -> Figure:
    """A dot for every seed and a bar for their mean, condition by condition.

    Args:
        metric: one metric, or several as metric -> label, drawn side by side in each condition.
        order: the conditions from left to right; default: as in the table.
        reference: condition -> the paper's value, drawn as a hollow star.
        chance: a level to draw as a dotted line.
    """
    labels = metric if isinstance(metric, Mapping) else {metric: None}
    _check_colours(list(labels), "metrics")
    known = list(table["condition"].unique())
    order = list(order or known)
    for c in order:
        if c not in known:
            raise ValueError(f"the table has no condition {c!r} to draw: it has {', '.join(map(repr, known))}")
    fig, ax = plt.subplots()
    width = 0.8 / len(labels)
    for k, (name, label) in enumerate(labels.items()):
        rows = _of(table, name)
        for i, condition in enumerate(order):
            values = rows.loc[rows["condition"] == condition, "value"].to_numpy()
            x = i - 0.4 + width * (k + 0.5)
            ax.bar(x, values.mean(), width * 0.86, color=PALETTE[k], alpha=0.35, label=label if i == 0 else None)
            spread = np.linspace(-1, 1, len(values)) * width * 0.22 if len(values) > 1 else [0]
            ax.plot(x + np.asarray(spread), values, MARKERS[k], color=PALETTE[k], ms=5.5, mec="white", mew=0.6)
    if reference:
        xs = [i for i, c in enumerate(order) if c in reference]
        ys = [reference[order[i]] for i in xs]
        ax.plot(xs, ys, "*", ms=12, mfc="none", mec="#222222", label="the paper's model")
    if chance is not None:
        ax.axhline(chance, color="#777777", ls=":", lw=1.3, label="guessing")
    ax.set(title=title, ylabel=ylabel, ylim=(0, 1.05))
    ax.set_xticks(range(len(order)), [c.replace(" ", "\n", 1) for c in order])
    if ax.get_legend_handles_labels()[0]:  # below the axes: beside them it would narrow the figure on a phone
        fig.legend(loc="outside lower center", ncols=3)
    return fig


def curves(
    table: pd.DataFrame,
    metric: str,
    along: str,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    chance: float | None = None,
    ylim: tuple[float, float] | None = (0, 1.05),
) -> Figure:
    """A line for the mean of each condition along a coordinate, and a dot for every seed."""
    rows = _of(table, metric)
    _check_colours(list(rows["condition"].unique()), "conditions")
    fig, ax = plt.subplots()
    for k, condition in enumerate(rows["condition"].unique()):
        part = rows[rows["condition"] == condition]
        mean = part.groupby(along)["value"].mean()
        ax.plot(mean.index, mean.values, color=PALETTE[k], marker=MARKERS[k], ms=4, label=condition)
        ax.plot(part[along], part["value"], MARKERS[k], color=PALETTE[k], ms=4.5, alpha=0.5, mec="none")
    if chance is not None:
        ax.axhline(chance, color="#777777", ls=":", lw=1.3, label="guessing")
    if log:
        ax.set_xscale("log")
        ticks = sorted(rows[along].unique())
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if ylim:
        ax.set_ylim(*ylim)
    fig.legend(loc="outside lower center", ncols=3)
    return fig
