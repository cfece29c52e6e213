"""One look for every figure. Functions take a tidy table of `sweep` and return a matplotlib figure.

Which rows are drawn is said, not cut out beforehand: `where` is a column -> its value or values, and `order` what is
drawn, one after the other, with what it is called:

    order=["base", "aligned"]                           conditions
    order={"base": "the base", "aligned": "its twin"}   conditions, renamed
    order={("longer", 1000): "1,000 examples"}          a condition at one point of its curve, as in a ledger

Every seed is drawn, and nothing is averaged but seeds: more than one row for a seed is refused.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

from .. import check
from .rows import Order, drawn, labels_of, named, one_row_a_seed

# Okabe and Ito (2008): told apart with every common colour blindness, and on white as on grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")  # as the markers, for stacked bars
LETTERS = 53  # of this size beside each other fill the width of a figure
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # the shape repeats what the colour says


def use_style() -> None:
    """Set the look of all figures: white ground, few lines, type that is legible on a phone.

    A notebook gets them as SVG with its text as text, sharp at every size: 4.6 inches are as wide as the column of a
    phone, where a point then is a pixel.
    """
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE)
    if "ipykernel" in sys.modules:
        set_matplotlib_formats("svg", metadata={"Date": None})
    mpl.rcParams.update(
        {
            "figure.figsize": (4.6, 3.1), "figure.dpi": 110, "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False, "axes.spines.right": False,
            "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e3e3e3", "axes.axisbelow": True,
            "font.size": 11, "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
            "axes.labelsize": 11, "xtick.labelsize": 11, "ytick.labelsize": 11,
            "legend.frameon": False, "legend.fontsize": 11, "legend.handlelength": 1.4, "legend.columnspacing": 1.2,
            "lines.linewidth": 1.8, "svg.hashsalt": "alignlab", "svg.fonttype": "none",
        }
    )  # fmt: skip


def _check_colours(names: Sequence[str], what: str) -> None:
    """More than the eye can tell apart is refused by name, not by a lack of colours in the middle of drawing."""
    if len(names) > len(PALETTE):
        raise ValueError(
            f"there are {len(names)} {what} ({', '.join(map(str, names))}), but a figure shows {len(PALETTE)} at most: "
            "name some in `order`, or draw two figures"
        )


def _looks(names: Sequence[str], places: Sequence[int]) -> dict:
    """Colour and marker of each name, for seaborn."""
    hues = {n: PALETTE[k] for n, k in zip(names, places, strict=True)}
    return {"hue_order": names, "palette": hues, "markers": {n: MARKERS[PALETTE.index(h)] for n, h in hues.items()}}


def _finish(ax, values: Sequence[float], chance: float | None, ylim: tuple[float, float] | None) -> None:
    """The line of guessing, a range that hides nothing, and the legend."""
    values = [*values, *([] if chance is None else [chance])]
    low, high = min(values), max(values)
    if chance is not None:
        ax.axhline(chance, color="#777777", ls=":", lw=1.3, label="guessing")
    if ylim is None:  # shares from 0 to 1 always, so that figures can be compared; more where there is more
        room = 0.05 * (max(high, 1) - min(low, 0))
        ylim = (low - room if low < 0 else 0, max(high, 1) + room)
    elif low < ylim[0] or high > ylim[1]:
        raise ValueError(f"ylim is {ylim}, but the values reach from {low:g} to {high:g}: nothing may be cut off")
    ax.set_ylim(*ylim)
    if ax.get_legend():
        ax.get_legend().remove()
    if ax.get_legend_handles_labels()[0]:
        legend(ax.figure, *ax.get_legend_handles_labels())


def _title(words: str) -> str:
    return textwrap.fill(words, LETTERS - 10)


def legend(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Below the axes, for beside them it would narrow the figure on a phone; as many beside each other as fit.

    Every row but the first makes the figure higher, and leaves the axes as they are.
    """
    longest = max(map(len, labels)) + 6  # with what is drawn before it
    ncols = max(1, min(4, len(labels), LETTERS // longest))
    figure.set_figheight(figure.get_figheight() + 0.2 * (math.ceil(len(labels) / ncols) - 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols)


def dots(
    table: pd.DataFrame,
    metric: str | Mapping[str, str],
    *,
    title: str,
    ylabel: str,
    where: Mapping[str, object] | None = None,
    x: str = "condition",
    order: Order = None,
    hue: str = "metric",
    hues: Order = None,
    reference: Mapping | None = None,
    chance: float | None = None,
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """A dot for every seed and a bar for their mean, side by side.

    Args:
        metric: one metric, or several as metric -> label.
        where: column -> the value or values that are drawn.
        x: the column whose values stand from left to right; "metric" to have the metrics there.
        order: of x, see the head of this module; default: as in the table.
        hue: the column whose values stand side by side in each place, each in its colour.
        hues: of hue, like `order`; default: the labels of the metrics, or as in the table.
        reference: the papers' values, drawn as hollow stars: what is written below -> a value or several, at the middle
            of the place; (what is written below, a value of hue) -> at the bar of that one.
        chance: a level to draw as a dotted line.
        ylim: default: from 0 to 1, and further where the values go further.

    Raises:
        ValueError: what the table lacks, more than one row for a seed, more colours than can be told apart, a
            reference to a place that is not drawn, or a `ylim` that cuts something off.
    """
    rows, labels = drawn(table, metric, where)
    if x == hue:
        hues = order if hues is None else hues
    both = {}
    for column, said in ((x, order), (hue, hues)):
        default = labels if column == "metric" else rows[column].unique()
        both[column] = labels_of(labels if said is None and column == "metric" else said, default)
    rows = named(named(rows, x, both[x], "(x)"), hue, both[hue], "(hue)")
    one_row_a_seed(rows, ["(x)", "(hue)"])
    places, shown = (list(dict.fromkeys(map(str, both[c].values()))) for c in (x, hue))
    _check_colours(shown, f"{hue}s")
    looks, width = _looks(shown, range(len(shown))), 0.8 / len(shown)
    centre = {s: width * (k + 0.5) - 0.4 for k, s in enumerate(shown)}
    # Bars are at 0, 1, ...; the dots of a bar stand beside each other, or equal values would hide behind one another.
    nth = rows.groupby(["(x)", "(hue)"]).cumcount()
    of = rows.groupby(["(x)", "(hue)"])["value"].transform("size")
    beside = ((nth + 0.5) / of - 0.5) * width * 0.6
    rows = rows.assign(at=rows["(x)"].map(places.index))
    rows["dot"] = rows["at"] + rows["(hue)"].map(centre) + beside
    fig, ax = plt.subplots()
    data = {"data": rows, "y": "value", "hue": "(hue)", "ax": ax}
    bars = {"width": 0.8, "gap": 0.14, "native_scale": True, "errorbar": None, "alpha": 0.35, "saturation": 1}
    sns.barplot(x="at", hue_order=shown, palette=looks["palette"], legend=len(shown) > 1, **bars, **data)
    sns.scatterplot(x="dot", style="(hue)", style_order=shown, legend=False, s=32, linewidth=0.6, **looks, **data)
    for (place, name), mean in rows.groupby(["(x)", "(hue)"])["value"].mean().items():
        if abs(mean) < 0.005:  # there is no bar to be seen: say that it is there
            ax.annotate("0", (places.index(place) + centre[name], 0), (0, 6), textcoords="offset points", ha="center")
    stars = []
    for key, value in (reference or {}).items():
        place, name = key if isinstance(key, tuple) else (key, None)
        check.one_of("the place of a reference", str(place), places)
        side = 0 if name is None else centre[str(both[hue][check.one_of("the bar of a reference", name, both[hue])])]
        stars += [(places.index(str(place)) + side, v) for v in (value if isinstance(value, Sequence) else [value])]
    if stars:
        ax.plot(*zip(*stars, strict=True), "*", ms=10, mfc="none", mec="#222222", label="the paper's model")
    ax.set(title=_title(title), ylabel=ylabel, xlabel="")
    room = max(6, (LETTERS - 12) // len(places))
    ax.set_xticks(range(len(places)), [textwrap.fill(p, room, break_long_words=False) for p in places])
    _finish(ax, [*rows["value"], *(v for _, v in stars)], chance, ylim)
    return fig


def curves(
    table: pd.DataFrame,
    metric: str | Mapping,
    along: str,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    where: Mapping[str, object] | None = None,
    order: Order = None,
    log: bool = False,
    logy: bool = False,
    chance: float | None = None,
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """A line for the mean of each condition along a coordinate, and a dot for every seed.

    Args:
        metric: one metric, or several as metric -> label: then each is a line, of each condition.
        along: the coordinate; or "metric", where `metric` says the place of each (`{"shift 1": 1, "shift 2": 2}`).
        where, order, chance, ylim: as in `dots`; two conditions that are called the same make one line. A condition
            keeps its colour in all figures of a table.
        log: a logarithmic axis with a tick at every point; where a point is 0, it has its place at the left.
        logy: a logarithmic axis of values, which must be above 0.

    Raises:
        ValueError: as `dots`.
    """
    known = table["condition"].unique().tolist()
    rows, labels = drawn(table, metric, where)
    names = labels_of(order, rows["condition"].unique())
    rows = named(rows, "condition", names, "(line)")
    rows["(x)"] = pd.to_numeric(rows["metric"].map(labels) if along == "metric" else rows[along])
    if along != "metric" and len(labels) > 1:
        of = rows["metric"].map(labels)
        rows["(line)"] = of if len(names) == 1 else of + ", " + rows["(line)"]
    one_row_a_seed(rows, ["(line)", "(x)"])
    if along != "metric":
        rows = rows.assign(nth=rows["metric"].map(list(labels).index)).sort_values("nth", kind="stable")
    lines = list(dict.fromkeys(rows["(line)"]))
    _check_colours(lines, "lines")
    fixed = len(known) <= len(PALETTE) and len(lines) == len(names) and set(names) <= set(known) and len(names) > 1
    looks = _looks(lines, [known.index(c) for c in names] if fixed else range(len(lines)))
    fig, ax = plt.subplots()
    data = {"data": rows, "x": "(x)", "y": "value", "hue": "(line)", "style": "(line)", "style_order": lines, "ax": ax}
    sns.lineplot(errorbar=None, dashes=False, ms=5, **looks, **data)
    sns.scatterplot(legend=False, s=22, alpha=0.5, linewidth=0, **looks, **data)
    if log:
        ticks = sorted(rows["(x)"].unique())
        if ticks[0] == 0:
            ax.set_xscale("symlog", linthresh=ticks[1], linscale=0.5)
            ax.set_xlim(-0.1 * ticks[1], 1.3 * ticks[-1])
        else:
            ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{t:,g}" for t in ticks])
        ax.minorticks_off()
    elif (rows["(x)"] % 1 == 0).all():
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(title=_title(title), xlabel=xlabel, ylabel=ylabel)
    if logy:
        if rows["value"].min() <= 0:
            raise ValueError(
                f"a value is {rows['value'].min():g}, which a logarithmic axis cannot show: leave out logy"
            )
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")  # an exponent would be smaller than the rest
        ylim = ylim or (rows["value"].min() / 1.5, rows["value"].max() * 1.5)
    _finish(ax, rows["value"], chance, ylim)
    return fig


def shares(
    frame: pd.DataFrame, x: str, hue: str, *, order: Sequence[str], hues: Sequence[str], title: str, xlabel: str,
    ylabel: str,
) -> Figure:  # fmt: skip
    """For every value of column `x` the shares of the values of column `hue` among its rows, stacked to 1.

    Args:
        frame: one row for each thing that is counted.
        order, hues: the values of both, from left to right and from the bottom to the top.
    """
    _check_colours(hues, f"{hue}s")
    for column, wanted in ((x, order), (hue, hues)):
        if odd := sorted(set(frame[column].astype(str)) - set(map(str, wanted))):
            raise ValueError(f"{column} has {odd[0]!r}, which is not drawn: name it, or leave its rows out")
    there = [h for h in hues if (frame[hue] == h).any()]  # seaborn draws no bars of what is nowhere
    frame = frame.assign(**{x: pd.Categorical(frame[x].astype(str), list(map(str, order)))})
    fig, ax = plt.subplots()
    sns.histplot(
        frame, x=x, hue=hue, hue_order=list(reversed(there)), palette=dict(zip(hues, PALETTE, strict=False)),
        multiple="fill", discrete=True, shrink=0.8, alpha=1, edgecolor="white", ax=ax,
    )  # fmt: skip
    for name, bars in zip(there, ax.containers, strict=True):
        for bar in bars:
            bar.set_hatch(HATCHES[list(hues).index(name)])
    handles = [bars.patches[0] for bars in ax.containers]
    ax.get_legend().remove()
    legend(fig, handles, there)
    ax.set(title=_title(title), xlabel=xlabel, ylabel=ylabel)
    return fig


def heat(frame: pd.DataFrame, *, title: str = "", xlabel: str = "", label: str = "", ax=None) -> Figure:
    """Shares, 0 to 1, as a map of colours: a row for each row of the frame, named as in its index."""
    if ax is None:
        _, ax = plt.subplots()
    sns.heatmap(frame, vmin=0, vmax=1, cmap="cividis", cbar_kws={"label": label}, ax=ax)
    ax.set(title=_title(title), xlabel=xlabel, ylabel="")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    return ax.figure
