"""What a chapter starts with and shows: profiles, figures, panels, real models; and the order of the modules."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import alignlab
import matplotlib as mpl
import pandas as pd
import pytest
import torch
from alignlab.experiment import notebook, panel, plot
from alignlab.models import real
from bs4 import BeautifulSoup
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

LAYERS = ("check", "world", "text", "tokens", "web", "cipher", "model", "train", "answer", "measure", "shift", "rules",
          "slick", "sweep", "ledger", "plot", "panel", "cache", "base", "real", "notebook")  # fmt: skip
SOURCE = Path(alignlab.__file__).parent


@pytest.fixture(autouse=True)
def figures():
    mpl.use("Agg")
    yield
    plt.close("all")


# ---- layers


def imported(tree: ast.Module) -> set[str]:
    """The modules of the library that a module of it imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "alignlab"):
            inner = (node.module or "").removeprefix("alignlab").strip(".")
            names |= {inner} if inner else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("alignlab.")}
    return names


def test_the_layers_are_all_of_the_library():
    assert {p.stem for p in SOURCE.glob("*.py")} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_no_module_imports_a_later_one(module):
    names = imported(ast.parse((SOURCE / f"{module}.py").read_text()))
    assert names <= set(LAYERS[: LAYERS.index(module)])


def test_every_form_of_import_is_seen():
    tree = ast.parse("from . import a, b\nfrom .c import x\nimport alignlab.d\nfrom alignlab import e\ndef f():\n"
                     "    from alignlab.g import y\nimport torch\nfrom os import path")  # fmt: skip
    assert imported(tree) == set("abcdeg")


# ---- notebook


def test_a_chapter_computes_with_one_thread():
    """As its workers do: the numbers of a model trained in the notebook are those of one trained in a sweep."""
    torch.set_num_threads(2)
    notebook.start()
    assert torch.get_num_threads() == 1


def test_a_profile_decides_the_number_of_seeds_and_the_offset_their_start():
    assert notebook.start().seeds == (0, 1, 2)
    assert notebook.start("quick", 100).seeds == (100, 101, 102)
    full = notebook.start("full", 7)
    assert (full.profile, full.seeds) == ("full", tuple(range(7, 17)))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("fast",), ValueError, "profile is 'fast', .* 'quick', 'full'"),
        ((None,), ValueError, "profile is None"),
        (("quick", "a"), TypeError, "seed .* not 'a'"),
        (("quick", -1), ValueError, "seed is -1"),
        (("quick", 1.5), TypeError, "seed .* not 1.5"),
        (("quick", True), TypeError, "seed .* not True"),
    ],
)
def test_a_wrong_start_is_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        notebook.start(*arguments)


def test_a_setting_is_picked_by_profile():
    assert notebook.start("quick").pick(quick=1, full=2) == 1
    assert notebook.start("full").pick(quick=1, full=2) == 2
    with pytest.raises(ValueError, match="no value for the profile 'full': name all of quick, full"):
        notebook.start("quick").pick(quick=1)


def test_the_report_has_versions_and_no_paths(capsys):
    notebook.start("quick", 100).report()
    said = capsys.readouterr().out
    assert "profile quick, seeds 100, 101, 102\n" in said
    for name in ("Python 3", "alignlab 0", "torch 2", "transformers ", "numpy "):
        assert f"{name}" in said
    assert "/" not in said and "\\" not in said and "+" not in said


def test_nobody_is_live_under_ci(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ipykernel", object())
    for name in ("CI", "ALIGNLAB_QUIET"):
        monkeypatch.delenv(name, raising=False)
    assert notebook.live()
    monkeypatch.setenv("CI", "1")
    assert not notebook.live()


# ---- real models


def test_a_model_that_is_not_here_is_left_out_in_one_line_without_the_network(capfd, monkeypatch, tmp_path):
    def connect(*_):
        raise AssertionError("the network was touched")

    asked = []
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or connect())
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("ALIGNLAB_DEBUG", raising=False)
    (tmp_path / "empty").mkdir()
    for name, reason in (
        ("nobody/no-such-model", "its weights are not on this machine"),
        (str(tmp_path / "empty"), "it is not a folder with a model"),
        ("no name at all", "its weights are not on this machine"),
    ):
        assert real.load(name) is None
        out, err = capfd.readouterr()
        assert (out, err) == (f"{name}: {reason}. This part is left out.\n", "")
    assert asked == []


def test_a_model_in_a_folder_is_loaded(tiny, tokenizer, tmp_path):
    tiny.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, same = real.load(str(tmp_path))
    assert not model.training and same.get_vocab() == tokenizer.get_vocab()
    assert model.config.hidden_size == 32


# ---- plots


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


# ---- panels


def test_an_explorer_shows_its_first_section_only_and_escapes_everything():
    frame = pd.DataFrame({"a<b": ["<script>x</script>", 'q"&']})
    shown = panel.explorer("Who & <what>:", {"<i>first</i>": frame, "second": frame, "third": frame}).data
    for raw in ("<script>", "<i>", "<what>", "a<b"):
        assert raw not in shown
    page = BeautifulSoup(shown, "html.parser")
    assert [s.has_attr("hidden") for s in page.find_all("section")] == [False, True, True]
    assert [o.text for o in page.find_all("option")] == ["<i>first</i>", "second", "third"]
    assert [td.text for td in page.section.find_all("td")] == ["<script>x</script>", 'q"&']
    assert page.label.find("select") and page.label.text.startswith("Who & <what>:")
    assert [th.text for th in page.section.find_all("th")] == ["a<b"]


def test_an_explorer_without_sections_is_refused():
    with pytest.raises(ValueError, match="at least one section"):
        panel.explorer("Who:", {})


def test_a_box_with_a_dial_passes_both_on(monkeypatch):
    shown, asked = [], []
    monkeypatch.setattr(panel, "display", shown.append)

    def answer(word, shift):
        asked.append((word, shift))
        return pd.DataFrame({"said": [word * shift]})

    panel.ask(answer, ["ab"], "Word", dial=("Shift", 1, 25, 13))
    box, slider, _ = shown[-1].children
    slider.value = 2
    box.value = "c"
    assert asked == [("ab", 13), ("ab", 2), ("c", 2)]
    assert (slider.min, slider.max, slider.description) == (1, 25, "Shift")


def test_a_box_answers_at_once_and_again_and_shows_refusals(monkeypatch):
    shown = []
    monkeypatch.setattr(panel, "display", shown.append)
    asked = []

    def answer(question):
        asked.append(question)
        if question == "wrong":
            raise ValueError("no such person")
        return pd.DataFrame({"said": [question]})

    panel.ask(answer, ["first", "second"])
    box = shown[-1].children[0]
    box.value = "typed"
    box.value = "wrong"
    assert asked == ["first", "typed", "wrong"]
    assert any("typed" in getattr(s, "data", "") for s in shown)
