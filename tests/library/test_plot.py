"""Figures: every seed is in them, and nothing that the table does not say."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest
from alignlab.experiment import plot
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb


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
    """The (x, y) of all dots of seeds, by their colour's place in the palette."""
    (ax,) = figure.axes
    found = {}
    for dots in ax.collections:
        for place, colour in zip(dots.get_offsets().tolist(), dots.get_facecolors(), strict=True):
            found.setdefault(plot.PALETTE.index(to_hex(colour[:3]).upper()), []).append(place)
    return found


def heights(figure):
    return sorted(y for dots in points(figure).values() for _, y in dots)


def stars(figure):
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    return [tuple(p) for p in line.get_xydata().tolist()]


def legend(figure):
    return [t.get_text() for t in figure.legends[0].get_texts()]


def below(figure):
    return [t.get_text() for t in figure.axes[0].get_xticklabels()]


def lines(figure):
    """Label -> the points of each line of means."""
    ax = figure.axes[0]
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    drawn = [line for line in ax.lines if len(line.get_xdata()) and line.get_linestyle() == "-"]
    return {
        n: next(d.get_xydata().tolist() for d in drawn if d.get_color() == h.get_color()) for n, h in handles.items()
    }


def test_dots_show_every_seed_and_the_mean():
    data = table()
    figure = plot.dots(data, "x", title="T", ylabel="Y", chance=0.025)
    assert heights(figure) == sorted(data[data["metric"] == "x"]["value"])
    (ax,) = figure.axes
    assert [p.get_height() for p in ax.patches] == pytest.approx([0.01, 0.11])
    assert (ax.get_title(loc="left") or ax.get_title(), ax.get_ylabel()) == ("T", "Y")
    assert any(list(line.get_ydata()) == [0.025, 0.025] for line in ax.lines)


def test_dots_stand_over_their_bar_and_equal_ones_beside_each_other():
    data = table(seeds=4).assign(value=0.5)
    figure = plot.dots(data, {"x": "the x", "y": "the y"}, title="", ylabel="")
    for k, dots in points(figure).items():
        bars = sorted(figure.axes[0].containers[k], key=lambda p: p.get_x())
        assert len(dots) == 8 and len({x for x, _ in dots}) == 8
        for place in (0, 1):
            left, width = bars[place].get_x(), bars[place].get_width()
            assert all(left < x < left + width for x, _ in sorted(dots)[4 * place : 4 * place + 4])


def test_dots_of_two_metrics_and_references():
    data = table(seeds=4)
    labels = {"x": "the x", "y": "the y"}
    reference = {"a": 0.7, ("b", "y"): [0.2, 0.3]}
    figure = plot.dots(data, labels, title="", ylabel="", order=["b", "a"], reference=reference)
    assert len(heights(figure)) == len(data) == 16
    assert stars(figure) == [(1, 0.7), (pytest.approx(0.2), 0.2), (pytest.approx(0.2), 0.3)]
    assert below(figure) == ["b", "a"] and set(legend(figure)) == {"the x", "the y", "the paper's model"}
    for wrong in ({"c": 0.5}, {("a", "z"): 0.5}):
        with pytest.raises(ValueError, match="of a reference is '[cz]'"):
            plot.dots(data, labels, title="", ylabel="", reference=wrong)


def test_conditions_are_chosen_named_and_ordered():
    data = table(conditions=("a", "b", "c"), along=[1, 10])
    how = {"title": "", "ylabel": ""}
    figure = plot.dots(data, "x", where={"n": 10}, order={"c": "the third", "a": "the first"}, **how)
    assert below(figure) == ["the third", "the first"]
    assert heights(figure) == pytest.approx([0.01, 0.02, 0.03, 0.21, 0.22, 0.23])
    figure = plot.dots(data, "x", order={("a", 10): "late", ("b", 1): "early"}, **how)
    assert below(figure) == ["late", "early"]
    assert heights(figure) == pytest.approx([0.01, 0.02, 0.03, 0.101, 0.111, 0.121])


