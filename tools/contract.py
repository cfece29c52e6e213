"""The chapter contract as rules: each takes a chapter and yields what is wrong with it, in words that say the remedy.

What a program cannot check (is the prose true, is the experiment fair) stays with the readers of a change.
"""

from __future__ import annotations

import ast
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from . import chapters, confirm, costs, folds, stamp, tables
from . import notebooks as reader
from . import setup_cell as setup
from .chapters import alt, images
from .notebooks import MIME, ROOT, VERDICTS, tags, text

FINDING, INTRODUCTION = "finding", "introduction"
IGNORE, SKIP = "nbval-ignore-output", "nbval-skip"

MOST_BYTES = 400_000
CELLS = {FINDING: (15, 26), INTRODUCTION: (4, 25)}
FIGURES = {FINDING: (3, 6), INTRODUCTION: (1, 6)}
MEDIAN_LINES, MOST_LINES, LEDGER_LINES = 10, 40, 60  # an entry takes four lines, and shows at one glance
LEAST_ALT, MOST_SUMMARY = 40, 260
IGNORE_BUDGET = 0.6
LEAST_SEEDS = 3


@dataclass
class Chapter:
    """A notebook with what the rules need to know around it."""

    slug: str
    notebook: NotebookNode
    keys: frozenset[str]  # of the bibliography
    costs: Mapping[str, str] | None = None  # its line of the table; None: it has not been measured
    confirmed: bool = False  # on fresh seeds, in its present form

    @property
    def kind(self) -> str:
        return self.notebook.metadata.get("alignlab", {}).get("kind", FINDING)

    @property
    def code(self) -> list[tuple[int, NotebookNode]]:
        return reader.code(self.notebook)

    @property
    def prose(self) -> str:
        return "\n\n".join(c.source for c in self.notebook.cells if c.cell_type == "markdown")

    @property
    def ledgers(self) -> list:
        return [o["data"][MIME] for _, o in self.outputs if MIME in o.get("data", {})]

    def tagged(self, tag: str) -> list[tuple[int, NotebookNode]]:
        return [(n, c) for n, c in self.code if tag in tags(c)]

    @property
    def outputs(self) -> Iterator[tuple[int, NotebookNode]]:
        return ((n, o) for n, c in self.code for o in c.outputs)


def read(file: Path, keys: frozenset[str]) -> Chapter:
    line = tables.read(costs.TABLE, "chapter").get((file.stem,))
    return Chapter(file.stem, reader.read(file), keys, line, bool(confirm.confirmed(file)))


