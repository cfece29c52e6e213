"""The chapter contract, on every chapter of _toc.yml; and each of its rules on a notebook that breaks it."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import chapters, contract, costs, folds, setup_cell, stamp
from tools.contract import MIME, Chapter
from tools.notebooks import notebooks

ROOT = Path(__file__).resolve().parents[2]
KEYS = contract.bibliography(ROOT / "book" / "references.bib")
CHAPTERS = [contract.read(file, KEYS) for file in notebooks(ROOT).values()]


@pytest.mark.parametrize("name", contract.RULES)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.slug)
def test_chapter_keeps_the_contract(chapter, name):
    found = list(contract.RULES[name](chapter))
    assert not found, f"{chapter.slug}: " + "; ".join(found)


def test_every_notebook_is_in_the_toc():
    listed = {file.name for file in notebooks(ROOT).values()}
    assert {p.name for p in (ROOT / "notebooks").glob("*.ipynb")} == listed


# A notebook that keeps every rule, and one way to break each.

SETUP = setup_cell.source(stamp.configured(ROOT), setup_cell.version())
HEAD = """# Things are so

:::{admonition} Predict first
:class: predict
1. Are things so?
:::

**The claim.** Things are so when they are.

:::{admonition} 中文提要
:class: tiyao
这是一个只为测试契约而写的小小笔记本，它没有训练任何模型。
它遵守每一条规则，好让测试逐条把它弄坏，看规则是否说得出哪里错了。
:::

:::{admonition} At a glance
| | |
|---|---|
| Time | about 2 minutes on 2 CPU cores |
:::

What was found {cite:p}`allenzhu2024p31`."""
TAIL = """:::{admonition} Your predictions, answered
:class: answered
1. Yes.
:::

## Play
## What the toy keeps and what it loses
## Exercises

```{exercise} Break it
:label: toy-a
Change one line.
```
```{solution} toy-a
:class: dropdown
This one.
```
```{exercise}
:label: toy-b
Another.
```
```{solution} toy-b
:class: dropdown
That one.
```

## References