def test_any_column_can_stand_below_or_side_by_side():
    data = table(along=[1, 2])
    data["n"] = data["n"].map({1: "early", 2: "end"})
    how = {"title": "", "ylabel": ""}
    figure = plot.dots(data, "x", hue="n", hues={"end": "at the end", "early": "stopped"}, **how)
    assert legend(figure) == ["at the end", "stopped"] and below(figure) == ["a", "b"]
    figure = plot.dots(data, {"y": "the y", "x": "the x"}, where={"n": "end"}, x="metric", hue="condition", **how)
    assert below(figure) == ["the y", "the x"] and legend(figure) == ["a", "b"]


def test_a_coordinate_may_have_any_name():
    for name in ("place", "shown", "x", "at", "dot", "nth"):
        data = table(along=[1, 2]).rename(columns={"n": name})
        figure = plot.dots(data, "x", hue=name, title="", ylabel="")
        assert legend(figure) == ["1", "2"] and below(figure) == ["a", "b"]
        figure = plot.curves(data, "x", name, title="", xlabel="", ylabel="")
        assert [x for x, _ in lines(figure)["a"]] == [1, 2]


def test_one_seed_is_a_dot_too_and_a_bar_of_nothing_is_said():
    figure = plot.dots(table(seeds=1), "x", title="", ylabel="")
    assert heights(figure) == pytest.approx([0, 0.1])
    assert [(t.get_text(), t.xy) for t in figure.axes[0].texts] == [("0", (0, 0))]


def test_points_that_were_not_chosen_are_not_averaged():
    data = table(along=[1, 2])
    for draw in (
        lambda: plot.dots(data, "x", title="", ylabel=""),
        lambda: plot.curves(data.assign(m=0), "x", "m", title="", xlabel="", ylabel=""),
    ):
        with pytest.raises(ValueError, match="more than one row per seed for a.* `where`"):
            draw()


def test_nothing_is_cut_off():
    data = table().assign(value=[-0.5, *[0.5] * 10, 3.0])
    low, high = plot.dots(data, {"x": "x", "y": "y"}, title="", ylabel="").axes[0].get_ylim()
    assert low < -0.5 and high > 3
    assert plot.dots(table(), "x", title="", ylabel="").axes[0].get_ylim() == (0, 1.05)
    high = plot.dots(table(), "x", title="", ylabel="", reference={"a": 2.0}).axes[0].get_ylim()[1]
    assert high > 2
    with pytest.raises(ValueError, match=r"ylim is \(0, 1\), but the values reach from -0.5 to 3"):
        plot.dots(data, {"x": "x", "y": "y"}, title="", ylabel="", ylim=(0, 1))


def test_curves_show_every_seed_and_the_mean():
    data = table(along=[1, 10, 100])
    figure = plot.curves(data, "y", "n", title="", xlabel="N", ylabel="", log=True)
    assert heights(figure) == sorted(data[data["metric"] == "y"]["value"])
    assert lines(figure)["a"] == [[1, pytest.approx(0.011)], [10, pytest.approx(0.02)], [100, pytest.approx(0.11)]]
    assert below(figure) == ["1", "10", "100"] and legend(figure) == ["a", "b"]


def test_a_curve_from_nothing_has_its_place_on_a_logarithmic_axis():
    figure = plot.curves(table(along=[0, 10, 1000]), "y", "n", title="", xlabel="", ylabel="", log=True)
    assert below(figure) == ["0", "10", "1,000"]
    places = [figure.axes[0].transData.transform((x, 0))[0] for x in (0, 10, 1000)]
    assert places == sorted(places) and places[1] - places[0] > 20  # points on the screen


