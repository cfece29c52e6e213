"""Begin a chapter: `make new NAME=dpo TITLE="..."` writes its notebook, its line in _toc.yml and its mutation's stub.

    python -m tools.new dpo "Pairs teach what examples cannot"
    python -m tools.new dpo "Pairs teach what examples cannot" --part Alignment     where it stands in the book

The notebook runs as it is: a small experiment with one claim and one control, to be replaced. Whatever is to be written
is marked TODO, and the chapter contract refuses a chapter in which one is left.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from . import folds, setup_cell, stamp, tables
from .notebooks import ROOT, SLUG, text

MUTATION = '''    Mutation(
        "{name}", "TODO: what is broken, in words", "experiment/base", """
def align(base, chosen, *more, **settings):  # TODO: a break under which the finding must vanish
    return deepcopy(base.model)
""", "it-works",
    ),
'''
ALT = "TODO: what figure {n} shows, for who cannot see it: axes, conditions, and what to read off"
CAPTION = "TODO: what figure {n} tells, in a sentence or two"
SUMMARY = "TODO: the finding in a sentence or two, {id} for the mean of that entry of the ledger"
SKELETON = Path(__file__).with_name("skeleton.txt")  # cells behind lines `%% markdown` or `%% code`, then their tags


def skeleton(name: str, title: str, root: Path = ROOT) -> str:
    """The notebook of a chapter that is still to be written, as text."""
    words = {
        "@NAME@": name, "@TITLE@": title, "@QUOTED@": json.dumps(title, ensure_ascii=False),
        "@SETUP@": setup_cell.source(stamp.configured(root), setup_cell.version(root)),
    }  # fmt: skip
    cells, figures = [], 0
    for part in re.split(r"^%% ", SKELETON.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        head, source = part.split("\n", 1)
        kind, *names = head.split()
        source = re.sub("|".join(words), lambda m: words[m[0]], source.strip())
        if kind == "markdown":
            cells.append(new_markdown_cell(source))
            continue
        metadata: dict = {"tags": [n for n in names if n != "figure"]} if names else {}
        if "figure" in names:
            figures += 1
            about = {"caption": CAPTION.format(n=figures), "name": f"{name}-figure-{figures}"}
            metadata["mystnb"] = {"image": {"alt": ALT.format(n=figures)}, "figure": about}
            metadata["tags"] += ["hero"] * (figures == 1)
        cells.append(new_code_cell(source, metadata=metadata))
    for number, cell in enumerate(cells):
        cell.id = f"{name}-{number:02}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kind": "finding", "summary": SUMMARY}
    notebook = new_notebook(cells=cells, metadata={"alignlab": about, "kernelspec": kernel})
    folds.fold(notebook)
    return text(notebook)


def in_toc(toc: str, name: str, part: str | None) -> str:
    """_toc.yml with one more chapter at the end of `part`; default: of the last part that has chapters.

    Raises:
        ValueError: there is no such part, with those that are there.
    """
    parts = {p["caption"]: p for p in yaml.safe_load(toc).get("parts", [])}
    with_chapters = [c for c, p in parts.items() if any(x["file"].startswith("notebooks/") for x in p["chapters"])]
    part = part or with_chapters[-1]
    if part not in parts:
        raise ValueError(f"_toc.yml has no part {part!r}: it has {', '.join(parts)}")
    lines, here, last = toc.splitlines(), False, 0
    for i, line in enumerate(lines):
        caption = re.match(r"\s*- caption:\s*(.+?)\s*$", line)
        here = yaml.safe_load(caption[1]) == part if caption else here
        last = i if here and line.strip() else last
    indent = re.match(r"\s*", lines[last])[0]
    return "\n".join([*lines[: last + 1], f"{indent}- file: notebooks/{name}", *lines[last + 1 :]]) + "\n"


def write(name: str, title: str, part: str | None = None, root: Path = ROOT) -> list[str]:
    """Write everything a new chapter needs; returns the names of the files. Nothing is written if anything is refused.

    Raises:
        ValueError: a name that is no slug or is taken, an empty title, an unknown part, or a tools/mutants.py whose
            list of mutations does not end as expected.
    """
    if not re.fullmatch(SLUG, name):
        raise ValueError(f"the name {name!r} is no slug: take small letters, digits and hyphens, such as three-rules")
    notebook, toc, mutants = root / "notebooks" / f"{name}.ipynb", root / "_toc.yml", root / "tools" / "mutants.py"
    if notebook.exists():
        raise ValueError(f"there is a chapter {name!r} already: take another name, or delete {notebook.name} first")
    if not title.strip() or "\n" in title:
        raise ValueError(f"the title {title!r} is not one line of words: say what the chapter found")
    end = "\n)  # fmt: skip\n\n\ndef of("
    before = mutants.read_text("utf-8")
    if before.count(end) != 1:
        raise ValueError("tools/mutants.py: MUTATIONS does not end where it did: put the mutation in by hand")
    after = {
        notebook: skeleton(name, title.strip(), root),
        toc: in_toc(toc.read_text("utf-8"), name, part),
        mutants: before.replace(end, "\n" + MUTATION.format(name=name).rstrip("\n") + end),
    }
    for file, content in after.items():
        tables.replace(file, content.encode("utf-8"))
    stamp.stamp(root, stamp.configured(root), [root / "README.md"])
    return [file.relative_to(root).as_posix() for file in after] + ["README.md"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="the slug, as in the file's name: dpo")
    parser.add_argument("title", metavar="TITLE", help="what the chapter found, in a few words")
    parser.add_argument("--part", help="the caption in _toc.yml under which it stands; default: the last with chapters")
    options = parser.parse_args(arguments)
    try:
        written = write(options.name, options.title, options.part)
    except ValueError as e:
        parser.error(str(e))
    print("\n".join(f"wrote {name}" for name in written))
    print(f"next: write what is marked TODO, then `make chapter NAME={options.name} COSTS=1`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