```{bibliography}
:filter: docname in docnames
:list: bullet
```"""


def code(source="x = 1", *outputs, tags=(), **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata={**({"tags": list(tags)} if tags else {}), **metadata})


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def data(**bundle):
    return new_output("display_data", data={k.replace("__", "/"): v for k, v in bundle.items()})


def entry(kind, id, verdict):
    return {
        "id": id, "kind": kind, "statement": "S", "paper": "P", "source": "allenzhu2024p31", "expect": "at least +0.30",
        "margin": 0.3, "mean": 0.4, "values": [0.4, 0.4, 0.4], "unit": "accuracy", "verdict": verdict,
    }  # fmt: skip


def good() -> Chapter:
    ledger = {
        "schema": 1, "chapter": "toy", "title": "Things", "profile": "quick", "seeds": [0, 1, 2],
        "entries": [entry("claim", "a", "reproduced"), entry("control", "b", "held")],
    }  # fmt: skip
    cells = [
        new_markdown_cell(HEAD),
        code('PROFILE = "quick"\nSEED = 0', tags=["parameters"]),
        code(SETUP, tags=["setup"]),
        *[code() for _ in range(9)],
        *[
            code("plt.show()", data(image__png="iVBORw0KGgo="), tags=[contract.IGNORE, *["hero"] * (i == 0)],
                 mystnb={"image": {"alt": f"Figure {i}: accuracy rises with exposures in one arm, not in the other"},
                     "figure": {"caption": f"Accuracy over exposures, arm {i}: one of them is learned.",
                                "name": f"toy-figure-{i + 1}"}})
            for i in range(3)
        ],
        code("ledger", new_output("execute_result", data={"text/plain": "a table", MIME: ledger}, execution_count=15),
             tags=[contract.IGNORE]),
        code("print(ledger.lines())", stream("claim a reproduced (3 of 3 seeds)\n"), tags=["verdict"]),
        new_markdown_cell(TAIL),
    ]  # fmt: skip
    about = {"kind": "finding", "summary": "Things are so: {a} of what was looked at, and nothing beside it."}
    notebook = new_notebook(cells=cells, metadata={"alignlab": about})
    for n, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = n
    for n, cell in enumerate(notebook.cells):
        cell.id = f"c{n}"
    folds.fold(notebook)
    chapters.normalise(notebook)
    return Chapter("toy", notebook, KEYS, {costs.MINUTES: "2.4", costs.BASES: "0.6"})


def test_the_good_notebook_is_good():
    assert contract.problems(good()) == []


def nth(chapter, number):
    return dict(chapter.code)[number]


def ledger_of(chapter):
    return nth(chapter, 15).outputs[0].data[MIME]


def replace(old, new):
    """Break the prose: `old` becomes `new` in the cell that has it."""

    def breaker(chapter):
        cell = next(c for c in chapter.notebook.cells if old in c.source)
        cell.source = cell.source.replace(old, new)

    return breaker


def put(number, *outputs):
    return lambda chapter: nth(chapter, number).outputs.extend(deepcopy(outputs))


def tag(number, *names):
    return lambda chapter: nth(chapter, number).metadata.update(tags=list(names))


def in_ledger(**values):
    return lambda chapter: ledger_of(chapter).update(values)


def best_possible(value):
    def breaker(chapter):
        entry = ledger_of(chapter)["entries"][-1]
        assert entry["kind"] == "control"
        entry.update(best=value, margin=0.1)

    return breaker


def only_claims(chapter):
    ledger_of(chapter)["entries"].pop()


def unknown_verdict(chapter):
    ledger_of(chapter)["entries"][0]["verdict"] = "confirmed"


def unknown_source(chapter):
    ledger_of(chapter)["entries"][0]["source"] = "nobody2020"


def long_cells(chapter):
    for _, cell in chapter.code[2:14]:
        cell.source = "\n".join(f"x{i} = {i}" for i in range(12))


def without_the_package(chapter):
    tag(4, "real-model")(chapter)
    said = stream("SmolLM2-135M-Instruct: its package is not installed (make real). This part is left out.\n")
    nth(chapter, 4).update(source="found = real.load(real.PACKAGED)", outputs=[said])


def answered_above(chapter):
    """The answers stand before the verdicts."""
    cells = chapter.notebook.cells
    cells.insert(len(cells) - 2, cells.pop())


def short_summary(chapter):
    head = chapter.notebook.cells[0]
    head.source = re.sub("这是.*?错了。", "短。短。", head.source, flags=re.DOTALL)


def metadata(**values):
    return lambda chapter: chapter.notebook.metadata.update(values)


PNG = data(image__png="iVBORw0KGgo=")
BROKEN = [
    ("kind_is_known", metadata(alignlab={"kind": "poem"}), "'poem'"),
    ("frozen_is_confirmed", metadata(alignlab={"kind": "finding", "frozen": True}), "make confirm NAME="),
    ("title_comes_first", replace("# Things are so\n", "Things are so\n"), "begin with a title"),
    ("title_comes_first", replace("## Play", "# Play"), "more than one title"),
    ("chinese_summary", replace(":class: tiyao", ":class: note"), "no 中文提要"),
    ("chinese_summary", replace("。\n它遵守", "，\n它遵守"), "has 1 sentences"),
    ("chinese_summary", short_summary, "fewer than 30"),
    ("at_a_glance", replace("At a glance", "At once"), "At a glance"),
    ("measured_minutes", replace("| Time |", "| Tempo |"), "no row `| Time | ... |`"),
    ("measured_minutes", replace("about 2 minutes", "about 9 minutes"), "COSTS=1"),
    ("measured_minutes", lambda c: setattr(c, "costs", None), "nobody has measured"),
    ("nothing_left_to_write", replace("Another.", "TODO: another"), "'TODO: another'"),
    ("predict_first", replace("Predict first", "Guess"), "no box `Predict first`"),
    ("predict_first", replace("1. Are", "Are"), "numbered questions"),
    ("predictions_are_answered", answered_above, "0 of 1 questions are answered"),
    ("predictions_are_answered", replace("1. Yes", "Yes"), "0 of 1 questions are answered"),
    ("predictions_are_answered", replace("1. Are things so?", "1. Are they?\n2. And why?"), "1 of 2 questions"),
    ("predict_first", replace("# Things are so\n", "# Things are so\n\n**The claim.** Yes.\n"), "its answers away"),
    ("sections", replace("## Play\n", ""), "Play"),
    ("parameters_cell", tag(1), "0 cells are tagged `parameters`"),
    ("parameters_cell", replace("SEED = 0", "SEED = 7"), "SEED = 0"),
    ("parameters_cell", replace('PROFILE = "quick"', 'PROFILE = "full"'), "PROFILE = 'quick'"),
    ("setup_cell", tag(2), "0 cells are tagged `setup`"),
    ("setup_cell", replace("--no-deps ", ""), "make stamp"),
    ("setup_cell", replace('"v', '"v9'), "make stamp"),
    ("executed_in_order", lambda c: nth(c, 4).update(execution_count=None), "count None"),
    ("executed_in_order", lambda c: nth(c, 4).update(execution_count=9), "count 9"),
    ("executed_in_order", lambda c: nth(c, 4).update(source=" "), "empty"),
    ("number_of_cells", lambda c: c.notebook.cells.pop(3) and c.notebook.cells.pop(3), "14 code cells"),
    ("number_of_cells", lambda c: c.notebook.cells.extend(code() for _ in range(11)), "27 code cells"),
    ("folded", lambda c: nth(c, 2).metadata.update(tags=["setup"]), "code cell 2 should be folded"),
    ("folded", lambda c: nth(c, 5).metadata.update(tags=["hide-input"]), "code cell 5 should be open"),
    ("folded", lambda c: nth(c, 14).metadata["mystnb"].pop("code_prompt_show"), "'Code: draw the figure'"),
    ("short_cells", long_cells, "median"),
    ("short_cells", lambda c: nth(c, 5).update(source="x = 1\n" * 41), "41 lines"),
    ("short_cells", lambda c: nth(c, 5).update(source="ledger.Ledger()\n" * 61), "61 lines"),
    ("known_tags", tag(4, contract.SKIP), "beside `real-model`"),
    ("known_tags", tag(4, "raises-exception"), "raises-exception"),
    ("known_tags", lambda c: nth(c, 4).update(source="# NBVAL_IGNORE_OUTPUT\nx"), "use tags"),
    ("ignore_budget", lambda c: [tag(n, contract.IGNORE)(c) for n in range(3, 12)], "13 of 16"),
    ("size", put(4, stream("x" * 400_000)), "KB"),
    ("clean_outputs", put(4, stream("warning", "stderr")), "stderr"),
    ("clean_outputs", put(4, stream("saved to /home/ana/model")), "/home/ana"),
    ("clean_outputs", put(4, data(text__html="<p>C:\\Users\\ana</p>")), "path"),
    ("clean_outputs", put(4, stream(" 10%|#   |")), "progress bar"),
    ("clean_outputs", put(4, new_output("error", ename="KeyError", evalue="x")), "ends in KeyError"),
    ("clean_outputs", put(4, new_output("display_data", data={chapters.WIDGET: {}})), "stored widget"),
    ("clean_outputs", metadata(widgets={"state": {}}), "widget state"),
    ("packaged_outputs", without_the_package, "make real"),
    ("normal_form", metadata(language_info={"name": "python", "version": "3.11"}), "make chapter NAME=toy"),
    ("figures", lambda c: nth(c, 12).update(outputs=[]), "2 figures"),
    ("alt_texts", put(4, PNG), "alt text"),
    ("alt_texts", put(12, PNG), "split the cell"),
    ("alt_texts", lambda c: nth(c, 13).update(metadata=nth(c, 12).metadata), "same alt text"),
    ("captions", lambda c: nth(c, 13).metadata["mystnb"]["figure"].pop("caption"), "has no caption"),
    ("captions", lambda c: nth(c, 13).metadata["mystnb"]["figure"].update(name="b"), "toy-figure-2"),
    ("captions", tag(12, contract.IGNORE), "0 code cells are tagged `hero`"),
    ("captions", tag(4, "hero"), "2 code cells are tagged `hero`"),
    ("summary", metadata(alignlab={}), "has 0 characters"),
    ("summary", metadata(alignlab={"summary": "It is so: {nobody} of all that was looked at here."}), "'nobody'"),
    ("verdict_cell", tag(16), "no cell is tagged"),
    ("verdict_cell", tag(16, "verdict", contract.IGNORE), "strictly"),
    ("verdict_cell", lambda c: nth(c, 16).update(outputs=[]), "prints none"),
    ("ledger", lambda c: nth(c, 15).update(outputs=[]), "0 outputs hold a ledger"),
    ("ledger", only_claims, "no control"),
    ("ledger", best_possible(0.1), "cannot break: it allows 0.10, and 0.10 is the most"),
    ("ledger", unknown_verdict, "'confirmed'"),
    ("ledger", unknown_source, "nobody2020"),
    ("ledger", in_ledger(chapter="tax"), "'tax'"),
    ("ledger", in_ledger(profile="full"), "full"),
    ("ledger", in_ledger(seeds=[0]), "one value for each"),
    ("exercises", replace("## Exercises", "## More"), "no section"),
    ("exercises", replace("```{solution} toy-b\n:class: dropdown\n", "```{solution} toy-b\n"), "hidden"),
    ("exercises", replace("```{solution} toy-b", "```{note}"), "1 solutions"),
    ("exercises", replace("Break it", "Mend it"), "Break it"),
    ("citations", replace("allenzhu2024p31", "nobody2020"), "nobody2020"),
    ("citations", replace("{cite:p}`allenzhu2024p31`", ""), "nothing is cited"),
    ("references", replace("## References", "## Papers"), "References"),
    ("references", replace(":list: bullet\n", ""), ":list: bullet"),
]  # fmt: skip


@pytest.mark.parametrize("name, breaker, says", BROKEN, ids=[f"{b[0]}-{i}" for i, b in enumerate(BROKEN)])
def test_rule_notices(name, breaker, says):
    chapter = good()
    breaker(chapter)
    found = list(contract.RULES[name](chapter))
    assert any(says in problem for problem in found), found


@pytest.mark.parametrize(
    "said, minutes, agrees",
    [
        ("about half a minute on two CPU cores", 0.3, True),
        ("about 3 minutes on two CPU cores, with nothing cached", 2.0, True),
        ("about a minute on 2 CPU cores", 1.2, True),
        ("about 2 minutes on 2 CPU cores", 6.0, False),
        ("about 9 minutes", 2.0, False),
        ("not measured yet", 2.0, False),
    ],
)
def test_minutes_in_words_are_compared_with_the_table(said, minutes, agrees):
    assert contract.about(said, minutes) is agrees


def test_every_rule_is_shown_to_fail():
    assert {name for name, _, _ in BROKEN} == set(contract.RULES)


def test_an_introduction_is_free_of_what_only_a_finding_needs():
    chapter = good()
    said = "An introduction says what will come after it."
    chapter.notebook.metadata["alignlab"] = {"kind": "introduction", "summary": said}
    chapter.notebook.cells = [chapter.notebook.cells[0], *[c for _, c in chapter.code[:12]]]
    assert contract.problems(chapter) == []


def test_skipping_is_allowed_where_a_real_model_may_be_missing():
    chapter = good()
    tag(4, contract.SKIP, "real-model")(chapter)
    folds.fold(chapter.notebook)
    assert contract.problems(chapter) == []