def test_a_logarithmic_axis_of_values_shows_all_of_them():
    data = table(along=[1, 2])
    data["value"] += 1e-4
    axis = plot.curves(data, "x", "n", title="", xlabel="", ylabel="", logy=True).axes[0]
    low, high = axis.get_ylim()
    assert axis.get_yscale() == "log" and 0 < low < data["value"].min() and high > data["value"].max()
    with pytest.raises(ValueError, match="a value is 0, which a logarithmic axis cannot show"):
        plot.curves(data.assign(value=0.0), "x", "n", title="", xlabel="", ylabel="", logy=True)


def test_several_metrics_are_several_lines():
    data, how = table(along=[1, 2]), {"title": "", "xlabel": "", "ylabel": ""}
    both = {"y": "the y", "x": "the x"}
    assert list(lines(plot.curves(data, both, "n", where={"condition": "b"}, **how))) == ["the y", "the x"]
    assert list(lines(plot.curves(data, both, "n", order={"b": "B", "a": "A"}, **how))) == [
        "the y, B", "the y, A", "the x, B", "the x, A",
    ]  # fmt: skip
    figure = plot.curves(data, {"x": 3, "y": 7}, "metric", where={"n": 2}, **how)
    assert lines(figure)["b"] == [[3, pytest.approx(0.112)], [7, pytest.approx(0.112)]]


def test_one_line_may_go_on_in_another_condition():
    data = table(along=[1, 2, 3])
    order = {("a", 1): "whole", ("a", 2): "whole", ("b", 3): "whole"}
    figure = plot.curves(data, "x", "n", order=order, title="", xlabel="", ylabel="")
    assert [x for x, _ in lines(figure)["whole"]] == [1, 2, 3]
    with pytest.raises(ValueError, match="more than one row per seed for whole"):
        plot.curves(data, "x", "n", order={"a": "whole", "b": "whole"}, title="", xlabel="", ylabel="")


def test_a_condition_keeps_its_colour_in_all_figures_of_a_table():
    data = table(conditions="abcd", along=[1, 2])
    for order in (["a", "b", "c", "d"], ["d", "b"], {"c": "sea", "b": "bee"}):
        figure = plot.curves(data, "x", "n", order=order, title="", xlabel="", ylabel="")
        assert set(points(figure)) == {"abcd".index(c) for c in order}


def test_what_the_table_lacks_is_not_drawn():
    for draw in (
        lambda **how: plot.dots(table(), title="", ylabel="", **how),
        lambda **how: plot.curves(table(along=[1]), along="n", title="", xlabel="", ylabel="", **how),
    ):
        with pytest.raises(ValueError, match="no metric 'z' to draw here: it has 'x', 'y'"):
            draw(metric="z")
        with pytest.raises(ValueError, match="no condition 'c' to draw here: it has 'a', 'b'"):
            draw(metric="x", order=["a", "c"])
        with pytest.raises(ValueError, match="no condition 'c' to draw here"):
            draw(metric="x", where={"condition": ["a", "c"]})
        with pytest.raises(ValueError, match="column is 'speed'.* 'condition', 'seed'"):
            draw(metric="x", where={"speed": 1})


def test_more_lines_than_colours_are_refused_by_name():
    many = table(conditions=[f"arm {k}" for k in range(8)], along=[1, 2])
    with pytest.raises(ValueError, match="8 lines .*arm 7.* 7 at most: name some in `order`"):
        plot.curves(many, "x", "n", title="", xlabel="", ylabel="")
    one = many[many["n"] == 1]
    assert plot.dots(one, "x", title="", ylabel="").axes  # a bar has its place and needs no colour of its own
    with pytest.raises(ValueError, match="8 conditions"):
        plot.dots(one, "x", x="metric", hue="condition", title="", ylabel="")


