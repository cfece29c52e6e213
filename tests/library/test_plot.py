"""Figures: every seed is in them, and nothing that the table does not say."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest
from alignlab.experiment import plot
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex


@pytest.fixture(autouse=True)
def figures():
    mpl.use("Agg")
    yield
    plt.close("all")


def table(conditions=("a", "b"), seeds=3, along=None):
    return pd.DataFrame(
        [
            {"condition": c, "seed": s, "metric": m, "value": k / 10 + s / 100 + n / 1000} | ({"n": n} if along else {})
            for k, c in enumerate(conditions)
            for s in range(seeds)
            for n in (along or [0])
            for m in ("x", "y")
        ]
    )


def points(figure):
    """The heights of all dots that are not joined by a line."""
    (ax,) = figure.axes
    loose = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_marker() in plot.MARKERS]
    return sorted(float(y) for line in loose for y in line.get_ydata())


def test_dots_show_every_seed_and_the_mean():
    data = table()
    figure = plot.dots(data, "x", title="T", ylabel="Y", chance=0.025)
    assert points(figure) == sorted(data[data["metric"] == "x"]["value"])
    (ax,) = figure.axes
    assert [p.get_height() for p in ax.patches] == pytest.approx([0.01, 0.11])
    assert (ax.get_title(loc="left") or ax.get_title(), ax.get_ylabel()) == ("T", "Y")
    assert any(list(line.get_ydata()) == [0.025, 0.025] for line in ax.lines)


def test_dots_of_two_metrics_and_a_reference():
    data = table(seeds=4)
    figure = plot.dots(data, {"x": "the x", "y": "the y"}, title="", ylabel="", order=["b", "a"], reference={"a": 0.7})
    assert len(points(figure)) == len(data) == 16
    (ax,) = figure.axes
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([1], [0.7])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a"]
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {"the x", "the y", "the paper's model"}


def test_one_seed_is_a_dot_too():
    assert points(plot.dots(table(seeds=1), "x", title="", ylabel="")) == pytest.approx([0, 0.1])


def test_curves_show_every_seed_and_the_mean():
    data = table(along=[1, 10, 100])
    figure = plot.curves(data, "y", "n", title="", xlabel="N", ylabel="", log=True)
    assert points(figure) == sorted(data[data["metric"] == "y"]["value"])
    (ax,) = figure.axes
    means = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert [list(line.get_xdata()) for line in means] == [[1, 10, 100]] * 2
    assert means[0].get_ydata() == pytest.approx([0.011, 0.02, 0.11])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "10", "100"]


def test_what_the_table_lacks_is_not_drawn():
    for draw in (
        lambda: plot.dots(table(), "z", title="", ylabel=""),
        lambda: plot.curves(table(along=[1, 2]), "z", "n", title="", xlabel="", ylabel=""),
    ):
        with pytest.raises(ValueError, match="no metric 'z': it has 'x', 'y'"):
            draw()
    with pytest.raises(ValueError, match="no condition 'c' .* 'a', 'b'"):
        plot.dots(table(), "x", title="", ylabel="", order=["a", "c"])


def test_more_lines_than_colours_are_refused_by_name():
    many = table(conditions=[f"arm {k}" for k in range(8)], along=[1, 2])
    with pytest.raises(ValueError, match="8 conditions .*arm 7.* 7 at most: leave some out"):
        plot.curves(many, "x", "n", title="", xlabel="", ylabel="")
    assert plot.dots(many, "x", title="", ylabel="").axes  # a bar has its place and needs no colour of its own
    with pytest.raises(ValueError, match="8 metrics"):
        plot.dots(many, {f"m{k}": "" for k in range(8)}, title="", ylabel="")


def test_colours_and_shapes_go_together():
    assert len(set(plot.PALETTE)) == len(plot.PALETTE) == len(plot.MARKERS) == len(set(plot.MARKERS))
    plot.use_style()
    assert [to_hex(c).upper() for c in mpl.rcParams["axes.prop_cycle"].by_key()["color"]] == list(plot.PALETTE)
