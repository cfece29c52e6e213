"""What a chapter starts with: profiles, threads, who is watching; real models that are not here."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest
import torch
from alignlab.experiment import bases, notebook
from alignlab.models import real

ROOT = Path(__file__).resolve().parents[2]


def test_a_chapter_computes_with_one_thread():
    """As its workers do: the numbers of a model trained in the notebook are those of one trained in a sweep."""
    torch.set_num_threads(2)
    notebook.start()
    assert torch.get_num_threads() == 1


def test_a_profile_decides_the_number_of_seeds_and_the_offset_their_start():
    assert notebook.start().seeds == (0, 1, 2)
    assert notebook.start("quick", 100).seeds == (100, 101, 102)
    assert notebook.start("one", 100).seeds == (100,)
    full = notebook.start("full", 7)
    assert (full.profile, full.seeds) == ("full", tuple(range(7, 17)))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("fast",), ValueError, "profile is 'fast', .* 'quick', 'full', 'one'"),
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
    assert notebook.start("one").pick(quick=1, full=2) == 1  # the chapter as it is, with a single seed
    for wrong, said in (({"quick": 1}, "'full'"), ({"quick": 1, "full": 2, "ful": 3}, "'ful'")):
        with pytest.raises(TypeError, match=said):
            notebook.start("quick").pick(**wrong)


def test_the_report_has_versions_and_no_paths(capsys):
    notebook.start("quick", 100).report()
    said = capsys.readouterr().out
    assert "profile quick, seeds 100, 101, 102\n" in said
    for name in ("Python 3", "alignlab 0", "torch 2", "transformers ", "numpy "):
        assert f"{name}" in said
    assert "/" not in said and "\\" not in said and "+" not in said


@pytest.mark.parametrize("said", ["CI", "ALIGNLAB_QUIET", "PYTEST_VERSION"])
def test_nobody_is_watching_in_ci_in_tests_and_under_tools(monkeypatch, said):
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    for name in ("CI", "ALIGNLAB_QUIET", "PYTEST_VERSION"):
        monkeypatch.delenv(name, raising=False)
    assert notebook.watched()
    monkeypatch.setenv(said, "1")
    assert not notebook.watched()


def test_a_plain_script_is_not_watched(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    for name in ("CI", "ALIGNLAB_QUIET", "PYTEST_VERSION"):
        monkeypatch.delenv(name, raising=False)
    assert not notebook.watched()


def test_every_variable_of_the_environment_is_in_the_one_list():
    """The list stands at the head of the module; what it names is read somewhere, and what is read it names.

    What came after experiments were confirmed, of which that module is a part, stands at the head of `bases`.
    """
    files = [f for folder in ("lib", "tools", "tests") for f in (ROOT / folder).rglob("*.py")] + [ROOT / "make.py"]
    files = [f for f in files if f not in (Path(__file__), Path(notebook.__file__))]
    used = {v for f in files for v in re.findall(r"ALIGNLAB_[A-Z_]+", f.read_text("utf-8"))}
    used |= {v for v in re.findall(r"ALIGNLAB_[A-Z_]+", Path(notebook.__file__).read_text("utf-8").split('"""', 2)[2])}
    said = notebook.__doc__ + bases.__doc__
    assert set(re.findall(r"^  (ALIGNLAB_[A-Z_]+)  ", said, re.MULTILINE)) == used


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