def bibliography(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", file.read_text("utf-8"), re.MULTILINE))


def lines(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def plain(output: NotebookNode) -> str:
    """The text of an output as a reader could see it; pictures and ledger data are none."""
    texts = [output.get("text", ""), "\n".join(output.get("traceback", []))]
    texts += [v for t, v in output.get("data", {}).items() if t.startswith("text/")]
    return "\n".join(t if isinstance(t, str) else "".join(t) for t in texts)


RULES: dict[str, Callable[[Chapter], Iterator[str]]] = {}


def rule(function):
    RULES[function.__name__] = function
    return function


def for_findings(function):
    """A rule from which an introduction is free."""

    def only(chapter: Chapter) -> Iterator[str]:
        if chapter.kind == FINDING:
            yield from function(chapter)

    only.__name__, only.__doc__ = function.__name__, function.__doc__
    return only


# What is frozen


@rule
def frozen_is_confirmed(chapter):
    if chapter.notebook.metadata.get("alignlab", {}).get("frozen") and not chapter.confirmed:
        yield f"it is frozen, and not confirmed in its present form: make confirm NAME={chapter.slug}"


# What a reader meets first


@rule
def kind_is_known(chapter):
    if chapter.kind not in CELLS:
        yield f'metadata alignlab.kind is {chapter.kind!r}: choose "finding" or "introduction"'


@rule
def title_comes_first(chapter):
    first = chapter.notebook.cells[0] if chapter.notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.lstrip().startswith("# "):
        yield "the first cell must be Markdown and begin with a title, `# ...`"
    titles = re.findall(r"^# .+", re.sub(r"```.*?```", "", chapter.prose, flags=re.DOTALL), re.MULTILINE)
    if len(titles) > 1:
        yield f"there is more than one title: {titles[1]!r} should be a section, `## ...`"


@rule
def chinese_summary(chapter):
    head = "\n\n".join(c.source for c in chapter.notebook.cells[:4] if c.cell_type == "markdown")
    opening = r"^(:{3,}|`{3,})\{admonition\}\s*中文提要\s*\n:class:[^\n]*\btiyao\b[^\n]*\n"
    box = re.search(opening + r"(.*?)^\1", head, re.MULTILINE | re.DOTALL)
    if not box:
        yield "there is no 中文提要 box (admonition of class `tiyao`) in the first four cells"
        return
    sentences = len(re.findall(r"[。！？]", box[2]))
    if not 2 <= sentences <= 4:
        yield f"the 中文提要 has {sentences} sentences: two to four are wanted"
    if len(re.findall(r"[\u4e00-\u9fff]", box[2])) < 30:
        yield "the 中文提要 has fewer than 30 Chinese characters"


def heading(chapter: Chapter, words: str) -> bool:
    """Is there a heading, an admonition title or a bold lead with these words?"""
    pattern = rf"^\s*(?:#+\s|:{{3,}}\{{admonition\}}|`{{3,}}\{{admonition\}}|\*\*)[^\n]*(?:{words})"
    return re.search(pattern, chapter.prose, re.MULTILINE | re.IGNORECASE) is not None


@rule
def at_a_glance(chapter):
    if not heading(chapter, "at a glance"):
        yield "there is no heading or box `At a glance` (papers, minutes, what to know first)"


@rule
def measured_minutes(chapter):
    said = costs.said(chapter.notebook)
    if said is None:
        yield "`At a glance` has no row `| Time | ... |`"
    elif chapter.costs is None:
        yield f"nobody has measured what it costs: run `make chapter NAME={chapter.slug} COSTS=1`"
    elif not about(said, costs.own(chapter.costs)):
        own = costs.own(chapter.costs)
        yield f"the row Time says {said!r}, the table {own:.1f} minutes: run `make chapter NAME={chapter.slug} COSTS=1`"


def about(said: str, minutes: float) -> bool:
    """Do the words agree with the minutes, a minute and a third of them to either side?"""
    number = re.search(r"\d+(?:\.\d+)?", said.split(" on ")[0])
    short = 0.5 if re.search(r"half a minute|under a minute", said) else 1.0 if "a minute" in said else None
    claimed = short if short is not None else float(number[0]) if number else math.inf
    return abs(claimed - minutes) <= 1 + max(claimed, minutes) / 3 and claimed < math.inf


@rule
def nothing_left_to_write(chapter):
    for number, cell in enumerate(chapter.notebook.cells, 1):
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        found = re.search(r"\bTODO\b[^\n]*", f"{cell.source}\n{alt(cell)}\n{caption}")
        if found:
            yield f"cell {number} is not written yet: {found[0]!r}"


def box_of(source: str, title: str, css: str) -> re.Match | None:
    opening = rf"^:::\{{admonition\}} {title}\n:class: {css}\n"
    return re.search(opening + r"(.*?)^:::$", source, re.MULTILINE | re.DOTALL)


@rule
@for_findings
def predict_first(chapter):
    head = chapter.notebook.cells[0].source if chapter.notebook.cells else ""
    box = box_of(head, "Predict first", "predict")
    if not box or not re.search(r"^1\. \S", box[1], re.MULTILINE):
        yield "below the title there is no box `Predict first` of the class `predict` with numbered questions"
    elif "**The claim.**" in head[: box.start()]:
        yield "the claim stands before the box `Predict first`, and gives its answers away"


@rule
@for_findings
def predictions_are_answered(chapter):
    cells = chapter.notebook.cells
    verdict = next((i for i, c in enumerate(cells) if "verdict" in tags(c)), len(cells))
    below = "\n\n".join(c.source for c in cells[verdict:] if c.cell_type == "markdown")
    asked = box_of(cells[0].source if cells else "", "Predict first", "predict")
    answered = box_of(below, "Your predictions, answered", "answered")
    wanted, given = (len(re.findall(r"^\d+\. \S", b[1], re.MULTILINE)) if b else 0 for b in (asked, answered))
    if given != wanted:
        yield f"below the verdicts {given} of {wanted} questions are answered, in a box `Your predictions, answered`"


@rule
@for_findings
def sections(chapter):
    for words, what in (
        (r"\bplay\b", "Play: a widget over the trained models"),
        ("toy keeps", "What the toy keeps and what it loses"),
    ):
        if not heading(chapter, words):
            yield f"there is no section `{what}`"


# Cells


@rule
def parameters_cell(chapter):
    cells = chapter.tagged("parameters")
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged `parameters`: exactly one is wanted"
        return
    try:
        values = {
            t.id: ast.literal_eval(node.value)
            for node in ast.parse(cells[0][1].source).body
            if isinstance(node, ast.Assign)
            for t in node.targets
            if isinstance(t, ast.Name)
        }
    except (SyntaxError, ValueError) as e:
        yield f"the parameters cell must only assign plain values: {e}"
        return
    for name, wanted in (("PROFILE", "quick"), ("SEED", 0)):
        if values.get(name) != wanted:
            yield f"the parameters cell must set {name} = {wanted!r}, it has {values.get(name)!r}"


@rule
def setup_cell(chapter):
    cells = chapter.tagged("setup")
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged `setup`: exactly one is wanted"
        return
    if cells[0][1].source != setup.source(stamp.configured(ROOT), setup.version()):
        yield "the setup cell is not that of all chapters (tools/setup_cell.py): run `make stamp`"
    if IGNORE in tags(cells[0][1]):
        yield "the setup cell must be compared strictly: it has no output"


@rule
def executed_in_order(chapter):
    if not chapter.code:
        yield "there are no code cells"
    for number, cell in chapter.code:
        if not cell.source.strip():
            yield f"code cell {number} is empty: remove it"
        elif cell.execution_count != number:
            yield f"code cell {number} has execution count {cell.execution_count}: run the notebook from start to end"
            return


@rule
def number_of_cells(chapter):
    least, most = CELLS.get(chapter.kind, (0, 99))
    if not least <= len(chapter.code) <= most:
        yield f"there are {len(chapter.code)} code cells: {least} to {most} are wanted"


@rule
def short_cells(chapter):
    lengths = {n: lines(c) for n, c in chapter.code}
    if lengths and statistics.median(lengths.values()) > MEDIAN_LINES:
        yield f"the median cell has {statistics.median(lengths.values())} lines: at most {MEDIAN_LINES} are wanted"
    for n, cell in chapter.code:
        most = LEDGER_LINES if "ledger.Ledger(" in cell.source else MOST_LINES
        if lengths[n] > most:
            yield f"code cell {n} has {lengths[n]} lines: it may not have more than {most}"


@rule
def folded(chapter):
    for n, cell in chapter.code:
        wanted, found = folds.prompt(cell), cell.metadata.get("mystnb", {}).get("code_prompt_show")
        if wanted != found or (folds.TAG in tags(cell)) != bool(wanted):
            say = f"folded as {wanted!r}" if wanted else "open: it is one to be read"
            yield f"code cell {n} should be {say}: run `python -m tools.folds {chapter.slug}`"


@rule
def known_tags(chapter):
    for n, cell in chapter.code:
        for tag in (SKIP, "skip-execution", "raises-exception", "nbval-raises-exception"):
            if tag in tags(cell) and not (tag == SKIP and "real-model" in tags(cell)):
                yield f"code cell {n} is tagged `{tag}`: only `{SKIP}` is allowed, and only beside `real-model`"
        for comment in re.findall(r"#\s*(?:NBVAL_\w+|PYTEST_VALIDATE_\w+)", cell.source):
            yield f"code cell {n} has the comment {comment!r}: use tags, which the budget counts"


@rule
def ignore_budget(chapter):
    ignored = len(chapter.tagged(IGNORE))
    most = int(IGNORE_BUDGET * len(chapter.code))
    if ignored > most:
        yield f"{ignored} of {len(chapter.code)} code cells are tagged `{IGNORE}`: at most {most} may be"


# Outputs


@rule
def size(chapter):
    length = len(text(chapter.notebook).encode())
    if length >= MOST_BYTES:
        yield f"the notebook has {length // 1000} KB: under {MOST_BYTES // 1000} are wanted"


@rule
def clean_outputs(chapter):
    # Not part of a web address or a closing tag: a slash that opens a path, then a folder that no reader shares.
    path = re.compile(
        r"(?<![\w<.:/~-])/(?:home|Users|root|tmp|work|usr|opt|var|mnt|srv|private|content)/[\w.-]+|\b[A-Z]:\\+\w+"
    )
    for n, output in chapter.outputs:
        text = plain(output)
        if output.output_type == "error":
            yield f"code cell {n} ends in {output.ename}"
        if output.get("name") == "stderr":
            yield f"code cell {n} wrote to stderr: {text[:80]!r}"
        if chapters.WIDGET in output.get("data", {}):
            yield f"code cell {n} has a stored widget: run `make chapter NAME={chapter.slug}`"
        if "\r" in text or "%|" in text:
            yield f"code cell {n} has a progress bar in its output"
        found = path.search(text)
        if found:
            yield f"code cell {n} shows the path {found[0]!r} of one machine"
    if "widgets" in chapter.notebook.metadata:
        yield f"there is stored widget state: run `make chapter NAME={chapter.slug}`"


@rule
def packaged_outputs(chapter):
    """What the packaged model can show is committed: a rerun without its package must not take it away."""
    for n, cell in chapter.tagged("real-model"):
        said = "".join(plain(o) for o in cell.outputs)
        shown = [line for line in said.splitlines() if line.strip() and "This part is left out" not in line]
        if "real.PACKAGED" in cell.source and not shown:
            yield f"code cell {n} shows nothing of the packaged model: run `make real`, then `make chapter`"


@rule
def normal_form(chapter):
    copy = deepcopy(chapter.notebook)
    chapters.normalise(copy)
    if text(copy) != text(chapter.notebook):
        yield f"the notebook is not as the tools write it: run `make chapter NAME={chapter.slug}`"


@rule
def figures(chapter):
    count = sum(len(images(c)) for _, c in chapter.code)
    least, most = FIGURES.get(chapter.kind, (0, 99))
    if not least <= count <= most:
        yield f"there are {count} figures: {least} to {most} are wanted"


@rule
def alt_texts(chapter):
    seen: dict[str, int] = {}
    for n, cell in chapter.code:
        found = images(cell)
        if not found:
            continue
        if len(found) > 1:
            yield f"code cell {n} has {len(found)} figures: one alt text cannot tell what each shows, split the cell"
        words = alt(cell)
        if len(words) < LEAST_ALT:
            yield f"code cell {n}: the alt text (metadata mystnb.image.alt) needs {LEAST_ALT} characters: {words!r}"
        elif words in seen:
            yield f"code cell {n} has the same alt text as code cell {seen[words]}"
        seen[words] = n


@rule
def captions(chapter):
    found = [(n, c.metadata.get("mystnb", {}).get("figure", {})) for n, c in chapter.code if images(c)]
    for k, (n, figure) in enumerate(found, 1):
        if len(figure.get("caption", "")) < LEAST_ALT:
            yield f"code cell {n}: its figure has no caption (metadata mystnb.figure.caption)"
        if figure.get("name") != f"{chapter.slug}-figure-{k}":
            yield f"code cell {n}: its figure needs the name {chapter.slug}-figure-{k} (metadata mystnb.figure.name)"
    heroes = [n for n, c in chapter.code if "hero" in tags(c)]
    if len(heroes) != 1 or not images(dict(chapter.code)[heroes[0]]):
        yield f"{len(heroes)} code cells are tagged `hero`: one figure is to stand below the claim"


@rule
def summary(chapter):
    said = chapter.notebook.metadata.get("alignlab", {}).get("summary", "")
    if not LEAST_ALT <= len(said) <= MOST_SUMMARY:
        wanted = f"{LEAST_ALT} to {MOST_SUMMARY} are wanted"
        yield f"the summary (metadata alignlab.summary) has {len(said)} characters: {wanted}"
    try:
        reader.filled(said, [e for content in chapter.ledgers for e in content.get("entries", ())], chapter.slug)
    except ValueError as error:
        yield str(error)


@rule
@for_findings
def verdict_cell(chapter):
    cells = chapter.tagged("verdict")
    if not cells:
        yield "no cell is tagged `verdict`"
    words = [v for group in VERDICTS.values() for v in group]
    for n, cell in cells:
        if IGNORE in tags(cell) or SKIP in tags(cell):
            yield f"code cell {n} is tagged `verdict`: it must be compared strictly"
        text = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        if not any(w in text for w in words):
            yield f"code cell {n} is tagged `verdict`, but prints none: {', '.join(words)}"


@rule
def ledger(chapter):
    found = chapter.ledgers
    if chapter.kind == FINDING and len(found) != 1:
        yield f"{len(found)} outputs hold a ledger: exactly one is wanted, shown as the last value of a cell"
    for content in found:
        problem = reader.fault(content)
        if problem:
            yield problem
            continue
        if content["chapter"] != chapter.slug:
            yield f"the ledger is of {content['chapter']!r}, the notebook is {chapter.slug!r}"
        if content["profile"] != "quick" or content["seeds"] != list(range(len(content["seeds"]))):
            yield f"the committed run must be quick and from seed 0, not {content['profile']} {content['seeds']}"
        if len(content["seeds"]) < LEAST_SEEDS:
            yield f"the ledger has {len(content['seeds'])} seeds: at least {LEAST_SEEDS} are wanted"
        kinds = [e["kind"] for e in content["entries"]]
        for kind in ("claim", "control"):
            if chapter.kind == FINDING and kind not in kinds:
                yield f"the ledger has no {kind}"
        for entry in content["entries"]:
            if entry["source"] and entry["source"] not in chapter.keys:
                yield f"the source {entry['source']!r} of {entry['id']} is not in the bibliography"
            # What was measured before ledgers said it has no `best`.
            if entry["kind"] == "control" and entry.get("best", entry["margin"] + 1) <= entry["margin"]:
                yield (
                    f"the control {entry['id']} cannot break: it allows {entry['margin']:.2f}, and {entry['best']:.2f} "
                    "is the most that could come: compare with another condition, allow less, or make it a check"
                )


# The end


@rule
@for_findings
def exercises(chapter):
    text = chapter.prose
    if not re.search(r"^#+ .*exercises", text, re.MULTILINE | re.IGNORECASE):
        yield "there is no section `Exercises`"
    asked = re.findall(r"^[:`]{3,}\{exercise(?:-start)?\}", text, re.MULTILINE)
    solved = re.findall(r"^[:`]{3,}\{solution(?:-start)?\}[^\n]*\n((?::[\w-]+:[^\n]*\n)*)", text, re.MULTILINE)
    if len(asked) < 2:
        yield f"there are {len(asked)} exercises (`{{exercise}}`): at least two are wanted"
    if len(solved) < len(asked):
        yield f"{len(asked)} exercises have {len(solved)} solutions (`{{solution}}`)"
    if any("dropdown" not in options for options in solved):
        yield "a solution is not hidden: give it `:class: dropdown`"
    if not re.search("break it", text, re.IGNORECASE):
        yield "no exercise is called `Break it`: change one line so that the effect disappears"


@rule
@for_findings
def citations(chapter):
    cited = [k.strip() for ks in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", chapter.prose) for k in ks.split(",")]
    if not cited:
        yield "nothing is cited: {cite:p}`key`"
    for key in sorted(set(cited) - chapter.keys):
        yield f"{key!r} is not in the bibliography, book/references.bib"


@rule
@for_findings
def references(chapter):
    if not re.search(r"^#+ .*references", chapter.prose, re.MULTILINE | re.IGNORECASE):
        yield "there is no section `References`"
    found = re.search(r"^[:`]{3,}\{bibliography\}\n((?::[\w-]+:[^\n]*\n)*)", chapter.prose, re.MULTILINE)
    # Entries that are link targets stand on the book's references page; a second set of them would be ambiguous.
    if not found or ":list:" not in found[1] or ":filter:" not in found[1]:
        options = "`:filter: docname in docnames` and `:list: bullet`"
        yield f"the chapter's bibliography is missing: a {{bibliography}} with {options}"


def problems(chapter: Chapter) -> list[str]:
    return [f"{name}: {problem}" for name, check in RULES.items() for problem in check(chapter)]