def test_shares_are_stacked_to_one():
    counted = pd.DataFrame({"met": ["often"] * 4 + ["never"] * 2, "known": ["yes", "yes", "yes", "no", "no", "no"]})
    how = {"title": "", "xlabel": "", "ylabel": "", "order": ["never", "often"], "hues": ["yes", "no"]}
    figure = plot.shares(counted, "met", "known", **how)
    tall = {
        to_hex(b.patches[0].get_facecolor()).upper(): [p.get_height() for p in b] for b in figure.axes[0].containers
    }
    assert tall == {plot.PALETTE[0]: [0, 0.75], plot.PALETTE[1]: [1, 0.25]}
    bottom = {
        p.get_y() for b in figure.axes[0].containers for p in b if to_hex(p.get_facecolor()).upper() == plot.PALETTE[0]
    }
    assert bottom == {0.0} and legend(figure) == ["yes", "no"]
    colours = [to_hex(h.get_facecolor()).upper() for h in figure.legends[0].legend_handles]
    assert colours == list(plot.PALETTE[:2])


def test_a_map_has_a_row_for_each_row():
    frame = pd.DataFrame([[0.0, 0.5], [1.0, 0.25]], index=["early", "late"], columns=[1, 2])
    figure = plot.heat(frame, label="right")
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["early", "late"]
    assert ax.collections[0].get_array().ravel().tolist() == [0, 0.5, 1, 0.25] and ax.collections[0].get_clim() == (
        0,
        1,
    )


def test_colours_and_shapes_go_together():
    assert len(set(plot.PALETTE)) == len(plot.PALETTE) == len(plot.MARKERS) == len(set(plot.MARKERS))
    plot.use_style()
    assert [to_hex(c).upper() for c in mpl.rcParams["axes.prop_cycle"].by_key()["color"]] == list(plot.PALETTE)


def test_shares_name_what_is_there_and_lose_nothing():
    frame = pd.DataFrame({"met": ["never", "never", "more"], "category": ["Maybe", "Unknown", "Maybe"]})
    how = {"order": ["never", "more"], "title": "", "xlabel": "", "ylabel": ""}
    fig = plot.shares(frame, "met", "category", hues=["Highly", "Maybe", "Unknown"], **how)
    [legend] = fig.legends
    named = dict(zip([t.get_text() for t in legend.get_texts()], legend.get_patches(), strict=True))
    assert list(named) == ["Maybe", "Unknown"]
    assert named["Maybe"].get_facecolor()[:3] == pytest.approx(to_rgb(plot.PALETTE[1]))
    assert named["Maybe"].get_hatch() == plot.HATCHES[1]
    with pytest.raises(ValueError, match="category has 'Unknown', which is not drawn"):
        plot.shares(frame, "met", "category", hues=["Highly", "Maybe"], **how)


def test_guessing_is_within_the_figure():
    table = pd.DataFrame([("a", s, "m", 1.5) for s in range(2)], columns=["condition", "seed", "metric", "value"])
    fig = plot.dots(table, "m", title="", ylabel="", chance=3.0)
    assert fig.axes[0].get_ylim()[1] > 3


def test_what_would_not_fit_on_a_phone_is_wrapped():
    plot.use_style()
    names = ["a long name of it", "b", "c", "d", "e", "f"]
    t = table(conditions=names)
    figure = plot.dots(t, {"x": "a label that takes room", "y": "another such label"}, title="w " * 40, ylabel="s")
    assert all(len(line) <= 6 for line in below(figure)[0].split("\n")) and below(figure)[1] == "b"
    assert all(len(line) <= plot.LETTERS for line in figure.axes[0].get_title(loc="left").split("\n"))
    assert figure.legends[0]._ncols == 1
    beside = plot.dots(t, {"x": "p", "y": "q"}, title="t", ylabel="s")
    assert beside.legends[0]._ncols == 2 and beside.get_figheight() < figure.get_figheight()


def test_the_ticks_of_whole_numbers_are_whole():
    figure = plot.curves(table(along=[0, 1, 2, 3]), "x", "n", title="t", xlabel="n", ylabel="x")
    assert all(float(t).is_integer() for t in figure.axes[0].get_xticks())
