"""The one reader of the book: its pages in the order of _toc.yml, its notebooks, and the ledgers in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import yaml
from alignlab.experiment.claims import NOT_MEASURED, VERDICTS
from alignlab.experiment.ledger import MIME
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SLUG = r"[a-z0-9][a-z0-9-]*"  # a chapter's file name without suffix, and the id of an entry
TEXTS = ("id", "statement", "paper", "source", "expect", "unit")


def pages(root: Path) -> dict[str, Path]:
    """Every page: name without suffix -> its file.

    Raises:
        FileNotFoundError: _toc.yml names a page that is not there.
    """
    found: dict[str, Path] = {}

    def walk(node) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            name = node.get("file") or node.get("root")
            if name:
                files = [root / (name + suffix) for suffix in ("", ".ipynb", ".md") if Path(name + suffix).suffix]
                file = next((f for f in files if f.is_file()), None)
                if file is None:
                    raise FileNotFoundError(f"_toc.yml names {name}, but there is no such .md or .ipynb file")
                found[file.relative_to(root).with_suffix("").as_posix()] = file
            for key in ("parts", "chapters", "sections"):
                walk(node.get(key))

    walk(yaml.safe_load((root / "_toc.yml").read_text("utf-8")))
    return found


def notebooks(root: Path) -> dict[str, Path]:
    """The chapters that are notebooks: name -> file."""
    return {name: file for name, file in pages(root).items() if file.suffix == ".ipynb"}


def read(file: Path) -> NotebookNode:
    return nbformat.read(file, as_version=4)


def code(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The code cells, numbered from 1."""
    return list(enumerate((c for c in notebook.cells if c.cell_type == "code"), 1))


def text(notebook: NotebookNode) -> str:
    """A notebook as it is written: keys sorted, indent 1, one newline at the end."""
    return nbformat.writes(notebook, version=4, indent=1, sort_keys=True, ensure_ascii=False).rstrip("\n") + "\n"


def title(cells: Sequence[Mapping]) -> str:
    """The heading of the first cell.

    Raises:
        ValueError: the notebook does not begin with one.
    """
    found = re.match(r"\s*# +(.+)", cells[0]["source"] if cells else "")
    if not found:
        raise ValueError("the first cell does not begin with a title, `# ...`")
    return found[1].strip()


def summary(file: Path) -> str:
    """The sentence or two that a chapter has in its metadata (alignlab.summary), `{id}` being the mean of that entry.

    Raises:
        ValueError: there is none, or it names no entry of the ledger.
    """
    said = read(file).metadata.get("alignlab", {}).get("summary", "")
    if not said:
        raise ValueError(f"{file.name} has no summary: write one into its metadata, as alignlab.summary")
    return filled(said, entries(file), file.name)


def filled(said: str, entries: Sequence[Mapping], where: str) -> str:
    means = {e["id"]: e for e in entries}

    def mean(found: re.Match) -> str:
        if found[1] not in means:
            raise ValueError(f"{where}: the summary names {found[1]!r}, which is no entry of its ledger")
        digits = 1 if means[found[1]]["unit"].startswith("points") else 2
        return f"{means[found[1]]['mean']:.{digits}f}".replace("-", "\N{MINUS SIGN}")

    return re.sub(r"\{([^}]*)\}", mean, said)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def entries(file: Path) -> list[dict]:
    """The entries of the one checked ledger of an executed notebook; none where there is no ledger."""
    found = ledgers(file)
    return found[0]["entries"] if found else []


def known(chapters: Sequence[str] = ()) -> list[str]:
    """The named chapters, or all that have a ledger, in the order of the book.

    Raises:
        ValueError: a chapter that has no ledger, with those that have one.
    """
    there = [file.stem for file in notebooks(ROOT).values() if entries(file)]
    for chapter in chapters:
        if chapter not in there:
            raise ValueError(f"there is no chapter {chapter!r} with a ledger: there is {', '.join(there)}")
    return list(chapters) or there


def shown(entry: dict) -> str:
    """An entry as the tables of the book have it."""
    return f"{entry['verdict']} ({entry['mean']:+.2f})"


def ledgers(file: Path) -> list[dict]:
    """The ledgers in the outputs of a notebook, checked.

    Raises:
        ValueError: naming the notebook and what is wrong with it.
    """
    try:
        notebook = json.loads(file.read_text("utf-8"))
        outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{file.name} is not a notebook that can be read: {e}") from None
    found = [o["data"][MIME] for o in outputs if MIME in o.get("data", {})]
    for ledger in found:
        if isinstance(ledger, (str, list)):  # some tools store JSON outputs as text
            try:
                ledger = json.loads("".join(ledger))
            except (ValueError, TypeError) as e:
                raise ValueError(f"{file.name}: the ledger is not JSON: {e}") from None
        problem = fault(ledger)
        if problem:
            raise ValueError(f"{file.name}: {problem}")
    return [json.loads("".join(x)) if isinstance(x, (str, list)) else x for x in found]


def fault(ledger: object) -> str | None:
    """What is wrong with a ledger, or None."""
    if not isinstance(ledger, dict) or ledger.get("schema") != 1:
        return "the ledger does not say schema 1"
    for name in ("chapter", "title", "profile"):
        if not isinstance(ledger.get(name), str):
            return f"the ledger has no {name}"
    if not re.fullmatch(SLUG, ledger["chapter"]):
        return f"the ledger is of the chapter {ledger['chapter']!r}, which is no slug: small letters, digits, hyphens"
    seeds, entries = ledger.get("seeds"), ledger.get("entries")
    if not isinstance(seeds, list) or not seeds or not isinstance(entries, list):
        return "the ledger needs a list of seeds and a list of entries"
    ids = set()
    for entry in entries:
        if not isinstance(entry, dict):
            return f"an entry of the ledger is no object: {entry!r}"
        where = f"the entry {entry.get('id')!r}"
        for name in TEXTS:
            if not isinstance(entry.get(name), str):
                return f"{where} has no {name}"
        if entry["id"] in ids or not re.fullmatch(SLUG, entry["id"]):
            return f"{where} needs an id of its own, in small letters, digits and hyphens"
        ids.add(entry["id"])
        if entry.get("kind") not in VERDICTS:
            return f"{where} has the unknown kind {entry.get('kind')!r}: one of {', '.join(VERDICTS)}"
        if entry.get("verdict") not in VERDICTS[entry["kind"]]:
            known = ", ".join(VERDICTS[entry["kind"]])
            return f"{where} has the unknown verdict {entry.get('verdict')!r}: a {entry['kind']} has one of {known}"
        if ("first" in entry) != bool(entry.get("since")):
            return f"{where} needs both its first form and what was changed since, or neither"
        if "first" in entry and entry["first"].get("verdict") not in (*VERDICTS[entry["kind"]], NOT_MEASURED):
            return f"{where} has the unknown verdict {entry['first'].get('verdict')!r} as first written"
        values = entry.get("values")
        if not isinstance(values, list) or len(values) != len(seeds):
            return f"{where} needs one value for each of the seeds {seeds}"
        for value in [entry.get("mean"), entry.get("margin"), *values]:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                return f"{where} has {value!r} where a finite number is due"
    return None
